"""Counts of unboundedly many pixels in a bounded number of bins that follow the scores.

The bins part the line of scores: bin k holds the pixels from edge k up to, but without, edge
k + 1. Their edges are scores of the first pixels, chosen by rank from the top: fine where few
pixels score higher, since small false-positive rates and precision depend on those; the highest
pixels of all are kept one by one. Later pixels are counted into the same bins.

A bin which grows too heavy is split at scores of the newest pixels. On which side of these its
earlier pixels lie is no longer known: they leave the bins and are kept as an interval that
reaches over the old bin. So every pixel stands, for certain, in an interval of known ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxad.metrics._intervals import Intervals, at_or_above, coarsen, join
from jaxad.metrics._pixels import PixelScores

SHARE_OF_HIGHER = 2e-4
"""Aim: no bin holds a larger share of the pixels of its kind at or above it."""

SHARE_OF_ALL = 6e-5
"""Aim: no bin holds a larger share of all pixels of its kind, or of all weight."""

_SLACK = 1.25
"""A bin is split when it holds this many times what is aimed at."""

_MAX_BINS = 2**19
_MAX_INTERVALS = 2**18


class Bins:
    """Counts in adaptive bins; about 40 bytes per bin, at most some 40 MiB whatever is added."""

    def __init__(self, dtype: np.dtype):
        """Starts with one bin for all scores of a float dtype."""
        self._dtype = dtype
        self._edges = np.array([-np.inf], dtype)
        # In each bin: normal pixels, defect pixels, and the sum of the latter's weights.
        self._held = np.zeros((3, 1))
        self._intervals = join([], dtype)

    def add(self, pixels: PixelScores) -> None:
        """Counts pixels; the normal ones are sorted in place.

        Args:
          pixels: unsorted, of the dtype of the bins, finite; the normal ones in one array.
        """
        batch = _Batch.of(pixels)
        begins = batch.begins(self._edges)
        heavy = self._heavy(self._held + batch.held(begins))
        if heavy.any():
            begins = self._split(heavy, batch, begins)
        self._held += batch.held(begins)
        if self._edges.size > _MAX_BINS:
            self._merge_neighbours()

    def absorb(self, intervals: Intervals) -> None:
        """Takes over pixels whose intervals are known."""
        self._intervals = join([self._intervals, intervals], self._dtype)
        if self._intervals.low.size > _MAX_INTERVALS:
            self._intervals = coarsen(self._intervals, _MAX_INTERVALS // 2)

    def intervals(self) -> Intervals:
        """All pixels, each in the interval of which it is certain."""
        filled = self._as_intervals().take(self._filled())
        return join([filled, self._intervals], self._dtype)

    def widened(self) -> Bins:
        """The same counts in float64, for scores that float32 cannot tell apart."""
        wide = Bins(np.dtype(np.float64))
        low, high, held = self.intervals()
        wide.absorb(Intervals(low.astype(np.float64), high.astype(np.float64), held))
        return wide

    def _filled(self) -> Bool[np.ndarray, " k"]:
        normal, defect, _ = self._held
        return normal + defect > 0

    def _as_intervals(self) -> Intervals:
        next_edges = np.append(self._edges[1:], np.array(np.inf, self._dtype))
        return Intervals(self._edges, _next_float(next_edges, towards=-np.inf), self._held)

    def _heavy(self, held: Float[np.ndarray, "3 k"]) -> Bool[np.ndarray, " k"]:
        """Which bins would hold too much to be one, and are no single score."""
        *kinds, weight = held
        heavy = weight > _SLACK * SHARE_OF_ALL * weight.sum()
        for number in kinds:
            rank = at_or_above(number)
            aim = np.minimum(SHARE_OF_HIGHER * rank, SHARE_OF_ALL * rank[0])
            heavy |= number > _SLACK * aim
        low, high, _ = self._as_intervals()
        return heavy & (high > low)

    def _split(self, heavy: Bool[np.ndarray, " k"], batch: _Batch, begins: _Begins) -> _Begins:
        """Splits heavy bins at scores of the batch; returns where the new bins begin in it."""
        new = batch.split_points()
        home = np.searchsorted(self._edges, new, side="right") - 1
        useful = heavy[home] & (new > self._edges[home])
        new, home = new[useful], home[useful]
        split = np.zeros(self._edges.size, bool)
        split[home] = True
        self.absorb(self._as_intervals().take(split & self._filled()))
        self._held[:, split] = 0
        self._edges = np.insert(self._edges, home + 1, new)
        # Row by row, which is twice as fast as along an axis.
        self._held = np.stack([np.insert(row, home + 1, 0) for row in self._held])
        more = batch.begins(new)
        return _Begins(
            np.insert(begins.normal, home + 1, more.normal),
            np.insert(begins.defect, home + 1, more.defect),
        )

    def _merge_neighbours(self) -> None:
        """Makes one bin of neighbours that together hold little."""
        self._edges, _, self._held = coarsen(self._as_intervals(), _MAX_BINS // 2)


class _Begins(NamedTuple):
    """Index of the first normal and of the first defect pixel of each of k bins."""

    normal: Int[np.ndarray, " k"]
    defect: Int[np.ndarray, " k"]


class _Batch(NamedTuple):
    """Sorted scores of new pixels; `_counts` explains why defects alone carry weights.

    Attributes:
      normal: of normal pixels.
      defect: of defect pixels.
      weight_below: weight of the first i defect pixels, the lowest score first.
    """

    normal: Shaped[np.ndarray, " n"]
    defect: Shaped[np.ndarray, " p"]
    weight_below: Float[np.ndarray, " p+1"]

    @classmethod
    def of(cls, pixels: PixelScores) -> _Batch:
        """Sorts pixels, the normal ones in place."""
        (normal,), defect, weight, _ = pixels.sorted()
        return cls(normal, defect, np.concatenate([[0.0], np.cumsum(weight)]))

    def begins(self, edges: Shaped[np.ndarray, " k"]) -> _Begins:
        """Where the bin at each edge begins in the batch."""
        return _Begins(np.searchsorted(self.normal, edges), np.searchsorted(self.defect, edges))

    def held(self, begins: _Begins) -> Float[np.ndarray, "3 k"]:
        """Normal pixels, defect pixels and weight in bins that begin there."""
        held = np.empty((3, begins.normal.size))
        held[0] = np.diff(begins.normal, append=self.normal.size)
        held[1] = np.diff(begins.defect, append=self.defect.size)
        held[2] = np.diff(self.weight_below[begins.defect], append=self.weight_below[-1])
        return held

    def split_points(self) -> Shaped[np.ndarray, " m"]:
        """Edges that part the batch well: its scores by rank.

        The highest scores and frequent ones get a bin of their own each, so that they stay exact.
        """
        steps = self.weight_below[-1] * np.arange(0.0, 1.0, SHARE_OF_ALL)
        by_weight = np.searchsorted(self.weight_below[1:], steps)
        chosen = [
            self.normal[_ranks(self.normal.size)],
            self.defect[_ranks(self.defect.size)],
            self.defect[by_weight[by_weight < self.defect.size]],
        ]
        alone = [scores[1:][scores[1:] == scores[:-1]] for scores in chosen]
        alone += [scores[-int(1 / SHARE_OF_HIGHER) :] for scores in chosen[:2]]
        after = _next_float(np.concatenate(alone), towards=np.inf)
        return _distinct(np.sort(np.concatenate([*chosen, after])))


def _next_float(scores: Shaped[np.ndarray, " m"], *, towards: float) -> Shaped[np.ndarray, " m"]:
    # Beyond the largest number lies infinity, as it should.
    with np.errstate(over="ignore"):
        return np.nextafter(scores, np.array(towards, scores.dtype))


def _ranks(size: int) -> Int[np.ndarray, " m"]:
    """Indices into ascending scores: the highest one by one, then in ever larger steps."""
    if not size:
        return np.empty(0, np.int64)
    one_by_one = min(size, int(1 / SHARE_OF_HIGHER))
    # From this rank on a step in proportion to it would be too large a share of all.
    last_growing = max(one_by_one, SHARE_OF_ALL / SHARE_OF_HIGHER * size)
    steps = int(np.log(last_growing / one_by_one) / SHARE_OF_HIGHER)
    growing = one_by_one * np.exp(SHARE_OF_HIGHER * np.arange(1, steps + 1))
    equal = np.arange(last_growing, size, max(SHARE_OF_ALL * size, 1.0))
    rank = np.concatenate([np.arange(1, one_by_one + 1), growing, equal, [size]])
    return size - _distinct(rank.astype(np.int64))[::-1]


def _distinct(ascending: Shaped[np.ndarray, " m"]) -> Shaped[np.ndarray, " k"]:
    # np.unique would hash what is sorted already, at several times the cost.
    new = np.append(ascending[:1] == ascending[:1], ascending[1:] != ascending[:-1])
    return ascending[new & (ascending < np.inf)]
