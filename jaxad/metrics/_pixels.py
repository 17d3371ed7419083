"""Pixels of many images, split by their masks, with the weight each defect pixel has in PRO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from jaxad.metrics import _counts
from jaxad.metrics._inputs import UndefinedMetric, defect_pixels, working_dtype

# Pixels which touch at a corner belong to one component, as in MVTec's evaluation.
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class PixelScores(NamedTuple):
    """Scores of normal and of defect pixels, apart.

    Attributes:
      normal: scores of normal pixels in one or more arrays; good images included.
      defect: scores of defect pixels.
      weight: for each defect pixel 1 / (pixels of its connected component), so that a component
        weighs 1 whatever its size.
      components: number of connected components, the sum of the weights.
    """

    normal: tuple[Shaped[np.ndarray, " _"], ...]
    defect: Shaped[np.ndarray, " p"]
    weight: Float[np.ndarray, " p"]
    components: int


def split_pixels(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], dtype: np.dtype
) -> PixelScores:
    """Splits pixels in one pass over the images, unsorted; the maps are copied once.

    Args:
      maps: per image (h, w), finite.
      masks: per image (h, w), defect pixels > 0.
      dtype: of the result, `common_dtype` of the maps and of whatever it will be merged with.
    """
    normal = np.empty(sum(m.size for m in maps), dtype)
    filled = components = 0
    defect = [np.empty(0, dtype)]
    weight = [np.empty(0, np.float64)]
    for image, mask in zip(maps, masks, strict=True):
        inside = defect_pixels(mask)
        if not inside.any():
            normal[filled : filled + image.size] = image.reshape(-1)
            filled += image.size
            continue
        outside = image[~inside]
        normal[filled : filled + outside.size] = outside
        filled += outside.size
        defect.append(image[inside].astype(dtype))
        size, found = _component_size_per_pixel(inside)
        weight.append(1.0 / size)
        components += found
    return PixelScores(
        (normal[:filled],), np.concatenate(defect), np.concatenate(weight), components
    )


def concatenate(parts: Sequence[PixelScores]) -> PixelScores:
    """Unsorted pixels of several sets of images as one, the normal ones in one array."""
    return PixelScores(
        (np.concatenate([normal for part in parts for normal in part.normal]),),
        np.concatenate([part.defect for part in parts]),
        np.concatenate([part.weight for part in parts]),
        sum(part.components for part in parts),
    )


def sort_pixels(pixels: PixelScores) -> PixelScores:
    """Sorts every array in ascending order, the normal pixels in place."""
    for part in pixels.normal:
        part.sort()
    order = np.argsort(pixels.defect)
    return pixels._replace(defect=pixels.defect[order], weight=pixels.weight[order])


def merge_sorted(groups: Sequence[PixelScores]) -> PixelScores:
    """Joins sorted groups into one, without touching the normal pixels again."""
    if len(groups) == 1:
        return groups[0]
    defect = np.concatenate([group.defect for group in groups])
    order = np.argsort(defect)
    return PixelScores(
        tuple(part for group in groups for part in group.normal),
        defect[order],
        np.concatenate([group.weight for group in groups])[order],
        sum(group.components for group in groups),
    )


def require_both_pixels(pixels: PixelScores, no_defect: str) -> None:
    """Raises `UndefinedMetric` unless there are normal and defect pixels.

    Args:
      pixels: to be checked.
      no_defect: the reason to give where there are no defect pixels.
    """
    normal = sum(part.size for part in pixels.normal)
    if not pixels.defect.size:
        raise UndefinedMetric(no_defect if normal else "there are no pixels")
    _counts.require_both_classes(pixels.defect.size, normal, "pixels")


def auroc_per_image(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> Float[np.ndarray, " m"]:
    """Pixel AUROC of each image that has both normal and defect pixels, in their order."""
    areas = []
    for image, mask in zip(maps, masks, strict=True):
        inside = defect_pixels(mask)
        if not inside.any() or inside.all():
            continue
        scores = image.astype(working_dtype(image.dtype), copy=False)
        counts = _counts.count(np.sort(scores[inside]), [np.sort(scores[~inside])])
        areas.append(_counts.auroc_of(counts))
    return np.asarray(areas, np.float64)


def _component_size_per_pixel(
    inside: Bool[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, " p"], int]:
    # Labelling only the box around the defects is much cheaper and gives the same components.
    rows = np.flatnonzero(inside.any(axis=1))
    cols = np.flatnonzero(inside.any(axis=0))
    box = inside[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    label, components = ndimage.label(box, EIGHT_NEIGHBOURS)
    # Inside the box the defect pixels keep the row-by-row order they have in the image.
    component = label[box]
    return np.bincount(component).astype(np.float64)[component], components
