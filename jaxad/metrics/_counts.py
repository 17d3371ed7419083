"""Exact confusion counts at the scores of the positives: all that ROC, PR and PRO areas need.

Between two successive distinct scores of positives only negatives are passed, so a ROC or a PRO
curve runs horizontally there and average precision does not move. Hence the corners of every
curve lie at the scores of positives, just before and just after each; the (usually far more
numerous) negatives need only be sorted by value and searched, never permuted. Ties between
positives and negatives are exact: ``fp_above`` is without them, ``fp`` with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Num, Shaped

from jaxad.metrics._inputs import UndefinedMetric


class Counts(NamedTuple):
    """Counts at the k distinct scores of positives, the highest first.

    Attributes:
      threshold: the distinct scores.
      tp: positives with a score >= threshold.
      fp: negatives with a score >= threshold.
      fp_above: negatives with a score > threshold.
      positives: number of positives, ``tp[-1]``.
      negatives: number of negatives.
    """

    threshold: Shaped[np.ndarray, " k"]
    tp: Num[np.ndarray, " k"]
    fp: Num[np.ndarray, " k"]
    fp_above: Num[np.ndarray, " k"]
    positives: int
    negatives: int


def count(
    positive: Shaped[np.ndarray, " p"], negative: Sequence[Shaped[np.ndarray, " _"]]
) -> Counts:
    """Counts from sorted scores, in O(p log n) for p positives and n negatives.

    Args:
      positive: scores of the positives, ascending.
      negative: scores of the negatives, in one or several arrays, each ascending. Counts add
        up over the arrays, so groups are sorted once and combined freely.
    """
    first = np.ones(positive.size, bool)
    np.not_equal(positive[1:], positive[:-1], out=first[1:])
    start = np.flatnonzero(first)
    value = positive[start]
    total = sum(part.size for part in negative)
    below = np.zeros(value.size, np.int64)
    equal = np.zeros(value.size, np.int64)
    for part in negative:
        left = np.searchsorted(part, value, side="left")
        below += left
        if part.size:
            # Ties with negatives are rare in real scores: search again only for those.
            tied = np.flatnonzero(part[np.minimum(left, part.size - 1)] == value)
            right = np.searchsorted(part, value[tied], side="right")
            equal[tied] += np.maximum(right - left[tied], 0)
    fp = total - below
    return Counts(
        threshold=value[::-1],
        tp=(positive.size - start)[::-1],
        fp=fp[::-1],
        fp_above=(fp - equal)[::-1],
        positives=positive.size,
        negatives=total,
    )


class Tally(NamedTuple):
    """How many pixels, or how much weight, stand at each of k distinct scores, ascending."""

    value: Shaped[np.ndarray, " k"]
    number: Float[np.ndarray, " k"]

    def at_least(self) -> Float[np.ndarray, " k"]:
        """The number at or above each score."""
        return np.cumsum(self.number[::-1])[::-1]

    def reach(
        self, score: Shaped[np.ndarray, " m"], *, strictly: bool = False
    ) -> Float[np.ndarray, " m"]:
        """The number at or above other scores; ``strictly`` above them."""
        side: Literal["left", "right"] = "right" if strictly else "left"
        return np.append(self.at_least(), 0.0)[np.searchsorted(self.value, score, side=side)]


def tally(value: Shaped[np.ndarray, " k"], number: Float[np.ndarray, " k"]) -> Tally:
    """Sorts scores and adds up the numbers at equal ones."""
    if not value.size:
        return Tally(value, number)
    order = np.argsort(value)
    value, number = value[order], number[order]
    start = np.flatnonzero(np.append(True, value[1:] != value[:-1]))
    return Tally(value[start], np.add.reduceat(number, start))


def count_tallies(positive: Tally, negative: Tally) -> Counts:
    """Counts of tallied scores; see `count`."""
    tp = positive.at_least()[::-1]
    threshold = positive.value[::-1]
    return Counts(
        threshold=threshold,
        tp=tp,
        fp=negative.reach(threshold),
        fp_above=negative.reach(threshold, strictly=True),
        positives=int(tp[-1]),
        negatives=int(negative.number.sum()),
    )


def require_both_classes(positives: int, negatives: int, unit: str) -> None:
    """Raises `UndefinedMetric` unless there are positives and negatives.

    Args:
      positives: how many there are.
      negatives: how many there are.
      unit: what is counted, in the plural, for the reason ("labels", "pixels").
    """
    if not positives and not negatives:
        raise UndefinedMetric(f"there are no {unit}")
    if not positives:
        raise UndefinedMetric(f"none of the {negatives} {unit} is anomalous")
    if not negatives:
        raise UndefinedMetric(f"all {positives} {unit} are anomalous")


def auroc_of(counts: Counts) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half."""
    won = counts.negatives - 0.5 * (counts.fp + counts.fp_above)
    return float(np.sum(_hits(counts) * won) / (counts.positives * float(counts.negatives)))


def average_precision_of(counts: Counts) -> float:
    """Mean precision over the positives, each at its own score: the step-wise area under PR."""
    precision = counts.tp / (counts.tp + counts.fp)
    return float(np.sum(_hits(counts) * precision) / counts.positives)


def pr_auc_trapezoid_of(counts: Counts) -> float:
    """Area under the straight-line PR curve which starts at recall 0, precision 1."""
    precision = counts.tp / (counts.tp + counts.fp)
    before_tp = np.concatenate([[0], counts.tp[:-1]])
    before = before_tp + counts.fp_above
    # With nothing above the first threshold the curve starts at its anchor, precision 1.
    precision_before = np.where(before > 0, before_tp / np.maximum(before, 1), 1.0)
    heights = 0.5 * (precision + precision_before)
    return float(np.sum(_hits(counts) * heights) / counts.positives)


def best_f1_of(counts: Counts) -> tuple[float, float]:
    """The largest F1 over all thresholds and the highest threshold which reaches it."""
    f1 = 2.0 * counts.tp / (counts.positives + counts.tp + counts.fp)
    best = int(np.argmax(f1))
    return float(f1[best]), float(counts.threshold[best])


def fpr_at_tpr_of(counts: Counts, tpr: float) -> float:
    """False-positive rate at the highest threshold whose true-positive rate is at least ``tpr``."""
    # An integer bound, so that a share such as 0.95 of 20 is met by 19 despite its rounding.
    enough = max(math.ceil(tpr * counts.positives - 1e-9 * counts.positives), 1)
    return float(counts.fp[np.searchsorted(counts.tp, enough)] / counts.negatives)


def _hits(counts: Counts) -> Float[np.ndarray, " k"]:
    return np.diff(counts.tp, prepend=0).astype(np.float64)
