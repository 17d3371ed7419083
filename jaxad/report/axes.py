"""A small plotting frame that writes compact SVG: ticks, grid, lines, labels.

Written by hand instead of with a plotting library: a chart is some hundred short elements rather
than thousands of font outlines, takes its colours and fonts from the page, and stays selectable
text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 54, 406, 14, 216


@dataclass(frozen=True)
class Axis:
    """One axis: its range, and whether it is logarithmic (then ``low`` must be positive)."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: npt.ArrayLike, *, log: bool = False, margin: float = 0.05) -> Axis:
        """An axis that holds all values with a margin; a single value gets room around it."""
        values = np.asarray(values, np.float64)
        if not values.size:
            return cls(0.0, 1.0)
        low, high = float(values.min()), float(values.max())
        if log:
            room = max(math.log(high / low) * margin, 0.05)
            return cls(low * math.exp(-room), high * math.exp(room), True)
        room = (high - low) * margin or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room)

    def unit(self, value: float) -> float:
        """The place of a value: 0 at ``low``, 1 at ``high``; values outside stop at the ends."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def x(self, value: float) -> float:
        """Horizontal pixel of a value."""
        return round(LEFT + self.unit(value) * (RIGHT - LEFT), 1)

    def y(self, value: float) -> float:
        """Vertical pixel of a value."""
        return round(BOTTOM - self.unit(value) * (BOTTOM - TOP), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Some ``count`` round values inside the axis: steps of 1, 2 or 5 times a power of ten."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for factors in ((1,), (1, 3), (1, 2, 5)):
                decades = range(first, last + 1, max(1, (last - first) // count))
                ticks = [factor * 10.0**power for power in decades for factor in factors]
                ticks = [tick for tick in ticks if self.low <= tick <= self.high]
                if len(ticks) >= 3:
                    return ticks
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [tick * step for tick in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's label: at most four significant digits, thousands as k, millions as M."""
    for size, sign in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e6 if sign == "M" else 1e3
            return f"{value / unit:.4g}{sign}"
    return "0" if abs(value) < 1e-12 else f"{value:.4g}".replace("e-0", "e-")


def text(x: float, y: float, label: str, *, anchor: str = "middle", kind: str = "tick") -> str:
    """A text element; ``kind`` is its class in the page's style sheet."""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">'
        f"{html.escape(label)}</text>"
    )


def upright_text(x: float, y: float, label: str) -> str:
    """A text element that is read from below, the label of a vertical axis."""
    return (
        f'<text transform="translate({x:g} {y:g}) rotate(-90)" text-anchor="middle" '
        f'class="label">{html.escape(label)}</text>'
    )


def shortened(label: str, most: int) -> str:
    """A label of at most so many characters; a longer one loses its end."""
    return label if len(label) <= most else label[: most - 1] + "…"


def rect(x: float, y: float, width: float, height: float, kind: str, *, title: str = "") -> str:
    """A rectangle of a class; ``title`` is shown on hovering."""
    inside = f"<title>{html.escape(title)}</title>" if title else ""
    x, y, width, height = (round(one, 1) for one in (x, y, width, height))
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}">'
        f"{inside}</rect>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a class."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{kind}"/>'


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through pixels; a single point becomes a dot."""
    if len(points) == 1:
        (x, y), *_ = points
        return f'<circle cx="{x:g}" cy="{y:g}" r="3" class="dot {kind}"/>'
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{path}" class="{kind}"/>'


def frame(x_axis: Axis, y_axis: Axis, *, x_label: str, y_label: str = "") -> list[str]:
    """Grid, tick labels and axis labels of a chart."""
    parts = []
    for tick in y_axis.ticks():
        y = y_axis.y(tick)
        parts.append(line(LEFT, y, RIGHT, y, "grid"))
        parts.append(text(LEFT - 6, y + 4, tick_text(tick), anchor="end"))
    for tick in x_axis.ticks():
        parts.append(text(x_axis.x(tick), BOTTOM + 16, tick_text(tick)))
    parts.append(line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"))
    parts.append(text((LEFT + RIGHT) / 2, HEIGHT - 8, x_label, kind="label"))
    if y_label:
        parts.append(upright_text(13, (TOP + BOTTOM) / 2, y_label))
    return parts


def svg(
    parts: Sequence[str],
    *,
    label: str,
    height: float = HEIGHT,
    kind: str = "",
    data: Mapping[str, float] | None = None,
) -> Markup:
    """The SVG element, scaling with its column.

    Args:
      parts: what is inside.
      label: what screen readers say.
      height: in its own pixels.
      kind: its class.
      data: numbers for the page's script.
    """
    # What is inside bars that are links is to be reached by readers of the screen too.
    role = "group" if any(part.startswith("<a ") for part in parts) else "img"
    start = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="{role}" aria-label="{html.escape(label)}"'
    start += f' class="{kind}"' if kind else ""
    start += "".join(f' data-{name}="{value!r}"' for name, value in (data or {}).items())
    return Markup("".join([f"{start}>", *parts, "</svg>"]))
