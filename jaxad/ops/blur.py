"""Gaussian smoothing of anomaly maps."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxad.ops.arrays import AnyArray, at_least_float32


def gaussian_blur(
    maps: Float[AnyArray, "*b h w"], *, sigma: float, truncate: float = 4.0
) -> Float[Array, "*b h w"]:
    """Smooths maps with a gaussian, mirrored about the border.

    Equal to ``scipy.ndimage.gaussian_filter(..., mode="reflect")``: the kernel reaches
    ``int(truncate * sigma + 0.5)`` pixels, sums to 1, and the edge pixel is repeated. The mean of
    a map is kept up to rounding.

    Args:
      maps: maps of any range.
      sigma: standard deviation in pixels, a Python number; 0 returns the maps as they are. It
        may exceed the size of the map.
      truncate: where the kernel ends, in standard deviations.

    Returns:
      Smoothed maps of the same shape and dtype; sums are taken in at least float32.

    Raises:
      ValueError: if sigma or truncate is negative, or the maps lack two axes.
    """
    if not (sigma >= 0 and truncate >= 0):
        raise ValueError(
            f"A gaussian blur needs sigma and truncate of 0 or more, not {sigma} and {truncate}."
        )
    if maps.ndim < 2:
        raise ValueError(f"A gaussian blur takes maps of shape (..., h, w), not {maps.shape}.")
    if sigma == 0:
        return jnp.asarray(maps)
    wide = at_least_float32(maps)
    rows, columns = (
        jnp.asarray(_blur_matrix(length, sigma, truncate), wide.dtype) for length in maps.shape[-2:]
    )
    # One matrix product per axis: the border is part of the matrix, and the cost does not depend
    # on sigma. Full precision, for accelerators would round the maps to 10 bits otherwise.
    blurred = jnp.einsum("ij,...jw->...iw", rows, wide, precision=lax.Precision.HIGHEST)
    blurred = jnp.einsum("...hj,ij->...hi", blurred, columns, precision=lax.Precision.HIGHEST)
    return blurred.astype(maps.dtype)


def _blur_matrix(length: int, sigma: float, truncate: float) -> np.ndarray:
    """Returns the (length, length) matrix of a one-dimensional blur with mirrored border."""
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * np.square(offsets / sigma))
    kernel /= kernel.sum()
    # Mirrored about both edges, a signal has period 2 * length; a kernel longer than the signal
    # meets each pixel several times.
    position = np.arange(length)[:, None] + offsets[None, :]
    source = position % (2 * length)
    source = np.where(source < length, source, 2 * length - 1 - source)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], source), kernel[None, :])
    return matrix
