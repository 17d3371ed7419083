"""Saturated per-region overlap (sPRO): PRO for defects of which a part is enough to be found.

Of a missing object any place where it might lie may be marked; covering as many pixels as the
object has is then as good as covering all of them. So every region (one annotated defect, whether
or not it is connected) has a saturation area s, and at a threshold its sPRO is

    min(covered pixels / s, 1),

of which the mean over all regions of all images is taken. The false-positive rate is that of the
pixels outside all regions, good images included. AU-sPRO is the area up to a false-positive rate
(0.05), divided by it. With s the area of each region this is PRO of the regions.

Only the s highest scores of a region can matter, so the curve is exact without a grid of
thresholds: each of them adds 1 / s.

References:
  P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "Beyond Dents and Scratches: Logical
  Constraints in Unsupervised Anomaly Detection and Localization", IJCV 130, 2022, section 4. Where
  a relative saturation leaves less than a pixel, which the paper does not treat, it is one pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Shaped

from jaxad.metrics._inputs import (
    UndefinedMetric,
    as_maps,
    as_masks,
    defect_pixels,
    working_dtype,
)
from jaxad.metrics._pixels import PixelScores, Totals
from jaxad.metrics.pro import check_limit


def saturation_area(area: int, threshold: float, *, relative: bool) -> int:
    """The number of pixels of a region that count as all of it.

    Args:
      area: of the region, in pixels, at least 1.
      threshold: a number of pixels or, if ``relative``, a share of the area in (0, 1].
      relative: what the threshold is.

    Returns:
      At least 1, at most the area; shares are rounded down.

    Raises:
      ValueError: the area or the threshold is out of range.

    Examples:
      >>> from jaxad.metrics import saturation_area
      >>> saturation_area(1000, 300, relative=False), saturation_area(1000, 0.25, relative=True)
      (300, 250)
      >>> saturation_area(100, 300, relative=False)
      100
    """
    if area < 1:
        raise ValueError(f"a region has at least one pixel, not {area}")
    if not 0 < threshold <= (1 if relative else np.inf):
        range_of = "a share in (0, 1]" if relative else "a number of pixels above 0"
        raise ValueError(f"a saturation threshold is {range_of}, not {threshold}")
    return max(1, min(area, int(threshold * area if relative else threshold)))


def au_spro(
    maps: Iterable[npt.ArrayLike],
    regions: Sequence[Sequence[npt.ArrayLike]],
    saturations: Sequence[Sequence[int]],
    *,
    limit: float = 0.05,
) -> float:
    """Area under the sPRO curve up to a false-positive rate, divided by that rate; in [0, 1].

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      regions: per map its regions, masks of its size with defect pixels > 0, which may overlap;
        none for a good image.
      saturations: per map and region the `saturation_area`, from 1 to the region's area.
      limit: the largest false-positive rate, in (0, 1].

    Raises:
      UndefinedMetric: there is no region, or no pixel outside all of them.
      ValueError: numbers or sizes differ, a region is empty, a saturation area or the limit is out
        of range, or a map holds NaN or infinity.

    Examples:
      >>> from jaxad import metrics
      >>> scores = [[[9.0, 8.0, 1.0, 1.0, 7.0, 0.0]]]
      >>> region = [[1, 1, 1, 1, 0, 0]]
      >>> metrics.au_spro(scores, [[region]], [[2]], limit=1.0)  # two of four pixels are enough
      1.0
      >>> metrics.au_spro(scores, [[region]], [[4]], limit=1.0)
      0.75
    """
    images = as_maps(maps)
    if not len(images) == len(regions) == len(saturations):
        raise ValueError(
            f"there are {len(images)} maps, regions of {len(regions)} and saturations of "
            f"{len(saturations)} images"
        )
    overlap = SaturatedOverlap(pixels=sum(image.size for image in images), limit=limit)
    for image, own, areas in zip(images, regions, saturations, strict=True):
        overlap.update(image, own, areas)
    return overlap.compute()


class SaturatedOverlap:
    """`au_spro` of maps that come one by one; each is forgotten.

    Of the scores outside all regions the highest are kept, as many as the limit can let through,
    so that nothing is approximate.

    Args:
      pixels: how many all maps have together, or more.
      limit: as of `au_spro`.

    Raises:
      ValueError: the limit is out of range.

    Examples:
      >>> from jaxad import metrics
      >>> overlap = metrics.SaturatedOverlap(pixels=8, limit=1.0)
      >>> overlap.update([[9.0, 8.0, 1.0, 7.0]], [[[1, 1, 1, 0]]], [2])
      >>> overlap.update([[0.0, 0.0, 0.0, 0.0]], [], [])
      >>> overlap.compute()
      1.0
    """

    def __init__(self, *, pixels: int, limit: float = 0.05):
        check_limit(limit)
        self.limit = limit
        self._kept = int(limit * pixels) + 1
        self._normal: list[Shaped[np.ndarray, " _"]] = []
        self._waiting = self._total = self._images = 0
        # The lowest score that is kept, and how many more there were of it.
        self._cut: float = -np.inf
        self._ties = 0
        self._highest: list[Shaped[np.ndarray, " _"]] = []
        self._weights: list[Float[np.ndarray, " _"]] = []

    def update(
        self, scores: npt.ArrayLike, regions: Sequence[npt.ArrayLike], saturations: Sequence[int]
    ) -> None:
        """Adds a map.

        Args:
          scores: (h, w).
          regions: as of `au_spro`, of this map.
          saturations: of each region.

        Raises:
          ValueError: as of `au_spro`.
        """
        (image,) = as_maps([scores])
        i, self._images = self._images, self._images + 1
        if len(regions) != len(saturations):
            raise ValueError(
                f"image {i} has {len(regions)} regions, {len(saturations)} saturations"
            )
        dtype = working_dtype(image.dtype)
        marked = np.zeros(image.shape, bool)
        for mask, area in zip(as_masks(regions, [image] * len(regions)), saturations, strict=True):
            if mask is None or not (inside := defect_pixels(mask)).any():
                raise ValueError(f"a region of image {i} has no pixel")
            marked |= inside
            own = np.sort(image[inside].astype(dtype))
            if not 1 <= area <= own.size:
                raise ValueError(
                    f"a saturation area of image {i} is {area}, of a region of {own.size} pixels"
                )
            self._highest.append(own[own.size - area :])
            self._weights.append(np.full(area, 1.0 / area))
        outside = image[~marked].astype(dtype)
        self._normal.append(outside)
        self._total += outside.size
        self._waiting += outside.size
        if self._waiting > 2 * self._kept:
            self._forget_low()

    def compute(self) -> float:
        """The area; maps may be added afterwards.

        Raises:
          UndefinedMetric: as of `au_spro`.
        """
        if not self._highest:
            raise UndefinedMetric("no image has a region")
        if not self._total:
            raise UndefinedMetric("no pixel lies outside the regions")
        normal = np.concatenate(self._normal)
        ties = np.full(self._ties, self._cut if self._ties else 0, normal.dtype)
        found = PixelScores(
            (np.concatenate([normal, ties]),),
            np.concatenate(self._highest),
            np.concatenate(self._weights),
            len(self._highest),
        ).sorted()
        totals = Totals(self._total, found.defect.size, found.components)
        return found.curve(of=totals).aupro(self.limit)

    def _forget_low(self) -> None:
        """Keeps the highest scores, and how many more are equal to the lowest of them."""
        scores = np.concatenate(self._normal)
        scores.partition(scores.size - self._kept)
        low, high = np.split(scores, [scores.size - self._kept])
        cut = high.min()
        # Those that were counted before are ties still, unless the cut has risen.
        still = self._ties if cut == self._cut else 0
        self._cut, self._ties = cut, still + int(np.count_nonzero(low == cut))
        self._normal, self._waiting = [high], high.size
