"""Photographs that are read some rows at a time, so that memory is not that of the whole.

8-bit TIFF files whose strips or tiles are stored as they are, or packed by deflate, are read in
windows when they are large. All others are decoded whole, by the one decoder of
:mod:`jaxad.data.images`; both give the same pixels.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image

from jaxad.data.crop import WHOLE, Box, Crop, box_of
from jaxad.data.files import split_member
from jaxad.data.images import FULL_RANGE, decode, image_dimensions
from jaxad.run.errors import UserError

WINDOWED_ABOVE = 2**25
"""Pixels above which a TIFF file is read in windows."""

_RGB, _BLACK_IS_ZERO = 2, 1
_PACKINGS = (1, 8, 32946)
"""None, and deflate by either of its numbers."""


class Reading(NamedTuple):
    """How files become pixels, as of :func:`jaxad.data.images.decode`.

    Attributes:
      channels: 1 or 3.
      range_16bit: values of deep images that become 0 and 255.
      alpha: ``"white"`` or ``"ignore"``.
      crop: the part that is seen.
    """

    channels: int
    range_16bit: tuple[float, float] = FULL_RANGE
    alpha: str = "white"
    crop: Crop = WHOLE


class Photograph:
    """The part of a photograph that is seen, upright.

    Attributes:
      whole: (height, width) of all of it.
      box: the part that is seen.
    """

    def __init__(self, source: str | os.PathLike | UInt8[np.ndarray, "h w c"], reading: Reading):
        """Reads the header, or keeps the pixels.

        Args:
          source: a file, or pixels with ``reading.channels`` channels.
          reading: how it is read.

        Raises:
          UserError: the file cannot be read.
        """
        self._source, self._reading = source, reading
        self._pixels: np.ndarray | None = None
        if isinstance(source, np.ndarray):
            self.whole: tuple[int, int] = (source.shape[0], source.shape[1])
        else:
            self.whole = image_dimensions(source)
        self.box: Box = box_of(reading.crop, self.whole)
        self._windowed = not isinstance(source, np.ndarray) and _can_be_windowed(source, self.whole)

    @property
    def path(self) -> str | None:
        """The file; None of pixels."""
        return None if isinstance(self._source, np.ndarray) else os.fspath(self._source)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the part that is seen."""
        return self.box.size

    def rows(self, start: int, stop: int) -> UInt8[np.ndarray, "h w c"]:
        """Rows of the part that is seen, as far as there are any.

        Raises:
          UserError: the file cannot be read.
        """
        stop = min(stop, self.size[0])
        if self._windowed:
            found = _read_rows(str(self._source), self.box.top + start, self.box.top + stop)
            self._check_size((self.whole[0], found.shape[1]))
            return _with_channels(found[:, self.box.left : self.box.right], self._reading.channels)
        if self._pixels is None:
            self._pixels = self._decoded()[self.box.slices]
        return self._pixels[start:stop]

    def _decoded(self) -> UInt8[np.ndarray, "h w c"]:
        if isinstance(self._source, np.ndarray):
            return self._source
        how = self._reading
        pixels = decode(
            self._source, channels=how.channels, range_16bit=how.range_16bit, alpha=how.alpha
        )
        self._check_size(pixels.shape[:2])
        return pixels

    def _check_size(self, size: tuple[int, ...]) -> None:
        """Tiles lie where the header, read earlier, has said.

        Raises:
          UserError: the file has another size by now.
        """
        if size != self.whole:
            raise UserError(f"{self._source} has been replaced while it was read; try again")


def _can_be_windowed(path: str | os.PathLike, size: tuple[int, int]) -> bool:
    """Whether some rows of a file can be read without the others, and this is worth it."""
    if size[0] * size[1] <= WINDOWED_ABOVE or split_member(os.fspath(path)) is not None:
        return False
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0].aspage()
            return (
                page.dtype == np.uint8
                and page.photometric in (_RGB, _BLACK_IS_ZERO)
                and page.samplesperpixel == (3 if page.photometric == _RGB else 1)
                and page.planarconfig == 1
                and page.compression in _PACKINGS
                and page.tags.valueof(274, 1) == 1
                and page.shape[:2] == tuple(size)
            )
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError):
        return False


def _read_rows(path: str, start: int, stop: int) -> UInt8[np.ndarray, "h w c"]:
    with _one_sentence(path), tifffile.TiffFile(path) as file:
        page = file.pages[0].aspage()
        samples = page.samplesperpixel
        found = np.zeros((stop - start, page.imagewidth, samples), np.uint8)
        length = page.tilelength if page.is_tiled else page.rowsperstrip
        across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
        for row in range(start // length, -(-stop // length)):
            for index in range(row * across, (row + 1) * across):
                file.filehandle.seek(page.dataoffsets[index])
                data = file.filehandle.read(page.databytecounts[index])
                part, (_, _, top, left, _), _ = page.decode(data, index)
                if part is None:  # left out by the writer: black
                    continue
                part = part[0]
                first, last = max(top, start), min(top + len(part), stop)
                right = min(left + part.shape[1], page.imagewidth)
                found[first - start : last - start, left:right] = part[
                    first - top : last - top, : right - left
                ]
    return found


@contextlib.contextmanager
def _one_sentence(path: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise nearly anything
        raise UserError(f"{path} cannot be read, it may be damaged: {error}") from error


def _with_channels(rows: UInt8[np.ndarray, "h w c"], channels: int) -> UInt8[np.ndarray, "h w d"]:
    if rows.shape[2] == channels:
        return rows
    if channels == 3:
        return np.repeat(rows, 3, axis=2)
    return np.asarray(Image.fromarray(rows).convert("L"))[..., None]
