"""The crop: the part of every image that a model sees, its region of interest (``data.region``).

It is given in shares of height and width, so that it holds for images of any size. On the pixels
of an image as it is stored (upright, before any resizing) it becomes a box of whole pixels, the
same for the image and its mask. The box is cut out first: nothing of what lies outside reaches the
model, not even through a resizing filter, and a run with a crop gives what it would give on files
that were cut beforehand, to the bit. For that a border may lie half an original pixel beside its
share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from jaxad.run.errors import UserError

Crop = Sequence[float | int]
"""(top, left, bottom, right), shares of the height, width, height, width."""

WHOLE: Crop = (0.0, 0.0, 1.0, 1.0)


class Box(NamedTuple):
    """Whole pixels of one image.

    Attributes:
      top: first row.
      left: first column.
      bottom: the row after the last.
      right: the column after the last.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def check_crop(crop: Crop) -> None:
    """Refuses what is no part of an image.

    Raises:
      UserError: says what ``data.region`` takes.
    """
    if len(crop) == 4:
        top, left, bottom, right = crop
        if 0 <= top < bottom <= 1 and 0 <= left < right <= 1:
            return
    raise UserError(
        "data.region must be (top, left, bottom, right) in shares of the height and width, with "
        f"0 <= top < bottom <= 1 and 0 <= left < right <= 1, not {tuple(crop)!r}"
    )


def box_of(crop: Crop, size: tuple[int, int]) -> Box:
    """The crop in the pixels of one image.

    Args:
      crop: as ``data.region``.
      size: (height, width) of the image.

    Returns:
      Borders at the nearest whole pixel, halves up; at least one pixel high and wide.

    Raises:
      UserError: of :func:`check_crop`.
    """
    check_crop(crop)
    top, bottom = _rounded(crop[0], crop[2], size[0])
    left, right = _rounded(crop[1], crop[3], size[1])
    return Box(top, left, bottom, right)


def _rounded(start: float | int, stop: float | int, count: int) -> tuple[int, int]:
    first = min(math.floor(start * count + 0.5), count - 1)
    return first, max(math.floor(stop * count + 0.5), first + 1)


def size_of_whole(crop: Crop, size: tuple[int, int]) -> tuple[int, int]:
    """The size at which a whole image has a crop of a given size.

    Args:
      crop: as ``data.region``.
      size: (height, width) of the crop.

    Returns:
      (height, width) of the whole image; where rounding leaves out the size itself, the nearest.

    Raises:
      UserError: of :func:`check_crop`.
    """
    check_crop(crop)
    top, left, bottom, right = crop
    return _count_of_whole(top, bottom, size[0]), _count_of_whole(left, right, size[1])


def _count_of_whole(start: float | int, stop: float | int, count: int) -> int:
    about = max(1, round(count / (stop - start)))

    def misses(whole: int) -> tuple[int, int]:
        first, last = _rounded(start, stop, whole)
        return abs(last - first - count), abs(whole - about)

    return min(range(max(1, about - 2), about + 3), key=misses)


def is_whole(crop: Crop) -> bool:
    """Whether the crop is all of every image."""
    return tuple(crop) == WHOLE


def crop_record(crop: Crop) -> dict[str, list[float | int]]:
    """What files of results say: ``{"region": [...]}``, nothing where it is the whole image."""
    return {} if is_whole(crop) else {"region": list(crop)}


def crop_in_words(crop: Crop) -> str:
    """Such as "10 to 90 % of the height, 0 to 100 % of the width"."""
    top, left, bottom, right = (f"{100 * share:.3g}" for share in crop)
    return f"{top} to {bottom} % of the height, {left} to {right} % of the width"


def cut(array: Shaped[np.ndarray, "h w *c"], crop: Crop) -> np.ndarray:
    """The crop of an image, mask or map; the array itself where that is all of it."""
    box = box_of(crop, array.shape[:2])
    if box.size == array.shape[:2]:
        return array
    # A copy: a view would keep the whole image in memory.
    return array[box.slices].copy()


def put_back(
    inside: Shaped[np.ndarray, "h w"],
    box: Box,
    size: tuple[int, int],
    *,
    outside: float | int | bool | np.number,
) -> Shaped[np.ndarray, "H W"]:
    """An array of the size of the whole image, with what belongs into the box.

    Args:
      inside: of the size of the box.
      box: where it belongs.
      size: (height, width) of the whole image.
      outside: the value around the box.

    Returns:
      ``size``, of the type of ``inside``; ``inside`` itself where the box is the whole image.
    """
    if box.size == tuple(size):
        return inside
    whole = np.full(size, outside, inside.dtype)
    whole[box.slices] = inside
    return whole
