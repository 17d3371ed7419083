"""Defects that lie on a surface: functions ``(picture, area, rng) -> picture``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxad.data.synthetic import drawing as d


def scratch(picture: d.Picture, area: d.Plane, rng: np.random.Generator) -> d.Picture:
    """A thin, slightly curved groove: a bright edge beside a dark one."""
    g = d.grid(area.shape)
    points = _curve(_place(g, area, rng), rng, length=rng.uniform(0.3, 0.7), bend=0.25)
    width, strength = rng.uniform(0.007, 0.016), rng.uniform(0.25, 0.85)
    line = d.cover(g, d.polyline(g, points) - width) * area
    edge = d.cover(g, d.polyline(g, points + 1.6 * width) - 0.7 * width) * area
    bright = rng.random() < 0.6
    picture = d.over(picture, (0.08, 0.08, 0.09), edge * 0.8 * strength)
    return d.over(picture, (0.95, 0.95, 0.94) if bright else (0.06, 0.06, 0.07), line * strength)


def stain(picture: d.Picture, area: d.Plane, rng: np.random.Generator) -> d.Picture:
    """A blot of oil, rust or paint that tints what is below it."""
    g = d.grid(area.shape)
    blot = _blob(g, _place(g, area, rng), rng.uniform(0.08, 0.2), rng, rough=0.35)
    colours = np.array([(0.42, 0.25, 0.10), (0.10, 0.09, 0.07), (0.55, 0.16, 0.10)])
    colour = colours[rng.integers(len(colours))] * rng.uniform(0.8, 1.2)
    alpha = d.cover(g, blot, 0.03) * area * rng.uniform(0.15, 0.6)
    return d.over(picture, 0.7 * colour + 0.3 * picture * colour, alpha)


def hole(picture: d.Picture, area: d.Plane, rng: np.random.Generator) -> d.Picture:
    """A hole with a lit and a shaded rim."""
    g = d.grid(area.shape)
    blob = _blob(g, _place(g, area, rng), rng.uniform(0.07, 0.13), rng, rough=0.2)
    gy, gx = np.gradient(blob)
    slope = (gx + gy) / (np.hypot(gx, gy) + 1e-9)
    rim = np.exp(-((blob / 0.022) ** 2)) * area
    picture = d.shade(picture, 1 + 0.45 * rim * slope)
    return d.over(picture, (0.05, 0.045, 0.05), d.cover(g, blob + 0.01, 0.01) * area)


def dent(picture: d.Picture, area: d.Plane, rng: np.random.Generator) -> d.Picture:
    """A shallow hollow: light on one side, shade on the other."""
    g = d.grid(area.shape)
    x, y = _place(g, area, rng)
    m = d.moved(g, (x, y), rng.uniform(0, 180))
    radius, stretch = rng.uniform(0.06, 0.11), rng.uniform(1.0, 1.6)
    u, v = m.x / (radius * stretch), m.y / radius
    hollow = np.exp(-(u**2 + v**2))
    light = ((g.x - x) + (g.y - y)) / radius * hollow
    return d.shade(picture, 1 + area * (rng.uniform(0.15, 0.5) * light - 0.12 * hollow))


def thread(picture: d.Picture, area: d.Plane, rng: np.random.Generator) -> d.Picture:
    """A loose fibre that lies on the surface and throws a shadow."""
    g = d.grid(area.shape)
    start = _place(g, area, rng)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.35, 14))
    steps = 0.055 * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    points = np.asarray(start) + np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2
    colours = np.array([(0.85, 0.83, 0.78), (0.12, 0.12, 0.14), (0.70, 0.12, 0.14)])
    shadow = d.cover(g, d.polyline(g, points + 0.025) - 0.014, 0.03)
    line = d.cover(g, d.polyline(g, points) - rng.uniform(0.009, 0.018))
    picture = d.shade(picture, 1 - 0.4 * shadow)
    return d.over(picture, colours[rng.integers(len(colours))], line * 0.92)


def misprint(picture: d.Picture, area: d.Plane, rng: np.random.Generator) -> d.Picture:
    """A band whose colour is off, as after a fault of dyeing or printing."""
    g = d.grid(area.shape)
    m = d.moved(g, _place(g, area, rng), rng.choice([0.0, 90.0]) + rng.normal(0, 2))
    band = d.box(m, 0.0, 0.0, (rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.09)), 0.02)
    tint = 1 + rng.choice([-1.0, 1.0]) * rng.uniform(0.22, 0.4) * np.array([1.0, 0.8, 0.55])
    return d.over(picture, picture * tint, d.cover(g, band, 0.03) * area)


_DEFECTS = {each.__name__: each for each in (scratch, stain, hole, dent, thread, misprint)}


def some(*kinds: str) -> dict[str, Callable[[d.Picture, d.Plane, np.random.Generator], d.Picture]]:
    """The defects of these names."""
    return {kind: _DEFECTS[kind] for kind in kinds}


def _place(g: d.Grid, area: d.Plane, rng: np.random.Generator) -> tuple[float, float]:
    """A point of the area, not quite at the picture's edge."""
    inside = (area > 0.9) & (np.abs(g.x) < 0.9) & (np.abs(g.y) < 0.9)
    if not inside.any():
        inside = area >= area.max()
    rows, columns = np.nonzero(inside)
    pick = rng.integers(len(rows))
    return float(g.x[rows[pick], columns[pick]]), float(g.y[rows[pick], columns[pick]])


def _curve(
    centre: tuple[float, float], rng: np.random.Generator, *, length: float, bend: float
) -> np.ndarray:
    """Points of a quadratic arc about a centre, ``(8, 2)``."""
    along = np.linspace(-0.5, 0.5, 8)
    across = bend * rng.uniform(-1, 1) * (along**2 - 0.25)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(centre) + length * np.stack([along, across], axis=-1) @ turn


def _blob(
    g: d.Grid, centre: tuple[float, float], radius: float, rng: np.random.Generator, *, rough: float
) -> d.Plane:
    """Distance-like plane of an uneven round shape."""
    wobble = d.noise(rng, g, radius * 0.45)
    m = d.moved(g, centre, rng.uniform(0, 180))
    return np.hypot(m.x, m.y * rng.uniform(1.0, 1.5)) - radius * (1 + rough * wobble)
