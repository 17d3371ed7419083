"""The gray levels of a mask's file, and from which one on they mark a defect.

A pixel is defective where any colour channel is above zero: numbers of kinds or of single defects,
colours, 1 bit, whatever is drawn. Compression with loss, resampling and antialiasing leave levels
in between around everything that was drawn, and specks beside it. Where a mask holds such, pixels
count from half of its highest level, which is where the drawn outline was.

What lies in between is told by the pixels, not by the format: levels most of whose pixels have
neighbours of another level above zero and lie in no even square of 2 x 2. Numbers and colours make
even areas, or touch nothing but zero. In formats that may have loss one such level is enough, in
others it takes five; JPEG is always cut at half.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from scipy import ndimage

from jaxad.data.images import is_deep, opened
from jaxad.data.sixteen_bit import has_16bit_colour, is_gray_and_alpha, turn_to_low_bytes
from jaxad.run.errors import UserError

_ALWAYS_LOSSY, _PERHAPS_LOSSY = ("JPEG", "MPO"), ("AVIF", "JPEG2000", "WEBP")
_FEW = 4
"""Levels in between that numbers of kinds may seem to have."""

_BYTES_PER_PIXEL = 25
"""What reading a mask takes at its peak, of whatever kind: eight of them are read at once."""

_FAINT = 32
"""Levels that compression with loss may take for nothing."""

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
"""What connects pixels to one component."""


class Dim(NamedTuple):
    """What does not count of a mask with levels in between: it lies below half of the highest.

    Attributes:
      between: whether it has levels in between.
      faint: whether it was saved with loss, at levels so low that parts of it may be gone.
      specks: connected components of which no pixel counts.
      largest: pixels of the largest of them that reaches an eighth of the highest level, which
        ringing does not; 0 without any.
    """

    between: bool
    faint: bool
    specks: int = 0
    largest: int = 0


class MaskLevels(NamedTuple):
    """A mask with its levels.

    Attributes:
      values: ``(h, w)``, above zero where it marks a defect.
      dim: of masks with levels in between, or faint ones, else None.
    """

    values: UInt8[np.ndarray, "h w"]
    dim: Dim | None


def levels_of(path: str | os.PathLike) -> MaskLevels:
    """Reads a mask, upright.

    Levels are kept, but masks that tell two apart are 0 and 255: those of the values 0 and 1, of
    more than 8 bits, in JPEG, and with levels in between.

    Raises:
      UserError: it cannot be read, or holds no numbers.
    """
    with opened(path, per_pixel=_BYTES_PER_PIXEL) as stored:
        form, sixteen_bit, gray = stored.format, has_16bit_colour(stored), is_gray_and_alpha(stored)
        image = ImageOps.exif_transpose(stored)
        levels = _deep(image, path) if is_deep(image) else _rgba(image)
        del image
        stored.close()  # frees its pixels
        if sixteen_bit:
            levels = 256 * levels.astype(np.uint16) + _low_bytes(path, gray=gray)
        return _weighed(levels, form)


def _weighed(levels: np.ndarray, form: str | None) -> MaskLevels:
    """What the levels, or colours with alpha, of a mask mean.

    Args:
      levels: ``(h, w)`` or ``(h, w, 4)``.
      form: of the file, by Pillow's name.
    """
    if levels.ndim == 3:
        levels = np.where(levels[..., 3] > 0, levels[..., :3].max(axis=-1), 0)
    two_levels = levels.dtype != np.uint8
    levels = _as_bytes(levels)
    least = 1 if form in _ALWAYS_LOSSY + _PERHAPS_LOSSY else _FEW + 1
    between = _levels_in_between(levels) >= least
    faint = form in _ALWAYS_LOSSY and 0 < int(levels.max()) < _FAINT
    dim = _dim(levels, between=between, faint=faint) if between or faint else None
    if between or form in _ALWAYS_LOSSY:
        two_levels, levels = True, (levels >= _half(levels)).astype(np.uint8)
    if two_levels or levels.max() <= 1:
        levels = (levels > 0) * np.uint8(255)
    return MaskLevels(levels, dim)


def _deep(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise UserError(
            f"{path} holds values that are no finite numbers (NaN, infinity), which a mask must not"
        )
    return np.maximum(values, 0)


def _rgba(image: Image.Image) -> UInt8[np.ndarray, "h w 4"]:
    # By colour, not by palette index: index 0 need not be black.
    return np.asarray(image.convert("RGBA"))


def _low_bytes(path: str | os.PathLike, *, gray: bool) -> UInt8[np.ndarray, "h w 4"]:
    """What the low bytes of a colour image of 16 bits a channel hold: 0 and 1, perhaps."""
    with opened(path, header_only=True) as image:  # memory is set aside
        turn_to_low_bytes(image, path)
        image = ImageOps.exif_transpose(image)
        return np.asarray(image)[..., [1, 1, 1, 3]] if gray else _rgba(image)


def _as_bytes(levels: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Levels of any type in 256 steps, of which the first is zero alone."""
    if levels.dtype == np.uint8:
        return levels
    highest = levels.max()
    if not highest:
        return np.zeros(levels.shape, np.uint8)
    return np.ceil(levels.astype(np.float64) / highest * 255).astype(np.uint8)


def _half(levels: UInt8[np.ndarray, "h w"]) -> int:
    return max(1, (int(levels.max()) + 1) // 2)


def _levels_in_between(levels: UInt8[np.ndarray, "h w"]) -> int:
    """How many levels have, for the most part, others above zero beside them and no even square."""
    rows, columns = np.flatnonzero(levels.any(axis=1)), np.flatnonzero(levels.any(axis=0))
    if not rows.size:
        return 0
    box = levels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    padded = np.pad(box, 1)
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    others = np.logical_or.reduce([(one != box) & (one > 0) for one in beside])
    corner = padded[:-1, :-1]
    even = corner == padded[1:, :-1]
    even &= corner == padded[:-1, 1:]
    even &= corner == padded[1:, 1:]
    in_square = even[:-1, :-1] | even[:-1, 1:] | even[1:, :-1] | even[1:, 1:]
    of_level = np.bincount(box.ravel(), minlength=256)
    between = np.bincount(box[others & ~in_square], minlength=256)
    return int((2 * between[1:] > of_level[1:]).sum())


def _dim(levels: UInt8[np.ndarray, "h w"], *, between: bool, faint: bool) -> Dim:
    labels, count = ndimage.label(levels > 0, EIGHT_NEIGHBOURS)
    highest = np.asarray(ndimage.maximum(levels, labels, range(1, count + 1)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    dim = highest < _half(levels)
    clear = dim & (highest >= levels.max() / 8)
    return Dim(between, faint, int(dim.sum()), int(sizes[clear].max(initial=0)))
