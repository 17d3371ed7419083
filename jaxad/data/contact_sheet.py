"""A contact sheet: some images of every kind, with the outlines of their masks, in one PNG."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from jaxad.data.images import decode, spread
from jaxad.data.masks import read_mask
from jaxad.data.table import ALL_SPLITS, Sample, SampleTable
from jaxad.run.errors import UserError
from jaxad.run.files import write_bytes

_SIDE = 128
_GAP = 8
_CAPTION = 18
_COLUMNS = 8
_MOST_KINDS = 40
OUTLINE = (230, 30, 120)
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def contact_sheet(table: SampleTable, *, columns: int = _COLUMNS) -> bytes:
    """Draws a row of images for every kind of both splits, spread evenly over its files.

    Images keep their shape; gray images of more than 8 bits are shown by their full range. The
    outline of a mask is drawn on its image. At most 40 rows.

    Args:
      table: of the data set.
      columns: most images in a row.

    Returns:
      A PNG file's content.
    """
    rows = [
        (f"{split}/{kind}: {len(some)} images, {sum(s.mask is not None for s in some)} masks", some)
        for split in ALL_SPLITS
        for kind, some in table.by_kind(split).items()
    ][:_MOST_KINDS]
    return sheet_of_rows(
        [
            (caption, [_thumbnail(sample) for sample in spread(samples, columns)])
            for caption, samples in rows
        ],
        columns=columns,
        side=_SIDE,
    )


def sheet_of_rows(
    rows: Sequence[tuple[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]]], *, columns: int, side: int
) -> bytes:
    """Draws rows of pictures, a caption above each.

    Args:
      rows: captions and pictures.
      columns: most pictures in a row.
      side: most pixels of a picture's side.

    Returns:
      A PNG file's content.
    """
    height = _CAPTION + side + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (side + _GAP), _GAP + height * len(rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for row, (caption, pictures) in enumerate(rows):
        top = _GAP + row * height
        draw.text((_GAP, top), caption, fill=_INK, font=font)
        for column, picture in enumerate(pictures):
            left = _GAP + column * (side + _GAP)
            sheet.paste(Image.fromarray(picture), (left, top + _CAPTION))
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def write_contact_sheet(table: SampleTable, path: str | os.PathLike) -> None:
    """Writes :func:`contact_sheet` to a file.

    Raises:
      UserError: the file cannot be written.
    """
    write_bytes(path, contact_sheet(table))


def _thumbnail(sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
    """At most ``_SIDE`` pixels wide and high; a crossed square for a file that cannot be read."""
    try:
        pixels = decode(sample.path, channels=3)
        size = pixels.shape[:2]
        mask = None if sample.mask is None else read_mask(sample.mask, expected_size=size)
    except UserError:
        empty = Image.new("RGB", (_SIDE, _SIDE), (235, 235, 235))
        draw = ImageDraw.Draw(empty)
        draw.line((0, 0, _SIDE, _SIDE), fill=OUTLINE)
        draw.line((0, _SIDE, _SIDE, 0), fill=OUTLINE)
        return np.asarray(empty)
    scale = _SIDE / max(pixels.shape[:2])
    size = tuple(max(1, round(n * scale)) for n in pixels.shape[:2])
    # Small images (digits) are enlarged without blur, so that their pixels show.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    small = np.array(Image.fromarray(pixels).resize(size[::-1], how))
    if mask is not None:
        small[outline(mask, size)] = OUTLINE
    return small


def outline(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """The rim around a mask, one pixel wide; however small the defect, it shows."""
    coverage = Image.fromarray(mask.astype(np.float32))
    small = np.asarray(coverage.resize(size[::-1], Image.Resampling.BILINEAR)) > 0
    return ndimage.binary_dilation(small) & ~small
