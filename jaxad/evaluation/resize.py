"""Anomaly maps at the size of their masks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image


def at_size(
    values: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "H W"] | None
) -> Float[np.ndarray, "H W"]:
    """A map at the size of its mask, bilinearly; as it is where they agree or there is no mask."""
    if mask is None or mask.shape == values.shape:
        return values
    return resize_map(values, mask.shape)


def resize_map(values: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Resizes a raw map bilinearly; values keep their units."""
    picture = Image.fromarray(np.asarray(values, np.float32), mode="F")
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))


def highest_of(
    values: Shaped[np.ndarray, "h w"], size: tuple[int, int]
) -> Shaped[np.ndarray, "i j"]:
    """A map or a mask made smaller: every pixel has the highest of those that it stands for."""
    for axis, count in enumerate(size):
        firsts = np.arange(count) * values.shape[axis] // count
        values = np.maximum.reduceat(values, firsts, axis=axis)
    return values
