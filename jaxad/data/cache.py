"""Files to one uint8 array, decoded once: in memory, or memory-mapped when it is large."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

from jaxad.data.containers import file_of
from jaxad.data.images import FULL_RANGE, read_image
from jaxad.data.region import WHOLE, Region, is_whole
from jaxad.data.table import Sample
from jaxad.run.environment import cache_folder
from jaxad.run.errors import UserError
from jaxad.run.files import remove_unfinished, writing

# Part of every key: to be raised whenever the decoder or the resizer gives other pixels.
_PIXELS_VERSION = 1
_CHUNK = 64
_DISK = "; free disk space, point JAXAD_CACHE to a larger disk, or raise data.memory_limit_mb"

Progress = Callable[[int, int], None]


def prepare_images(
    samples: Sequence[Sample | str | os.PathLike],
    *,
    image_size: tuple[int, int],
    channels: int,
    range_16bit: tuple[float, float] = FULL_RANGE,
    region: Region = WHOLE,
    memory_limit_mb: int = 4096,
    cache_dir: str | os.PathLike | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> UInt8[np.ndarray, "n h w c"]:
    """Decodes and resizes images into one array.

    An array above the memory limit is written to ``cache_dir`` and mapped from there; a file that
    an earlier call wrote for the same images and options is used whatever the limit. Its name
    is a hash of paths, modification times, file sizes and options, and it takes that name only
    once it is complete.

    Args:
      samples: samples or paths.
      image_size: ``(h, w)`` of the result.
      channels: 1 or 3.
      range_16bit: see :func:`jaxad.data.images.resolve_range_16bit`.
      region: the part of every image that is kept, see :mod:`jaxad.data.region`.
      memory_limit_mb: largest array to keep in memory, in MiB; 0 always writes the file.
      cache_dir: folder of the files; None stands for ``images`` in the user's cache folder.
      workers: decoding threads; None takes the number of CPU cores, at most 16.
      progress: called with ``(images done, images in all)``.

    Returns:
      ``(n, h, w, c)`` uint8; a read-only ``np.memmap`` when it comes from a file.

    Raises:
      UserError: some images cannot be read (the first ten are named), or the cache file cannot
        be written.
    """
    paths = [os.fspath(s.path if isinstance(s, Sample) else s) for s in samples]
    shape = (len(paths), *image_size, channels)
    options = _options(image_size, channels, range_16bit, region)
    folder = pathlib.Path(cache_dir) if cache_dir is not None else cache_folder() / "images"
    file = folder / f"{_key(paths, options)}.npy"
    cached = _open_complete(file, shape)
    if cached is not None:
        return cached
    chunks = _decoded_chunks(paths, options, workers, progress)
    if np.prod(shape, dtype=np.int64) <= memory_limit_mb * 2**20:
        images = np.empty(shape, np.uint8)
        _raise_failures(_fill(images, chunks), paths)
        return images
    _write_atomically(file, shape, chunks, paths)
    written = _open_complete(file, shape)
    if written is None:
        raise UserError(f"{file} was removed while it was being prepared; run again")
    return written


def read_many(
    paths: Sequence[str | os.PathLike],
    *,
    image_size: tuple[int, int],
    channels: int,
    range_16bit: tuple[float, float] = FULL_RANGE,
    region: Region = WHOLE,
    workers: int | None = None,
) -> tuple[UInt8[np.ndarray, "n h w c"], dict[int, str]]:
    """Reads images for prediction: a bad file costs its own row only.

    Returns:
      ``(images, failures)``: ``(n, h, w, c)`` uint8, black where a file could not be read, and
      row -> sentence for those files.
    """
    images = np.zeros((len(paths), *image_size, channels), np.uint8)
    options = _options(image_size, channels, range_16bit, region)
    chunks = _decoded_chunks([os.fspath(path) for path in paths], options, workers, None)
    return images, _fill(images, chunks)


def _options(
    image_size: tuple[int, int], channels: int, range_16bit: tuple[float, float], region: Region
) -> dict:
    """Of :func:`~jaxad.data.images.read_image`; what stands here is part of the cache's key."""
    options = {"image_size": image_size, "channels": channels, "range_16bit": range_16bit}
    # Only where there is one: files from before there were regions hold whole images.
    return options if is_whole(region) else options | {"region": tuple(region)}


# A chunk: its images in order, an exception in place of an image that cannot be read.
Chunk = list[np.ndarray | UserError]


def _decoded_chunks(
    paths: Sequence[str], options: dict, workers: int | None, progress: Progress | None
) -> Iterator[Chunk]:
    def read(path: str) -> np.ndarray | UserError:
        try:
            return read_image(path, **options)
        except UserError as error:
            return error

    # Pillow decodes and resizes without the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = list(pool.map(read, paths[start : start + _CHUNK]))
            yield chunk
            if progress is not None:
                progress(start + len(chunk), len(paths))


def _fill(images: np.ndarray, chunks: Iterator[Chunk]) -> dict[int, str]:
    """Writes decoded images into their rows; returns row -> sentence of those that failed."""
    failures = {}
    row = 0
    for chunk in chunks:
        for item in chunk:
            if isinstance(item, UserError):
                failures[row] = str(item)
            else:
                images[row] = item
            row += 1
    return failures


def _raise_failures(failures: dict[int, str], paths: Sequence[str]) -> None:
    if not failures:
        return
    if len(failures) == 1:
        raise UserError(next(iter(failures.values())))
    shown = "; ".join(list(failures.values())[:10])
    more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
    raise UserError(f"{len(failures)} of {len(paths)} images cannot be read: {shown}{more}")


def _key(paths: Sequence[str], options: dict) -> str:
    files = []
    for path in paths:
        try:
            stat = os.stat(file_of(path))
            files.append((os.path.abspath(path), stat.st_mtime_ns, stat.st_size))
        except OSError:
            files.append((os.path.abspath(path), None, None))
    text = json.dumps([_PIXELS_VERSION, files, options], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _open_complete(file: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Maps a cache file; None when there is none, or one of another shape."""
    try:
        images = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _write_atomically(
    file: pathlib.Path, shape: tuple[int, ...], chunks: Iterator[Chunk], paths: Sequence[str]
) -> None:
    failures: dict[int, str] = {}
    size = np.prod(shape, dtype=np.int64) / 2**20
    with writing(file, what=f"the image cache {file} ({size:.0f} MiB)", advice=_DISK) as partial:
        remove_unfinished(file.parent)
        # Written, not assigned to a map: on a full disk a write fails, a map kills the process.
        with open(partial, "wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            row = 0
            for chunk in chunks:
                images = np.zeros((len(chunk), *shape[1:]), np.uint8)
                failures |= {row + r: text for r, text in _fill(images, iter([chunk])).items()}
                stream.write(images.tobytes())
                row += len(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        _raise_failures(failures, paths)
