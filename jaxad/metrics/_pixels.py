"""Pixels of many images, split by their masks, with the weight each defect pixel has in PRO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from jaxad.metrics import _counts
from jaxad.metrics._curves import PixelCurve
from jaxad.metrics._inputs import (
    UndefinedMetric,
    as_maps_with_masks,
    as_valid,
    common_dtype,
    defect_pixels,
    working_dtype,
)

# Pixels which touch at a corner belong to one component, as in MVTec's evaluation.
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class Totals(NamedTuple):
    """Numbers of normal and defect pixels, and of connected components of these."""

    normal: int
    defect: int
    components: int

    def require_both(self, no_defect: str) -> None:
        """Raises `UndefinedMetric` unless there are normal and defect pixels.

        Args:
          no_defect: the reason to give where all pixels are normal.
        """
        if self.normal and not self.defect:
            raise UndefinedMetric(no_defect)
        _counts.require_both_classes(self.defect, self.normal, "pixels")


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

    @property
    def method(self) -> str:
        """As the result of an evaluation names it."""
        return "exact"

    def totals(self) -> Totals:
        """How many there are."""
        return Totals(sum(part.size for part in self.normal), self.defect.size, self.components)

    def sorted(self) -> PixelScores:
        """Every array in ascending order; the normal pixels are sorted in place."""
        for part in self.normal:
            part.sort()
        return self._with_sorted_defects()

    def _with_sorted_defects(self) -> PixelScores:
        order = np.argsort(self.defect)
        return self._replace(defect=self.defect[order], weight=self.weight[order])

    def joined(self, others: Sequence[PixelScores]) -> PixelScores:
        """Sorted pixels of several groups as one, without touching the normal ones again."""
        return _gathered([self, *others])._with_sorted_defects()

    def curve(self, *, of: Totals | None = None) -> PixelCurve:
        """The curve of sorted pixels.

        Args:
          of: how many there are in all, where these are only the highest.
        """
        counts = _counts.count(self.defect, self.normal)
        normal, defect, _ = of or self.totals()
        covered = np.cumsum(self.weight[::-1])[counts.tp - 1]
        overlap = np.minimum(covered / self.components, 1.0)
        if counts.positives == defect:
            overlap[-1] = 1.0  # all is covered, which the sum of weights gives only up to rounding
        return PixelCurve(counts, overlap, normal)

    def pooled_metrics(self, limit: float, tpr: float = 0.95) -> dict[str, float]:
        """Of sorted pixels of both kinds: `PixelCurve.ranking_metrics` and average precision."""
        curve = self.curve()
        precision = _counts.average_precision_of(curve.counts)
        return curve.ranking_metrics(limit, tpr) | {"pixel_ap": precision}


def split_pixels(
    maps: Sequence[Shaped[np.ndarray, "_ _"]],
    masks: Sequence[Shaped[np.ndarray, "_ _"]],
    dtype: np.dtype,
    valid: Sequence[Bool[np.ndarray, "_ _"] | None] | None = None,
) -> PixelScores:
    """Splits pixels in one pass over the images, unsorted; the maps are copied once.

    Args:
      maps: per image (h, w), finite.
      masks: per image (h, w), defect pixels > 0.
      dtype: of the result, `common_dtype` of the maps and of whatever it will be merged with.
      valid: per image the pixels that count, of which defect pixels are some; None: all.
    """
    normal = np.empty(sum(m.size for m in maps), dtype)
    filled = components = 0
    defect = [np.empty(0, dtype)]
    weight = [np.empty(0, np.float64)]
    for image, mask, counted in zip(maps, masks, valid or [None] * len(maps), strict=True):
        inside = defect_pixels(mask)
        has_defect = inside.any()
        outside = image[_normal(inside, counted)] if has_defect or counted is not None else image
        outside = outside.reshape(-1)
        normal[filled : filled + outside.size] = outside
        filled += outside.size
        if has_defect:
            defect.append(image[inside].astype(dtype))
            size, found = _component_size_per_pixel(inside)
            weight.append(1.0 / size)
            components += found
    return PixelScores(
        (normal[:filled],), np.concatenate(defect), np.concatenate(weight), components
    )


def _normal(
    defect: Bool[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None
) -> Bool[np.ndarray, "h w"]:
    return ~defect if valid is None else valid & ~defect


def read_pixels(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None],
    valid: Iterable[npt.ArrayLike] | None = None,
) -> PixelScores:
    """The pixels of what callers hold, checked and unsorted; every map must have its mask."""
    images, truth = as_maps_with_masks(maps, masks)
    counted = as_valid(valid, images)
    defect = [
        mask if part is None else defect_pixels(mask) & part
        for mask, part in zip(truth, counted, strict=True)
    ]
    return split_pixels(images, defect, common_dtype(images), counted)


def concatenate(parts: Sequence[PixelScores]) -> PixelScores:
    """Unsorted pixels of several sets of images as one, the normal ones in one array."""
    gathered = _gathered(parts)
    return gathered._replace(normal=(np.concatenate(gathered.normal),))


def _gathered(parts: Sequence[PixelScores]) -> PixelScores:
    """Likewise, the arrays of normal pixels as they are."""
    return PixelScores(
        tuple(normal for part in parts for normal in part.normal),
        np.concatenate([part.defect for part in parts]),
        np.concatenate([part.weight for part in parts]),
        sum(part.components for part in parts),
    )


def auroc_per_image(
    images: Iterable[
        tuple[Shaped[np.ndarray, "_ _"], Shaped[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"] | None]
    ],
) -> Float[np.ndarray, " m"]:
    """Pixel AUROC of each image with both normal and defect pixels, in their order.

    Args:
      images: (map, mask, pixels that count or None for all) of each.
    """
    areas = []
    for image, mask, valid in images:
        inside = defect_pixels(mask)
        normal = _normal(inside, valid)
        if not inside.any() or not normal.any():
            continue
        scores = image.astype(working_dtype(image.dtype), copy=False)
        counts = _counts.count(np.sort(scores[inside]), [np.sort(scores[normal])])
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
