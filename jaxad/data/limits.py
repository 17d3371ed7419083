"""What a file may become when it is decoded, and how much is decoded at once.

A few kilobytes can claim, or inflate to, gigabytes. So every reader asks here first, with the
sizes in the file's header (:func:`check_pixels`, :func:`check_packed`), inflates no further than
they say, and decodes while it holds its share of one budget, which all readers of the process, and
those that draw predictions (:func:`picturing`), have in common (:func:`decoding`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

from jaxad.run.errors import UserError
from jaxad.run.settings import Data

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF", "JPEG2000", "AVIF", "DIB", "PCX",
           "SGI", "TGA")  # fmt: skip
"""Pillow's names of what is read. It goes by the content, whatever a file is called, and would
hand PostScript to another program."""

_MOST_AT_ONCE = 2 * 2**30
_BYTES_PER_PIXEL = {"1": 4, "L": 4, "I;16": 4, "RGB": 10, "YCbCr": 16}
_OTHERWISE = 24
"""What decoding takes at its peak, by Pillow's mode: the pixels, their copies, the result."""
_PICTURING = 8
"""What the picture of a prediction takes: photograph, labels or the picture and Pillow's of it."""

_DENSEST = 100
"""No array of photographs is made that many times smaller by zip or gzip."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323


class Budget:
    """Bytes that readers hold at once; who needs more than all of it reads alone."""

    def __init__(self, most: int):
        self._most, self._held = most, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Waits until there is room, and keeps it. A thread holds one share at a time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._most)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


def _memory() -> int:
    """Bytes of the machine's memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4 * _MOST_AT_ONCE


BUDGET = Budget(min(_MOST_AT_ONCE, _memory() // 4))
"""Of all readers of the process."""

_limit_megapixels: float = Data.defaults()["limit_megapixels"]


def limit_images(megapixels: float) -> None:
    """Sets ``data.limit_megapixels`` for all readers of the process."""
    global _limit_megapixels
    _limit_megapixels = megapixels
    # Pillow warns above this, and refuses twice as many.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, int(megapixels * 1e6))


def check_pixels(path: str | os.PathLike, width: int, height: int) -> None:
    """Refuses an image, or a tile of one, by the size that its header claims.

    Raises:
      UserError: it exceeds ``data.limit_megapixels``.
    """
    if width * height > _limit_megapixels * 1e6:
        raise _too_many_pixels(path)


def _too_many_pixels(path: str | os.PathLike) -> UserError:
    return UserError(
        f"{path} claims more than the {_limit_megapixels:g} megapixels of data.limit_megapixels; "
        "cut or shrink it, or raise the key"
    )


def check_packed(path: str | os.PathLike, packed: int, size: int) -> None:
    """Refuses to inflate what its header shows to be a decompression bomb.

    Args:
      path: of the file, or of what is packed in it.
      packed: bytes in the file.
      size: bytes that they become.

    Raises:
      UserError: they become more than the largest image (of 8 bytes a pixel) and more than a
        hundred times what they are.
    """
    if size > max(8e6 * _limit_megapixels, _DENSEST * packed):
        raise UserError(
            f"{path} would grow from {packed} to {size} bytes and is refused as a decompression "
            "bomb; unpack it, or raise data.limit_megapixels"
        )


def open_image(stream: io.BytesIO | io.BufferedReader, path: str | os.PathLike) -> Image.Image:
    """Reads the header of an image of one of the :data:`FORMATS`.

    Args:
      stream: of the file.
      path: for messages.

    Raises:
      UserError: the image exceeds ``data.limit_megapixels``.
      Exception: whatever Pillow raises for a file that is no image.
    """
    try:
        image = Image.open(stream, formats=_formats())
    except Image.DecompressionBombError:  # above twice Pillow's own limit
        raise _too_many_pixels(path) from None
    check_pixels(path, image.width, image.height)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, however little of it lies on the image.
        tile = [image.tag_v2.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        if all(isinstance(side, int) for side in tile):
            check_pixels(f"{path}: a tile", *tile)
    return image


@functools.cache
def _formats() -> list[str]:
    """Those of :data:`FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def decoding(
    image: Image.Image, per_pixel: int | None = None
) -> contextlib.AbstractContextManager[None]:
    """Holds what an opened image takes of the budget while it is decoded.

    Args:
      image: of which the header has been read.
      per_pixel: bytes, where more is made of it than an array of its pixels.
    """
    if per_pixel is None:
        per_pixel = _BYTES_PER_PIXEL.get(image.mode, _OTHERWISE)
    return BUDGET.holding(per_pixel * image.width * image.height)


def picturing(height: int, width: int) -> contextlib.AbstractContextManager[None]:
    """Holds what the picture of a prediction takes of the budget, its photograph decoded."""
    return BUDGET.holding(_PICTURING * height * width)
