"""A picture of what is drawn: a row for every kind of defect, on images of the user."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import UInt8

from jaxad.data.contact_sheet import OUTLINE, outline, sheet_of_rows
from jaxad.data.defects.draw import draw_defects
from jaxad.data.defects.foreground import find_foregrounds
from jaxad.data.defects.kinds import KINDS
from jaxad.data.defects.ranges import DEFAULT, Ranges
from jaxad.run.files import write_bytes

COLUMNS = 8


def write_defect_sheet(
    images: UInt8[np.ndarray, "n h w c"],
    path: str | os.PathLike,
    *,
    seed: int = 0,
    ranges: Ranges = DEFAULT,
) -> dict[str, int]:
    """Draws every kind on up to eight images and writes the pictures, masks outlined.

    The first row shows the images as they are, what is no object darkened.

    Args:
      images: good ones.
      path: of a PNG file.
      seed: of the defects.
      ranges: of size and strength.

    Returns:
      For each kind on how many of the images a defect could be seen.

    Raises:
      UserError: the file cannot be written.
    """
    images = images[:COLUMNS]
    foregrounds = find_foregrounds(images)
    darkened = np.where(foregrounds[..., None], images, images // 3)
    rows = [("the images, and where the object was found", [_rgb(one) for one in darkened])]
    seen = {}
    for kind in KINDS:
        drawn, masks = draw_defects(
            images, foregrounds, [kind] * len(images), seed=seed, ranges=ranges
        )
        pictures = [_rgb(one) for one in drawn]
        for picture, mask in zip(pictures, masks, strict=True):
            picture[outline(mask, mask.shape)] = OUTLINE
        rows.append((f"{kind}: {KINDS[kind].about}", pictures))
        seen[kind] = int(masks.any(axis=(1, 2)).sum())
    sheet = sheet_of_rows(rows, columns=len(images), side=max(images.shape[1:3]))
    write_bytes(path, sheet)
    return seen


def _rgb(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image.copy()
