"""What a model says of itself, drawn by shape and name: maps, pictures, spectra, use of entries.

The contract between an array and its drawing is that of ``jaxad.models.base.Model``; no model is
known here.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from jaxad.report import axes, figures
from jaxad.report.axes import BOTTOM, LEFT, RIGHT, Axis
from jaxad.report.charts import Chart
from jaxad.report.content import Scale
from jaxad.report.page import Picture, Table, metric_cell

MAPS_SHOWN = 8
"""Images beside which a map is drawn."""

PICTURES_SHOWN = 32
"""Most pictures of one (n, h, w, c) array."""

SIDE = 160
"""Longer side of a small picture, in pixels."""

# More bars than this are narrower than the pixels that they are drawn with.
_MOST_BARS = 400

# Okabe and Ito's palette, for the most frequent categories: distinct with any colour vision.
_DISTINCT = ("0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "f0e442", "3c3c3c")


def kind_of(name: str, values: np.ndarray, *, images: int) -> str:
    """How a diagnostic is drawn.

    Args:
      name: of the diagnostic.
      values: on the host.
      images: number of images that it was computed on.

    Returns:
      "scalar", "counts", "vector", "matrix", "categories", "maps" or "pictures".

    Raises:
      ValueError: the array is not one of those; says why.
    """
    shape = values.shape
    if values.dtype.kind not in "biuf":
        raise ValueError(f"the diagnostic {name!r} is of type {values.dtype}, not of numbers")
    if not values.size or not np.isfinite(values).all():
        what = "holds values that are not finite" if values.size else "is empty"
        raise ValueError(f"the diagnostic {name!r} {what}")
    if values.ndim == 1 and name.endswith("_counts"):
        if values.min() < 0:
            raise ValueError(f"the diagnostic {name!r} holds negative counts")
        return "counts"
    if values.ndim < 3:
        return ("scalar", "vector", "matrix")[values.ndim]
    if values.ndim == 3 and shape[0] == images:
        return "maps" if values.dtype.kind == "f" else "categories"
    if values.ndim == 4 and shape[3] in (1, 3) and values.dtype.kind in "uf":
        return "pictures"
    raise ValueError(
        f"the diagnostic {name!r} of shape {shape} and type {values.dtype} is no kind that the "
        "report draws (see jaxad.models.base.Model)"
    )


def title_of(name: str) -> str:
    """A name as a caption."""
    return name.replace("_", " ")


class Block(NamedTuple):
    """Pictures under a heading.

    Attributes:
      title: the heading.
      sentence: below it.
      pairs: photographs, each with what is beside it.
      pictures: otherwise, laid out as a "mosaic" or, a single one, as a "matrix".
      layout: of these.
      scale: of their colours.
    """

    title: str
    sentence: str = ""
    pairs: Sequence[tuple[Picture, Picture]] = ()
    pictures: Sequence[Picture] = ()
    layout: str = "mosaic"
    scale: Scale | None = None


class Drawn(NamedTuple):
    """Diagnostics as they stand on a page; no table where there are no numbers."""

    numbers: Table | None
    charts: list[Chart]
    blocks: list[Block]


def draw(
    diagnostics: Mapping[str, np.ndarray], images: UInt8[np.ndarray, "b h w c"], origin: str
) -> Drawn:
    """Draws diagnostics: numbers, then charts, then maps and pictures.

    Args:
      diagnostics: name -> array of a kind that ``kind_of`` knows.
      images: on which they were computed.
      origin: what the images are, in the plural.
    """
    groups: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, values in diagnostics.items():
        kind = kind_of(name, values, images=len(images))
        groups.setdefault(kind, []).append((title_of(name), values))
    of = lambda kind: groups.get(kind, [])
    numbers = [(title, metric_cell(values.item())) for title, values in of("scalar")]
    charts = [use_of_entries(*one) for one in of("counts")]
    charts += [Chart(n, bars(v, label=n, x_label="entry")) for n, v in of("vector")]
    blocks = [_matrix(*one) for one in of("matrix")]
    blocks += [_categories(*one, images, origin) for one in of("categories")]
    blocks += [_maps(*one, images, origin) for one in of("maps")]
    blocks += [_pictures(*one) for one in of("pictures")]
    return Drawn(Table(["Quantity", "Value"], numbers) if numbers else None, charts, blocks)


def bars(values: Shaped[np.ndarray, " k"], *, label: str, x_label: str) -> str:
    """A bar per entry, from zero.

    Args:
      values: any number; of more than some hundred, a bar stands for the largest of a few
        neighbours.
      label: what screen readers say.
      x_label: below the axis.

    Returns:
      An SVG element.
    """
    values = np.asarray(values, np.float64)
    heights, k = values, len(values)
    if k > _MOST_BARS:
        blocks = np.array_split(values, _MOST_BARS)
        heights = np.array([block[np.argmax(np.abs(block))] for block in blocks])
    x_axis = Axis(0.0, float(k))
    low, high = min(0.0, heights.min()), max(0.0, heights.max())
    y_axis = Axis(low, high if high > low else 1.0)
    parts = axes.frame(x_axis, y_axis, x_label=x_label)
    zero, width = y_axis.y(0.0), (RIGHT - LEFT) / len(heights)
    drawn = width * (0.8 if width > 4 else 1.0)
    path = "".join(
        f"M{LEFT + place * width:.1f} {zero:g}V{y_axis.y(height):g}h{drawn:.2f}V{zero:g}z"
        for place, height in enumerate(heights)
        if height
    )
    parts.append(f'<path d="{path}" class="bars"/>' if path else "")
    if zero < BOTTOM:
        parts.append(axes.line(LEFT, zero, RIGHT, zero, "axis"))
    return axes.svg(parts, label=label)


def perplexity(counts: Float[np.ndarray, " k"]) -> float:
    """How many entries used equally often would be as varied: exp of the entropy; 0 for none."""
    share = counts[counts > 0] / max(counts.sum(), 1e-300)
    return float(np.exp(-np.sum(share * np.log(share)))) if share.size else 0.0


def use_of_entries(title: str, counts: np.ndarray) -> Chart:
    """Sorted counts, with how many entries were used."""
    counts = np.sort(np.asarray(counts, np.float64))[::-1]
    used = int(np.sum(counts > 0))
    title = (
        f"{title}: {used} of {counts.size} used, {counts.size - used} unused, "
        f"perplexity {perplexity(counts):.1f}"
    )
    return Chart(title, bars(counts, label=title, x_label="entry, most used first"))


def category_colours(values: Shaped[np.ndarray, "b i j"]) -> UInt8[np.ndarray, "b i j rgb"]:
    """A colour per category, the most distinct colours for the most frequent ones."""
    found, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = np.empty(found.size, np.intp)
    rank[np.argsort(-counts, kind="stable")] = np.arange(found.size)
    table_of_colours = [tuple(bytes.fromhex(code)) for code in _DISTINCT]
    for n in range(len(_DISTINCT), found.size):
        # Steps of the golden ratio keep any number of hues apart; lightness alternates.
        hue, lightness = n * 0.618034 % 1.0, (0.35, 0.55, 0.75)[n % 3]
        rgb = colorsys.hls_to_rgb(hue, lightness, 0.65)
        table_of_colours.append(tuple(round(255 * one) for one in rgb))
    return np.array(table_of_colours, np.uint8)[rank[places.reshape(values.shape)]]


def small(pixels: UInt8[np.ndarray, "h w c"], *, alt: str, smooth: bool = True) -> Picture:
    """A small picture."""
    # A browser enlarges photographs by itself; pixels of a map are to stay squares.
    enough = smooth and max(pixels.shape[:2]) <= SIDE
    shown = pixels if enough else figures.fit(pixels, side=SIDE, smooth=smooth)
    return Picture(shown, alt)


def numbered(
    pixels: UInt8[np.ndarray, "n h w c"], *, alt: str, smooth: bool = True
) -> list[Picture]:
    """Small pictures, counted from 1 in what screen readers say."""
    return [
        small(one, alt=f"{alt} {number}", smooth=smooth)
        for number, one in enumerate(pixels, start=1)
    ]


def _beside(
    title: str, coloured: UInt8[np.ndarray, "n i j rgb"], images: UInt8[np.ndarray, "b h w c"]
) -> list[tuple[Picture, Picture]]:
    """Each image that has a coloured map, with it."""
    photographs = numbered(images[: len(coloured)], alt="photograph")
    maps = numbered(coloured, alt=f"{title} of photograph", smooth=False)
    return list(zip(photographs, maps, strict=True))


def _categories(title: str, values: np.ndarray, images: np.ndarray, origin: str) -> Block:
    different = len(np.unique(values))
    sentence = (
        f"{values.shape[1]} × {values.shape[2]} positions on each of {len(images)} {origin}; one "
        f"colour for each of the {different} values that occur, the same on every image."
    )
    return Block(title, sentence, _beside(title, category_colours(values)[:MAPS_SHOWN], images))


def _maps(title: str, values: np.ndarray, images: np.ndarray, origin: str) -> Block:
    coloured, scale = _coloured(values[:MAPS_SHOWN], values)
    sentence = f"On {origin}, all on one scale."
    return Block(title, sentence, _beside(title, coloured, images), scale=scale)


def _matrix(title: str, values: np.ndarray) -> Block:
    coloured, scale = _coloured(values, values)
    shown = [small(coloured, alt=title, smooth=False)]
    sentence = f"{values.shape[0]} × {values.shape[1]} values."
    return Block(title, sentence, pictures=shown, layout="matrix", scale=scale)


def _coloured(shown: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, Scale]:
    """Some values in colours, on the scale of all of them."""
    scale = Scale(float(values.min()), float(values.max()))
    return figures.heat_map(shown.astype(np.float64), low=scale.low, high=scale.high), scale


def _pictures(title: str, values: np.ndarray) -> Block:
    count = len(values)
    sentence = f"The first {PICTURES_SHOWN} of {count}." if count > PICTURES_SHOWN else ""
    return Block(title, sentence, pictures=numbered(to_pixels(values[:PICTURES_SHOWN]), alt=title))


def to_pixels(values: np.ndarray) -> UInt8[np.ndarray, "n h w c"]:
    """Pictures in [0, 1] as uint8; uint8 passes through."""
    if values.dtype == np.uint8:
        return values
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
