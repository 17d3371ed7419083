"""Certified bounds of every pixel metric when each score is only known to lie in an interval.

An interval holds some normal and some defect pixels whose scores lie anywhere between its ends.
No metric of ranking falls when a defect pixel rises or a normal pixel sinks, so ROC and PRO areas,
the best F1 and the false-positive rate at a recall lie between two extremes: all defect pixels at
the upper ends and all normal ones at the lower ends, and the reverse. Average precision is the
exception: a tie can be worth more than any order of its members, so its bounds are taken pixel by
pixel. Intervals may overlap and may be single points, where ties are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxad.metrics import _counts, pro

ROUNDING = 1e-9
"""By how much every bracket is widened: more than float64 sums of 1e9 terms are off in practice."""


class Bracket(NamedTuple):
    """A certified enclosure: the exact value lies in [low, high]."""

    low: float
    high: float

    @property
    def value(self) -> float:
        """The middle, at most half the width from the exact value."""
        return 0.5 * (self.low + self.high)


class Intervals(NamedTuple):
    """Pixels of which only an interval of scores is known; k intervals in any order.

    Attributes:
      low: lower end, inclusive; -inf where there is none.
      high: upper end, inclusive; at least ``low``.
      normal: number of normal pixels.
      defect: number of defect pixels.
      weight: their weights in PRO, added up.
    """

    low: Shaped[np.ndarray, " k"]
    high: Shaped[np.ndarray, " k"]
    normal: Int[np.ndarray, " k"]
    defect: Int[np.ndarray, " k"]
    weight: Float[np.ndarray, " k"]


def join(parts: Sequence[Intervals], dtype: np.dtype) -> Intervals:
    """All intervals of several sets."""
    none = Intervals(
        np.empty(0, dtype),
        np.empty(0, dtype),
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.float64),
    )
    return Intervals(*(np.concatenate(columns) for columns in zip(none, *parts, strict=True)))


def coarsen(intervals: Intervals, size: int) -> Intervals:
    """At most about ``size`` intervals: neighbours become one that reaches over both.

    Every result has a similar share of pixels, counted relative to all that score higher, since
    that is the share that matters for precision and for small false-positive rates.
    """
    order = np.argsort(intervals.low)
    ordered = Intervals(*(column[order] for column in intervals))
    cell = np.floor(np.cumsum(_load(ordered)[::-1])[::-1] * (size / 3)).astype(np.int64)
    first = np.append(True, cell[1:] != cell[:-1])
    start = np.flatnonzero(first)
    return Intervals(
        ordered.low[start],
        np.maximum.reduceat(ordered.high, start),
        *(np.add.reduceat(column, start) for column in ordered[2:]),
    )


def _load(ordered: Intervals) -> Float[np.ndarray, " k"]:
    """Share of each interval in what has to be told apart; ascending intervals, 3 in all."""
    load = np.zeros(ordered.low.size)
    for column in (ordered.normal, ordered.defect):
        rank = np.cumsum(column[::-1])[::-1]
        share = column / np.maximum(rank, 1)
        load += share / max(share.sum(), 1.0)
    return load + ordered.weight / max(ordered.weight.sum(), 1.0)


class Bounds:
    """Brackets of the pixel metrics of some intervals that hold both kinds of pixels.

    Args:
      intervals: of all pixels.
      components: number of connected components, the sum of all weights.
    """

    def __init__(self, intervals: Intervals, components: int):
        self._components = components
        defect = intervals.defect > 0
        normal = intervals.normal > 0
        self._defect = Intervals(*(column[defect] for column in intervals))
        self._normal_low = _counts.tally(intervals.low[normal], intervals.normal[normal])
        self._normal_high = _counts.tally(intervals.high[normal], intervals.normal[normal])

    @functools.cached_property
    def _worst(self) -> tuple[_counts.Counts, Float[np.ndarray, " k"]]:
        return self._extreme(self._defect.low, self._normal_high)

    @functools.cached_property
    def _best(self) -> tuple[_counts.Counts, Float[np.ndarray, " k"]]:
        return self._extreme(self._defect.high, self._normal_low)

    def _extreme(
        self, at: Shaped[np.ndarray, " k"], normal: _counts.Tally
    ) -> tuple[_counts.Counts, Float[np.ndarray, " k"]]:
        """Counts when all defect pixels stand at ``at``, and the share of regions covered."""
        defect = _counts.tally(at, self._defect.defect)
        weight = _counts.tally(at, self._defect.weight)
        covered = np.minimum(weight.at_least()[::-1] / self._components, 1.0)
        covered[-1] = 1.0
        return _counts.count_tallies(defect, normal), covered

    def tied(self) -> tuple[_counts.Counts, Float[np.ndarray, " k"]]:
        """Counts when all pixels stand at their lower ends, and the share of regions covered."""
        return self._extreme(self._defect.low, self._normal_low)

    def auroc(self) -> Bracket:
        """Of the area under the ROC curve."""
        return _bracket(_counts.auroc_of(self._worst[0]), _counts.auroc_of(self._best[0]))

    def best_f1(self) -> Bracket:
        """Of the largest F1 over all thresholds."""
        return _bracket(_counts.best_f1_of(self._worst[0])[0], _counts.best_f1_of(self._best[0])[0])

    def fpr_at_tpr(self, tpr: float) -> Bracket:
        """Of the false-positive rate at the highest threshold that reaches a recall."""
        rates = [_counts.fpr_at_tpr_of(counts, tpr) for counts, _ in (self._best, self._worst)]
        return _bracket(*rates)

    def aupro(self, limit: float) -> Bracket:
        """Of the area under the PRO curve up to a false-positive rate, over that rate."""
        low, high = (
            pro.area_up_to(*pro.corners(counts, covered, counts.negatives), limit)
            for counts, covered in (self._worst, self._best)
        )
        return _bracket(low, high)

    def average_precision(self) -> Bracket:
        """Of the average precision."""
        low = max(self._precision_by_interval(), self._precision_by_order())
        return _bracket(low, self._precision_at_most())

    def _precision_at_most(self) -> float:
        # A defect pixel at score s has precision TP(>= s) / (TP(>= s) + FP(>= s)), and s lies in
        # its interval: at most as many hits as can reach its lower end, at least the false alarms
        # which certainly reach its upper end.
        part = self._defect
        hits = _counts.tally(part.high, part.defect).reach(part.low)
        false = self._normal_low.reach(part.high)
        return float(np.sum(part.defect * (hits / (hits + false))) / part.defect.sum())

    def _precision_by_interval(self) -> float:
        # The j-th best of an interval's t pixels has those certainly above it and j of its own.
        part = self._defect
        above = _counts.tally(part.low, part.defect).reach(part.high)
        false = self._normal_high.reach(part.low)
        point = part.low == part.high
        hits = np.where(point, above, above + part.defect)
        tied = part.defect * (hits / (hits + false))
        total = np.where(point, tied, _sum_of_precisions(above, part.defect, false))
        return float(total.sum() / part.defect.sum())

    def _precision_by_order(self) -> float:
        # The r-th highest defect score is at least the r-th highest lower end.
        at_ends = _counts.tally(self._defect.low, self._defect.defect)
        reach = at_ends.at_least()
        false = self._normal_high.reach(at_ends.value)
        total = _sum_of_precisions(reach - at_ends.number, at_ends.number, false)
        return float(total.sum() / self._defect.defect.sum())


def _sum_of_precisions(
    above: Int[np.ndarray, " k"], own: Int[np.ndarray, " k"], false: Int[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """A lower bound of the sum of (above + j) / (above + j + false) over j = 1 ... own.

    The summand rises and is concave in j. So the sum is at least its number of terms times the
    mean of the first and the last, and at least the integral from 0 to ``own``.
    """
    first = (above + 1) / (above + 1 + false)
    last = (above + own) / (above + own + false)
    start = np.maximum(above + false, 1)
    # With nothing above and nothing false every precision is 1, which the chord gives.
    integral = np.where(above + false > 0, own - false * np.log1p(own / start), 0.0)
    return np.maximum(0.5 * own * (first + last), integral)


def _bracket(low: float, high: float) -> Bracket:
    return Bracket(max(low - ROUNDING, 0.0), min(high + ROUNDING, 1.0))
