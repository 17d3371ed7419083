"""The fit of :mod:`jaxad.models.feature_pca` as one pure function of few images.

What :mod:`jaxad.models.layers.feature_fitting` fits in passes, with eigenvectors in float64 on the
host, is here a function of images that are all held, in float32 throughout: it can be compiled, and
mapped over many sets of images. Eigenvalues that drown in the rounding of the largest, some 1e-6
of it, do not matter: ridge regression gives their axes the weight ``e / (e + ridge s)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jaxad.models.base import Variables
from jaxad.models.layers.feature_fit import (
    MATMUL_PRECISION,
    MEAN_WEIGHT,
    SMALLEST_SHARE,
    TINY,
    Layout,
)
from jaxad.models.layers.feature_passes import IMAGES_AT_ONCE, features_of
from jaxad.models.layers.feature_reconstruction import FeaturePCA, FeaturePCAOptions
from jaxad.ops.arrays import AnyArray

COVARIANCES = ("pooled", "none")
"""Of residuals, that it fits."""


def solve(
    module: FeaturePCA,
    options: FeaturePCAOptions,
    images: Shaped[AnyArray, "n h w c"],
    *,
    backbone: Variables,
) -> Variables:
    """Everything behind the network, with one of :data:`COVARIANCES`.

    Args:
      module: of the model.
      options: of the model.
      images: good ones, at least 2.
      backbone: variables of the network, which are not in the result.

    Raises:
      ValueError: there are fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(
            f"feature_pca needs at least 2 training images, it was given {len(images)}"
        )
    features = features_of(module.backbone, module.layout, module.picture)
    # In batches as alike as they can be, so that the last one holds few images twice.
    batches = -(-len(images) // IMAGES_AT_ONCE)
    size = -(-len(images) // batches)
    numbers = np.minimum(np.arange(batches * size), len(images) - 1).reshape(batches, size)
    some = lambda numbers: features(backbone, jnp.asarray(images)[numbers])
    found = jax.lax.map(some, jnp.asarray(numbers))
    vectors, pictures = (x.reshape(batches * size, -1)[: len(images)] for x in found)
    with jax.default_matmul_precision(MATMUL_PRECISION):
        return {"params": _fit(module, options, vectors, pictures)}


def _fit(
    module: FeaturePCA,
    options: FeaturePCAOptions,
    vectors: Float[Array, "n v"],
    pictures: Float[Array, "n x"],
) -> dict[str, Array]:
    layout, n = module.layout, len(vectors)
    mean = jnp.mean(vectors, axis=0)
    deviation = _deviation(vectors, layout)
    rows = (vectors - mean[None]) / deviation[None]
    picture_mean = jnp.mean(pictures, axis=0)
    params = {"mean": mean, "deviation": deviation, "picture_mean": picture_mean}
    mean_kept = MEAN_WEIGHT * n / (options.ridge + MEAN_WEIGHT * n)
    left = jnp.eye(n) - mean_kept / n
    if module.components:
        gram = rows @ rows.T
        values, own = jnp.linalg.eigh(gram)
        # Centred rows span one direction less than there are images, or fewer still.
        values, own = values[:0:-1], own[:, :0:-1]
        known = values > SMALLEST_SHARE * jnp.maximum(values[0], TINY)
        values = jnp.where(known, values, 0.0)
        size = jnp.maximum(jnp.trace(gram) / n, TINY)
        shrinkage = values / (values + options.ridge * size)
        left = left - (own * shrinkage[None]) @ own.T
        roots = jnp.sqrt(jnp.where(known, values, 1.0))
        k = min(module.components, n - 1)
        mixture = (jnp.where(known, 1.0 / roots, 0.0)[None] * own)[:, :k].T
        pad = lambda x: jnp.pad(x, ((0, module.components - k), *((0, 0),) * (x.ndim - 1)))
        params["axes"] = pad(mixture @ rows)
        params["shrinkage"] = pad(shrinkage[:k])
        params["picture_axes"] = pad(mixture @ (pictures - picture_mean[None]))
    residuals = left / jnp.maximum(jnp.diag(left), TINY)[:, None] @ rows
    covariance = _second_moment(residuals, layout)
    params["whitening"] = _whitening(covariance, options)
    if module.plain:
        params["level"] = jnp.trace(covariance) / layout.channels
    return params


def _deviation(vectors: Float[Array, "n v"], layout: Layout) -> Float[Array, " v"]:
    """Of every channel over all images and positions, from its mean over both."""
    deviations = [
        jnp.tile(jnp.sqrt(jnp.maximum(jnp.var(maps, axis=(0, 1, 2)), TINY)), maps[0, ..., 0].size)
        for maps in layout.to_maps(vectors)
    ]
    return jnp.concatenate(deviations)


def _second_moment(residuals: Float[Array, "n v"], layout: Layout) -> Float[Array, "d d"]:
    """Pooled over images and positions, of one image at a time: the finest grid is large."""

    def add(total: Array, row: Array) -> tuple[Array, None]:
        fine = layout.on_finest_grid(row[None])[0]
        return total + fine.T @ fine / len(fine), None

    zero = jnp.zeros((layout.channels,) * 2)
    return jax.lax.scan(add, zero, residuals)[0] / len(residuals)


def _whitening(covariance: Float[Array, "d d"], options: FeaturePCAOptions) -> Float[Array, "d d"]:
    if options.covariance == "none":
        return jnp.eye(len(covariance))
    values, vectors = jnp.linalg.eigh(covariance)
    floor = options.floor * jnp.mean(values) + TINY
    return vectors / jnp.sqrt(jnp.maximum(values, 0.0) + floor)[None]
