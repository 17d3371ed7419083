"""Linear reconstruction of the feature map of a pretrained network, in closed form.

As :mod:`jaxad.models.pca` describes good images by their mean and principal axes, this describes
the feature maps that a frozen network gives of them, as one vector per image; and it asks of what
is left at each position whether that is usual for good images. No paper states this model as a
whole; its parts are published:

* The reconstruction of a feature map by principal axes and its squared residual as the map: N. A.
  Ahuja et al., "Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial
  Detection", 2019, and I. J. Ndiour et al., "FRE: A Fast Method For Anomaly Detection And
  Segmentation", 2022. Here the axes are weighted by ridge regression, and residuals of good images
  are those that the other images leave on each (:mod:`jaxad.models.layers.feature_fit`).
* Mahalanobis distances of features: T. Defard et al., "PaDiM", ICPR workshops 2021, with a normal
  density of 100 random channels at each position. Here the densities are of residuals.

The options make the members of this family:

* ``covariance=pooled``: residuals of all channels are whitened by one covariance, which all images
  and positions estimate together; ``position``: by one per position, on random channels, shrunk to
  the pooled one; ``auto``: the latter where there are at least as many good images as channels of
  it, and images left out are likelier under it;
* ``covariance=none``: the plain squared residual, FRE's map;
* ``components=0`` and ``covariance=position``: a normal density per position, as PaDiM has it.
  (PaDiM adds 0.01 to the diagonal of each covariance; here it is shrunk to the pooled one.)
* ``components=0`` and ``covariance=shared``: one mean and one subspace for the channels of all
  positions, as FRE and DFM have them for vectors of features; for parts that may lie anywhere. The
  map is the squared residual outside the fewest axes that hold ``share`` of the variance.

Map: ``residual``, a mean over channels of squared, whitened residuals, brought from the finest grid
of features to the image's size bilinearly; about 1 on good images. Image scores are reductions of
it. The network's maps that are finer than 8 pixels are averaged to that.

There is no reconstruction of the image. Shown in its place is what the weights of the
reconstruction make of the training images, at a quarter of the side: a mean of good images, which
follows the pose and the brightness of the image as far as its features tell them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    ModelOptions,
    Variables,
    apply,
    label_all_trainable,
    to_unit_float,
)
from jaxad.models.layers import feature_fit
from jaxad.models.layers.backbones import Backbone, backbone, check_sides
from jaxad.models.layers.feature_fit import Features, Layout
from jaxad.ops.arrays import AnyArray, pad_axis
from jaxad.run.options import option

FINEST_STRIDE = 8
"""Pixels between positions of the finest map that is kept."""

PICTURE_STRIDE = 4
"""Pixels of the image for one of the pictures that are kept."""

CHANNEL_SEED = 0
"""Of the random channels of the covariances of positions."""

IMAGES_THAT_DECIDE = 64
"""Good images whose likelihood decides between the covariances, at most."""

IMAGES_AT_ONCE = 16
"""That pass through the network side by side while it is fitted to: their maps take memory."""

BYTES = 4
COPIES = 2
"""Of the features, while the fit changes them."""


class FeaturePCA(nn.Module):
    """A frozen network, the reconstruction of its maps, and the density of what is left.

    Attributes:
      backbone: images in [0, 1] to feature maps.
      layout: of the maps.
      picture: ``(rows, columns, channels)`` of the pictures that stand for a reconstruction.
      components: axes of the reconstruction; 0: the mean alone.
      pooled: whether residuals of all channels are mapped by one matrix.
      channels: those of the covariances of positions; none: there are no such covariances.
    """

    backbone: nn.Module
    layout: Layout
    picture: tuple[int, int, int]
    components: int
    pooled: bool
    channels: tuple[int, ...]

    def setup(self):
        """Declares the parameters."""
        values, d, k = self.layout.values, self.layout.channels, self.components
        rows, columns, colours = self.picture
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        self.mean = self.param("mean", zeros, (values,))
        self.deviation = self.param("deviation", ones, (values,))
        self.picture_mean = self.param("picture_mean", zeros, (rows * columns * colours,))
        if k:
            self.axes = self.param("axes", zeros, (k, values))
            self.shrinkage = self.param("shrinkage", zeros, (k,))
            self.picture_axes = self.param("picture_axes", zeros, (k, rows * columns * colours))
        if self.pooled:
            self.whitening = self.param("whitening", lambda _, n: jnp.eye(n), d)
        if self.channels:
            p, q = self.layout.grid[0] * self.layout.grid[1], len(self.channels)
            self.factors = self.param("factors", lambda _: jnp.broadcast_to(jnp.eye(q), (p, q, q)))
            # 1 where the covariances of positions are used, 0 where the pooled one is.
            self.by_position = self.param("by_position", zeros, ())

    def initialise(self, images: Float[Array, "b h w c"]) -> Float[Array, "b i j"]:
        """Calls everything once."""
        return self.distances(self(images)[0])

    def __call__(
        self, images: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b v"], Float[Array, "b h2 w2 c"]]:
        """What the reconstruction leaves of standardised features, and the picture of it."""
        vectors = to_vectors(self.layout, self.backbone(in_colour(images)))
        # The network stays as it is.
        rows = (jax.lax.stop_gradient(vectors) - self.mean[None]) / self.deviation[None]
        picture = jnp.broadcast_to(self.picture_mean, (rows.shape[0], *self.picture_mean.shape))
        if self.components:
            reconstruction, codes = feature_fit.reconstruct(rows, self.axes, self.shrinkage)
            rows, picture = rows - reconstruction, picture + codes @ self.picture_axes
        return rows, picture.reshape(-1, *self.picture)

    def distances(self, residuals: Float[Array, "b v"]) -> Float[Array, "b i j"]:
        """The mean over channels of squared, whitened residuals, on the finest grid."""
        fine = self.layout.on_finest_grid(residuals)

        def pooled():
            white = jnp.matmul(fine, self.whitening, precision=feature_fit.MATMUL_PRECISION)
            return jnp.mean(jnp.square(white), axis=-1)

        def by_position():
            some = fine[:, :, np.array(self.channels)]
            return jnp.mean(jnp.square(feature_fit.whiten_positions(some, self.factors)), axis=-1)

        if self.channels and self.pooled:
            squares = jax.lax.cond(self.by_position > 0.5, by_position, pooled)
        else:
            squares = by_position() if self.channels else pooled()
        return squares.reshape(-1, *self.layout.grid)


def in_colour(images: Float[Array, "b h w c"]) -> Float[Array, "b h w 3"]:
    """Gray images three times over."""
    return jnp.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def to_vectors(layout: Layout, maps: tuple[Float[Array, "b _ _ _"], ...]) -> Float[Array, "b v"]:
    """The maps of a network as vectors, those that are too fine averaged."""
    kept = [_average(x, stage[:2]) for x, stage in zip(maps, layout.stages, strict=True)]
    return layout.to_vectors(tuple(kept))


def _average(maps: Float[Array, "b h w d"], size: tuple[int, int]) -> Float[Array, "b i j d"]:
    """Means over blocks, for maps finer than the one that is kept."""
    b, h, w, d = maps.shape
    blocks = maps.reshape(b, size[0], h // size[0], size[1], w // size[1], d)
    return jnp.mean(blocks, axis=(2, 4))


@dataclasses.dataclass(frozen=True)
class FeaturePCAOptions(ModelOptions):
    """Options of ``feature_pca``."""

    backbone: str = option("efficientnet_lite0", "the pretrained network, which stays as it is")
    components: int = option(
        200,
        "axes of the reconstruction; fewer where the images span fewer; 0: the mean",
        at_least=0,
    )
    ridge: float = option(0.03, "shrinkage of the axes, in units of the mean variance", above=0)
    covariance: str = option(
        "auto",
        "of residuals; auto: position where the good images support it, else pooled",
        choices=("auto", "pooled", "position", "none", "shared"),
    )
    floor: float = option(
        1e-3, "added to the variances of residuals, in units of their mean", above=0
    )
    position_channels: int = option(
        100, "random channels of the covariances of positions", at_least=1
    )
    position_weight: float = option(
        0.5, "of a position's own covariance; the pooled one has the rest", at_least=0, at_most=1
    )
    share: float = option(0.97, "shared: of the variance that the subspace holds", above=0, below=1)
    memory_limit_mb: int = option(
        1024,
        "features held by the fit; of more images a random part is the basis of reconstruction",
        at_least=1,
    )


def layout_of(network: Backbone, size: tuple[int, int]) -> Layout:
    """The maps of a backbone for images of a size, as they are kept."""
    strides = [max(tap.stride, FINEST_STRIDE) for tap in network.taps]
    return Layout(
        tuple(
            (size[0] // stride, size[1] // stride, tap.channels)
            for stride, tap in zip(strides, network.taps, strict=True)
        )
    )


def build(
    image_shape: tuple[int, int, int],
    options: FeaturePCAOptions,
    *,
    axis_name: str | None = None,
) -> Model:
    """Builds ``feature_pca``.

    Args:
      image_shape: ``(h, w, c)``, c of 1 or 3, sides that the backbone divides.
      options: of the model.
      axis_name: unused, nothing is reduced over devices inside the model.

    Raises:
      ValueError: options that do not fit together, or the images.
      UserError: an unknown backbone.
    """
    del axis_name
    h, w, c = image_shape
    network = backbone(options.backbone)
    check_sides(options.backbone, (h, w))
    if options.covariance == "shared" and options.components:
        raise ValueError(
            "model.covariance=shared describes all positions by one subspace and reconstructs no "
            "image; set model.components=0"
        )
    layout = layout_of(network, (h, w))
    module = FeaturePCA(
        backbone=network.module,
        layout=layout,
        picture=(-(-h // PICTURE_STRIDE), -(-w // PICTURE_STRIDE), c),
        components=min(options.components, layout.values - 1),
        pooled=options.covariance != "position",
        channels=_channels(layout, options),
    )

    def init(key):
        return module.init(key, jnp.zeros((1, h, w, c)), method="initialise")

    def loss(variables, batch: Batch, keys, train: bool) -> LossOutput:
        del keys, train  # nothing is drawn, nothing but parameters changes
        residuals, _ = apply(module, variables, to_unit_float(batch.image))
        squares = jnp.square(residuals * variables["params"]["deviation"][None])
        squared = jnp.sum(squares, axis=1) / layout.channels
        return LossOutput(squared, {"l2": squared}, {}, {}, {})

    def detect(variables, images: Shaped[AnyArray, "b h w c"]) -> Detection:
        residuals, pictures = apply(module, variables, to_unit_float(images))
        squares = apply(module, variables, residuals, method="distances")
        b = images.shape[0]
        residual = jax.image.resize(squares, (b, h, w), "linear")
        reconstruction = jax.image.resize(pictures, (b, h, w, c), "linear")
        return Detection({"residual": residual}, {}, jnp.clip(reconstruction, 0.0, 1.0))

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=loss,
        detect=detect,
        param_labels=label_all_trainable,
        fit=functools.partial(fit, module, options),
        backbone=options.backbone,
        diagnostics=lambda variables, images: _describe(variables, module.picture),
    )


def _channels(layout: Layout, options: FeaturePCAOptions) -> tuple[int, ...]:
    """The channels of the covariances of positions."""
    if options.covariance not in ("auto", "position"):
        return ()
    drawn = np.random.default_rng(CHANNEL_SEED).permutation(layout.channels)
    return tuple(sorted(drawn[: options.position_channels].tolist()))


class _Passes:
    """Passes over the training images, as features; a part of a batch at a time."""

    def __init__(self, module: FeaturePCA, batches: Iterable[Batch], network: Variables):
        self._batches = batches

        def features(images: Shaped[AnyArray, "b h w c"]) -> Features:
            images = to_unit_float(images)
            size = (images.shape[0], *module.picture)
            return Features(
                to_vectors(module.layout, apply(module.backbone, network, in_colour(images))),
                jax.image.resize(images, size, "linear").reshape(images.shape[0], -1),
            )

        self._features = jax.jit(features)

    def __iter__(self) -> Iterator[Features]:
        for batch in self._batches:
            images = np.asarray(batch.image)[np.asarray(batch.valid)]
            for begin in range(0, len(images), IMAGES_AT_ONCE):
                some = images[begin : begin + IMAGES_AT_ONCE]
                # Of one shape, for which the network is compiled once.
                filled = pad_axis(some, 0, (0, IMAGES_AT_ONCE - len(some)))
                found = self._features(filled)
                yield Features(*(np.asarray(values)[: len(some)] for values in found))


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
    layout, channels = module.layout, np.array(module.channels, np.int64)
    passes = _Passes(module, batches, backbone)
    limit = max(2, options.memory_limit_mb * 2**20 // (BYTES * COPIES * layout.values))
    basis = feature_fit.draw_basis(passes, limit)
    scale = feature_fit.standardise(
        basis.vectors, layout, per_position=options.covariance != "shared"
    )
    rows = jnp.asarray(basis.vectors)
    axes = feature_fit.ridge_axes(rows, components=module.components, ridge=options.ridge)

    def residuals() -> Iterator[Float[Array, "b v"]]:
        if options.covariance == "shared":
            # No mean of a position is subtracted, so nothing has to be left out.
            yield from jnp.array_split(rows, -(-len(rows) // feature_fit.ROWS_AT_ONCE))
        else:
            yield from feature_fit.left_out_residuals(axes, rows)
        if not basis.chosen.all():
            yield from _of_the_others(passes, basis, scale, axes)

    picture_mean = basis.pictures.mean(axis=0)
    params: dict[str, Any] = {
        "mean": jnp.asarray(scale.mean),
        "deviation": jnp.asarray(scale.deviation),
        "picture_mean": jnp.asarray(picture_mean),
    }
    if module.components:
        pictures = jnp.asarray(axes.mixture @ (basis.pictures - picture_mean), jnp.float32)
        # Axes that the images do not span are 0.
        missing = module.components - len(axes.shrinkage)
        pad = lambda x: jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1)))
        params["axes"] = pad(axes.axes)
        params["shrinkage"] = pad(jnp.asarray(axes.shrinkage, jnp.float32))
        params["picture_axes"] = pad(pictures)
    moments = feature_fit.moments_of(residuals(), layout, channels, count=len(basis.chosen))
    if module.pooled:
        whitening = _pooled_map(moments.pooled, options)
        params["whitening"] = jnp.asarray(whitening, jnp.float32)
    if module.channels:
        params["factors"], params["by_position"] = _of_positions(
            options, axes, rows, layout, moments, channels
        )
    network = {name: {"backbone": tree} for name, tree in backbone.items()}
    return {**network, "params": {**params, "backbone": backbone["params"]}}


def _of_the_others(
    passes: _Passes, basis: feature_fit.Basis, scale: feature_fit.Scale, axes: feature_fit.Axes
) -> Iterator[Float[Array, "b v"]]:
    """Residuals of the images that are not in the basis; 0 for those that are."""
    seen = 0
    shrinkage = jnp.asarray(axes.shrinkage, jnp.float32)
    for part in passes:
        new = ~basis.chosen[seen : seen + len(part.vectors)]
        seen += len(part.vectors)
        standard = (part.vectors - scale.mean) / scale.deviation * new[:, None]
        standard = jnp.asarray(standard, jnp.float32)
        yield standard - feature_fit.reconstruct(standard, axes.axes, shrinkage)[0]


def _pooled_map(
    covariance: Float[np.ndarray, "d d"], options: FeaturePCAOptions
) -> Float[np.ndarray, "d d"]:
    if options.covariance == "none":
        return np.eye(len(covariance))
    if options.covariance == "shared":
        return feature_fit.outside_subspace(covariance, share=options.share)
    return feature_fit.whitening(covariance, floor=options.floor)


def _of_positions(
    options: FeaturePCAOptions,
    axes: feature_fit.Axes,
    rows: Float[Array, "m v"],
    layout: Layout,
    moments: feature_fit.Moments,
    channels: np.ndarray,
) -> tuple[Float[Array, "p q q"], Float[Array, ""]]:
    """Covariances of positions, and whether they are used."""
    how = {"weight": options.position_weight, "floor": options.floor}
    covariances = feature_fit.position_covariances(moments, channels, **how)
    factors = feature_fit.inverse_factors(covariances)
    used = True
    if options.covariance == "auto":
        some = np.unique(np.linspace(0, len(rows) - 1, IMAGES_THAT_DECIDE).astype(int))
        used = moments.images >= len(channels) and feature_fit.prefers_positions(
            feature_fit.left_out_residuals(axes, rows, only=some),
            layout,
            moments,
            channels,
            factors,
            **how,
        )
    return factors, jnp.float32(used)


def _describe(variables: Variables, picture: tuple[int, int, int]) -> dict[str, Array]:
    """What was fitted; it does not depend on images."""
    params = variables["params"]
    shown = {"mean": params["picture_mean"].reshape(1, *picture)}
    if "shrinkage" in params:
        shown["weight_of_each_axis"] = params["shrinkage"]
    if "by_position" in params:
        shown["covariance_of_each_position_is_used"] = params["by_position"]
    return shown
