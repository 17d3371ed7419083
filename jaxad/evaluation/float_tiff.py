"""Reads anomaly maps from TIFF files: float16, float32 and float64, which Pillow reads in part.

Pillow takes float32 only. Maps that are handed in elsewhere are often float16, and other tools
write float64, so their plain forms (strips, uncompressed or deflated, one channel) are read here;
whatever else a TIFF may be is left to Pillow.
"""

from __future__ import annotations

import math
import os
import pathlib
import struct
import zlib

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from jaxad.run.errors import UserError

# Tags of TIFF 6.0 and the bytes and struct code of the types that hold their values.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION = 256, 257, 258, 259
_OFFSETS, _SAMPLES, _LENGTHS, _PREDICTOR, _FORMAT = 273, 277, 279, 317, 339
_TYPES = {1: "B", 3: "H", 4: "I"}
_PLAIN, _DEFLATED, _FLOATS = 1, (8, 32946), 3


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
        content = path.read_bytes()
        try:
            values = _plain_floats(content)
        except (struct.error, KeyError, ValueError, IndexError, zlib.error):
            values = None
        if values is None:
            with Image.open(path) as image:
                values = np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:
        # A damaged file makes Pillow's decoders raise nearly anything.
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


def _plain_floats(content: bytes) -> np.ndarray | None:
    """The floats of a plain file; None where it is something else.

    Raises:
      struct.error, KeyError, ValueError, IndexError, zlib.error: it is damaged.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return None
    tags = _first_directory(content, order)
    one = lambda tag, default: tags.get(tag, (default,))[0]
    bits, coding = one(_BITS, 1), one(_COMPRESSION, _PLAIN)
    floats = one(_FORMAT, 1) == _FLOATS and bits in (16, 32, 64) and one(_SAMPLES, 1) == 1
    known = coding == _PLAIN or coding in _DEFLATED
    if not (floats and known and one(_PREDICTOR, 1) == 1 and _OFFSETS in tags):
        return None
    strips = [
        content[start : start + length]
        for start, length in zip(tags[_OFFSETS], tags[_LENGTHS], strict=True)
    ]
    if coding in _DEFLATED:
        strips = [zlib.decompress(strip) for strip in strips]
    shape = tags[_HEIGHT][0], tags[_WIDTH][0]
    dtype = np.dtype(f"{order}f{bits // 8}")
    values = np.frombuffer(b"".join(strips), dtype, count=math.prod(shape)).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def _first_directory(content: bytes, order: str) -> dict[int, tuple[int, ...]]:
    """Tag -> whole numbers of the first image in the file."""
    (at,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, at)
    tags = {}
    for start in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", content, start)
        if kind not in _TYPES:
            continue
        code = f"{order}{count}{_TYPES[kind]}"
        place = start + 8
        if struct.calcsize(code) > 4:
            (place,) = struct.unpack_from(order + "I", content, place)
        tags[tag] = struct.unpack_from(code, content, place)
    return tags
