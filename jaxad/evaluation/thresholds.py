"""The rules by which scores of good images become a threshold, and a threshold a verdict.

Pure functions of numbers. Which images the scores come from is the business of
:mod:`jaxad.evaluation.calibration`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, special

from jaxad.evaluation.resize import AnyMap, columns_of
from jaxad.run.errors import UserError

MARGIN = 1e-4
"""Distance of an image threshold from every score of a good image, relative to the scores' size.

The same image alone, in batches of 3 or of 16, gives scores that differ by the rounding of float32,
some 1e-7 of their size; 1e-5 where an accelerator chooses another algorithm. A threshold that
equals a score would decide by that rounding.
"""

SHOWN_SHARE = 0.01
"""Of the pixels of a rejected image that are outlined where none exceeds the pixel threshold."""

CONFIDENCE = 0.95
"""Of the intervals in which a false-positive rate lies."""


class ImageThreshold(NamedTuple):
    """A threshold from the scores of good images.

    Attributes:
      value: an image is rejected over it.
      rejected: k, how many of the n good images exceed it.
      promised: (k + 1) / (n + 1), the expected share of new good images over it.
      interval: in which the share lies with a probability of :data:`CONFIDENCE`.
    """

    value: float
    rejected: int
    promised: float
    interval: tuple[float, float]


def conformal_threshold(scores: Float[np.ndarray, " n"], rate: float) -> ImageThreshold:
    """The threshold that new good images exceed at most at a rate, on average over calibrations.

    The conformal quantile: of n + 1 exchangeable scores each is as likely to be the largest, the
    second largest and so on, so a new one exceeds the (k + 1)-th largest of n others with a
    probability of at most (k + 1) / (n + 1) (V. Vovk, A. Gammerman, G. Shafer, "Algorithmic
    Learning in a Random World", 2005, proposition 2.3). k is the largest that keeps this within
    the rate, 0 where none does. Given the n scores, the share of new ones over the (k + 1)-th
    largest is distributed as Beta(k + 1, n - k), the law of an order statistic.

    The threshold lies above that score by a margin (:data:`MARGIN`), and at least as far below the
    next: scores closer to each other than that are passed over.

    Args:
      scores: of n good images that the model has not seen, n at least 1.
      rate: false-positive rate, in [0, 1).
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    n = len(ordered)
    # The small addend undoes rounding: 0.29 * 100 is 28.999...
    allowed = max(int(np.floor(rate * (n + 1) + 1e-9)) - 1, 0)
    margin = margin_of(ordered)
    place = n - 1 - allowed
    while place + 1 < n and ordered[place + 1] - ordered[place] < 2 * margin:
        place += 1
    k = n - 1 - place
    # Quantiles of that Beta; scipy.stats has them too, and takes a third of a second to import.
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = special.betaincinv(k + 1, n - k, tails)
    return ImageThreshold(
        float(ordered[place] + margin), k, (k + 1) / (n + 1), (float(low), float(high))
    )


def margin_of(scores: Float[np.ndarray, " n"]) -> float:
    """How far a threshold keeps from the scores of good images."""
    return max(MARGIN * float(np.max(np.abs(scores))), 1e-12)


def pixel_threshold(values: Float[np.ndarray, " n"], rate: float) -> float:
    """The smallest threshold that at most ``rate`` of good pixels exceed.

    Args:
      values: of pixels, at least one.
      rate: share that may lie strictly above, in [0, 1).

    Returns:
      One of the values, so that "greater than" marks at most ``floor(rate * n)`` of them.
    """
    allowed = int(np.floor(rate * len(values) + 1e-9))
    return float(np.partition(values, len(values) - 1 - allowed)[len(values) - 1 - allowed])


def region_threshold(peaks: Float[np.ndarray, " n"], rate: float) -> float:
    """The value that the highest pixel of a predicted region must exceed on a large map.

    A pixel threshold lets a share of all good pixels pass: hundreds of specks of a map of millions.
    The region of a defect has a pixel that no good image, or but a share of them, has anywhere.

    Args:
      peaks: the highest pixel of each of n good images.
      rate: share of new good images that may have a region.

    Returns:
      The conformal quantile of the peaks (:func:`conformal_threshold`).
    """
    return conformal_threshold(peaks, rate).value


def with_peak(
    over: Bool[np.ndarray, "h w"], heat: AnyMap, threshold: float
) -> Bool[np.ndarray, "h w"]:
    """The connected components (of eight neighbours) that have a pixel over a threshold."""
    labels, count = ndimage.label(over, np.ones((3, 3), bool))
    kept, found = np.zeros(count + 1, bool), np.empty_like(over)
    for part in columns_of(over.shape):
        kept[labels[:, part][over[:, part] & (heat[:, part] > threshold)]] = True
    for part in columns_of(over.shape):
        found[:, part] = kept[labels[:, part]]
    return found


def _over(
    heat: AnyMap, threshold: float | np.floating, compare: np.ufunc = np.greater
) -> Bool[np.ndarray, "h w"]:
    over = np.empty(heat.shape, bool)
    for part in columns_of(heat.shape):
        compare(heat[:, part], threshold, out=over[:, part])
    return over


def _highest(heat: AnyMap, count: int) -> np.floating:
    """The value that so many pixels have or exceed."""
    found = heat[:, :0].ravel()
    for part in columns_of(heat.shape):
        found = np.concatenate([found, heat[:, part].ravel()])
        if found.size > count:
            found = np.partition(found, found.size - count)[found.size - count :]
    return found.min()


def predicted_pixels(
    heat: AnyMap,
    decision: bool | None,
    threshold: float | None,
    region: float | None = None,
    inside: Bool[np.ndarray, "h w"] | None = None,
) -> Bool[np.ndarray, "h w"] | None:
    """The pixels that are outlined, which never contradict the decision about the image.

    Args:
      heat: the map, at any size.
      decision: True = rejected; None without an image threshold.
      threshold: of pixels.
      region: that the highest pixel of a region must exceed (:func:`region_threshold`); None: every
        pixel over the threshold counts.
      inside: the pixels that are judged, of which alone any are outlined; None: all.

    Returns:
      None without a threshold. None of the pixels of an accepted image; of a rejected one those
      over the threshold or, where there are none, the highest :data:`SHOWN_SHARE`; with a threshold
      of regions those of such regions or, where there are none, the region of the highest pixel.
    """
    if threshold is None:
        return None
    size = heat.size
    if inside is not None:
        heat, size = np.where(inside, heat[:, :], -np.inf), int(np.count_nonzero(inside))
    over = _over(heat, threshold)
    if decision is False:
        return np.zeros_like(over)
    if region is not None and over.any():
        found = with_peak(over, heat, region)
        if decision is None or found.any():
            return found
        highest = float(np.nextafter(_highest(heat, 1), np.float32(-np.inf)))
        return with_peak(over, heat, highest)
    if decision is None or over.any():
        return over
    count = max(1, int(SHOWN_SHARE * size))
    return _over(heat, _highest(heat, count), np.greater_equal)


def odd_limit(scores: Float[np.ndarray, " n"]) -> float:
    """The score over which a good image is worth a look: Tukey's fence.

    J. W. Tukey, "Exploratory Data Analysis", 1977: the third quartile and 1.5 times the distance
    between the quartiles. A few odd images among many move it little.
    """
    first, third = np.percentile(np.asarray(scores, np.float64), [25, 75])
    return float(third + 1.5 * (third - first))


BY_HAND = 'a score such as 0.2, "fpr:0.02" or "recall:0.95" on labelled images, or auto'
"""What ``evaluate.image_threshold`` takes, in words."""


class ByHand(NamedTuple):
    """What ``evaluate.image_threshold`` asks for.

    Attributes:
      kind: ``"score"``, ``"fpr"`` (false-positive rate) or ``"recall"``, both of labelled images.
      value: the threshold or the rate.
    """

    kind: str
    value: float


def parse_by_hand(text: str) -> ByHand | None:
    """Reads ``evaluate.image_threshold``; None where the calibration decides.

    Raises:
      UserError: it is none of :data:`BY_HAND`.
    """
    if text in ("", "auto"):
        return None
    kind, colon, number = text.rpartition(":")
    kind = kind if colon else "score"
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    rates = {"fpr": 0 <= value < 1, "recall": 0 < value <= 1, "score": np.isfinite(value)}
    if not rates.get(kind, False):
        raise UserError(f"the config key 'evaluate.image_threshold' takes {BY_HAND}, not {text!r}")
    return ByHand(kind, value)


def labelled_threshold(
    asked: ByHand, scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]
) -> float:
    """The threshold with a false-positive rate or a recall on labelled images.

    Args:
      asked: its kind is ``"fpr"`` or ``"recall"``.
      scores: of the images.
      labels: whether they are anomalous.

    Returns:
      The lowest threshold over which at most the rate of the good images lie, or the highest over
      which at least the recall of the anomalous ones do; by a margin in either case.

    Raises:
      UserError: no image has the label that is needed.
    """
    wanted = asked.kind == "recall"
    chosen = np.sort(np.asarray(scores, np.float64)[labels == wanted])
    if not len(chosen):
        raise UserError(
            f"evaluate.image_threshold={asked.kind}:{asked.value:g} needs "
            f"{'defective' if wanted else 'good'} test images, and there are none; give a score"
        )
    margin = margin_of(chosen)
    if wanted:
        missed = len(chosen) - int(np.ceil(asked.value * len(chosen) - 1e-9))
        return float(chosen[missed] - margin)
    allowed = int(np.floor(asked.value * len(chosen) + 1e-9))
    return float(chosen[len(chosen) - 1 - allowed] + margin)
