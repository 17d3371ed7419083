"""Which defects are found at a threshold: recall of regions, also by kind of defect."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from jaxad.metrics import _pixels
from jaxad.metrics._inputs import UndefinedMetric, as_maps_with_masks, defect_pixels


def threshold_at_fpr(
    maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None], *, fpr: float
) -> float:
    """The lowest score that at most a share of the normal pixels reach.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image.
      fpr: the share, in [0, 1).

    Returns:
      A score of some pixel, normal or not; infinity when all reach the highest of them.

    Raises:
      UndefinedMetric: the masks leave no normal pixel.
      ValueError: sizes differ, a map holds NaN or infinity, or the share is out of range.

    Examples:
      >>> from jaxad import metrics
      >>> metrics.threshold_at_fpr([[[1.0, 2.0, 3.0, 4.0, 9.0]]], [[[0, 0, 0, 0, 1]]], fpr=0.25)
      4.0
    """
    if not 0.0 <= fpr < 1.0:
        raise ValueError(f"fpr must be a rate in [0, 1), not {fpr}")
    pixels = _pixels.read_pixels(maps, masks)
    normal = np.sort(pixels.normal[0])
    if not normal.size:
        raise UndefinedMetric("no pixel is normal")
    allowed = int(fpr * normal.size + 1e-9)
    # All normal pixels above this score may pass, it and its equals may not.
    barrier = normal[normal.size - 1 - allowed]
    higher = [part[part > barrier] for part in (normal, pixels.defect)]
    return min((float(part.min()) for part in higher if part.size), default=math.inf)


def region_recall(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None],
    *,
    threshold: float,
    overlap: float = 0.0,
    defects: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """How many defect regions are found at a threshold.

    A region (8-connected, as in AUPRO) is found when more than ``overlap`` of its pixels score at
    or above the threshold.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image.
      threshold: score from which a pixel is called anomalous, as from `threshold_at_fpr`.
      overlap: share of a region in [0, 1) that has to be exceeded; 0 means any pixel will do.
      defects: (n,) kind of defect of each image; only read where the mask holds one.

    Returns:
      ``regions``, ``found``, ``recall`` (found / regions), ``coverage`` (mean covered share, the
      PRO at this threshold), ``false_positive_rate`` (share of normal pixels at or above it; None
      without normal pixels) and ``per_defect``: kind -> the first four.

    Raises:
      UndefinedMetric: the masks hold no defect pixel.
      ValueError: sizes differ, a map holds NaN or infinity, or ``overlap`` is out of range.

    Examples:
      >>> from jaxad import metrics
      >>> maps, masks = [[[9.0, 1.0, 1.0, 2.0]]], [[[1, 0, 1, 1]]]
      >>> result = metrics.region_recall(maps, masks, threshold=2.0, defects=["hole"])
      >>> result["found"], result["coverage"], result["false_positive_rate"]
      (2, 0.75, 0.0)
      >>> metrics.region_recall(maps, masks, threshold=2.0, overlap=0.5)["recall"]
      0.5
    """
    if not 0.0 <= overlap < 1.0:
        raise ValueError(f"overlap must be a share in [0, 1), not {overlap}")
    images, truth = as_maps_with_masks(maps, masks)
    if defects is not None and len(defects) != len(images):
        raise ValueError(f"there are {len(images)} maps but {len(defects)} defects")
    counts = RegionCounts(threshold)
    for i, (image, mask) in enumerate(zip(images, truth, strict=True)):
        counts.add(image, defect_pixels(mask), None if defects is None else str(defects[i]))
    if not counts.shares:
        raise UndefinedMetric("no mask holds a defect pixel")
    return counts.summary(overlap)


class RegionCounts:
    """What is found at a threshold, image by image: one number per region is kept.

    Args:
      threshold: score from which a pixel is called anomalous.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.shares: dict[str | None, list[np.ndarray]] = {}
        self._false = self._normal = 0

    def add(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        kind: str | None,
        valid: np.ndarray | None = None,
    ) -> None:
        """Counts an image.

        Args:
          image: its map.
          mask: its defect pixels, boolean.
          kind: only read where there are any.
          valid: the pixels that count, boolean; None: all.
        """
        hit = image >= self.threshold
        if valid is not None:
            hit &= valid
        self._normal += mask.size if valid is None else int(np.count_nonzero(valid))
        self._normal -= int(np.count_nonzero(mask))
        self._false += int(np.count_nonzero(hit & ~mask))
        if mask.any():
            self.shares.setdefault(kind, []).append(_covered(hit, mask))

    def merge(self, other: RegionCounts) -> None:
        """Adds what another one has counted at the same threshold."""
        self._false += other._false
        self._normal += other._normal
        for kind, parts in other.shares.items():
            self.shares.setdefault(kind, []).extend(parts)

    def summary(self, overlap: float = 0.0) -> dict[str, Any]:
        """The dictionary of `region_recall`; there is at least one region."""
        shares = {kind: np.concatenate(parts) for kind, parts in self.shares.items()}
        result = _summary(np.concatenate([*shares.values()]), overlap)
        result["false_positive_rate"] = self._false / self._normal if self._normal else None
        result["per_defect"] = {
            kind: _summary(shares[kind], overlap) for kind in sorted(k for k in shares if k)
        }
        return result


def _covered(hit: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Covered share of each region of an image."""
    label, regions = ndimage.label(mask, _pixels.EIGHT_NEIGHBOURS)
    size = np.bincount(label[mask], minlength=regions + 1)[1:]
    return np.bincount(label[mask & hit], minlength=regions + 1)[1:] / size


def _summary(share: np.ndarray, overlap: float) -> dict[str, Any]:
    found = int(np.count_nonzero(share > overlap))
    return {
        "regions": share.size,
        "found": found,
        "recall": found / share.size,
        "coverage": float(share.mean()),
    }
