"""Anomaly maps at the size of their masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image

_STRIP, _LARGE, _BLOCK = 2**20, 2**24, 2**24
"""Pixels that are looked at at a time, from how many on a map is not made as a whole, and how many
of its rows are made at once."""


class EnlargedMap:
    """A map at another size, of which only what is asked for is made: ``map[rows, columns]``.

    Of 177 megapixels it takes 700 MB as a whole, and every comparison with it more. Its values are
    those of :func:`resize_map` to the bit: Pillow makes a map wider first and higher then, and the
    second step is made of some columns at a time.

    Attributes:
      shape: (height, width).
      size: number of pixels.
    """

    def __init__(self, values: Float[np.ndarray, "h w"], size: tuple[int, int]):
        self.shape, self.size = (size[0], size[1]), size[0] * size[1]
        picture = Image.fromarray(np.asarray(values, np.float32), mode="F")
        self._wide = picture.resize((size[1], picture.height), Image.Resampling.BILINEAR)

    def __getitem__(self, place: tuple[slice, slice]) -> Float[np.ndarray, "i j"]:
        first, last, _ = place[1].indices(self.shape[1])
        if first >= last:
            return np.empty((self.shape[0], 0), np.float32)[place[0]]
        columns = self._wide.crop((first, 0, last, self._wide.height))
        high = columns.resize((last - first, self.shape[0]), Image.Resampling.BILINEAR)
        return np.asarray(high)[place[0]]


AnyMap = Float[np.ndarray, "_ _"] | EnlargedMap
"""A map that is there as a whole, or one of which strips are made."""


def columns_of(shape: tuple[int, ...]) -> Iterator[slice]:
    """The columns of an array, some at a time: a strip is all rows of them."""
    count = max(1, _STRIP // max(1, shape[0]))
    return (slice(left, min(left + count, shape[1])) for left in range(0, shape[1], count))


def row_blocks(heat: AnyMap) -> Iterator[tuple[int, Float[np.ndarray, "_ _"]]]:
    """All rows of a map: the number of the first of some, and their values."""
    if isinstance(heat, np.ndarray):
        yield 0, heat
        return
    height, width = heat.shape
    count = max(1, _BLOCK // width)
    for top in range(0, height, count):
        rows = slice(top, min(top + count, height))
        # Every block makes all rows of every strip of columns: a second for 177 megapixels.
        block = np.empty((rows.stop - top, width), np.float32)
        for columns in columns_of(heat.shape):
            block[:, columns] = heat[rows, columns]
        yield top, block


def enlarged(values: Float[np.ndarray, "h w"], size: tuple[int, int]) -> AnyMap:
    """A map at another size, as a whole where that is no large one."""
    return EnlargedMap(values, size) if _by_strips(values, size) else resize_map(values, size)


def _by_strips(values: Float[np.ndarray, "h w"], size: tuple[int, int]) -> bool:
    """Of a large one; where the height shrinks Pillow may do that first, and bits would differ."""
    return size[0] * size[1] >= _LARGE and size[0] >= values.shape[0]


def at_size(
    values: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "H W"] | None
) -> Float[np.ndarray, "H W"]:
    """A map at the size of its mask, bilinearly; as it is where they agree or there is no mask."""
    if mask is None or mask.shape == values.shape:
        return values
    return resize_map(values, mask.shape)


def resize_map(values: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Resizes a raw map bilinearly; values keep their units."""
    if _by_strips(values, size):
        by_columns, whole = EnlargedMap(values, size), np.empty(size, np.float32)
        for columns in columns_of(size):
            whole[:, columns] = by_columns[:, columns]
        return whole
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
