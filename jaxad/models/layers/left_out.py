"""What a reconstruction that is fitted without some of the good images leaves on these.

Thresholds need scores of good images that a model has not seen. With the images dealt into folds,
the reconstruction by the others is a linear function of their rows, and so is what it leaves:
``W B``, where row ``i`` of ``W`` follows from the Gram matrix of all images alone. So nothing
passes through the network again, no second model is kept, and many small folds cost little more
than a few large ones.

The covariances of residuals are taken without these images too: the pooled one without all of a
fold, by subtraction; that of a position without the one image and its part in the residuals of the
others, an update of rank two (:mod:`jaxad.models.layers.influence`). The other images of its fold
stay in the latter, as they do in a model that has not seen one image. Channels are scaled by all
images throughout.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxad.models.layers.feature_covariance import moments_of, whiten_positions
from jaxad.models.layers.feature_fit import MATMUL_PRECISION, SMALLEST_SHARE, TINY, Layout
from jaxad.models.layers.influence import Influence, without_influence


def left_out_weights(
    gram: Float[np.ndarray, "m m"],
    folds: Int[np.ndarray, " m"],
    *,
    components: int,
    ridge: float,
) -> Float[np.ndarray, "m m"]:
    """``W`` whose product with the rows is what is left of each, fitted to the other folds.

    Mean, axes and shrinkage are those that :func:`jaxad.models.layers.feature_fit.ridge_axes`
    finds of the rows of the other folds.

    Args:
      gram: products of the rows, from whatever mean.
      folds: of each row; at least two different ones.
      components: most axes; 0: the mean alone.
      ridge: in units of the mean squared norm of a row.
    """
    weights = np.eye(len(gram))
    for fold in np.unique(folds):
        inside, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        m = len(others)
        weights[np.ix_(inside, others)] -= 1.0 / m
        if not components:
            continue
        centred = gram[np.ix_(others, others)]
        of_each = centred.mean(axis=0)
        centred = centred - of_each - of_each[:, None] + of_each.mean()
        values, vectors = np.linalg.eigh(centred)
        values, vectors = values[::-1], vectors[:, ::-1]
        size = max(float(values.sum()) / m, TINY)
        known = int(np.sum(values > SMALLEST_SHARE * max(values[0], TINY)))
        k = min(components, m - 1, known)
        values, vectors = values[:k], vectors[:, :k]
        # Codes are products with the axes B' u / sqrt(e), whose rows of B are the centred others;
        # u sums to 0, so that the mean need not be subtracted there.
        codes = weights[inside] @ gram[:, others] @ vectors / np.sqrt(values)
        shrinkage = values / (values + ridge * size)
        weights[np.ix_(inside, others)] -= codes * shrinkage / np.sqrt(values) @ vectors.T
    return weights


def covariance_without(
    inside: Iterable[Float[Array, "_ v"]],
    pooled: Float[np.ndarray, "d d"],
    layout: Layout,
    *,
    count: int,
    images: int,
) -> Float[np.ndarray, "d d"]:
    """The pooled second moment of all images but some.

    Args:
      inside: residuals of those that are taken out, as they went into it.
      pooled: of all images.
      layout: of the vectors.
      count: of images that are taken out.
      images: in all.
    """
    own = moments_of(inside, layout, (), count=count).pooled
    return (images * pooled - count * own) / (images - count)


@functools.partial(jax.jit, static_argnames="layout")
def pooled_distances(
    residuals: Float[Array, "b v"], whitening: Float[Array, "d d"], layout: Layout
) -> Float[Array, "b p"]:
    """The mean over channels of squares, of residuals mapped by a matrix."""
    fine = layout.on_finest_grid(residuals)
    return jnp.mean(jnp.square(jnp.matmul(fine, whitening, precision=MATMUL_PRECISION)), axis=-1)


@functools.partial(jax.jit, static_argnames=("channels", "layout"))
def position_distances(
    residuals: Float[Array, "b v"],
    told: Influence,
    factors: Float[Array, "p q q"],
    channels: tuple[int, ...],
    weight: Float[Array, ""],
    layout: Layout,
) -> Float[Array, "b p"]:
    """Mahalanobis distances over the number of channels, without the image in the covariances.

    Args:
      residuals: that are judged.
      told: what the same images did to the covariances.
      factors: inverse Cholesky factors of the covariances.
      channels: of the covariances, in ascending order.
      weight: of the sum of outer products of all residuals in the covariances.
      layout: of the vectors.
    """
    white = lambda rows: whiten_positions(layout.some_on_finest_grid(rows, channels), factors)
    own = Influence(white(told.own), white(told.mixed), told.square)
    return without_influence(white(residuals), own, weight)[0] / len(channels)
