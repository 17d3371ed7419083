"""Bringing maps of a latent grid to the resolution of the image."""

from __future__ import annotations

import operator

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def repeat_upsample(maps: Shaped[Array, "*b h w"], factor: int) -> Shaped[Array, "*b fh fw"]:
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
