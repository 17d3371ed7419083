"""The picture of a prediction: its map in colours over the photograph, its regions outlined."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxad.data.crop import Box
from jaxad.report.content import Scale
from jaxad.report.figures import PREDICTED_COLOUR, outline, overlay

_STRIP = 2**20
_OUTSIDE, _FRAME_COLOUR = 0.35, (190, 190, 190)
"""How bright the photograph is around the region of interest, and the colour of its frame."""


def draw(
    photograph: UInt8[np.ndarray, "h w 1"],
    heat: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"] | None,
    scale: Scale,
    box: Box | None = None,
    judged: Bool[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w rgb"]:
    """The map over the photograph, with the predicted regions outlined.

    Args:
      photograph: the whole image.
      heat: its map.
      mask: the predicted regions; None without a threshold.
      scale: of the colours.
      box: the region of interest, which is framed: around it the photograph is darkened and has no
        colours. None where all of the image was looked at.
      judged: the pixels that are judged; around them likewise. None: all of the box.
    """
    height, width = heat.shape
    line = min(max(1, round(max(height, width) / 400)), 6)
    seen = box or Box(0, 0, height, width)
    if box is None:
        picture = np.empty((height, width, 3), np.uint8)
    else:
        darker = (np.arange(256) * _OUTSIDE).astype(np.uint8)
        picture = np.repeat(darker[photograph], 3, axis=2)
        rows, columns = (slice(max(0, s.start - line), s.stop + line) for s in box.slices)
        picture[rows, columns] = _FRAME_COLOUR
    # In strips: the colours are computed in double precision, many bytes per pixel.
    strip = max(1, _STRIP // width)
    for top in range(seen.top, seen.bottom, strip):
        part = slice(top, min(top + strip, seen.bottom)), seen.slices[1]
        picture[part] = overlay(photograph[part], heat[part], low=scale.low, high=scale.high)
    if judged is not None:
        picture[~judged] = (photograph[~judged] * _OUTSIDE).astype(np.uint8)
        picture = outline(picture, judged, colour=_FRAME_COLOUR, width=line)
    if mask is None or not mask.any():
        return picture
    return outline(picture, mask, colour=PREDICTED_COLOUR, width=line)
