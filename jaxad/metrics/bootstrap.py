"""How sure image-level metrics are: stratified bootstrap intervals, also of a difference.

Good and anomalous images are drawn with replacement, each class among itself, so that every
resample has as many of each as the data. Intervals are percentiles of the resampled metrics.
They tell how much the metrics would vary with other test images, not with another training.

References:
  B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, sections 8.3, 13.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int, Shaped

from jaxad.metrics import _counts
from jaxad.metrics._assemble import image_result
from jaxad.metrics._inputs import as_labels_scores, as_scores

METRICS = ("image_auroc", "image_ap", "image_f1_max")
_CELLS = 4_000_000
"""Resampled counts that are held at once."""


class Estimate(NamedTuple):
    """A metric with its bootstrap interval.

    Attributes:
      value: of the data themselves.
      low: lower end.
      high: upper end.
    """

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """How much a metric differs between two score vectors of the same images.

    Attributes:
      value: metric of the second minus that of the first.
      low: lower end.
      high: upper end.
      p_value: two-sided bootstrap p-value of no difference, at least 1 / resamples.
    """

    value: float
    low: float
    high: float
    p_value: float


def bootstrap_image_metrics(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Bootstrap intervals of image AUROC, average precision and best F1.

    Args:
      labels: (n,) 0 (good) or 1 (anomalous).
      scores: (n,) raw image scores.
      confidence: of the intervals, in (0, 1).
      resamples: how many are drawn.
      seed: the same seed gives the same intervals.

    Returns:
      ``image_auroc``, ``image_ap``, ``image_f1_max``: the metric and its interval.

    Raises:
      UndefinedMetric: only one class is there.
      ValueError: shapes differ, labels or scores are wrong, or an option is out of range.

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> labels = np.repeat([0, 1], 50)
      >>> scores = np.random.default_rng(0).normal(size=100) + labels
      >>> value, low, high = metrics.bootstrap_image_metrics(labels, scores)["image_auroc"]
      >>> round(value, 3), bool(low < value < high)
      (0.741, True)
    """
    _check_options(confidence, resamples)
    anomalous, values = as_labels_scores(labels, scores)
    drawn = _resampled(anomalous, [values], resamples, seed)[0]
    metrics = image_result(anomalous, values).metrics
    ends = np.quantile(drawn, _tails(confidence), axis=0)
    return {
        name: Estimate(metrics[name], float(ends[0, k]), float(ends[1, k]))
        for k, name in enumerate(METRICS)
    }


def bootstrap_difference(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    other_scores: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired bootstrap of the difference between two detectors on the same images.

    Every resample draws the same images for both, so that what is hard for both cancels out.

    Args:
      labels: (n,) 0 (good) or 1 (anomalous).
      scores: (n,) raw scores of the first detector.
      other_scores: (n,) of the second; the ranges need not be alike.
      confidence: of the intervals, in (0, 1).
      resamples: how many are drawn.
      seed: the same seed gives the same intervals.

    Returns:
      ``image_auroc``, ``image_ap``, ``image_f1_max``: second minus first, with its interval.

    Raises:
      UndefinedMetric: only one class is there.
      ValueError: shapes differ, labels or scores are wrong, or an option is out of range.

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> labels = np.repeat([0, 1], 50)
      >>> scores = np.random.default_rng(0).normal(size=100) + labels
      >>> metrics.bootstrap_difference(labels, scores, 10 * scores)["image_auroc"]
      Difference(value=0.0, low=0.0, high=0.0, p_value=1.0)
    """
    _check_options(confidence, resamples)
    anomalous, first = as_labels_scores(labels, scores)
    second = as_scores(other_scores, "other_scores")
    if second.shape != first.shape:
        raise ValueError(f"there are {first.size} scores but {second.size} other_scores")
    before, after = _resampled(anomalous, [first, second], resamples, seed)
    metrics = [image_result(anomalous, values).metrics for values in (first, second)]
    difference = after - before
    ends = np.quantile(difference, _tails(confidence), axis=0)
    result = {}
    for k, name in enumerate(METRICS):
        against = min(np.mean(difference[:, k] <= 0), np.mean(difference[:, k] >= 0))
        result[name] = Difference(
            metrics[1][name] - metrics[0][name],
            float(ends[0, k]),
            float(ends[1, k]),
            float(min(max(2.0 * against, 1.0 / resamples), 1.0)),
        )
    return result


def _check_options(confidence: float, resamples: int) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")


def _tails(confidence: float) -> tuple[float, float]:
    return 0.5 - 0.5 * confidence, 0.5 + 0.5 * confidence


def _resampled(
    anomalous: Bool[np.ndarray, " n"],
    several: list[Shaped[np.ndarray, " n"]],
    resamples: int,
    seed: int,
) -> list[Float[np.ndarray, "r metrics"]]:
    """The metrics of every resample, for each score vector on the same draws."""
    positives = int(anomalous.sum())
    _counts.require_both_classes(positives, anomalous.size - positives, "labels")
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // anomalous.size)
    parts: list[list[np.ndarray]] = [[] for _ in several]
    for start in range(0, resamples, at_once):
        times = np.zeros((min(at_once, resamples - start), anomalous.size), np.int64)
        for members in (np.flatnonzero(anomalous), np.flatnonzero(~anomalous)):
            chance = np.full(members.size, 1.0 / members.size)
            times[:, members] = rng.multinomial(members.size, chance, size=len(times))
        for part, scores in zip(parts, several, strict=True):
            part.append(_metrics(times, anomalous, scores))
    return [np.concatenate(part) for part in parts]


def _metrics(
    times: Int[np.ndarray, "r n"],
    anomalous: Bool[np.ndarray, " n"],
    scores: Shaped[np.ndarray, " n"],
) -> Float[np.ndarray, "r metrics"]:
    """AUROC, average precision and best F1 when image i counts ``times[:, i]`` times."""
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    start = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    times = times[:, order]
    hits = np.add.reduceat(times * anomalous[order][None], start, axis=1)
    false = np.add.reduceat(times * ~anomalous[order][None], start, axis=1)
    tp, fp = np.cumsum(hits, axis=1), np.cumsum(false, axis=1)
    positives, negatives = tp[:, -1:], fp[:, -1:]
    auroc = np.sum(hits * (negatives - fp + 0.5 * false), axis=1, keepdims=True)
    auroc = auroc / (positives * negatives)
    precision = tp / np.maximum(tp + fp, 1)
    average = np.sum(hits * precision, axis=1, keepdims=True) / positives
    f1 = np.max(2.0 * tp / (positives + tp + fp), axis=1, keepdims=True)
    return np.concatenate([auroc, average, f1], axis=1)
