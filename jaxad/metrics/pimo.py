"""AUPIMO: how much of each defect is found while good images stay almost free of false alarms.

The per-image overlap curve of an anomalous image is the share of its defect pixels at or above a
threshold over the shared false-positive rate: the mean over good images of their share of pixels
at or above it. AUPIMO is its mean height over the logarithm of that rate between two small bounds.
Thresholds are not sampled: the curve is the exact polyline through all scores, straight
where good and defect pixels tie.

References:
  J. P. C. Bertoldo, D. Ameln, A. Vaidya, S. Akcay, "AUPIMO: Redefining Visual Anomaly
  Detection Benchmarks with High Speed and Low Tolerance", BMVC 2024, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Shaped

from jaxad.metrics import _counts
from jaxad.metrics._inputs import (
    UndefinedMetric,
    as_maps_with_masks,
    common_dtype,
    defect_pixels,
)


def aupimo(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None],
    *,
    fpr_bounds: tuple[float, float] = (1e-5, 1e-4),
) -> Float[np.ndarray, " n"]:
    """AUPIMO of every anomalous image, in [0, 1].

    Normal pixels of anomalous images do not count. Good images count alike whatever their size.
    A lower bound below one good pixel is allowed: there the threshold lies above all of them.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image.
      fpr_bounds: the shared false-positive rates between which the curve is averaged.

    Returns:
      One value per image, NaN for good images; ``np.nanmean`` of it is the usual summary.

    Raises:
      UndefinedMetric: no image is good, or none is anomalous.
      ValueError: sizes differ, a map holds NaN or infinity, or the bounds are out of order.

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> masks = np.zeros((3, 8, 8))
      >>> masks[0, 2:4, 2:4] = 1
      >>> metrics.aupimo(30.0 + 5.0 * masks, masks).tolist()
      [1.0, nan, nan]
      >>> metrics.aupimo(np.full(masks.shape, 30.0), masks).round(6).tolist()
      [3.9e-05, nan, nan]
    """
    low, high = fpr_bounds
    if not 0.0 < low < high <= 1.0:
        raise ValueError(f"fpr_bounds must rise within (0, 1], not {fpr_bounds}")
    images, truth = as_maps_with_masks(maps, masks)
    truth = [defect_pixels(mask) for mask in truth]
    anomalous = [bool(mask.any()) for mask in truth]
    good = [image for image, bad in zip(images, anomalous, strict=True) if not bad]
    if not good:
        raise UndefinedMetric("no image is good" if images else "there are no images")
    if not any(anomalous):
        raise UndefinedMetric("no mask holds a defect pixel")
    value, rate = _shared_rate(good, high, common_dtype(images))
    width, lift = _weights(rate, low, high)
    result = np.full(len(images), np.nan)
    for i in np.flatnonzero(anomalous):
        scores = images[i][truth[i]]
        scores = np.sort(scores.astype(value.dtype, copy=False))
        # Recall just above each good score, and at it; a straight line joins the two.
        above = 1.0 - np.searchsorted(scores, value, side="right") / scores.size
        at = 1.0 - np.searchsorted(scores, value, side="left") / scores.size
        result[i] = np.dot(above, width) + np.dot(at - above, lift)
    return np.clip(result, 0.0, 1.0)


def _shared_rate(
    good: Sequence[np.ndarray], highest: float, dtype: np.dtype
) -> tuple[Shaped[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Distinct scores of good pixels, falling, until the shared rate has passed ``highest``."""
    flat = [image.reshape(-1).astype(dtype, copy=False) for image in good]
    # One image alone passes the bound with this many pixels, so the bound lies above its cut.
    kept = [min(int(highest * len(flat) * scores.size) + 1, scores.size) for scores in flat]
    cut = max(np.partition(s, s.size - k)[s.size - k] for s, k in zip(flat, kept, strict=True))
    top = [scores[scores >= cut] for scores in flat]
    share = [np.full(t.size, 1.0 / (len(flat) * s.size)) for t, s in zip(top, flat, strict=True)]
    tally = _counts.tally(np.concatenate(top), np.concatenate(share))
    return tally.value[::-1], np.minimum(tally.at_least()[::-1], 1.0)


def _weights(
    rate: Float[np.ndarray, " k"], low: float, high: float
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """What the curve's value above each score and its rise there weigh in the mean over log rate.

    On the piece from rate a to rate b the curve is y + (x - a) / (b - a) * rise; its integral over
    d log x has a closed form.
    """
    before = np.append(0.0, rate[:-1])
    start, end = np.clip(before, low, high), np.clip(rate, low, high)
    width = np.log(end / start)
    lift = ((end - start) - before * width) / (rate - before)
    total = math.log(high / low)
    return width / total, lift / total
