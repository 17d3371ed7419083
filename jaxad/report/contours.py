"""Regions as outlines in SVG: sharp at any size, and a fraction of the bytes of a picture."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool

_MOST_LETTERS = 6000
"""Of a path; a more ragged region is drawn in pixels of twice the side, and so on."""


def outline_path(mask: Bool[np.ndarray, "h w"], *, unit: int = 1) -> str:
    """The edge between the pixels of a region and those outside it, holes included.

    Args:
      mask: the region; pixels beyond the image count as outside, so that every contour is closed.
      unit: side of a pixel in the path's coordinates.

    Returns:
      Data of an SVG path in closed contours along the pixels' sides, empty for an empty region;
      filled by the even-odd rule it gives the region back. A path of more than some thousand
      letters is made of a coarser region, which holds the region.
    """
    path = "".join(_contour(points, unit) for points in _loops(_sides(mask)))
    if len(path) <= _MOST_LETTERS:
        return path
    height, width = mask.shape
    even = np.pad(mask, ((0, height % 2), (0, width % 2)))
    coarse = np.logical_or.reduceat(even, np.arange(0, len(even), 2), axis=0)
    coarse = np.logical_or.reduceat(coarse, np.arange(0, even.shape[1], 2), axis=1)
    return outline_path(coarse, unit=2 * unit)


_Point = tuple[int, int]


def _sides(mask: Bool[np.ndarray, "h w"]) -> dict[_Point, list[_Point]]:
    """Corner (x, y) -> the corners that sides lead to, with the region always to the right."""
    inside = np.pad(mask, 1)
    here = inside[1:-1, 1:-1]
    # Where the pixel outside lies, the side's first corner and its second, from the upper left one.
    around = (
        (inside[:-2, 1:-1], (0, 0), (1, 0)),
        (inside[1:-1, 2:], (1, 0), (1, 1)),
        (inside[2:, 1:-1], (1, 1), (0, 1)),
        (inside[1:-1, :-2], (0, 1), (0, 0)),
    )
    sides: dict[_Point, list[_Point]] = {}
    for neighbour, first, second in around:
        for y, x in np.argwhere(here & ~neighbour).tolist():
            start, end = ((x + dx, y + dy) for dx, dy in (first, second))
            sides.setdefault(start, []).append(end)
    return sides


def _loops(sides: dict[_Point, list[_Point]]) -> list[list[_Point]]:
    """Closed walks over all sides; uses them up. As many sides leave a corner as lead to it."""
    loops = []
    while sides:
        start = here = next(iter(sides))
        points = [start]
        while True:
            ends = sides[here]
            following = ends.pop()
            if not ends:
                del sides[here]
            here = following
            if here == start:
                break
            points.append(here)
        loops.append(points)
    return loops


def _contour(points: list[_Point], unit: int) -> str:
    """A closed contour in relative steps; steps in one direction are one."""
    x, y = points[0]
    parts = [f"M{unit * x} {unit * y}"]
    run, letter = 0, ""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        step, kind = (x1 - x0, "h") if y0 == y1 else (y1 - y0, "v")
        if kind != letter or run * step < 0:
            if run:
                parts.append(f"{letter}{unit * run}")
            run, letter = 0, kind
        run += step
    # The last side is the one that "z" draws.
    return "".join([*parts, f"{letter}{unit * run}" if run else "", "z"])
