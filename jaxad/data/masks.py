"""Ground-truth masks: how they are read, and which belongs to which image.

A pixel is defective where any colour channel of the mask is not zero. In formats with loss (JPEG,
WebP) that starts at half of the range, because compression leaves small values around every edge.
Transparent pixels are not defective.

Masks are resized by nearest neighbour, which steps over defects that are smaller than its step:
figures would rise for want of the hardest defects. So a connected component (of eight neighbours)
that would vanish keeps one pixel, and how many did is told (:class:`Truth`).
"""

from __future__ import annotations

import os
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageOps
from scipy import ndimage

from jaxad.data.crop import WHOLE, Crop, box_of, cut
from jaxad.data.files import image_files
from jaxad.data.images import image_dimensions, is_deep, opened
from jaxad.data.table import Sample
from jaxad.run.errors import UserError

MASK_FOLDERS = ("ground_truth", "masks")
_SUFFIX = "_mask"
_LOSSY = ("JPEG", "WEBP", "MPO")
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)

MASK_RULE = (
    "nearest neighbour, above zero is defective; a component that would vanish keeps one pixel"
)
"""What :func:`read_truth` does, as results state it."""


class Truth(NamedTuple):
    """What is defective on an image.

    Attributes:
      mask: ``(h, w)``; None for an anomalous image without a mask.
      components: connected components of the mask before it was resized.
      vanishing: how many of them nearest neighbour would have lost; each has one pixel.
      enlarged: by which factor, a power of two, the sides must grow for none to vanish.
    """

    mask: Bool[np.ndarray, "h w"] | None
    components: int = 0
    vanishing: int = 0
    enlarged: int = 1


def read_mask_levels(
    path: str | os.PathLike,
    *,
    expected_size: tuple[int, int] | None = None,
    crop: Crop = WHOLE,
) -> UInt8[np.ndarray, "h w"]:
    """Reads a mask with its gray levels, for rules that weigh them.

    Args:
      path: the file.
      expected_size: ``(h, w)`` which the file must have, in general ``image_dimensions`` of its
        image.
      crop: what is cut out.

    Returns:
      ``(h, w)`` uint8, the highest colour channel; what is above zero is defective. Masks that
      tell but two levels apart are 0 and 255: those of 1 bit or of the values 0 and 1, of more
      than 8 bits, and in formats with loss.

    Raises:
      UserError: the file cannot be read or has another size than expected.
    """
    with opened(path) as image:
        lossy = image.format in _LOSSY
        image = ImageOps.exif_transpose(image)
        size = (image.height, image.width)
        if expected_size is not None and size != tuple(expected_size):
            raise UserError(
                f"mask {path} is {size[0]} x {size[1]} (height x width) but its image is "
                f"{expected_size[0]} x {expected_size[1]} (after EXIF rotation): "
                "a mask must have the size of its image"
            )
        if is_deep(image):
            levels = np.asarray(image) != 0
        else:
            # By colour, not by palette index: index 0 need not be black.
            rgba = np.asarray(image.convert("RGBA"))
            levels = np.where(rgba[..., 3] > 0, rgba[..., :3].max(axis=-1), 0)
    levels = (levels >= 128 if lossy else levels).astype(np.uint8)
    # The file tells what its levels mean, not the part of it that is cut out.
    return cut(levels * np.uint8(255) if levels.max() <= 1 else levels, crop)


def read_mask(
    path: str | os.PathLike,
    *,
    image_size: tuple[int, int] | None = None,
    expected_size: tuple[int, int] | None = None,
    crop: Crop = WHOLE,
) -> Bool[np.ndarray, "h w"]:
    """Reads a mask: True where it marks a defect.

    Args:
      path: the file.
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
      UserError: a file cannot be read, the mask has another size than the image, or it marks a
        defect on a good image.
    """
    size = image_dimensions(sample.path)
    if sample.mask is None:
        return Truth(
            None if sample.label else np.zeros(image_size or box_of(crop, size).size, bool)
        )
    mask = read_mask(sample.mask, expected_size=size, crop=crop)
    if mask.any() and not sample.label:
        raise UserError(
            f"{sample.mask} marks a defect on {sample.path}, which is in a folder of good images; "
            "empty the mask, or move the image to its kind of defect"
        )
    return shrink_mask(mask, image_size or mask.shape)


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


def _components(mask: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], int]:
    """Numbers of the connected components, 0 where there is none, and how many there are."""
    labels = np.zeros(mask.shape, np.int32)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return labels, 0
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    labels[box], count = ndimage.label(mask[box], _EIGHT_NEIGHBOURS)
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


def split_sibling_masks(
    files: Sequence[str], *, suffix: str = _SUFFIX
) -> tuple[list[str], dict[str, str]]:
    """Tells images from masks that lie beside them (``a.jpg`` and ``a_mask.png``).

    Args:
      files: relative paths.
      suffix: that a mask's name has behind the image's.

    Returns:
      ``(images, masks)``, where ``masks`` maps a mask to its image.

    Raises:
      UserError: a mask has several images.
    """
    by_stem = _by_stem(files)
    masks = {}
    for path in files:
        stem = _stem(path)
        if stem.endswith(suffix) and by_stem.get(stem.removesuffix(suffix)):
            masks[path] = _only(by_stem[stem.removesuffix(suffix)], path)
    return [path for path in files if path not in masks], masks


def match_masks(
    base: pathlib.Path, images: Sequence[str], siblings: dict[str, str]
) -> dict[str, str]:
    """Finds the mask of every image that has one.

    Args:
      base: folder of the data set.
      images: paths relative to it.
      siblings: mask -> image for masks that lie beside their image.

    Returns:
      image -> mask, relative paths.

    Raises:
      UserError: a mask has no image or several, or an image has several masks.
    """
    pairs = list(siblings.items())
    by_stem = _by_stem(images)
    by_name = defaultdict(list)
    for image in images:
        by_name[_stem(image).rpartition("/")[2]].append(image)
    orphans = []
    for folder in MASK_FOLDERS:
        for mask in image_files(base / folder):
            candidates = next(filter(None, _candidates(mask, by_stem, by_name)), None)
            if candidates is None:
                orphans.append(f"{folder}/{mask}")
            else:
                pairs.append((f"{folder}/{mask}", _only(candidates, f"{folder}/{mask}")))
    if orphans:
        shown = ", ".join(orphans[:10])
        more = f" and {len(orphans) - 10} more" if len(orphans) > 10 else ""
        raise UserError(f"{len(orphans)} mask(s) in {base} have no image: {shown}{more}")
    result: dict[str, str] = {}
    for mask, image in pairs:
        if image in result:
            raise UserError(f"image {base / image} has two masks: {result[image]} and {mask}")
        result[image] = mask
    return result


def _candidates(
    mask: str, by_stem: dict[str, list[str]], by_name: dict[str, list[str]]
) -> Iterator[list[str]]:
    """Images that a mask may belong to; the first answer that is not empty counts."""
    stems = {_stem(mask), _stem(mask).removesuffix(_SUFFIX)}
    for prefix in ("", "test/", "train/"):
        yield [image for stem in sorted(stems) for image in by_stem.get(prefix + stem, ())]
    if "/" not in mask:
        yield [image for stem in sorted(stems) for image in by_name.get(stem, ())]


def _by_stem(files: Iterable[str]) -> dict[str, list[str]]:
    result = defaultdict(list)
    for path in files:
        result[_stem(path)].append(path)
    return result


def _stem(path: str) -> str:
    """Relative path without the extension (``a/b.c.png`` -> ``a/b.c``)."""
    return path[: -len(pathlib.PurePosixPath(path).suffix)]


def _only(images: Sequence[str], mask: str) -> str:
    if len(images) > 1:
        raise UserError(f"mask {mask} could belong to several images: {', '.join(images[:3])}")
    return images[0]
