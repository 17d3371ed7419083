"""Words on a picture: the verdict and the score, where they hide nothing that is outlined."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxad.report.content import VERDICTS
from jaxad.report.figures import PREDICTED_COLOUR
from jaxad.report.tables import format_score

_ACCEPTED_COLOUR, _UNDECIDED_COLOUR, _INK = (46, 204, 113), (150, 150, 150), (255, 255, 255)
_DARKER = 0.25
"""How bright the picture is behind the words."""
_WIDEST, _HIGHEST = 0.6, 0.25
"""Shares of the picture that a label may take; a smaller picture has none."""


def label(
    picture: UInt8[np.ndarray, "h w rgb"],
    score: float,
    decision: bool | None,
    outlined: Bool[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w rgb"]:
    """Writes what was decided into a corner of a picture.

    Args:
      picture: any size, is written into; where the words have no room it stays as it is.
      score: of the image.
      decision: True = rejected, None without a threshold.
      outlined: pixels that the label keeps clear of, where one of the corners lets it.

    Returns:
      The picture.
    """
    height, width = picture.shape[:2]
    size = min(max(11, round(max(height, width) / 28)), 72)
    font = ImageFont.load_default(size=size)
    words = f"{VERDICTS[decision]} {format_score(score)}".strip()
    pad, bar = max(3, size // 3), max(3, size // 4)
    box = (round(font.getlength(words)) + 2 * pad + bar, size + 2 * pad)
    if box[0] > _WIDEST * width or box[1] > _HIGHEST * height:
        return picture
    left, top = _corner(box, (height, width), outlined)
    part = (slice(top, top + box[1]), slice(left, left + box[0]))
    picture[part] = (picture[part] * _DARKER).astype(np.uint8)
    colours = {True: PREDICTED_COLOUR, False: _ACCEPTED_COLOUR, None: _UNDECIDED_COLOUR}
    picture[part[0], left : left + bar] = colours[decision]
    small = Image.fromarray(picture[part])
    place = (bar + pad, box[1] / 2)
    ImageDraw.Draw(small).text(place, words, _INK, font, "lm")
    picture[part] = np.asarray(small)
    return picture


def _corner(
    box: tuple[int, int], shape: tuple[int, int], outlined: np.ndarray | None
) -> tuple[int, int]:
    """Left and top of the first corner in which fewest outlined pixels lie."""
    right, bottom = shape[1] - box[0], shape[0] - box[1]
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    if outlined is None:
        return corners[0]
    hidden = lambda corner: np.count_nonzero(
        outlined[corner[1] : corner[1] + box[1], corner[0] : corner[0] + box[0]]
    )
    return min(corners, key=hidden)
