"""The charts of a report as inline SVG: training history, scores, curves, kinds of defects.

Colours come by class from the style sheet: ``good``, ``bad``,
``first``, ``second``, ``threshold``.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxad.data.images import spread
from jaxad.report import axes
from jaxad.report.axes import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axis
from jaxad.report.content import is_known
from jaxad.report.tables import format_value

MODEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d6675")
"""Of models in charts, told apart by colour-blind readers too (Okabe and Ito)."""

# A chart column is at most some 500 pixels wide: more points cannot be seen.
_MOST_POINTS = 300


class Chart(NamedTuple):
    """A chart with the heading it stands under."""

    title: str
    svg: str


def _number(value: Any) -> float | None:
    """A finite number from a history cell, which may be text from a CSV file."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


_POSITIONS = ("step", "epoch")
_OF_THE_OPTIMISER = ("gradient_norm", "learning_rate")


def history_charts(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """One chart per recorded quantity, its held-out twin in the same chart.

    Args:
      history: one dict per line; ``validation_NAME`` is the twin of ``NAME``. ``step`` (else
        ``epoch``, else the line number) is the horizontal axis. Cells that are empty, text or not
        finite are left out.

    Returns:
      The charts, the loss first, the optimiser's quantities last; none for an empty history.
      Quantities that stay positive and span more than a factor of twenty have a logarithmic axis.
      ``NAME_unused`` makes no chart of its own: with ``NAME_used`` it only gives the whole.
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    position = next((name for name in _POSITIONS if name in columns), None)
    quantities: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for column in [name for name in columns if name not in _POSITIONS]:
        points = [
            (_number(row.get(position)) if position else index, _number(row.get(column)))
            for index, row in enumerate(history)
        ]
        series = [(x, y) for x, y in points if x is not None and y is not None]
        if series:
            quantity = column.removeprefix("validation_")
            images = "training images" if quantity == column else "held-out images"
            quantities.setdefault(quantity, {})[images] = series
    place = lambda name: (name in _OF_THE_OPTIMISER, name != "loss", "loss" not in name)
    wholes = {}
    for name in [name for name in quantities if name.endswith("_used")]:
        unused = quantities.pop(f"{name[:-5]}_unused", None)
        if unused:
            both = [next(iter(part.values()))[-1][1] for part in (quantities[name], unused)]
            wholes[name] = f", of {sum(both):g}"
    order = sorted(quantities, key=place)
    return [
        Chart(
            name.replace("_", " ") + wholes.get(name, ""),
            _history_chart(quantities[name], name, position or "line"),
        )
        for name in order
    ]


def _history_chart(series: Mapping[str, list[tuple[float, float]]], name: str, x_label: str) -> str:
    every = np.array([point for points in series.values() for point in points])
    values = every[:, 1]
    log = bool(values.min() > 0 and values.max() > 20 * values.min())
    x_axis, y_axis = Axis.around(every[:, 0], margin=0.01), Axis.around(values, log=log)
    parts = axes.frame(x_axis, y_axis, x_label=x_label)
    for place, images in enumerate(sorted(series, reverse=True)):
        kind = "first" if images.startswith("training") else "second"
        points = [(x_axis.x(x), y_axis.y(y)) for x, y in spread(series[images], _MOST_POINTS)]
        parts.append(axes.polyline(points, kind))
        if len(series) > 1:
            y = TOP + 6 + 16 * place
            parts.append(axes.line(RIGHT - 124, y - 4, RIGHT - 104, y - 4, kind))
            parts.append(axes.text(RIGHT - 98, y, images, anchor="start", kind="label"))
    return axes.svg(parts, label=f"{name} over {x_label}")


def curve(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    x_label: str,
    y_label: str,
    marker: tuple[float, float] | None = None,
    diagonal: bool = False,
    limit: float = 1.0,
    kind: str = "",
) -> str:
    """A curve in the unit square, such as ROC or precision over recall.

    Args:
      x: horizontal values in [0, 1].
      y: vertical values in [0, 1], as many.
      x_label: below the axis.
      y_label: beside the axis.
      marker: a point to mark, the calibrated threshold's.
      diagonal: draws the line of a detector that guesses.
      limit: end of the horizontal axis; a rising curve is cut there.
      kind: class of the element.

    Returns:
      An SVG element.
    """
    unit, across = Axis(0.0, 1.0), Axis(0.0, limit)
    parts = axes.frame(across, unit, x_label=x_label, y_label=y_label)
    if diagonal:
        parts.append(axes.line(LEFT, BOTTOM, RIGHT, unit.y(limit), "guess"))
    points = [
        (across.x(a), unit.y(b))
        for a, b in spread(_up_to(limit, x, y), _MOST_POINTS)
        if math.isfinite(a) and math.isfinite(b)
    ]
    if points:
        parts.append(axes.polyline(points, "first"))
    if marker is not None:
        a, b = marker
        parts.append(
            f'<circle cx="{across.x(a):g}" cy="{unit.y(b):g}" r="5" class="marker"><title>'
            f"threshold: {html.escape(x_label)} {a:.3f}, {html.escape(y_label)} {b:.3f}"
            "</title></circle>"
        )
    return axes.svg(parts, label=f"{y_label} over {x_label}", kind=kind)


def _up_to(limit: float, x: npt.ArrayLike, y: npt.ArrayLike) -> list[tuple[float, float]]:
    """The points of a curve, up to a value of x that it is interpolated at."""
    points = list(zip(np.asarray(x, np.float64), np.asarray(y, np.float64), strict=True))
    if all(a <= limit for a, _ in points):
        return points
    end = next(i for i, (a, _) in enumerate(points) if a > limit)
    if not end:
        return []
    (a, b), (c, d) = points[end - 1 : end + 1]
    return [*points[:end], (limit, b + (d - b) * (limit - a) / (c - a))]


def defect_bars(values: Mapping[str, float | None]) -> str:
    """A horizontal bar per kind of defect for a metric in [0, 1]; undefined ones say "–".

    Args:
      values: kind -> metric or None.

    Returns:
      An SVG element, as high as the number of kinds asks for.
    """
    row, left, right = 26, 150, WIDTH - 58
    parts = []
    for place, (name, value) in enumerate(values.items()):
        y = 8 + place * row
        label = axes.shortened(name, 20)
        parts.append(axes.text(left - 8, y + 14, label, anchor="end", kind="label"))
        parts += _bar(left, y + 3, right - left, 14, value, "bar")
        parts.append(axes.text(right + 8, y + 14, format_value(value, digits=3), anchor="start"))
    return axes.svg(parts, label="metric per kind of defect", height=16 + row * max(1, len(values)))


def _bar(
    left: float,
    y: float,
    width: float,
    height: float,
    value: float | None,
    kind: str,
    title: str = "",
) -> list[str]:
    """A bar for a metric in [0, 1] on its track; the track alone where there is none."""
    track = axes.rect(left, y, width, height, "track")
    if not is_known(value):
        return [track]
    return [track, axes.rect(left, y, _unit(value) * width, height, kind, title=title)]


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def model_bars(
    values: Mapping[str, Mapping[str, Sequence[float | None]]],
    models: Sequence[str],
    *,
    chance: float | None = None,
) -> str:
    """Horizontal bars per category, one for each model: means, with whiskers over several runs.

    Args:
      values: category -> model -> metrics in [0, 1] of its runs; empty or absent where there is
        none.
      models: their names in order; the n-th has the n-th colour of the style sheet.
      chance: what guessing gives, drawn as a dashed line; None for no line.

    Returns:
      An SVG element, as high as the bars ask for.
    """
    # Room for names only where there are some.
    bar, gap, left, right = 13, 12, 128 if any(values) else 4, WIDTH - 50
    width = right - left
    parts: list[str] = []
    y = 6
    for category, by_model in values.items():
        middle = y + bar * len(models) / 2 + 4
        label = axes.shortened(category, 17)
        parts.append(axes.text(left - 8, middle, label, anchor="end", kind="label"))
        for place, model in enumerate(models):
            runs = [value for value in by_model.get(model, ()) if is_known(value)]
            mean = sum(runs) / len(runs) if runs else None
            title = f"{model}, {category}: ".replace(", :", ":") + format_value(mean)
            kind = f"m{place % len(MODEL_COLOURS)}"
            parts += _bar(left, y, width, bar - 2, mean, kind, title)
            if len(runs) > 1:
                ends = [left + _unit(end) * width for end in (min(runs), max(runs))]
                line = y + (bar - 2) / 2
                parts.append(axes.line(ends[0], line, ends[1], line, "whisker"))
            text = format_value(mean, digits=3)
            parts.append(axes.text(right + 6, y + 10, text, anchor="start"))
            y += bar
        y += gap
    bottom = y - gap + 4
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    lines = [axes.line(left + x * width, 2, left + x * width, bottom, "grid") for x in ticks]
    for tick in ticks:
        parts.append(axes.text(left + tick * width, bottom + 14, axes.tick_text(tick)))
    if chance is not None:
        x = left + _unit(chance) * width
        parts.append(axes.line(x, 2, x, bottom, "threshold"))
    # The grid first, so that bars and their names stand on it.
    return axes.svg([*lines, *parts], label="metric per category and model", height=bottom + 20)
