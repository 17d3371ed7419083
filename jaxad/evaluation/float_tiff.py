"""Reads anomaly maps from TIFF files of float16, float32, float64 or whole numbers.

Maps that are handed in elsewhere are often float16, and other tools write float64. Pillow reads
neither, and mistakes the order of bytes in some files of float32; `tifffile` reads all of these.
All else is left to Pillow, which has the decoders for which `tifffile` needs another package, and
which inflates a part of a file no further than its pixels go.
"""

from __future__ import annotations

import math
import os
import pathlib
import zlib

import numpy as np
import tifffile
from jaxtyping import Shaped

from jaxad.data.limits import BUDGET, check_pixels, decoding, open_image
from jaxad.run.errors import UserError

_PLAIN, _DEFLATED = 1, (8, 32946)
"""Compressions, as the format numbers them."""

_RATIO = 1100
"""No deflated file is that many times smaller than its pixels."""


def read_float_tiff(path: str | os.PathLike) -> Shaped[np.ndarray, "h w"]:
    """Reads one map in the dtype it was written in.

    Args:
      path: a TIFF file with one channel: float16, float32, float64, or integers.

    Returns:
      ``(h, w)``, finite.

    Raises:
      UserError: the file cannot be read, has several channels, or holds NaN or infinity.
    """
    path = pathlib.Path(path)
    try:
        values = _by_tifffile(path)
        if values is None:
            with open(path, "rb") as stream, open_image(stream, path) as image, decoding(image):
                values = np.asarray(image)
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path} is too large for the memory of this machine") from None
    except Exception as error:
        # A damaged file makes decoders raise nearly anything.
        raise UserError(
            f"{path} cannot be read as an anomaly map, it may be damaged ({error}); "
            "write it again as a TIFF of float32 with one channel"
        ) from None
    if values.ndim != 2:
        raise UserError(f"{path} has {values.shape[-1]} channels; an anomaly map has one")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row, col = np.argwhere(~np.isfinite(values))[0]
        raise UserError(
            f"{path} holds {values[row, col]} at row {row}, column {col}; maps must be finite"
        )
    return values


def _by_tifffile(path: pathlib.Path) -> Shaped[np.ndarray, "h w"] | None:
    """The first image of the file where it holds plain or deflated floats, all of them.

    Raises:
      UserError: it is a decompression bomb.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            parts, size = page.databytecounts, path.stat().st_size
            # Parts that are missing would be read as zeros, at whatever size the header claims.
            whole = len(parts) == math.prod(page.chunked) and all(parts) and sum(parts) <= size
            floats = page.dtype is not None and page.dtype.kind == "f" and page.ndim == 2
            if not (floats and whole and page.nbytes <= _RATIO * size):
                return None
            if page.compression not in (_PLAIN, *_DEFLATED):
                return None
            check_pixels(path, page.imagewidth, page.imagelength)
            check_pixels(f"{path}: a part", *page.chunks)
            if page.compression in _DEFLATED:
                _check_parts(page, path)
            with BUDGET.holding(3 * page.nbytes):
                return page.asarray()
    except UserError:
        raise
    except Exception:
        return None


def _check_parts(page: tifffile.TiffPage, path: pathlib.Path) -> None:
    """Inflates every part as far as its pixels go; tifffile would go on to wherever it ends.

    Raises:
      UserError: one goes on.
    """
    assert page.dtype is not None
    largest = math.prod(page.chunks) * page.dtype.itemsize
    stream = page.parent.filehandle
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        stream.seek(offset)
        inflating = zlib.decompressobj()
        inflating.decompress(stream.read(size), largest)
        if inflating.unconsumed_tail and inflating.decompress(inflating.unconsumed_tail, 1):
            raise UserError(
                f"{path} inflates to more than the pixels that it claims and is refused as a "
                "decompression bomb; write it again as a TIFF of float32 with one channel"
            )
