"""Pillow's antialiased bilinear resizing, and its gray, inside a compiled program.

Images are resized by Pillow before a model sees them. A program that cuts tiles out of a photograph
resizes them itself, and gives the same bytes: Pillow (``libImaging/Resample.c``) weighs 8-bit
pixels by integers of 22 bits and rounds to 8 bits after the columns, then again after the rows.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from jaxad.ops.arrays import AnyArray

_LUMA = (19595, 38470, 7471)
"""ITU-R 601's weights of red, green and blue in 1/65536, as Pillow has them."""

_BITS = 22
_HALF_BITS = 11


def triangle_weights(before: int, after: int) -> Float[np.ndarray, "{after} {before}"]:
    """The shares that pixels of an axis have in those of the resized one; rows add up to 1.

    Args:
      before: pixels of the axis.
      after: of the resized one.
    """
    scale = before / after
    support = max(scale, 1.0)
    middle = (np.arange(after)[:, None] + 0.5) * scale
    pixels = np.arange(before)[None]
    first = np.maximum(np.floor(middle - support + 0.5), 0)
    last = np.minimum(np.floor(middle + support + 0.5), before)
    weights = np.maximum(1.0 - np.abs((pixels + 0.5 - middle) / support), 0.0)
    weights[(pixels < first) | (pixels >= last)] = 0.0
    return weights / weights.sum(axis=1, keepdims=True)


def resize_pictures(
    images: UInt8[AnyArray, "b h w c"], size: tuple[int, int]
) -> UInt8[Array, "b i j c"]:
    """Resizes pictures as Pillow's ``resize(..., BILINEAR)`` does, to the bit.

    Where an axis shrinks to less than a 32nd, a pixel may differ by 1: sums are exact in float32
    up to there. Pillow 13 takes the rows first where the height shrinks much more than the width,
    which gives other roundings; tiles are square.

    Args:
      images: of any size.
      size: ``(i, j)`` of the result.
    """
    images = jnp.asarray(images)
    for axis, side in ((2, size[1]), (1, size[0])):
        if images.shape[axis] != side:
            images = _resize_axis(images, axis, side)
    return images


def to_luma(images: UInt8[AnyArray, "b h w 3"]) -> UInt8[Array, "b h w 1"]:
    """Gray of colour as Pillow's ``convert("L")`` has it, to the bit."""
    weights = jnp.asarray(_LUMA, jnp.int32)[None, None, None]
    total = jnp.sum(images.astype(jnp.int32) * weights, axis=-1, keepdims=True) + (1 << 15)
    return lax.div(total, jnp.int32(1 << 16)).astype(jnp.uint8)


def _resize_axis(images: UInt8[Array, "b h w c"], axis: int, side: int) -> Array:
    fixed = np.floor(triangle_weights(images.shape[axis], side) * (1 << _BITS) + 0.5)
    # In two parts, whose products with 8-bit pixels float32 adds up exactly.
    high = np.floor(fixed / (1 << _HALF_BITS) + 0.5)
    parts = high, fixed - high * (1 << _HALF_BITS)
    halves = (_weighed(images.astype(jnp.float32), part, axis).astype(jnp.int32) for part in parts)
    upper, lower = halves
    total = upper * (1 << _HALF_BITS) + lower + (1 << (_BITS - 1))
    return lax.div(total, jnp.int32(1 << _BITS)).astype(jnp.uint8)


def resize_maps(maps: Float[AnyArray, "b h w"], size: tuple[int, int]) -> Float[Array, "b i j"]:
    """Resizes maps as :func:`jaxad.evaluation.resize.resize_map` does, to the rounding of float32.

    Args:
      maps: of any size.
      size: ``(i, j)`` of the result.
    """
    maps = jnp.asarray(maps)[..., None]
    for axis, side in ((2, size[1]), (1, size[0])):
        if maps.shape[axis] != side:
            maps = _weighed(maps, triangle_weights(maps.shape[axis], side), axis)
    return maps[..., 0]


def _weighed(values: Array, weights: Float[np.ndarray, "i n"], axis: int) -> Array:
    """Sums along an axis of ``(b, h, w, c)``."""
    sums = "ij,bjwc->biwc" if axis == 1 else "ij,bhjc->bhic"
    matrix = jnp.asarray(weights, jnp.float32)
    return jnp.einsum(sums, matrix, values, precision=lax.Precision.HIGHEST)
