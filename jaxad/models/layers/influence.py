"""What a good image did to the covariances of positions, and how to take it out of them again.

An image has two parts in the second moment of the residuals at a position: its own residual, and
what it did to those of the others, in whose reconstruction it took part. Both have to go for a
covariance that has not seen the image. Where there are about as many images as channels the second
part matters as much as the first: an image that is left out of the covariances but not of the
residuals in them scores a tenth too low.

Without image ``i`` a linear smoother leaves ``t_j - k_j t_i`` of image ``j``, where ``t`` are the
residuals with all images and ``k_j`` is the weight of image ``i`` in ``t_j``, up to a factor of
``1 / (1 - k_j k'_j)``, ``k'_j`` that of image ``j`` in ``t_i``, which is 1 for all but twins and is
left out. So the sum of their outer products is that of all residuals and a matrix of rank two::

    sum_{j != i} (t_j - k_j t_i)(t_j - k_j t_i)'
        = sum_j t_j t_j' - z t_i' - t_i z' + (y - 1) t_i t_i',
    z = sum_{j != i} k_j t_j,   y = sum_{j != i} k_j^2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxad.models.layers.feature_fit import TINY, mixtures

IMAGES_AT_ONCE = 16
"""That are judged side by side: both parts of each are whitened at every position."""


class Influence(NamedTuple):
    """Of some images on the second moments of residuals.

    Attributes:
      own: ``t_i``, the residual that went into the moments.
      mixed: ``z``; 0 for an image that took part in no other's reconstruction.
      square: ``y``.
    """

    own: Float[Array, "b ..."]
    mixed: Float[Array, "b ..."]
    square: Float[Array, " b"]


def alone(residuals: Float[Array, "b ..."]) -> Influence:
    """Of images that no other is reconstructed from."""
    return Influence(residuals, jnp.zeros_like(residuals), jnp.zeros(len(residuals)))


def influences(
    leave_one_out: Float[np.ndarray, "m m"],
    rows: Float[Array, "m v"],
    wanted: Int[np.ndarray, " i"],
) -> Iterator[Influence]:
    """Of images of the basis, some at a time.

    Args:
      leave_one_out: of :class:`jaxad.models.layers.feature_fit.Ridge`; its diagonal is 1.
      rows: of the basis.
      wanted: which of these images.
    """
    others = leave_one_out - np.diag(np.diag(leave_one_out))
    of_wanted = others[:, wanted].T
    squares = np.sum(np.square(of_wanted), axis=1)
    begin = 0
    parts = (leave_one_out[wanted], of_wanted @ leave_one_out)
    both = (mixtures(weights, rows, at_once=IMAGES_AT_ONCE) for weights in parts)
    for own, mixed in zip(*both, strict=True):
        square = jnp.asarray(squares[begin : begin + len(own)], jnp.float32)
        yield Influence(own, mixed, square)
        begin += len(own)


def without_influence(
    judged: Float[Array, "b p q"], told: Influence, weight: Float[Array, ""]
) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
    """Mahalanobis distances under covariances without each image (Woodbury, rank two).

    Args:
      judged: residuals of the images, whitened by the covariances with them.
      told: of the same images, whitened too.
      weight: of the second moments, as a sum over images, in the covariances.

    Returns:
      The squared distances, and by how much the determinants shrink, as a factor.
    """
    dot = lambda a, b: jnp.sum(a * b, axis=-1)
    own, mixed, less = told.own, told.mixed, told.square[:, None] - 1.0
    oo, om, mm = dot(own, own), dot(own, mixed), dot(mixed, mixed)
    jo, jm = dot(judged, own), dot(judged, mixed)
    factor = 1.0 + weight * (less * oo - 2.0 * om) + jnp.square(weight) * (om * om - oo * mm)
    factor = jnp.maximum(factor, TINY)
    more = (
        (weight * mm - less) * jo * jo + 2.0 * (1.0 - weight * om) * jo * jm + weight * oo * jm * jm
    )
    return dot(judged, judged) + weight * more / factor, factor
