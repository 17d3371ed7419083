"""Reads anomaly maps from TIFF files of float16, float32, float64 or whole numbers.

Maps that are handed in elsewhere are often float16, and other tools write float64. Pillow reads
neither, and mistakes the order of bytes in some files of float32; `tifffile` reads all of these.
All else is left to Pillow, which has the decoders for which `tifffile` needs another package.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib

import numpy as np
import tifffile
from jaxtyping import Shaped
from PIL import Image

from jaxad.run.errors import UserError

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
        values = _read(path)
    except MemoryError:
        raise
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


def _read(path: pathlib.Path) -> Shaped[np.ndarray, "h w *c"]:
    """The first image of the file: plain floats by tifffile, all else by Pillow."""
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as file:
        page = file.pages.first
        # Parts that are missing would be read as zeros, at whatever size the header claims.
        parts = page.databytecounts
        whole = len(parts) == math.prod(page.chunked) and all(parts)
        small = page.nbytes <= _RATIO * path.stat().st_size
        floats = page.dtype is not None and page.dtype.kind == "f"
        if floats and page.ndim == 2 and whole and small:
            return page.asarray()
    with Image.open(path) as image:
        return np.asarray(image)
