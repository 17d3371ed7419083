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
from jaxtyping import Bool, Float, Shaped

from jaxad.metrics import _counts
from jaxad.metrics._curves import PixelCurve
from jaxad.metrics._pixels import Totals

ROUNDING = 1e-9
"""By how much all bounds are widened: more than float64 sums of 1e9 terms are off in practice."""


class Bounds(NamedTuple):
    """Certified bounds of a metric: its exact value lies in [low, high]."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """At most half the width from the exact value."""
        return 0.5 * (self.low + self.high)


class Intervals(NamedTuple):
    """Pixels of which only an interval of scores is known; k intervals in any order.

    Attributes:
      low: lower end, inclusive; -inf where there is none.
      high: upper end, inclusive; at least ``low``.
      held: what each holds: number of normal pixels, number of defect pixels, and the sum of the
        latter's weights in PRO.
    """

    low: Shaped[np.ndarray, " k"]
    high: Shaped[np.ndarray, " k"]
    held: Float[np.ndarray, "3 k"]

    def take(self, which: Bool[np.ndarray, " k"] | Shaped[np.ndarray, " m"]) -> Intervals:
        """Some of them."""
        index = np.flatnonzero(which) if which.dtype == bool else which
        return Intervals(self.low[index], self.high[index], self.held.take(index, axis=1))


def join(parts: Sequence[Intervals], dtype: np.dtype) -> Intervals:
    """All intervals of several sets."""
    none = Intervals(np.empty(0, dtype), np.empty(0, dtype), np.empty((3, 0)))
    columns = zip(none, *parts, strict=True)
    return Intervals(*(np.concatenate(column, axis=-1) for column in columns))


def coarsen(intervals: Intervals, size: int) -> Intervals:
    """At most about ``size`` intervals: neighbours become one that reaches over both.

    Every result has a similar share of pixels, counted relative to all that score higher, since
    that is the share that matters for precision and for small false-positive rates.
    """
    ordered = intervals.take(np.argsort(intervals.low))
    normal, defect, weight = ordered.held
    # The share of each interval in what has to be told apart: 3 in all.
    load = weight / max(weight.sum(), 1.0)
    for column in (normal, defect):
        share = column / np.maximum(at_or_above(column), 1)
        load = load + share / max(share.sum(), 1.0)
    cell = np.floor(at_or_above(load) * (size / 3)).astype(np.int64)
    start = np.flatnonzero(np.append(True, cell[1:] != cell[:-1]))
    return Intervals(
        ordered.low[start],
        np.maximum.reduceat(ordered.high, start),
        np.add.reduceat(ordered.held, start, axis=1),
    )


def at_or_above(ascending: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The sum of each entry and all after it."""
    return np.cumsum(ascending[::-1])[::-1]


class BinnedPixels:
    """Pixels of which intervals are known.

    Args:
      intervals: of all pixels.
      components: number of connected components, the sum of all weights.
    """

    method = "streaming"

    def __init__(self, intervals: Intervals, components: int):
        self._intervals, self._components = intervals, components

    @functools.cached_property
    def _defect(self) -> Intervals:
        return self._intervals.take(self._intervals.held[1] > 0)

    @functools.cached_property
    def _normal_low(self) -> _counts.Tally:
        normal = self._intervals.take(self._intervals.held[0] > 0)
        return _counts.tally(normal.low, normal.held[0])

    @functools.cached_property
    def _normal_high(self) -> _counts.Tally:
        normal = self._intervals.take(self._intervals.held[0] > 0)
        return _counts.tally(normal.high, normal.held[0])

    def totals(self) -> Totals:
        """How many there are."""
        normal, defect, _ = self._intervals.held.sum(axis=1)
        return Totals(int(normal), int(defect), self._components)

    def joined(self, others: Sequence[BinnedPixels]) -> BinnedPixels:
        """Several groups as one."""
        groups = [self, *others]
        intervals = join([group._intervals for group in groups], self._intervals.low.dtype)
        return BinnedPixels(intervals, sum(group._components for group in groups))

    def curve(self) -> PixelCurve:
        """As if all pixels stood at their lower ends."""
        return self._curve(self._defect.low, self._normal_low)

    def pooled_metrics(self, limit: float, tpr: float = 0.95) -> dict[str, Bounds]:
        """Of pixels of both kinds: bounds of what `PixelScores.pooled_metrics` gives."""
        low, high, _ = self._defect
        worst = self._curve(low, self._normal_high).ranking_metrics(limit, tpr)
        best = self._curve(high, self._normal_low).ranking_metrics(limit, tpr)
        ranking = {name: _widened(*sorted((worst[name], best[name]))) for name in worst}
        return ranking | {"pixel_ap": self._average_precision()}

    def _curve(self, at: Shaped[np.ndarray, " k"], normal: _counts.Tally) -> PixelCurve:
        """When all defect pixels stand at ``at``."""
        _, number, weight = self._defect.held
        counts = _counts.count_tallies(_counts.tally(at, number), normal)
        covered = _counts.tally(at, weight).at_least()[::-1]
        overlap = np.minimum(covered / self._components, 1.0)
        overlap[-1] = 1.0  # which the sum of weights gives only up to rounding
        return PixelCurve(counts, overlap, counts.negatives)

    def _average_precision(self) -> Bounds:
        low, high, (_, number, _) = self._defect
        at_low = _counts.tally(low, number)
        # A defect pixel at score s has precision TP(>= s) / (TP(>= s) + FP(>= s)), and s lies in
        # its interval: at most as many hits as can reach its lower end, at least the false alarms
        # which certainly reach its upper end.
        hits = _counts.tally(high, number).reach(low)
        at_most = number * (hits / (hits + self._normal_low.reach(high)))
        # The j-th best of an interval's t pixels has those certainly above it and j of its own.
        above, false = at_low.reach(high), self._normal_high.reach(low)
        point = low == high
        hits = np.where(point, above, above + number)
        tied = number * (hits / (hits + false))
        by_interval = np.where(point, tied, _sum_of_precisions(above, number, false))
        # The r-th highest defect score is at least the r-th highest lower end.
        above, false = at_low.at_least() - at_low.number, self._normal_high.reach(at_low.value)
        by_order = _sum_of_precisions(above, at_low.number, false)
        total = number.sum()
        at_least = max(by_interval.sum() / total, by_order.sum() / total)
        return _widened(float(at_least), float(at_most.sum() / total))


def _sum_of_precisions(
    above: Float[np.ndarray, " k"], own: Float[np.ndarray, " k"], false: Float[np.ndarray, " k"]
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


def _widened(low: float, high: float) -> Bounds:
    return Bounds(max(low - ROUNDING, 0.0), min(high + ROUNDING, 1.0))
