"""The picture of a prediction: its map in colours over the photograph, its regions outlined."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from jaxad.data.crop import Box
from jaxad.evaluation.resize import AnyMap, row_blocks
from jaxad.report.content import Scale
from jaxad.report.figures import PREDICTED_COLOUR, overlay, paint_outline

_STRIP = 2**20
_OUTSIDE, _FRAME_COLOUR = 0.35, (190, 190, 190)
"""How bright the photograph is around the region of interest, and the colour of its frame."""


def draw(
    photograph: UInt8[np.ndarray, "h w 1"],
    heat: AnyMap,
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
        colours. None: all of the image was looked at.
      judged: the pixels that are judged; around them likewise. None: all of the box.
    """
    height, width = heat.shape
    line = min(max(1, round(max(height, width) / 400)), 6)
    whole = Box(0, 0, height, width)
    seen = box or whole
    if seen == whole:
        picture = np.empty((height, width, 3), np.uint8)
    else:
        darker = (np.arange(256) * _OUTSIDE).astype(np.uint8)
        picture = np.repeat(darker[photograph], 3, axis=2)
        rows, columns = (slice(max(0, s.start - line), s.stop + line) for s in seen.slices)
        picture[rows, columns] = _FRAME_COLOUR
    # In strips: the colours are computed in double precision, many bytes per pixel.
    # Of whole rows: products of matrices round the end of a row otherwise than its middle.
    strip = max(1, _STRIP // width)
    for first, block in row_blocks(heat):
        top, last = max(seen.top, first), min(seen.bottom, first + len(block))
        for row in range(top, last, strip):
            part = slice(row, min(row + strip, last)), seen.slices[1]
            values = block[part[0].start - first : part[0].stop - first, part[1]]
            picture[part] = overlay(photograph[part], values, low=scale.low, high=scale.high)
    if judged is not None:
        picture[~judged] = (photograph[~judged] * _OUTSIDE).astype(np.uint8)
        paint_outline(picture, judged, colour=_FRAME_COLOUR, width=line)
    if mask is not None and mask.any():
        paint_outline(picture, mask, colour=PREDICTED_COLOUR, width=line)
    return picture
