"""Textures: woven fabric, brushed metal, wood, leather. No picture is aligned with another."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import spatial

from jaxad.data.synthetic import drawing as d, surface
from jaxad.data.synthetic.category import Category, Parameters, begin


def _sample(rng: np.random.Generator, *, degrees: float) -> Parameters:
    return {
        "shift": tuple(rng.uniform(-1, 1, 2)),
        "degrees": float(rng.uniform(-degrees, degrees)),
        "tint": tuple(rng.normal(1, 0.02, 3)),
        "seed": int(rng.integers(2**32)),
        "missing": None,
    }


# --- fabric -------------------------------------------------------------------------------------

_YARN = 0.085  # distance of neighbouring yarns


def draw_fabric(p: Parameters, size: tuple[int, int]) -> tuple[d.Picture, d.Plane]:
    """A 2/2 twill of blue warp and light weft."""
    rng, base, g = begin(p, size)
    wave = 0.008 * d.noise(rng, base, 0.25)
    u, v = (g.x + wave) / _YARN, (g.y + wave) / _YARN
    column, row = np.floor(u), np.floor(v)
    warp_on_top = (column + row) % 4 < 2
    across = np.where(warp_on_top, u - column, v - row) - 0.5
    # Position along the float, which is two yarns long: a yarn dives at both ends.
    step = np.where(warp_on_top, (column + v) % 4, (row + u + 2) % 4)
    along = (step - 1.0) / 2.0
    round_yarn = np.sqrt(np.clip(1 - (across / 0.56) ** 2, 0, 1))
    light = 0.35 + 0.65 * round_yarn * (1 - 0.35 * np.clip(np.abs(along), 0, 1))
    fuzz = 1 + 0.06 * d.noise(rng, base, 0.012) + 0.04 * d.noise(rng, base, 0.2)
    warp = np.array([0.20, 0.32, 0.52]) * np.asarray(p["tint"])
    weft = np.array([0.74, 0.72, 0.66]) * np.asarray(p["tint"])
    yarn = np.where(warp_on_top[..., None], warp, weft)
    if p["missing"]:
        x, y, length = p["missing"]
        middle = row.ravel()[np.argmin(np.hypot(base.x - x, base.y - y))]
        gap = (row == middle) & (np.abs(base.x - x) < length)
        yarn = np.where((gap & ~warp_on_top)[..., None], warp * 0.25, yarn)
        light = np.where(gap & warp_on_top, light * 0.75, light)
    return d.shade(yarn, light * fuzz), np.ones(size)


def drop_yarn(p: Parameters, rng: np.random.Generator) -> Parameters:
    """A yarn of the weft is missing over a stretch."""
    x, y = rng.uniform(-0.6, 0.6, 2)
    return {**p, "missing": (x, y, rng.uniform(0.2, 0.5))}


# --- metal --------------------------------------------------------------------------------------


def sample_metal(rng: np.random.Generator) -> Parameters:
    """A sheet under slightly different light."""
    return {**_sample(rng, degrees=2.0), "sheen": float(rng.normal(0, 0.12))}


def draw_metal(p: Parameters, size: tuple[int, int]) -> tuple[d.Picture, d.Plane]:
    """Brushed aluminium with a soft band of light."""
    rng, base, g = begin({**p, "shift": (0.0, 0.0)}, size)  # the light is where the lamp is
    brush = 0.6 * d.noise(rng, base, (0.006, 0.5)) + 0.4 * d.noise(rng, base, (0.014, 0.18))
    band = np.exp(-(((g.y + 0.25 * g.x - p["sheen"]) / 0.65) ** 2))
    light = 0.66 + 0.26 * band + 0.065 * brush
    colour = np.array([0.86, 0.88, 0.91]) * np.asarray(p["tint"])
    return d.shade(np.broadcast_to(colour, (*size, 3)), light), np.ones(size)


# --- wood ---------------------------------------------------------------------------------------


def sample_wood(rng: np.random.Generator) -> Parameters:
    """A board of any cut."""
    return {**_sample(rng, degrees=4.0), "rings": float(rng.uniform(8, 12))}


def draw_wood(p: Parameters, size: tuple[int, int]) -> tuple[d.Picture, d.Plane]:
    """Grain that runs from side to side, with pores."""
    rng, base, g = begin(p, size)
    bend = 0.16 * d.noise(rng, base, (0.28, 0.9)) + 0.012 * d.noise(rng, base, (0.03, 0.2))
    rings = (g.y + bend) * p["rings"]
    saw = rings - np.floor(rings)
    late = saw**3 * (1 - np.clip((saw - 0.93) / 0.07, 0, 1))
    fibre = d.noise(rng, base, (0.006, 0.14))
    pores = np.clip(d.noise(rng, base, (0.008, 0.045)) - 1.7, 0, 1)
    light_wood, dark_wood = np.array([0.80, 0.60, 0.38]), np.array([0.52, 0.32, 0.17])
    picture = light_wood + late[..., None] * 0.9 * (dark_wood - light_wood)
    shade = 1 + 0.045 * fibre - 0.35 * pores + 0.03 * d.noise(rng, base, 0.5)
    return d.shade(picture * np.asarray(p["tint"]), shade), np.ones(size)


# --- leather ------------------------------------------------------------------------------------


def draw_leather(p: Parameters, size: tuple[int, int]) -> tuple[d.Picture, d.Plane]:
    """Pebbles of uneven size between dark creases."""
    rng = np.random.default_rng(p["seed"])
    g = d.grid(size)
    reach = np.array([size[1], size[0]]) / min(size) + 0.15
    spacing = 0.085
    counts = np.ceil(2 * reach / spacing).astype(int)
    x, y = np.meshgrid(*(np.linspace(-r, r, n) for r, n in zip(reach, counts, strict=True)))
    seeds = np.stack([x.ravel(), y.ravel()], axis=-1)
    seeds = seeds + rng.uniform(-0.42, 0.42, seeds.shape) * spacing
    distance, cell = spatial.cKDTree(seeds).query(np.stack([g.x, g.y], axis=-1), k=2)
    crease = np.exp(-(((distance[..., 1] - distance[..., 0]) / 0.022) ** 2))
    centre = seeds[cell[..., 0]]
    slope = -((g.x - centre[..., 0]) + (g.y - centre[..., 1])) / spacing
    height = rng.normal(0, 0.035, len(seeds))[cell[..., 0]]
    light = 0.88 + 0.16 * slope + height - 0.42 * crease + 0.04 * d.noise(rng, g, 0.35)
    light += 0.02 * d.noise(rng, g, 0.01)
    colour = np.array([0.50, 0.29, 0.19]) * np.asarray(p["tint"])
    return d.shade(np.broadcast_to(colour, (*size, 3)), light), np.ones(size)


FABRIC = Category(
    partial(_sample, degrees=3.0),  # nearly straight
    draw_fabric,
    {"missing_yarn": drop_yarn},
    surface.some("hole", "misprint", "stain", "thread"),
)
METAL = Category(sample_metal, draw_metal, {}, surface.some("dent", "scratch", "stain"))
WOOD = Category(sample_wood, draw_wood, {}, surface.some("hole", "scratch", "stain"))
LEATHER = Category(
    partial(_sample, degrees=180.0),
    draw_leather,
    {},
    {"cut": surface.scratch, **surface.some("dent", "hole", "thread")},
)
