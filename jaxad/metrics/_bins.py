"""Counts of unboundedly many pixels in a bounded number of bins that follow the scores.

The bins part the line of scores. Their edges are scores of the first pixels, chosen by rank from
the top: fine where few pixels score higher, since small false-positive rates and precision depend
on those; the highest pixels of all are kept one by one. Later pixels are counted into the same
bins. A bin which grows too heavy is split at scores of the newest pixels; what it held before is
known to lie in the old bin only, and is kept as an interval (a "span"). So every pixel stands,
for certain, in an interval of known ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxad.metrics._intervals import Intervals, coarsen, join

STEP = 2e-4
"""Largest share of a bin among all pixels of its kind at or above it, as aimed at."""

MOST = 6e-5
"""Largest share of a bin among all pixels of its kind, and of the weight, as aimed at."""

_SLACK = 1.25
_MOST_BINS = 2**19
_MOST_SPANS = 2**18


class _Population(NamedTuple):
    """Sorted scores of one batch; `_counts` explains why defects alone carry weights."""

    normal: Shaped[np.ndarray, " n"]
    defect: Shaped[np.ndarray, " p"]
    reached: Float[np.ndarray, " p+1"]
    """Weight of the first i defect pixels, lowest score first."""


_Begins = tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]
"""Index of the first normal and the first defect pixel of each bin, in sorted scores."""


class Bins:
    """Counts in adaptive bins; about 40 bytes per bin, at most some 40 MiB whatever is added."""

    def __init__(self, dtype: np.dtype):
        self._dtype = np.dtype(dtype)
        self._edges = np.array([-np.inf], dtype)  # bin k is [edge k, edge k + 1)
        self._normal = np.zeros(1, np.int64)
        self._defect = np.zeros(1, np.int64)
        self._weight = np.zeros(1, np.float64)
        self._spans = join([], self._dtype)

    def add(
        self,
        normal: Shaped[np.ndarray, " n"],
        defect: Shaped[np.ndarray, " p"],
        weight: Float[np.ndarray, " p"],
    ) -> None:
        """Counts pixels; ``normal`` is sorted in place.

        Args:
          normal: scores of normal pixels, of the dtype of the bins, finite.
          defect: scores of defect pixels.
          weight: the weight of each defect pixel in PRO.
        """
        normal.sort()
        order = np.argsort(defect)
        reached = np.concatenate([[0.0], np.cumsum(weight[order])])
        batch = _Population(normal, defect[order], reached)
        begins = _begins(batch, self._edges)
        after = zip(_count(batch, begins), self._columns(), strict=True)
        heavy = self._heavy(*(a + b for a, b in after))
        if heavy.any():
            begins = self._split(heavy, batch, begins)
        for column, more in zip(self._columns(), _count(batch, begins), strict=True):
            column += more
        if self._edges.size > _MOST_BINS:
            self._thin()

    def absorb(self, intervals: Intervals) -> None:
        """Takes over pixels whose intervals are known."""
        self._spans = join([self._spans, intervals], self._dtype)
        if self._spans.low.size > _MOST_SPANS:
            self._spans = coarsen(self._spans, _MOST_SPANS // 2)

    def intervals(self) -> Intervals:
        """All pixels, each in the interval of which it is certain."""
        return join([self._as_intervals(self._normal + self._defect > 0), self._spans], self._dtype)

    def widened(self) -> Bins:
        """The same counts in float64, for scores that float32 cannot tell apart."""
        wide = Bins(np.dtype(np.float64))
        held = self.intervals()
        ends = held.low.astype(np.float64), held.high.astype(np.float64)
        wide.absorb(held._replace(low=ends[0], high=ends[1]))
        return wide

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._normal, self._defect, self._weight

    def _upper_ends(self) -> Shaped[np.ndarray, " k"]:
        after = np.append(self._edges[1:], np.array(np.inf, self._dtype))
        return _next(after, -np.inf)

    def _as_intervals(self, chosen: Bool[np.ndarray, " k"]) -> Intervals:
        columns = (self._edges, self._upper_ends(), *self._columns())
        return Intervals(*(column[chosen] for column in columns))

    def _heavy(
        self,
        normal: Int[np.ndarray, " k"],
        defect: Int[np.ndarray, " k"],
        weight: Float[np.ndarray, " k"],
    ) -> Bool[np.ndarray, " k"]:
        """Which bins hold too much to be one, and are no single score."""
        heavy = np.zeros(normal.size, bool)
        for column in (normal, defect):
            rank = np.cumsum(column[::-1])[::-1]
            heavy |= column > _SLACK * np.minimum(STEP * rank, MOST * rank[0])
        heavy |= weight > _SLACK * MOST * weight.sum()
        return heavy & (self._upper_ends() > self._edges)

    def _split(self, heavy: Bool[np.ndarray, " k"], batch: _Population, begins: _Begins) -> _Begins:
        """Parts heavy bins at scores of the batch; returns where the new bins begin in it."""
        candidates = _candidates(batch)
        home = np.searchsorted(self._edges, candidates, side="right") - 1
        useful = heavy[home] & (candidates > self._edges[home])
        candidates, home = candidates[useful], home[useful]
        parted = np.zeros(self._edges.size, bool)
        parted[home] = True
        parted &= self._normal + self._defect > 0
        self.absorb(self._as_intervals(parted))
        for column in self._columns():
            column[parted] = 0
        self._edges = np.insert(self._edges, home + 1, candidates)
        self._normal, self._defect, self._weight = (
            np.insert(column, home + 1, 0) for column in self._columns()
        )
        more = _begins(batch, candidates)
        return tuple(np.insert(a, home + 1, b) for a, b in zip(begins, more, strict=True))

    def _thin(self) -> None:
        """Merges neighbouring bins that together hold little."""
        everything = np.ones(self._edges.size, bool)
        coarse = coarsen(self._as_intervals(everything), _MOST_BINS // 2)
        self._edges, _, self._normal, self._defect, self._weight = coarse


def _begins(batch: _Population, edges: Shaped[np.ndarray, " k"]) -> _Begins:
    return np.searchsorted(batch.normal, edges), np.searchsorted(batch.defect, edges)


def _count(
    batch: _Population, begins: _Begins
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Normal pixels, defect pixels and weight in each bin."""
    normal, defect = begins
    return (
        np.diff(normal, append=batch.normal.size),
        np.diff(defect, append=batch.defect.size),
        np.diff(batch.reached[defect], append=batch.reached[-1]),
    )


def _candidates(batch: _Population) -> Shaped[np.ndarray, " m"]:
    """Edges that part a batch well: its scores by rank.

    The highest scores and frequent ones get a bin of their own each, so that they stay exact.
    """
    total = batch.reached[-1]
    by_weight = np.searchsorted(batch.reached[1:], total * np.arange(0.0, 1.0, MOST))
    chosen = [
        batch.normal[_ranks(batch.normal.size)],
        batch.defect[_ranks(batch.defect.size)],
        batch.defect[by_weight[by_weight < batch.defect.size]],
    ]
    alone = [scores[1:][scores[1:] == scores[:-1]] for scores in chosen]
    alone += [scores[-int(1 / STEP) :] for scores in chosen[:2]]
    after = _next(np.concatenate(alone), np.inf)
    return _distinct(np.sort(np.concatenate([*chosen, after])))


def _next(scores: Shaped[np.ndarray, " m"], towards: float) -> Shaped[np.ndarray, " m"]:
    # Beyond the largest number lies infinity, as it should.
    with np.errstate(over="ignore"):
        return np.nextafter(scores, np.array(towards, scores.dtype))


def _ranks(size: int) -> Int[np.ndarray, " m"]:
    """Indices into ascending scores: the highest one by one, then in ever larger steps."""
    if not size:
        return np.empty(0, np.int64)
    fine = min(size, int(1 / STEP))
    # From this rank on a step in proportion to it would be too large a share of all.
    knee = max(fine, MOST / STEP * size)
    growing = fine * np.exp(STEP * np.arange(1, int(np.log(max(knee / fine, 1)) / STEP) + 1))
    equal = np.arange(knee, size, max(MOST * size, 1.0))
    rank = np.concatenate([np.arange(1, fine + 1), growing, equal, [size]]).astype(np.int64)
    return size - _distinct(rank)[::-1]


def _distinct(ascending: Shaped[np.ndarray, " m"]) -> Shaped[np.ndarray, " k"]:
    # np.unique would hash what is sorted already, at several times the cost.
    new = np.append(ascending[:1] == ascending[:1], ascending[1:] != ascending[:-1])
    return ascending[new & (ascending < np.inf)]
