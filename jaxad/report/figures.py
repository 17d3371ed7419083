"""Pictures of a detection: heat maps on one common scale, outlines, and the panel strip.

Every colour comes from (value, low, high) alone, never from the range of a single image: the
same value has the same colour on every image of a run, so that a good image looks calm.
"""

from __future__ import annotations

import functools
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from jaxad.report.content import Case, Scale
from jaxad.report.tables import format_score

TRUTH_COLOUR = (46, 204, 113)
PREDICTED_COLOUR = (255, 59, 128)
UNKNOWN_COLOUR = (128, 128, 128)

MAP_WEIGHT = 0.75
"""Of a map over a photograph: the defect under it is still seen, and the top of the scale is yellow
over a black gap (at 0.45 olive, duller than weak heat on a bright part)."""

_STRIP = 2**22
"""Pixels of a mask whose outline is looked for at a time."""

_INK, _MUTED, _PAPER, _EMPTY = (28, 33, 40), (96, 104, 116), (255, 255, 255), (238, 240, 243)


class Panel(NamedTuple):
    """A picture with its caption; where ``pixels`` is None, ``caption`` is followed by ``why``."""

    caption: str
    pixels: UInt8[np.ndarray, "h w c"] | None
    why: str = ""

    @property
    def drawn(self) -> UInt8[np.ndarray, "h w c"]:
        """The pixels of a panel that always has some: photograph and heat map."""
        assert self.pixels is not None, self.caption
        return self.pixels


@functools.cache
def colour_table() -> UInt8[np.ndarray, "n rgb"]:
    """The 256 colours of all heat maps, lowest first.

    "Inferno": its lightness rises evenly, so that it reads the same in print and with any colour
    vision, and its low end is dark: normal regions recede. ``inferno.txt`` names its source.
    """
    lines = pathlib.Path(__file__).with_name("inferno.txt").read_text(encoding="ascii").split("\n")
    digits = "".join(line for line in lines if not line.startswith("#"))
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 3)


def heat_map(
    heat: Float[np.ndarray, "*b h w"], *, low: float, high: float
) -> UInt8[np.ndarray, "*b h w rgb"]:
    """Colours anomaly maps on a given scale.

    Args:
      heat: (..., h, w) raw values.
      low: value of the bottom colour; all below it look the same.
      high: value of the top colour; all above it look the same.

    Returns:
      (..., h, w, 3) uint8. NaN is grey. A scale without extent has two colours only: up to ``low``
      and above it.
    """
    heat = np.asarray(heat, np.float64)
    if high > low:
        unit = (np.clip(heat, low, high) - low) / (high - low)
    else:
        unit = (heat > low).astype(np.float64)
    level = np.rint(np.nan_to_num(unit) * 255).astype(np.intp)
    return np.where(
        np.isnan(heat)[..., None], np.array(UNKNOWN_COLOUR, np.uint8), colour_table()[level]
    )


def opacity(
    heat: Float[np.ndarray, "*b h w"], *, low: float, high: float
) -> Float[np.ndarray, "*b h w"]:
    """How much of a map is seen over a photograph: 0 at ``low``, 1 from half-way up the scale.

    Half-way up lies the pixel threshold. NaN is seen whole.
    """
    if not high > low:
        return np.where(np.asarray(heat) <= low, 0.0, 1.0)
    unit = (np.asarray(heat, np.float64) - low) / (high - low)
    return np.nan_to_num(np.clip(2.0 * unit, 0.0, 1.0), nan=1.0)


def legend(count: int) -> UInt8[np.ndarray, "count rgba"]:
    """The colours of the scale as they lie over a photograph, from its lower to its upper end.

    Args:
      count: of colours, at least 2.

    Returns:
      Red, green, blue and opacity.
    """
    places = np.linspace(0.0, 1.0, count)[None]
    seen = np.rint(255 * opacity(places, low=0.0, high=1.0)).astype(np.uint8)
    return np.dstack([heat_map(places, low=0.0, high=1.0), seen])[0]


def _rgb(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w rgb"]:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def overlay(
    image: UInt8[np.ndarray, "h w c"],
    heat: Float[np.ndarray, "h w"],
    *,
    low: float,
    high: float,
    alpha: float = MAP_WEIGHT,
) -> UInt8[np.ndarray, "h w rgb"]:
    """Lays the coloured map over the photograph, which stays bright where the map is low.

    The photograph is reduced to its luminance first: its own colours would be mistaken for
    the map's.

    Args:
      image: (h, w, c) uint8, c is 1 or 3.
      heat: (h, w) raw values.
      low: value of the bottom colour.
      high: value of the top colour.
      alpha: weight of the map in [0, 1] where it is opaque (:func:`opacity`).

    Returns:
      (h, w, 3) uint8.
    """
    # ITU-R BT.601 luma, as in JPEG.
    luminance = _rgb(image).astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    weight = alpha * opacity(heat, low=low, high=high)[..., None]
    mixed = (1 - weight) * luminance[..., None] + weight * heat_map(heat, low=low, high=high)
    return np.rint(mixed).astype(np.uint8)


def outline(
    image: UInt8[np.ndarray, "h w c"],
    mask: Bool[np.ndarray, "h w"],
    *,
    colour: tuple[int, int, int] = TRUTH_COLOUR,
    width: int = 1,
) -> UInt8[np.ndarray, "h w rgb"]:
    """Draws the contour of a region inside its edge.

    Args:
      image: (h, w, c) uint8, c is 1 or 3.
      mask: (h, w) the region.
      colour: of the line.
      width: of the line, in pixels.

    Returns:
      (h, w, 3) uint8: the pixels of the region within ``width`` of a pixel outside it are
      painted; the border of the image counts as outside, so that every contour is closed.
    """
    drawn = _rgb(image).copy()
    paint_outline(drawn, mask, colour=colour, width=width)
    return drawn


def paint_outline(
    drawn: UInt8[np.ndarray, "h w rgb"],
    mask: Bool[np.ndarray, "h w"],
    *,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    """The same, into the picture, of which some rows are looked at at a time."""
    height = len(drawn)
    strip = max(1, _STRIP // max(1, mask.shape[1]))
    for top in range(0, height, strip):
        bottom = min(top + strip, height)
        # What a pixel outside reaches from beyond the strip: so many rows.
        first, last = max(0, top - width), min(height, bottom + width)
        inner = ndimage.binary_erosion(mask[first:last], iterations=width)
        rows = slice(top - first, bottom - first)
        drawn[top:bottom][mask[top:bottom] & ~inner[rows]] = colour


def fit(array: np.ndarray, *, side: int, smooth: bool) -> np.ndarray:
    """Brings an image, map or mask near a side length for display.

    Args:
      array: (h, w) or (h, w, c); uint8, float or bool.
      side: smaller images grow by the largest whole factor that keeps the longer side within
        it (pixels stay crisp squares), larger ones shrink to it.
      smooth: True shrinks with an antialiasing filter (photographs), False with plain means
        (maps). A mask keeps each pixel that any of its region falls on, so no defect vanishes.

    Returns:
      The array in its own dtype.
    """
    height, width = array.shape[:2]
    longer = max(height, width)
    if longer <= side:
        factor = side // longer
        return array.repeat(factor, axis=0).repeat(factor, axis=1)
    size = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    flat = array.astype(np.float32) if array.ndim == 2 else array
    flat = flat[..., 0] if flat.shape[2:] == (1,) else flat
    filters = Image.Resampling
    kind = filters.LANCZOS if smooth and array.ndim == 3 else filters.BOX
    small = np.asarray(Image.fromarray(flat).resize(size, kind))
    if array.dtype == bool:
        return small > 0
    return small.reshape(*size[::-1], *array.shape[2:]).astype(array.dtype)


def panels(case: Case, scale: Scale, *, side: int = 256) -> list[Panel]:
    """The five pictures of a case: photograph, reconstruction, heat map, truth, prediction.

    Args:
      case: what to draw.
      scale: the run's heat-map scale.
      side: target of the longer side in pixels, see ``fit``.

    Returns:
      Five panels of equal size in this order; what does not exist has no pixels but a reason.
    """
    photograph = fit(case.image, side=side, smooth=True)
    line = max(1, round(max(photograph.shape[:2]) / 128))

    def outlined(
        caption: str, mask: np.ndarray | None, colour: tuple[int, int, int], absent: str, empty: str
    ) -> Panel:
        if mask is None or not mask.any():
            return Panel(caption, None, absent if mask is None else empty)
        shown = fit(mask, side=side, smooth=False)
        return Panel(caption, outline(photograph, shown, colour=colour, width=line))

    rebuilt = Panel("reconstruction", None, "none from this method")
    if case.reconstruction is not None:
        rebuilt = Panel("reconstruction", fit(case.reconstruction, side=side, smooth=True))
    heat = fit(case.heat, side=side, smooth=False)
    no_truth = "no mask" if case.label else "good: no defect"
    no_region = ("no threshold", "nothing over the threshold")
    return [
        Panel("photograph", photograph),
        rebuilt,
        Panel("heat map", overlay(photograph, heat, low=scale.low, high=scale.high)),
        outlined("ground truth", case.mask, TRUTH_COLOUR, no_truth, no_truth),
        outlined("predicted region", case.predicted, PREDICTED_COLOUR, *no_region),
    ]


def panel_strip(case: Case, scale: Scale, *, side: int = 256) -> Image.Image:
    """One picture of a case: a heading, the five labelled panels in a row, and a colour bar.

    Args:
      case: what to draw.
      scale: the run's heat-map scale; the colour bar shows it, with the pixel threshold.
      side: target of a panel's longer side in pixels.

    Returns:
      An RGB image.
    """
    pictures = panels(case, scale, side=side)
    height, width = pictures[0].drawn.shape[:2]
    cell, margin, heading, gap, bar = max(width, 120), 12, 52, 8, 96
    strip_width = 2 * margin + 5 * cell + 5 * gap + bar
    strip = Image.new("RGB", (strip_width, heading + height + margin), _PAPER)
    draw = ImageDraw.Draw(strip)
    font, small = ImageFont.load_default(size=15), ImageFont.load_default(size=12)

    decision = {None: "no threshold", True: "rejected", False: "accepted"}[case.decision]
    tail = f"   score {format_score(case.score)}   {case.defect}   {decision}"
    draw.text(
        (margin, 8), _shorten(case.path, tail, draw, font, strip_width - 2 * margin), _INK, font
    )
    for position, panel in enumerate(pictures):
        left = margin + position * (cell + gap)
        draw.text((left, heading - 18), panel.caption, _MUTED, small)
        if panel.pixels is None:
            draw.rectangle((left, heading, left + width - 1, heading + height - 1), _EMPTY)
            middle = (left + width / 2, heading + height / 2)
            draw.text(middle, panel.why.replace(" ", "\n", 1), _MUTED, small, "mm", align="center")
        else:
            strip.paste(Image.fromarray(_rgb(panel.pixels)), (left, heading))
    _draw_colour_bar(strip, draw, scale, (margin + 5 * (cell + gap), heading), height, small)
    return strip


def _shorten(path: str, tail: str, draw, font, width: int) -> str:
    """Drops the start of a long path, whose end names the image, until the line fits."""
    shown = path[-400:].replace("\n", " ")
    while len(shown) > 1 and draw.textlength(shown + tail, font) > width:
        shown = "…" + shown[2:]
    return shown + tail


def _draw_colour_bar(strip, draw, scale: Scale, corner, height: int, font) -> None:
    left, top = corner
    # As the colours lie over a photograph of middle brightness.
    levels = np.linspace(1.0, 0.0, height)[:, None].repeat(14, axis=1)
    under = np.full((height, 14, 1), UNKNOWN_COLOUR[0], np.uint8)
    strip.paste(Image.fromarray(overlay(under, levels, low=0.0, high=1.0)), (left, top))
    draw.text((left + 20, top), format_score(scale.high), _INK, font, "lt")
    draw.text((left + 20, top + height), format_score(scale.low), _INK, font, "lb")
    if scale.threshold_place is None:
        return
    y = top + (1 - scale.threshold_place) * (height - 1)
    draw.line((left - 2, y, left + 18, y), PREDICTED_COLOUR, 2)
    # Kept clear of the labels at both ends.
    y = min(max(y, top + 22), top + height - 22)
    draw.text((left + 20, y), f"{format_score(scale.threshold)}\nthreshold", _INK, font, "lm")
