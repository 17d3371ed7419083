"""What a page's script needs to move the threshold: how many images each threshold rejects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxad.report import axes
from jaxad.report.content import ScoreRow

MOST_STEPS = 1000
"""Thresholds to choose from; with fewer scores than that, one between each two of them."""


def live_data(rows: Sequence[ScoreRow], threshold: float | None) -> dict[str, Any]:
    """The data of a page's script, small however many images there are.

    Args:
      rows: every image; labelled ones, or new ones without labels.
      threshold: of the run; None without one.

    Returns:
      ``threshold``; ``totals``, the number of images of each group (good and defective, or all
      new ones); ``range``, of the bars that stand for scores; ``steps``, rising thresholds, each
      with the number of images of each group over it; ``frame``, where the charts have their axes.
    """
    labelled = all(row.label is not None for row in rows)
    groups = [
        np.sort([row.score for row in rows if not labelled or bool(row.label) == bad])
        for bad in ((False, True) if labelled else (False,))
    ]
    # Of numbers that are not finite none exceeds a threshold, or all do; sort puts NaN last.
    groups = [group[np.isfinite(group)] for group in groups]
    steps = thresholds(np.concatenate(groups), threshold)
    over = [len(group) - np.searchsorted(group, steps, side="right") for group in groups]
    return {
        "threshold": threshold,
        "totals": [len(group) for group in groups],
        "range": list(gauge_range(np.concatenate(groups))),
        "steps": [
            [float(step), *map(int, counts)] for step, *counts in zip(steps, *over, strict=True)
        ],
        "frame": [axes.LEFT, axes.RIGHT, axes.TOP, axes.BOTTOM],
    }


def gauge_range(scores: Sequence[float] | Float[np.ndarray, " n"]) -> tuple[float, float]:
    """The ends of the bars that stand for scores: from 0, where no score is below, to the highest.

    Scores below 0 have no natural end: the lowest then has a twentieth of the bar. Equal scores
    have no bars, and both ends are theirs.
    """
    finite = [float(score) for score in scores if np.isfinite(score)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if low == high:
        return low, high
    return (0.0 if low >= 0.0 else low - (high - low) / 19.0), high


def thresholds(
    scores: Float[np.ndarray, " n"], own: float | None = None
) -> Float[np.ndarray, " k"]:
    """Thresholds that decide differently, rising: below, between and above the scores.

    Args:
      scores: finite ones, any number.
      own: the run's, which is one of them.

    Returns:
      At most :data:`MOST_STEPS` and one; of more, evenly many scores lie between each two.
    """
    distinct = np.unique(scores)
    if not distinct.size:
        return np.array([] if own is None else [own])
    room = (distinct[-1] - distinct[0]) * 0.01 or abs(distinct[0]) * 0.01 or 1.0
    between = distinct[:-1] + np.diff(distinct) / 2
    steps = np.concatenate([[distinct[0] - room], between, [distinct[-1] + room]])
    if len(steps) > MOST_STEPS:
        steps = steps[np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int)]
    return steps if own is None else np.unique(np.append(steps, own))
