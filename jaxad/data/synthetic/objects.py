"""Objects: a turned flange and a circuit board that lie aligned, a gear that lies anyhow."""

from __future__ import annotations

import numpy as np

from jaxad.data.synthetic import drawing as d, surface
from jaxad.data.synthetic.category import Category, Parameters, begin

STEEL = np.array([0.66, 0.68, 0.71])
BRASS = np.array([0.82, 0.66, 0.34])
DARK = np.array([0.10, 0.11, 0.13])


def _pose(rng: np.random.Generator, *, shift: float, degrees: float) -> Parameters:
    return {
        "shift": tuple(rng.uniform(-shift, shift, 2)),
        "degrees": float(rng.uniform(-degrees, degrees)),
        "light": float(rng.normal(0, 8)),  # degrees by which the lamp is off
        "seed": int(rng.integers(2**32)),
    }


def _polar(distance: float, degrees: float) -> tuple[float, float]:
    return distance * np.cos(np.deg2rad(degrees)), distance * np.sin(np.deg2rad(degrees))


def _sunk(g: d.Grid, x: float, y: float, radius: float) -> d.Picture:
    """Colour of the inside of a hole: its wall catches light at the lower right."""
    return DARK * (0.8 + 0.9 * np.clip((g.x - x + g.y - y) / radius, -0.6, 1))[..., None]


# --- flange -------------------------------------------------------------------------------------


def sample_flange(rng: np.random.Generator) -> Parameters:
    """A flange almost at its place."""
    bolts = [(*_polar(0.55, 60.0 * i), 0.088) for i in range(6)]
    return {**_pose(rng, shift=0.03, degrees=4.0), "bolts": bolts, "chip": None}


def draw_flange(p: Parameters, size: tuple[int, int]) -> tuple[d.Picture, d.Plane]:
    """A turned steel flange with bolt holes and a paint mark, on a dark mat."""
    rng, base, g = begin(p, size)
    rim = d.disc(g, 0.0, 0.0, 0.84)
    if p["chip"]:
        rim = np.maximum(rim, -d.disc(g, *p["chip"]))
    mat = np.array([0.17, 0.20, 0.26]) * (1 + 0.05 * d.noise(rng, base, 0.012)[..., None])
    shadow = d.cover(base, d.disc(base, 0.05, 0.06, 0.83), 0.12)
    picture = d.over(d.shade(mat, 1 - 0.55 * shadow), _turned_steel(g, p, rng), d.cover(g, rim))
    area = d.cover(g, rim + 0.03)
    for x, y, radius in p["bolts"]:
        hole = d.disc(g, x, y, radius)
        picture = d.shade(picture, 1 - 0.28 * d.cover(g, hole - 0.03, 0.02))
        picture = d.over(picture, _sunk(g, x, y, radius), d.cover(g, hole))
        area = area * (1 - d.cover(g, hole - 0.03))
    bore = d.disc(g, 0.0, 0.0, 0.25)
    picture = d.over(picture, STEEL * 0.45, d.cover(g, bore - 0.025))
    picture = d.over(picture, _sunk(g, 0.0, 0.0, 0.25), d.cover(g, bore))
    mark = d.box(g, 0.0, -0.68, (0.055, 0.022), 0.02)
    picture = d.over(picture, (0.86, 0.36, 0.12), 0.9 * d.cover(g, mark))
    return picture, area * (1 - d.cover(g, bore - 0.04))


def _turned_steel(g: d.Grid, p: Parameters, rng: np.random.Generator) -> d.Picture:
    """Two opposite bright sectors, fine concentric grooves, a chamfer and a step."""
    radius, theta = np.hypot(g.x, g.y), np.arctan2(g.y, g.x)
    lamp = np.deg2rad(p["light"] - p["degrees"])
    sectors = np.cos(2 * (theta - lamp) + 1.2)
    grooves = 0.5 * np.sin(radius * 150) + np.sin(radius * 97 + 1)
    facing = np.cos(theta - lamp + 2.2)
    chamfer = np.exp(-(((radius - 0.80) / 0.022) ** 2))
    step = np.exp(-(((radius - 0.37) / 0.016) ** 2))
    light = 0.86 + 0.18 * sectors + 0.018 * grooves + 0.012 * d.noise(rng, g, 0.02)
    light += 0.022 * d.noise(rng, g, 0.09)  # fingerprints and oil, harmless
    return d.shade(STEEL * light[..., None], 1 + 0.35 * chamfer * facing - 0.3 * step * facing)


def chip_rim(p: Parameters, rng: np.random.Generator) -> Parameters:
    """A piece is broken out of the rim."""
    place = _polar(0.87, rng.uniform(0, 360))
    return {**p, "chip": (*place, rng.uniform(0.07, 0.15))}


def fill_hole(p: Parameters, rng: np.random.Generator) -> Parameters:
    """One bolt hole was not drilled."""
    missing = rng.integers(len(p["bolts"]))
    return {**p, "bolts": [b for i, b in enumerate(p["bolts"]) if i != missing]}


def misdrill(p: Parameters, rng: np.random.Generator) -> Parameters:
    """One bolt hole is off its place, or too small."""
    bolts = list(p["bolts"])
    wrong = rng.integers(len(bolts))
    x, y, radius = bolts[wrong]
    if rng.random() < 0.5:
        dx, dy = _polar(rng.uniform(0.025, 0.06), rng.uniform(0, 360))
        bolts[wrong] = (x + dx, y + dy, radius)
    else:
        bolts[wrong] = (x, y, radius * rng.uniform(0.65, 0.85))
    return {**p, "bolts": bolts}


# --- board --------------------------------------------------------------------------------------

# Small parts: x, y, turned by 90 degrees or not, body colour.
_PARTS = (
    (-0.66, -0.62, False, (0.62, 0.50, 0.36)),
    (-0.30, -0.62, False, (0.10, 0.10, 0.11)),
    (0.06, -0.62, False, (0.62, 0.50, 0.36)),
    (-0.70, 0.62, True, (0.10, 0.10, 0.11)),
    (-0.48, 0.62, True, (0.62, 0.50, 0.36)),
    (0.70, 0.20, True, (0.10, 0.10, 0.11)),
)
_TRACES = (
    [(-0.95, -0.45), (-0.62, -0.45), (-0.40, -0.25)],
    [(-0.95, 0.30), (-0.70, 0.30), (-0.45, 0.10)],
    [(0.30, -0.62), (0.50, -0.40), (0.50, -0.12)],
    [(-0.20, 0.72), (-0.20, 0.50), (-0.05, 0.36)],
    [(0.95, 0.50), (0.70, 0.50), (0.45, 0.30)],
    [(0.02, 0.92), (0.02, 0.60), (0.12, 0.42)],
)
_PINS = 6


def sample_board(rng: np.random.Generator) -> Parameters:
    """A board almost at its place, with every part on it."""
    return {
        **_pose(rng, shift=0.012, degrees=1.0),
        "parts": list(range(len(_PARTS))),
        "pins": [[0.0] * _PINS, [0.0] * _PINS],
        "print": (0.42, 0.70, 0.0),
        "bridge": None,
        "tint": tuple(rng.normal(1, 0.02, 3)),
    }


def draw_board(p: Parameters, size: tuple[int, int]) -> tuple[d.Picture, d.Plane]:
    """A green circuit board: traces, small parts, a chip with pins, a capacitor, a print."""
    rng, base, g = begin(p, size)
    green = np.array([0.07, 0.30, 0.19]) * np.asarray(p["tint"])
    picture = green * (1 + 0.04 * d.noise(rng, base, 0.02)[..., None])
    for trace in _TRACES:
        line = d.polyline(g, np.array(trace))
        picture = d.over(picture, green * 1.5, d.cover(g, line - 0.018))
        for x, y in (trace[0], trace[-1]):
            picture = d.over(picture, BRASS, d.cover(g, d.disc(g, x, y, 0.042)))
            picture = d.over(picture, DARK, d.cover(g, d.disc(g, x, y, 0.018)))
    for i, (x, y, upright, colour) in enumerate(_PARTS):
        picture = _small_part(picture, g, x, y, upright, colour if i in p["parts"] else None)
    picture = _chip(picture, g, p)
    picture = _capacitor(picture, g, 0.62, -0.58, p["light"])
    picture = _printed(picture, g, *p["print"])
    if p["bridge"]:
        x, y, radius = p["bridge"]
        drop = d.cover(g, d.disc(g, x, y, radius))
        gloss = np.exp(-((g.x - x + 0.02) ** 2 + (g.y - y + 0.02) ** 2) / (0.3 * radius) ** 2)
        picture = d.over(picture, (0.62 + 0.35 * gloss)[..., None] * np.ones(3), drop)
    return picture, np.ones(size)


def _small_part(picture, g, x, y, upright, colour) -> d.Picture:
    """A resistor or capacitor on its two pads; bare pads without a colour."""
    length, width = 0.13, 0.062
    axis = np.array([0.0, 1.0]) if upright else np.array([1.0, 0.0])
    half = lambda along, across: (across, along) if upright else (along, across)
    for side in (-1, 1):
        px, py = np.array([x, y]) + side * 0.105 * axis
        pad = d.box(g, px, py, half(0.052, 0.078), 0.01)
        picture = d.over(picture, BRASS, d.cover(g, pad))
    if colour is None:
        return picture
    shadow = d.cover(g, d.box(g, x + 0.02, y + 0.025, half(length, width), 0.01), 0.04)
    picture = d.shade(picture, 1 - 0.4 * shadow)
    picture = d.over(picture, STEEL * 1.2, d.cover(g, d.box(g, x, y, half(length, width), 0.015)))
    body = d.box(g, x, y, half(length - 0.045, width), 0.005)
    return d.over(picture, colour, d.cover(g, body))


def _chip(picture: d.Picture, g: d.Grid, p: Parameters) -> d.Picture:
    shadow = d.cover(g, d.box(g, 0.03, 0.04, (0.37, 0.25), 0.03), 0.08)
    picture = d.shade(picture, 1 - 0.5 * shadow)
    for side, bends in zip((-1, 1), p["pins"], strict=True):
        for i, bend in enumerate(bends):
            x = -0.28 + 0.112 * i
            points = np.array([(x, side * 0.24), (x, side * 0.30), (x + bend, side * 0.39)])
            pin = d.polyline(g, points)
            glint = 1.15 + 0.25 * np.exp(-(((np.abs(g.y) - 0.31) / 0.03) ** 2))
            picture = d.over(picture, STEEL * glint[..., None], d.cover(g, pin - 0.026))
    body = d.box(g, 0.0, 0.0, (0.36, 0.25), 0.025)
    light = 1 + 0.35 * np.exp(-(((g.y + 0.22) / 0.03) ** 2)) - 0.25 * (g.x + g.y)
    picture = d.over(picture, DARK * 1.15 * light[..., None], d.cover(g, body))
    picture = d.over(picture, DARK * 0.5, d.cover(g, d.disc(g, -0.27, 0.15, 0.035)))
    for row, lengths in enumerate(((0.10, 0.05, 0.12), (0.06, 0.14), (0.04, 0.07, 0.05))):
        x = -0.16
        for length in lengths:
            bar = d.box(g, x + length / 2, -0.10 + 0.09 * row, (length / 2, 0.017))
            picture = d.over(picture, (0.62, 0.63, 0.62), 0.8 * d.cover(g, bar))
            x += length + 0.045
    return picture


def _capacitor(picture: d.Picture, g: d.Grid, x: float, y: float, lamp: float) -> d.Picture:
    """An aluminium can from above."""
    picture = d.shade(picture, 1 - 0.5 * d.cover(g, d.disc(g, x + 0.05, y + 0.06, 0.21), 0.1))
    picture = d.over(picture, DARK * 1.4, d.cover(g, d.disc(g, x, y, 0.215)))
    theta = np.arctan2(g.y - y, g.x - x)
    light = 0.85 + 0.22 * np.cos(2 * theta + 1.4 - np.deg2rad(lamp))
    picture = d.over(picture, (STEEL * 1.1) * light[..., None], d.cover(g, d.disc(g, x, y, 0.185)))
    half = np.maximum(d.disc(g, x, y, 0.165), g.x - x + 0.08)
    picture = d.over(picture, (0.12, 0.13, 0.20), d.cover(g, half))
    for bar in (d.box(g, x, y, (0.1, 0.006)), d.box(g, x, y, (0.006, 0.1))):
        picture = d.over(picture, STEEL * 0.55, 0.8 * d.cover(g, bar))
    return picture


def _printed(picture: d.Picture, g: d.Grid, x: float, y: float, degrees: float) -> d.Picture:
    """White print: a frame with three letters' worth of strokes."""
    m = d.moved(g, (x, y), degrees)
    strokes = [
        (-0.20, 0.0, 0.018, 0.075), (-0.145, -0.06, 0.05, 0.018), (-0.145, 0.055, 0.05, 0.018),
        (-0.01, 0.0, 0.018, 0.075), (0.06, 0.0, 0.05, 0.018), (0.10, 0.0, 0.018, 0.075),
        (0.21, 0.055, 0.055, 0.018), (0.20, -0.015, 0.018, 0.06),
    ]  # fmt: skip
    white = np.zeros(g.x.shape)
    for cx, cy, hx, hy in strokes:
        white = np.maximum(white, d.cover(g, d.box(m, cx, cy, (hx, hy))))
    frame = np.abs(d.box(m, 0.0, 0.0, (0.31, 0.14), 0.02)) - 0.010
    return d.over(picture, (0.88, 0.90, 0.87), 0.9 * np.maximum(white, d.cover(g, frame)))


def drop_part(p: Parameters, rng: np.random.Generator) -> Parameters:
    """A small part was not placed."""
    missing = rng.integers(len(p["parts"]))
    return {**p, "parts": [part for i, part in enumerate(p["parts"]) if i != missing]}


def bend_pin(p: Parameters, rng: np.random.Generator) -> Parameters:
    """A pin of the chip points elsewhere."""
    pins = [list(row) for row in p["pins"]]
    pins[rng.integers(2)][rng.integers(_PINS)] = rng.choice([-1, 1]) * rng.uniform(0.07, 0.10)
    return {**p, "pins": pins}


def shift_print(p: Parameters, rng: np.random.Generator) -> Parameters:
    """The print is out of place."""
    x, y, _ = p["print"]
    dx, dy = rng.choice([-1, 1], 2) * rng.uniform(0.03, 0.07, 2)
    return {**p, "print": (x + dx, y + dy, rng.uniform(-9, 9))}


def bridge_pins(p: Parameters, rng: np.random.Generator) -> Parameters:
    """A drop of solder joins two pins."""
    x = -0.28 + 0.112 * (rng.integers(_PINS - 1) + 0.5)
    return {**p, "bridge": (x, rng.choice([-1, 1]) * 0.35, rng.uniform(0.055, 0.085))}


# --- gear ---------------------------------------------------------------------------------------

_TEETH = 14


def sample_gear(rng: np.random.Generator) -> Parameters:
    """A gear at any angle."""
    return {**_pose(rng, shift=0.08, degrees=180.0), "teeth": [1.0] * _TEETH}


def draw_gear(p: Parameters, size: tuple[int, int]) -> tuple[d.Picture, d.Plane]:
    """A brass gear with five windows on a light cloth."""
    rng, base, g = begin(p, size)
    cloth = np.array([0.72, 0.74, 0.76]) * (1 + 0.03 * d.noise(rng, base, 0.015)[..., None])
    below = d.moved(base, (p["shift"][0] + 0.04, p["shift"][1] + 0.05), p["degrees"])
    picture = d.shade(cloth, 1 - 0.45 * d.cover(base, _gear(below, p["teeth"]), 0.09))
    outline = _gear(g, p["teeth"])
    lamp = np.deg2rad(p["light"] - p["degrees"])
    theta = np.arctan2(g.y, g.x)
    radius = np.hypot(g.x, g.y)
    light = 0.86 + 0.13 * np.cos(2 * (theta - lamp)) + 0.02 * np.sin(radius * 120)
    light += 0.015 * d.noise(rng, base, 0.02)
    edge = np.exp(-(((outline + 0.02) / 0.014) ** 2)) * np.cos(theta - lamp + 2.3)
    picture = d.over(picture, BRASS * (light + 0.22 * edge)[..., None], d.cover(g, outline))
    hub = np.exp(-(((radius - 0.26) / 0.014) ** 2)) * np.cos(theta - lamp + 2.3)
    area = d.cover(g, outline + 0.02)
    picture = d.shade(picture, 1 - 0.35 * hub * area)
    hole = d.disc(g, 0.0, 0.0, 0.13)
    key = np.minimum(hole, d.box(g, 0.13, 0.0, (0.05, 0.035)))
    picture = d.over(picture, DARK, d.cover(g, key))
    return picture, area * (1 - d.cover(g, key - 0.03))


def _gear(g: d.Grid, teeth: list[float]) -> d.Plane:
    """Distance to a gear whose teeth have these lengths (1 whole, 0 none), with windows."""
    radius, turns = np.hypot(g.x, g.y), np.arctan2(g.y, g.x) / (2 * np.pi) * _TEETH
    index = np.rint(turns)
    lengths = np.asarray(teeth)[index.astype(int) % _TEETH]
    # A tooth narrows outwards; its flank's distance is the arc from it.
    flank = (np.abs(turns - index) - 0.30) * 2 * np.pi / _TEETH * radius + (radius - 0.72) * 0.35
    tooth = np.maximum(flank, radius - 0.72 - 0.13 * lengths)
    body = np.minimum(radius - 0.72, tooth)
    for i in range(5):
        body = np.maximum(body, -d.disc(g, *_polar(0.49, 72.0 * i), 0.125))
    return body


def break_tooth(p: Parameters, rng: np.random.Generator) -> Parameters:
    """One tooth, or two neighbours, are broken off."""
    first, count = rng.integers(_TEETH), rng.integers(1, 3)
    broken = {(first + i) % _TEETH for i in range(count)}
    teeth = [rng.uniform(0, 0.3) if i in broken else t for i, t in enumerate(p["teeth"])]
    return {**p, "teeth": teeth}


FLANGE = Category(
    sample_flange,
    draw_flange,
    {"chip": chip_rim, "misdrilled": misdrill, "missing_hole": fill_hole},
    surface.some("dent", "scratch", "stain"),
)
BOARD = Category(
    sample_board,
    draw_board,
    {"bent_pin": bend_pin, "misprint": shift_print, "missing_part": drop_part,
     "solder_bridge": bridge_pins},
    surface.some("scratch", "thread"),
)  # fmt: skip
GEAR = Category(
    sample_gear,
    draw_gear,
    {"broken_tooth": break_tooth},
    surface.some("scratch", "stain", "thread"),
)
