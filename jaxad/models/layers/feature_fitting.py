"""The fit of :mod:`jaxad.models.feature_pca` to good images, and what it says of those left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxad.data.batch import Batch
from jaxad.models.base import Unseen, Variables
from jaxad.models.layers import feature_covariance, feature_fit, left_out as left
from jaxad.models.layers.feature_fit import Layout
from jaxad.models.layers.feature_passes import Passes
from jaxad.models.layers.feature_reconstruction import FeaturePCA, FeaturePCAOptions, to_image
from jaxad.models.layers.influence import IMAGES_AT_ONCE, Influence, alone, influences

IMAGES_THAT_DECIDE = 64
"""Good images whose likelihood decides between the covariances, at most."""

BYTES = 4
COPIES = 2
"""Of the features, while the fit changes them."""


def _passes(module: FeaturePCA, batches: Iterable[Batch], network: Variables) -> Passes:
    return Passes(module.backbone, network, module.layout, module.picture, batches)


def _limit(layout: Layout, options: FeaturePCAOptions) -> int:
    """Images of the basis, at most."""
    return max(2, options.memory_limit_mb * 2**20 // (BYTES * COPIES * layout.values))


def fit(
    module: FeaturePCA,
    options: FeaturePCAOptions,
    batches: Iterable[Batch],
    *,
    backbone: Variables | None = None,
) -> Variables:
    """Fits everything behind the network.

    Args:
      module: of the model.
      options: of the model.
      batches: of good images; iterated once, or twice where they exceed the budget of memory.
      backbone: variables of the network.

    Raises:
      ValueError: fewer than two images, or no network.
    """
    if backbone is None:
        raise ValueError(
            "feature_pca is fitted to the maps of a pretrained network; give fit its variables, "
            "backbone=..."
        )
    layout = module.layout
    passes = _passes(module, batches, backbone)
    basis = feature_fit.draw_basis(passes, _limit(layout, options))
    scale = feature_fit.standardise(
        basis.vectors, layout, per_position=options.covariance != "shared"
    )
    rows = jax.device_put(basis.vectors)
    basis = basis._replace(vectors=basis.vectors[:0].copy())  # held once, as rows
    axes = feature_fit.ridge_axes(rows, components=module.components, ridge=options.ridge)

    def residuals() -> Iterator[Float[Array, "b v"]]:
        if options.covariance == "shared":
            # No mean of a position is subtracted, so nothing has to be left out.
            yield from jnp.array_split(rows, -(-len(rows) // feature_fit.ROWS_AT_ONCE))
        else:
            yield from feature_fit.left_out_residuals(axes, rows)
        if not basis.chosen.all():
            yield from _of_the_others(passes, basis, scale, params)

    picture_mean = basis.pictures.mean(axis=0)
    params: dict[str, Any] = {
        "mean": jax.device_put(scale.mean),
        "deviation": jax.device_put(scale.deviation),
        "picture_mean": jax.device_put(picture_mean),
    }
    if module.components:
        pictures = axes.mixture @ (basis.pictures - picture_mean)
        # Axes that the images do not span are 0.
        missing = module.components - len(axes.shrinkage)
        params["axes"] = jnp.pad(axes.axes, ((0, missing), (0, 0))) if missing else axes.axes
        params["shrinkage"] = jnp.asarray(np.pad(axes.shrinkage, (0, missing)), jnp.float32)
        params["picture_axes"] = jnp.asarray(np.pad(pictures, ((0, missing), (0, 0))), jnp.float32)
    channels = _channels_of_positions(module, options, len(basis.chosen))
    moments = feature_covariance.moments_of(residuals(), layout, channels, count=len(basis.chosen))
    if module.pooled:
        whitening = _pooled_map(moments.pooled, options)
        params["whitening"] = jnp.asarray(whitening, jnp.float32)
    if module.plain:
        params["level"] = jnp.float32(np.trace(moments.pooled) / layout.channels)
    if channels:
        params["factors"], params["by_position"] = _of_positions(
            options, axes, rows, layout, moments, channels
        )
    elif module.channels:
        p, q = moments.per_position.shape[0], len(module.channels)
        params["factors"] = jax.device_put(np.tile(np.eye(q, dtype=np.float32), (p, 1, 1)))
        params["by_position"] = jnp.float32(0.0)
    network = {name: {"backbone": tree} for name, tree in backbone.items()}
    return {**network, "params": {**params, "backbone": backbone["params"]}}


def left_out(
    module: FeaturePCA,
    options: FeaturePCAOptions,
    size: tuple[int, int],
    variables: Variables,
    batches: Iterable[Batch],
    folds: Int[np.ndarray, " n"],
) -> Iterator[Unseen]:
    """What models fitted without each fold say of it, from one pass through the network.

    Images beyond the budget of memory have no part in the reconstruction of others. They are
    judged by the model that is used, and are taken out of the covariances of positions alone.

    Args:
      module: of the model.
      options: of the model.
      size: of the images.
      variables: of the model that was fitted to all of them.
      batches: the same images, in the same order.
      folds: of each.
    """
    params, layout = variables["params"], module.layout
    passes = _passes(module, batches, {name: variables[name]["backbone"] for name in variables})
    basis = feature_fit.draw_basis(passes, _limit(layout, options))
    scale = feature_fit.Scale(np.asarray(params["mean"]), np.asarray(params["deviation"]))
    basis.vectors[...] -= scale.mean
    basis.vectors[...] /= scale.deviation
    rows, own = jnp.asarray(basis.vectors), folds[basis.places]
    gram, how = feature_fit.gram_matrix(rows), {"ridge": options.ridge}
    told = feature_fit.ridge_of(gram, mean_alone=not module.components, **how).leave_one_out
    weights = left.left_out_weights(gram, own, components=module.components, **how)
    if options.covariance == "shared":
        told = weights = np.eye(len(rows))  # no mean of a position is subtracted
    whole = bool(basis.chosen.all())
    pooled = np.zeros((0, 0))
    if whole and not _by_position(params):
        parts = feature_fit.mixtures(told, rows)
        pooled = feature_covariance.moments_of(parts, layout, (), count=len(rows)).pooled
    for fold in np.unique(own):
        inside = np.flatnonzero(own == fold)
        of_fold = dict(params)
        if len(pooled):
            parts = feature_fit.mixtures(told[inside], rows)
            without = left.covariance_without(
                parts, pooled, layout, count=len(inside), images=len(rows)
            )
            of_fold["whitening"] = jnp.asarray(_pooled_map(without, options), jnp.float32)
        begin = 0
        left_over = feature_fit.mixtures(weights[inside], rows, at_once=IMAGES_AT_ONCE)
        both = zip(left_over, influences(told, rows, inside), strict=True)
        for residuals, as_told in both:
            squares = _unseen_squares(module, options, of_fold, residuals, as_told, len(folds))
            places = basis.places[inside[begin : begin + len(squares)]]
            yield Unseen(places, {"residual": to_image(squares, size)}, {})
            begin += len(squares)
    if whole:
        return
    seen = 0
    for residuals in _of_the_others(passes, basis, scale, params):
        squares = _unseen_squares(module, options, params, residuals, alone(residuals), len(folds))
        new = np.flatnonzero(~basis.chosen[seen : seen + len(residuals)])
        yield Unseen(seen + new, {"residual": to_image(squares[new], size)}, {})
        seen += len(residuals)


def _by_position(params: Mapping[str, Any]) -> bool:
    return bool(params.get("by_position", 0.0) > 0.5)


def _unseen_squares(
    module: FeaturePCA,
    options: FeaturePCAOptions,
    params: Mapping[str, Any],
    residuals: Float[Array, "b v"],
    told: Influence,
    images: int,
) -> Float[Array, "b i j"]:
    """As :meth:`FeaturePCA.distances`, of images that are in no covariance but that of positions.

    Args:
      module: of the model.
      options: of the model.
      params: of a model.
      residuals: that are judged.
      told: what the same images did to the covariances.
      images: that these were made of.
    """
    layout = module.layout
    if _by_position(params):
        weight = jnp.float32(options.position_weight / (images - 1))
        squares = left.position_distances(
            residuals, told, params["factors"], module.channels, weight, layout
        )
    else:
        squares = left.pooled_distances(residuals, params["whitening"], layout)
    if module.plain:
        fine = layout.on_finest_grid(residuals)
        squares = feature_covariance.with_plain(squares, fine, params["level"], module.plain)
    return squares.reshape(-1, *layout.grid)


def _of_the_others(
    passes: Passes,
    basis: feature_fit.Basis,
    scale: feature_fit.Scale,
    params: Mapping[str, Any],
) -> Iterator[Float[Array, "b v"]]:
    """Residuals of the images that are not in the basis; 0 for those that are."""
    seen = 0
    for part in passes:
        new = ~basis.chosen[seen : seen + len(part.vectors)]
        seen += len(part.vectors)
        standard = (part.vectors - scale.mean) / scale.deviation * new[:, None]
        standard = jnp.asarray(standard, jnp.float32)
        if "axes" in params:
            found, _ = feature_fit.reconstruct(standard, params["axes"], params["shrinkage"])
            standard = standard - found
        yield standard


def _pooled_map(
    covariance: Float[np.ndarray, "d d"], options: FeaturePCAOptions
) -> Float[np.ndarray, "d d"]:
    if options.covariance == "none":
        return np.eye(len(covariance))
    if options.covariance == "shared":
        return feature_covariance.outside_subspace(covariance, share=options.share)
    return feature_covariance.whitening(covariance, floor=options.floor)


def _channels_of_positions(
    module: FeaturePCA, options: FeaturePCAOptions, images: int
) -> tuple[int, ...]:
    """Those of the covariances of positions, none where images are too few for these to be used."""
    few = options.covariance == "auto" and images < len(module.channels)
    return () if few else module.channels


def _of_positions(
    options: FeaturePCAOptions,
    axes: feature_fit.Axes,
    rows: Float[Array, "m v"],
    layout: Layout,
    moments: feature_covariance.Moments,
    channels: tuple[int, ...],
) -> tuple[Float[Array, "p q q"], Float[Array, ""]]:
    """Covariances of positions, and whether they are used."""
    how = {"weight": options.position_weight, "floor": options.floor}
    covariances = feature_covariance.position_covariances(moments, channels, **how)
    factors = feature_covariance.inverse_factors(covariances)
    used = True
    if options.covariance == "auto":
        some = np.unique(np.linspace(0, len(rows) - 1, IMAGES_THAT_DECIDE).astype(int))
        used = feature_covariance.prefers_positions(
            influences(axes.leave_one_out, rows, some),
            layout,
            moments,
            channels,
            factors,
            **how,
        )
    return factors, jnp.float32(used)
