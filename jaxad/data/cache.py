"""Files to one uint8 array, decoded once: in memory, or memory-mapped when it is large."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxad.data.crop import WHOLE, Crop, crop_record
from jaxad.data.files import file_of
from jaxad.data.images import FULL_RANGE, read_image
from jaxad.data.photographs import Reading
from jaxad.data.table import Sample
from jaxad.data.threads import CHUNK, map_ahead
from jaxad.data.tiled import sizes_of, tiles_of_file
from jaxad.data.tiles import Tiling
from jaxad.data.unreadable import unreadable
from jaxad.run.environment import cache_folder
from jaxad.run.errors import UserError
from jaxad.run.files import remove_unfinished, writing

# Part of every key: to be raised whenever the decoder or the resizer gives other pixels.
_PIXELS_VERSION = 2
_DISK = "; free disk space, point JAXAD_CACHE to a larger disk, or raise data.memory_limit_mb"

_PHOTOGRAPHS_AT_ONCE = 4
"""Files that are cut into tiles at once: each may be of many megapixels."""


def prepare_images(
    samples: Sequence[Sample | str | os.PathLike],
    *,
    image_size: tuple[int, int],
    channels: int,
    range_16bit: tuple[float, float] = FULL_RANGE,
    alpha: str = "white",
    crop: Crop = WHOLE,
    tiling: Tiling | None = None,
    memory_limit_mb: int = 4096,
    cache_dir: str | os.PathLike | None = None,
) -> UInt8[np.ndarray, "n h w c"]:
    """Decodes and resizes images, or tiles of them, into one array.

    An array above the memory limit is written to ``cache_dir`` and mapped from there; a file that
    an earlier call wrote for the same images and options is used whatever the limit. Its name
    is a hash of paths, modification times, file sizes and options, and it takes that name only
    once it is complete.

    Args:
      samples: samples or paths.
      image_size: ``(h, w)`` of the result.
      channels: 1 or 3.
      range_16bit: see :func:`jaxad.data.deep_range.resolve_range_16bit`.
      alpha: as of :func:`jaxad.data.images.decode`.
      crop: the part of every image that is kept, see :mod:`jaxad.data.crop`.
      tiling: whose tiles, photograph after photograph, are the rows; None: whole images are.
      memory_limit_mb: largest array to keep in memory, in MiB; 0 always writes the file.
      cache_dir: folder of the files; None stands for ``images`` in the user's cache folder.

    Returns:
      ``(n, h, w, c)`` uint8; a read-only ``np.memmap`` when it comes from a file.

    Raises:
      UnreadableImages: some images cannot be read; up to a hundred are named.
      UserError: the cache file cannot be written.
    """
    paths = [os.fspath(s.path if isinstance(s, Sample) else s) for s in samples]
    reading = Reading(channels, range_16bit, alpha, crop)
    count = len(paths) if tiling is None else sum(map(tiling.count, sizes_of(paths, reading)))
    shape = (count, *image_size, channels)
    how: dict[str, Any] = {
        "image_size": image_size,
        "channels": channels,
        "range_16bit": range_16bit,
    }
    # Alpha and crop only where they are set: files from before there were these keys have neither.
    how |= {"alpha": alpha} if alpha != "white" else {}
    folder = pathlib.Path(cache_dir) if cache_dir is not None else cache_folder() / "images"
    tiles = {} if tiling is None else {"tiles": list(tiling)}
    file = folder / f"{_key(paths, how | crop_record(crop) | tiles)}.npy"
    cached = _open_complete(file, shape)
    if cached is not None:
        return cached
    read: Callable[[str], np.ndarray] = functools.partial(read_image, **how, crop=crop)
    at_once = CHUNK
    if tiling is not None:
        at_once = _PHOTOGRAPHS_AT_ONCE
        read = functools.partial(
            tiles_of_file, tiling=tiling, image_size=image_size, reading=reading
        )
    rows = _rows(_decoded(paths, read, at_once=at_once))
    if np.prod(shape, dtype=np.int64) <= memory_limit_mb * 2**20:
        images = np.empty(shape, np.uint8)
        for row, image in enumerate(rows):
            images[row] = image
        return images
    _write(file, shape, rows)
    written = _open_complete(file, shape)
    if written is None:
        raise UserError(f"{file} was removed while it was being prepared; run again")
    return written


def _rows(
    read: Iterator[UInt8[np.ndarray, "*k h w c"]],
) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Images one by one, where some came together: the tiles of a photograph."""
    for images in read:
        yield from images.reshape(-1, *images.shape[-3:])


def _decoded(
    paths: Sequence[str], read: Callable[[str], np.ndarray], *, at_once: int
) -> Iterator[UInt8[np.ndarray, "*k h w c"]]:
    """Yields what is read of the files in order; once all are read, says which could not be.

    Raises:
      UnreadableImages: names them.
    """

    def read_or_fail(path: str) -> np.ndarray | UserError:
        try:
            return read(path)
        except UserError as error:
            return error

    failures: dict[str, str] = {}
    found = map_ahead(read_or_fail, paths, at_once=at_once)
    for path, image in zip(paths, found, strict=True):
        if isinstance(image, UserError):
            failures[path] = str(image)
        elif not failures:  # else nothing will come of it
            yield image
    if failures:
        raise unreadable(failures, of=len(paths))


def _key(paths: Sequence[str], how: Mapping[str, Any]) -> str:
    files: list[tuple[str, int | None, int | None]] = []
    for path in paths:
        try:
            stat = os.stat(file_of(path))
            files.append((os.path.abspath(path), stat.st_mtime_ns, stat.st_size))
        except OSError:
            files.append((os.path.abspath(path), None, None))
    text = json.dumps([_PIXELS_VERSION, files, how], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _open_complete(file: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Maps a cache file; None when there is none, or one of another shape."""
    try:
        images = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _write(file: pathlib.Path, shape: tuple[int, ...], images: Iterator[np.ndarray]) -> None:
    size = np.prod(shape, dtype=np.int64) / 2**20
    with writing(file, what=f"the image cache {file} ({size:.0f} MiB)", advice=_DISK) as partial:
        remove_unfinished(file.parent)
        # Written, not assigned to a map: on a full disk a write fails, a map kills the process.
        with open(partial, "wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for image in images:
                stream.write(image.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
