"""Per-region overlap (PRO): how much of each defect is found, every defect counting the same.

MVTec's definition, exact, without a grid of thresholds. The masks' connected components
(8-connectivity) over all images each weigh the same. At a threshold, PRO is the mean over
components of the covered share, and the false-positive rate is taken over the normal pixels of
all images, good ones included. AUPRO is the area up to a false-positive rate (0.3), divided by
it. It depends on the resolution at which maps are compared with masks: say which.

References:
  P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "The MVTec Anomaly Detection
  Dataset", IJCV 129, 2021, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from jaxad.metrics._curves import corners
from jaxad.metrics._pixels import PixelScores, read_pixels


def pro_curve(
    maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The PRO curve over the false-positive rate, as its exact polyline.

    Points on a straight piece between two others are left out, so that the curve has at most two
    points per distinct score of a defect pixel; nothing is sampled.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image. None is
        refused, since without labels nothing tells whether that image is good.

    Returns:
      ``(fpr, pro, thresholds)``, from (0, 0) at threshold infinity to (1, 1) at the lowest score:
      the rates of pixels with a score >= threshold.

    Raises:
      UndefinedMetric: the masks hold no defect pixel or no normal pixel.
      ValueError: sizes differ, or a map holds NaN or infinity.

    Examples:
      >>> from jaxad import metrics
      >>> fpr, pro, thresholds = metrics.pro_curve([[[9.0, 7.0, 5.0, 3.0]]], [[[1, 0, 0, 1]]])
      >>> fpr.tolist(), pro.tolist()
      ([0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0])
      >>> thresholds.tolist()
      [inf, 9.0, 5.0, 3.0]
    """
    pixels = _read(maps, masks).sorted()
    counts, overlap, _ = pixels.curve()
    fpr, pro = corners(counts, overlap, counts.negatives)
    normal = pixels.normal[0]
    # Just above a defect score the curve stands at the next higher score of any pixel.
    higher = np.concatenate([[np.inf], counts.threshold[:-1]])
    some = counts.fp_above > 0
    higher[some] = np.minimum(higher[some], normal[normal.size - counts.fp_above[some]])
    thresholds = np.concatenate(
        [[np.inf], np.stack([higher, counts.threshold], axis=1).reshape(-1), [normal[0]]]
    )
    new = np.append(True, (np.diff(fpr) > 0) | (np.diff(pro) > 0))
    return fpr[new], pro[new], thresholds[new]


def aupro(
    maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None], *, limit: float = 0.3
) -> float:
    """Area under the PRO curve up to a false-positive rate, divided by that rate; in [0, 1].

    The curve is interpolated linearly at the limit. A constant map scores limit / 2, a perfect
    one 1. Only scores at or above the threshold which lets ``limit`` of the normal pixels through
    are sorted: O(n + k log k) time for n pixels of which k lie above; one copy of the maps.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image. None is
        refused, since without labels nothing tells whether that image is good.
      limit: the largest false-positive rate, in (0, 1].

    Raises:
      UndefinedMetric: the masks hold no defect pixel or no normal pixel.
      ValueError: sizes differ, a map holds NaN or infinity, or the limit is out of range.

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> mask = np.zeros((2, 8, 8))
      >>> mask[0, 2:4, 2:4] = 1  # the second image is good
      >>> metrics.aupro(30.0 + 5.0 * mask, mask)
      1.0
      >>> round(metrics.aupro(np.full(mask.shape, 30.0), mask), 4)
      0.15
    """
    check_limit(limit)
    pixels = _read(maps, masks)
    return _above_limit(pixels, limit).sorted().curve(of=pixels.totals()).aupro(limit)


def check_limit(limit: float) -> None:
    """Raises a ValueError unless the integration limit is in (0, 1]."""
    if not 0.0 < limit <= 1.0:
        raise ValueError(f"limit must be a false-positive rate in (0, 1], not {limit}")


def _read(maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None]) -> PixelScores:
    pixels = read_pixels(maps, masks)
    pixels.totals().require_both("no mask holds a defect pixel")
    return pixels


def _above_limit(pixels: PixelScores, limit: float) -> PixelScores:
    """Keeps the scores at or above the one at which the false-positive rate passes the limit."""
    normal = pixels.normal[0]
    kept = min(int(limit * normal.size) + 1, normal.size)
    normal.partition(normal.size - kept)
    below, above = normal[: normal.size - kept], normal[normal.size - kept :]
    cut = above[0]
    # The whole tie at the cut belongs to one threshold, so its other members are kept too.
    ties = np.full(np.count_nonzero(below == cut), cut)
    inside = pixels.defect >= cut
    return pixels._replace(
        normal=(np.concatenate([above, ties]),),
        defect=pixels.defect[inside],
        weight=pixels.weight[inside],
    )
