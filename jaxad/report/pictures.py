"""Pictures of a page that shows each of them in several places, and stores each once.

A photograph stands under its heat map, under two outlines, and small in a list. SVG's ``<use>``
draws one element many times, so a page carries one store of pictures, and everything on it refers
to them by name: ``p3`` is the photograph of image 3, ``r3`` its reconstruction, ``h3`` its heat
map, ``t3`` the outline of its true defect and ``o3`` that of its predicted one.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup
from PIL import Image

from jaxad.report import figures
from jaxad.report.content import Case, Scale
from jaxad.report.contours import outline_path

SIDE = 256
"""Longer side of stored pictures, in pixels; smaller ones are stored as they are."""

_QUALITY = {"quality": 85}
_FEW_COLOURS = 256
_QUALITY_OF_LAYERS = {"quality": 80, "alpha_quality": 30}
"""Of pictures with opacity, which WebP stores without loss by default: most of their bytes."""


def data_uri(pixels: UInt8[np.ndarray, "h w c"]) -> Markup:
    """A picture as a data URI: WebP, without loss where that is smaller (of few colours).

    Args:
      pixels: (h, w, c), c is 1 (gray), 3 (colour) or 4 (colour and opacity).
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    encoded = []
    kinds: list[dict] = [_QUALITY_OF_LAYERS if pixels.shape[2] == 4 else _QUALITY]
    if image.getcolors(_FEW_COLOURS):  # None of more: without loss these take long, and more
        kinds.append({"lossless": True})
    for options in kinds:
        file = io.BytesIO()
        image.save(file, "WEBP", method=4, **options)
        encoded.append(file.getvalue())
    data = base64.b64encode(min(encoded, key=len)).decode()
    return Markup(f"data:image/webp;base64,{data}")  # base64 has nothing to escape


class Stored(NamedTuple):
    """The pictures of one image, as the store holds them.

    Attributes:
      height: of all of them, in their own pixels.
      width: likewise.
      pictures: kind ("p", "r", "h") -> data URI.
      outlines: kind ("t", "o") -> data of an SVG path, in the same pixels.
    """

    height: int
    width: int
    pictures: Mapping[str, Markup]
    outlines: Mapping[str, str]

    def has(self, kind: str) -> bool:
        """Whether there is such a picture or outline."""
        return kind in self.pictures or kind in self.outlines

    @property
    def coarse(self) -> bool:
        """Whether its pixels are to stay squares: so few that blurring would invent detail."""
        return max(self.height, self.width) < 64


def store(case: Case, scale: Scale) -> Stored:
    """Encodes the pictures of a case.

    Args:
      case: of any size; larger ones are shrunk to :data:`SIDE`.
      scale: of the heat maps.
    """
    photograph = _fit(case.image, smooth=True)
    pictures = {"p": data_uri(photograph)}
    if case.reconstruction is not None:
        pictures["r"] = data_uri(_fit(case.reconstruction, smooth=True))
    pictures["h"] = data_uri(_heat_layer(_fit(case.heat, smooth=False), scale))
    masks = {"t": case.mask, "o": case.predicted if case.regions is None else case.regions}
    outlines = {
        kind: outline_path(_fit(mask, smooth=False))
        for kind, mask in masks.items()
        if mask is not None and mask.any()
    }
    height, width = photograph.shape[:2]
    return Stored(height, width, pictures, outlines)


def _fit(array: np.ndarray, *, smooth: bool) -> np.ndarray:
    larger = max(array.shape[:2]) > SIDE
    return figures.fit(array, side=SIDE, smooth=smooth) if larger else array


def _heat_layer(heat: Float[np.ndarray, "h w"], scale: Scale) -> UInt8[np.ndarray, "h w rgba"]:
    """The coloured map, see-through where it is low, as a layer over a photograph."""
    coloured = figures.heat_map(heat, low=scale.low, high=scale.high)
    opaque = np.rint(255 * figures.opacity(heat, low=scale.low, high=scale.high))
    return np.dstack([coloured, opaque.astype(np.uint8)])
