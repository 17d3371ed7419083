"""Bringing maps of a latent grid to the resolution of the image."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from jaxad.ops.arrays import AnyArray, at_least_float32


def repeat_upsample(
    maps: Shaped[AnyArray, "*b h w"], factor: SupportsIndex
) -> Shaped[Array, "*b fh fw"]:
    """Repeats every value in a square of ``factor`` x ``factor`` pixels.

    Nearest-neighbour upsampling without a choice of grid: no value moves or mixes.

    Args:
      maps: maps of any dtype.
      factor: whole number of pixels per value, 1 or more.

    Returns:
      Maps of (factor h, factor w).

    Raises:
      ValueError: if the factor is not a whole number of 1 or more, or the maps lack two axes.
    """
    try:
        repeats = operator.index(factor)
    except TypeError:
        repeats = 0
    if repeats < 1:
        raise ValueError(
            f"Maps are repeated a whole number of times, 1 or more, not {factor!r}: choose an "
            "image size that is a multiple of the map's."
        )
    if maps.ndim < 2:
        raise ValueError(f"Upsampling takes maps of shape (..., h, w), not {maps.shape}.")
    return jnp.repeat(jnp.repeat(maps, repeats, axis=-2), repeats, axis=-1)


def bilinear_resize_align_corners(
    images: Float[AnyArray, "*b h w c"], size: tuple[int, int]
) -> Float[Array, "*b oh ow c"]:
    """Interpolates linearly between pixel centres; the corner pixels stay the corners.

    PyTorch's ``UpsamplingBilinear2d`` and ``interpolate(mode="bilinear", align_corners=True)``.
    ``jax.image.resize`` knows only the other convention, in which the corners of the *area* stay.
    A smaller size takes fewer samples, nothing is averaged. Of a single row or column out of
    several, the first is taken (as PyTorch does).

    Args:
      images: images or feature maps.
      size: ``(oh, ow)`` of the result.

    Returns:
      The images in their dtype; sums are taken in at least float32.

    Raises:
      ValueError: if a side of the result is below 1, or the images lack three axes.
    """
    if images.ndim < 3:
        raise ValueError(f"Resizing takes images of shape (..., h, w, c), not {images.shape}.")
    if min(size) < 1:
        raise ValueError(f"Images are resized to sides of 1 or more, not to {size}.")
    wide = at_least_float32(images)
    rows, columns = (
        jnp.asarray(_linear_weights(before, after), wide.dtype)
        for before, after in zip(images.shape[-3:-1], size, strict=True)
    )
    # As in the blur: one matrix product per axis, at full precision.
    high = lax.Precision.HIGHEST
    resized = jnp.einsum("ij,...jwc->...iwc", rows, wide, precision=high)
    resized = jnp.einsum("ij,...hjc->...hic", columns, resized, precision=high)
    return resized.astype(images.dtype)


def _linear_weights(before: int, after: int) -> np.ndarray:
    """The (after, before) matrix of a one-dimensional interpolation; its rows sum to 1."""
    position = np.linspace(0.0, before - 1.0, after) if after > 1 else np.zeros(1)
    left = np.minimum(np.int64(position), max(before - 2, 0))
    matrix = np.zeros((after, before))
    share = position - left
    matrix[np.arange(after), left] = 1.0 - share
    matrix[np.arange(after), np.minimum(left + 1, before - 1)] += share
    return matrix
