"""The histogram of image scores: good ones upwards, defective ones downwards."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxad.report import axes
from jaxad.report.axes import BOTTOM, LEFT, RIGHT, TOP, Axis
from jaxad.report.tables import format_score
from jaxad.run.text import counted


def _counted(number: int, name: str) -> str:
    """``2 images``, ``1 image``, ``1 good``."""
    return counted(number, "image") if name == "images" else f"{number} {name}"


def _bin_edges(axis: Axis, threshold: float | None, *, bins: int = 32) -> np.ndarray:
    """Edges of equal bins over an axis; the threshold is one of them, so no bar straddles it."""
    low, high = (math.log(axis.low), math.log(axis.high)) if axis.log else (axis.low, axis.high)
    width = (high - low) / bins
    if threshold is not None:
        edge = math.log(threshold) if axis.log else threshold
        low = edge - math.ceil((edge - low) / width) * width
        bins += 1
    edges = low + width * np.arange(bins + 1)
    if threshold is not None:
        edges[np.argmin(np.abs(edges - edge))] = edge
    return np.exp(edges) if axis.log else edges


GROUPS = ("good", "defective")
"""The two groups of labelled images in histograms."""


class Bar(NamedTuple):
    """A bar of a histogram: the images of a group with ``low <= score < high``."""

    group: str
    low: float
    high: float


def score_histogram(
    good: npt.ArrayLike,
    defective: npt.ArrayLike | None,
    *,
    threshold: float | None = None,
    leads: Callable[[Bar], str] | None = None,
) -> str:
    """Counts of images over their score: good ones upwards, defective ones downwards.

    Args:
      good: scores of the good test images, or of all images where nothing is known of them.
      defective: scores of the defective ones; None where nothing is known.
      threshold: drawn as a dashed line; None for no line.
      leads: the anchor on the page that a bar leads to; empty for none.

    Returns:
      An SVG element. The scores are on a logarithmic axis when a few of them are so large that
      the rest would share one bar.
    """
    names = GROUPS if defective is not None else ("images",)
    given = (good,) if defective is None else (good, defective)
    groups = [np.asarray(group, np.float64) for group in given]
    groups = [group[np.isfinite(group)] for group in groups]
    every = np.concatenate(groups)
    marked = every if threshold is None else np.append(every, threshold)
    log = bool(marked.size and marked.min() > 0 and marked.max() > 30 * np.median(marked))
    x_axis = Axis.around(marked, log=log, margin=0.03)
    edges = _bin_edges(x_axis, threshold)
    counts = [np.histogram(group, edges)[0] for group in groups]
    most = [max(1, int(count.max())) for count in counts]
    # Both halves share one unit of count; each gets the height that its highest bar needs.
    unit = (BOTTOM - TOP - 10 * len(groups)) / sum(most)
    middle = TOP + 10 + most[0] * unit
    parts = []
    for count, name, kind in zip(counts, names, ("good", "bad"), strict=False):
        for number, left, right in zip(count, edges[:-1], edges[1:], strict=True):
            if number:
                x, top = x_axis.x(left), middle - (number * unit if kind == "good" else 0.0)
                scores = f"score {format_score(left)} to {format_score(right)}"
                title = f"{_counted(int(number), name)}, {scores}"
                width = x_axis.x(right) - x - 1
                bar = axes.rect(x, top, width, number * unit, kind, title=title)
                parts.append(_leading(bar, Bar(name, float(left), float(right)), leads))
    parts.append(axes.line(LEFT, middle, RIGHT, middle, "axis"))
    for tick in x_axis.ticks():
        x = x_axis.x(tick)
        parts.append(axes.line(x, BOTTOM, x, BOTTOM + 4, "axis"))
        parts.append(axes.text(x, BOTTOM + 17, axes.tick_text(tick)))
    parts.append(axes.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"))
    parts.append(axes.text((LEFT + RIGHT) / 2, axes.HEIGHT - 8, "image score", kind="label"))
    for tick in _count_ticks(max(most), unit):
        for sign in (1, -1)[: len(groups)]:
            y = middle - sign * tick * unit
            if TOP <= y <= BOTTOM and (tick or sign > 0):
                parts.append(axes.line(LEFT - 4, y, LEFT, y, "axis"))
                parts.append(axes.text(LEFT - 7, y + 4, str(tick), anchor="end"))
    parts.append(axes.line(LEFT, TOP, LEFT, BOTTOM, "axis"))
    parts.append(axes.upright_text(13, (TOP + BOTTOM) / 2, "images"))
    for group, y, name in zip(groups, (TOP + 4, BOTTOM - 6), names, strict=False):
        # On the side where the threshold's own words are not.
        near = threshold is not None and x_axis.x(threshold) < (LEFT + RIGHT) / 2
        x, anchor = (RIGHT, "end") if near else (LEFT + 8, "start")
        words = _counted(group.size, name)
        parts.append(axes.text(x, y, words, anchor=anchor, kind="label"))
    if threshold is not None:
        x = x_axis.x(threshold)
        parts.append(axes.line(x, TOP, x, BOTTOM, "threshold"))
        side, shift = ("start", 5) if x < (LEFT + RIGHT) / 2 else ("end", -5)
        label = f"threshold {format_score(threshold)}"
        parts.append(axes.text(x + shift, TOP + 4, label, anchor=side, kind="label says"))
    label = "scores of good and defective test images" if len(groups) > 1 else "scores of images"
    scale = {"low": x_axis.low, "high": x_axis.high, "log": int(x_axis.log)}
    return axes.svg(parts, label=label, kind="histogram", data=scale)


def _count_ticks(most: int, unit: float) -> list[int]:
    """Round counts from 0 to the highest, far enough apart for their labels."""
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(one for one in steps if one * unit >= 16 or one >= most)
    return list(range(0, most + 1, step))


def _leading(bar: str, images: Bar, leads: Callable[[Bar], str] | None) -> str:
    """The bar as a link where it leads somewhere."""
    address = leads(images) if leads else ""
    if not address:
        return bar
    return (
        f'<a href="{html.escape(address)}" class="bin" data-group="{images.group}" '
        f'data-low="{images.low!r}" data-high="{images.high!r}">{bar}</a>'
    )
