"""Ground-truth masks: how they are read and resized.

Which files are masks: :mod:`jaxad.data.mask_folders`; whose: :mod:`jaxad.data.mask_pairs`.

A pixel is defective where any colour channel of the mask is not zero; where compression with loss,
resampling or antialiasing left levels in between, from half of the mask's highest level on
(:mod:`jaxad.data.mask_levels`). Colours count, not the numbers of a palette; transparent pixels are
not defective. Masks are never inverted: `jaxad data inspect` tells which mark most of their image.

Masks are resized by nearest neighbour, which steps over defects that are smaller than its step:
figures would rise for want of the hardest defects. So a connected component (of eight neighbours)
that would vanish keeps one pixel, and how many did is told (:class:`Truth`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from scipy import ndimage

from jaxad.data.crop import WHOLE, Crop, box_of, cut
from jaxad.data.images import image_dimensions
from jaxad.data.mask_levels import EIGHT_NEIGHBOURS, Dim, MaskLevels, levels_of
from jaxad.data.table import Sample
from jaxad.data.threads import map_ahead
from jaxad.run.errors import UserError

MaskPath = str | os.PathLike | Sequence[str | os.PathLike]
_SPECK, _MANY, _LARGE = 4, 3, 100
"""Pixels of a speck at most, specks at least, pixels of what they lie beside, see `has_specks`."""

_MASKS_AT_ONCE = 8
"""Masks that are decoded at once to be checked: each may be of many megapixels."""

MASK_RULE = (
    "nearest neighbour, above zero is defective (from half of the highest level where there are "
    "levels in between); a component that would vanish keeps one pixel"
)
"""What :func:`read_truth` does, as results state it."""


class MisfitMask(UserError):
    """A mask can be read, but is not one of its image."""


class Truth(NamedTuple):
    """What is defective on an image.

    Attributes:
      mask: ``(h, w)``; None for an anomalous image without a mask.
      components: connected components of the mask before it was resized.
      vanishing: how many of them nearest neighbour would have lost; each has one pixel.
      enlarged: by which factor, a power of two, the sides must grow for none to vanish.
      marked: share in [0, 1] of the pixels of the whole image that the mask marks.
      dim: of a mask with levels in between, what does not count of it.
    """

    mask: Bool[np.ndarray, "h w"] | None
    components: int = 0
    vanishing: int = 0
    enlarged: int = 1
    marked: float = 0.0
    dim: Dim | None = None


def read_mask_levels(
    path: MaskPath,
    *,
    expected_size: tuple[int, int] | None = None,
    crop: Crop = WHOLE,
) -> UInt8[np.ndarray, "h w"]:
    """Reads a mask with its gray levels, for rules that weigh them.

    Args:
      path: the file, or several of one size that are united: the highest level of each pixel.
      expected_size: ``(h, w)`` which the file must have, in general ``image_dimensions`` of its
        image.
      crop: what is cut out.

    Returns:
      ``(h, w)`` uint8, the highest colour channel; what is above zero is defective. Masks that
      tell but two levels apart are 0 and 255, see :func:`jaxad.data.mask_levels.levels_of`.

    Raises:
      UserError: a file cannot be read.
      MisfitMask: one has another size than expected, or than the first.
    """
    return cut(_united(path, expected_size).values, crop)


def _united(path: MaskPath, expected_size: tuple[int, int] | None) -> MaskLevels:
    """The levels of a mask, or the highest of several of one size.

    Raises:
      UserError: as of :func:`read_mask_levels`.
    """
    parts = []
    for one in [path] if isinstance(path, str | os.PathLike) else path:
        part = levels_of(one)
        size = part.values.shape
        if expected_size is not None and size != tuple(expected_size):
            raise MisfitMask(
                f"mask {one} is {size[0]} x {size[1]} (height x width) but its image is "
                f"{expected_size[0]} x {expected_size[1]} (after EXIF rotation): "
                "a mask must have the size of its image"
            )
        expected_size = (size[0], size[1])
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    dims = [part.dim for part in parts if part.dim is not None]
    united = Dim(
        any(dim.between for dim in dims),
        any(dim.faint for dim in dims),
        sum(dim.specks for dim in dims),
        max((dim.largest for dim in dims), default=0),
    )
    values = np.maximum.reduce([part.values for part in parts])
    return MaskLevels(values, united if dims else None)


def read_mask(
    path: MaskPath,
    *,
    image_size: tuple[int, int] | None = None,
    expected_size: tuple[int, int] | None = None,
    crop: Crop = WHOLE,
) -> Bool[np.ndarray, "h w"]:
    """Reads a mask: True where it marks a defect.

    Args:
      path: the file, or several that are united.
      image_size: ``(h, w)`` to resize to by :func:`shrink_mask`; None keeps the mask's own size.
      expected_size: as of :func:`read_mask_levels`.
      crop: what is cut out before resizing, as of the image.

    Returns:
      ``(h, w)`` bool.

    Raises:
      UserError: as of :func:`read_mask_levels`.
    """
    mask = read_mask_levels(path, expected_size=expected_size, crop=crop) > 0
    return mask if image_size is None else _shrink(mask, image_size)[0]


def read_truth(
    sample: Sample, *, image_size: tuple[int, int] | None = None, crop: Crop = WHOLE
) -> Bool[np.ndarray, "h w"] | None:
    """Reads what is defective on a sample's image: the mask of :func:`read_counted_truth`."""
    return read_counted_truth(sample, image_size=image_size, crop=crop).mask


def read_counted_truth(
    sample: Sample, *, image_size: tuple[int, int] | None = None, crop: Crop = WHOLE
) -> Truth:
    """Reads what is defective on a sample's image, and what becomes of small defects.

    A defect that lies wholly outside the crop leaves an empty mask.

    Args:
      sample: with its label and, perhaps, its mask.
      image_size: ``(h, w)`` of the result; None takes the size of the image, or of its crop.
      crop: what is cut out before resizing, as of the image.

    Raises:
      UserError: a file cannot be read.
      MisfitMask: the mask has another size than the image, or marks a defect on a good one.
    """
    if sample.mask is None:
        size = image_dimensions(sample.path)
        return Truth(
            None if sample.label else np.zeros(image_size or box_of(crop, size).size, bool)
        )
    whole = _whole_mask(sample, sample.mask, crop)
    mask = cut(whole.values > 0, crop)
    truth = shrink_mask(mask, image_size or mask.shape)
    return truth._replace(marked=float((whole.values > 0).mean()), dim=whole.dim)


def _whole_mask(sample: Sample, file: MaskPath, crop: Crop) -> MaskLevels:
    """The mask of an image, of which no part may be marked inside the crop where it is good."""
    mask = _united(file, image_dimensions(sample.path))
    if not sample.label and cut(mask.values, crop).any():
        raise MisfitMask(
            f"{file} marks a defect on {sample.path}, which is in a folder of good images; "
            "empty the mask, or move the image to its kind of defect"
        )
    return mask


def mask_faults(samples: Sequence[Sample], *, crop: Crop = WHOLE) -> dict[Sample, UserError]:
    """Why masks cannot be used, of the samples whose mask cannot be.

    Args:
      samples: whose images can be read.
      crop: the part of every image that counts.
    """

    def fault(sample: Sample) -> UserError | None:
        try:
            if sample.mask is not None:
                _whole_mask(sample, sample.mask, crop)
        except UserError as error:
            return error
        return None

    faults = zip(samples, map_ahead(fault, samples, at_once=_MASKS_AT_ONCE), strict=True)
    return {sample: error for sample, error in faults if error is not None}


def read_look(path: MaskPath, *, expected_size: tuple[int, int] | None = None) -> Truth:
    """What a mask marks at its own size, without a word on its components.

    Raises:
      UserError: as of :func:`read_mask_levels`.
    """
    found = _united(path, expected_size)
    mask = found.values > 0
    return Truth(mask, marked=float(mask.mean()), dim=found.dim)


def shrink_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Truth:
    """Resizes a mask to ``(height, width)`` so that no connected component is lost.

    By nearest neighbour; a component of which nothing is left keeps the pixel where its middle
    lies. Two of them that fall on one pixel, or beside another, become one.
    """
    return Truth(*_shrink(mask, size))


def _shrink(
    mask: Bool[np.ndarray, "h w"], size: tuple[int, int]
) -> tuple[Bool[np.ndarray, "h2 w2"], int, int, int]:
    labels, count = _components(mask)
    lost = _vanishing(labels, count, size)
    small = resize_mask(mask, size)
    boxes = ndimage.find_objects(labels)
    for number in lost:
        box = boxes[number - 1]
        rows, columns = np.nonzero(labels[box] == number)
        middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        row, column = box[0].start + rows[middle], box[1].start + columns[middle]
        small[row * size[0] // mask.shape[0], column * size[1] // mask.shape[1]] = True
    factor = 1
    while len(_vanishing(labels, count, (factor * size[0], factor * size[1]))):
        factor *= 2
    return small, count, len(lost), factor


def count_vanishing(
    mask: Bool[np.ndarray, "h w"], sizes: Sequence[tuple[int, int]]
) -> tuple[int, tuple[int, ...]]:
    """The number of connected components, and how many of them nearest neighbour loses per size."""
    labels, count = _components(mask)
    return count, tuple(len(_vanishing(labels, count, size)) for size in sizes)


def has_specks(mask: Bool[np.ndarray, "h w"]) -> bool:
    """Whether a third of the parts or more are of a few pixels, beside a large one.

    So look masks that were compressed with loss, and then every level above zero was drawn white.
    """
    labels, count = _components(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    specks = int((sizes <= _SPECK).sum())
    return specks >= _MANY and 3 * specks >= count and bool(sizes.max() >= _LARGE)


def _components(mask: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], int]:
    """Numbers of the connected components, 0 where there is none, and how many there are."""
    labels = np.zeros(mask.shape, np.int32)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return labels, 0
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    labels[box], count = ndimage.label(mask[box], EIGHT_NEIGHBOURS)
    return labels, int(count)


def _vanishing(
    labels: Int[np.ndarray, "h w"], count: int, size: tuple[int, int]
) -> Int[np.ndarray, " n"]:
    """Numbers of the components of which nearest neighbour leaves no pixel."""
    if not count or (size[0] >= labels.shape[0] and size[1] >= labels.shape[1]):
        return np.zeros(0, np.int64)
    # Never larger than the mask itself: there nothing is lost.
    height, width = (min(new, old) for new, old in zip(size, labels.shape, strict=True))
    picture = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
    return np.setdiff1d(np.arange(1, count + 1), np.asarray(picture))


def resize_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """Resizes a mask to ``(height, width)`` by nearest neighbour."""
    if mask.shape == tuple(size):
        return mask
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.NEAREST)) > 0
