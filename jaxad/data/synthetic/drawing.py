"""Drawing by signed distances, antialiased, in numpy.

Coordinates are ``x`` to the right and ``y`` down, 0 in the middle of the picture and 1 at the
nearer pair of edges, so that a drawing scales with its size in pixels. Distances are negative
inside a shape.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

Plane = Float[np.ndarray, "h w"]
Picture = Float[np.ndarray, "h w 3"]


class Grid(NamedTuple):
    """Coordinates of every pixel, and the width of a pixel in them."""

    x: Plane
    y: Plane
    pixel: float


def grid(size: tuple[int, int]) -> Grid:
    """Returns the coordinates of a picture of ``(h, w)`` pixels."""
    height, width = size
    pixel = 2.0 / min(size)
    y, x = np.mgrid[:height, :width]
    return Grid((x - (width - 1) / 2) * pixel, (y - (height - 1) / 2) * pixel, pixel)


def moved(g: Grid, shift: tuple[float, float], degrees: float) -> Grid:
    """Returns the coordinates in which a part lies that is turned, then shifted."""
    angle = np.deg2rad(degrees)
    x, y = g.x - shift[0], g.y - shift[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return Grid(cos * x + sin * y, cos * y - sin * x, g.pixel)


def disc(g: Grid, x: float, y: float, radius: float) -> Plane:
    """Distance to a disc."""
    return np.hypot(g.x - x, g.y - y) - radius


def box(g: Grid, x: float, y: float, half: tuple[float, float], corner: float = 0.0) -> Plane:
    """Distance to a rectangle with half sides ``half`` and rounded corners."""
    dx = np.abs(g.x - x) - half[0] + corner
    dy = np.abs(g.y - y) - half[1] + corner
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner


def polyline(g: Grid, points: Float[np.ndarray, "n 2"]) -> Plane:
    """Distance to a chain of segments without width."""
    result = np.full(g.x.shape, np.inf)
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        dx, dy = bx - ax, by - ay
        along = ((g.x - ax) * dx + (g.y - ay) * dy) / max(dx * dx + dy * dy, 1e-12)
        along = np.clip(along, 0, 1)
        result = np.minimum(result, np.hypot(g.x - ax - along * dx, g.y - ay - along * dy))
    return result


def cover(g: Grid, distance: Plane, soft: float = 0.0) -> Plane:
    """Share of each pixel inside a shape, in [0, 1]; ``soft`` widens the edge."""
    return np.clip(0.5 - distance / (g.pixel + soft), 0, 1)


def over(picture: Picture, colour, alpha: Plane) -> Picture:
    """Lays a colour ``(3,)`` or picture over a picture where ``alpha`` is above 0."""
    return picture + alpha[..., None] * (np.asarray(colour) - picture)


def shade(picture: Picture, light: Plane) -> Picture:
    """Multiplies a picture by a plane of light."""
    return picture * light[..., None]


def noise(rng: np.random.Generator, g: Grid, scale: float | tuple[float, float]) -> Plane:
    """Smooth noise of mean 0 and deviation 1.

    Args:
      rng: source of the noise.
      g: the picture.
      scale: deviation of the gaussian that smooths it, or ``(along y, along x)``.
    """
    sigma = np.broadcast_to(np.asarray(scale) / g.pixel, 2)
    values = ndimage.gaussian_filter(rng.standard_normal(g.x.shape), sigma, mode="wrap")
    return (values - values.mean()) / (values.std() + 1e-12)
