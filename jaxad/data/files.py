"""Image files below a folder, in an order that is the same on every machine; paths of images."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from PIL import features

from jaxad.run.errors import UserError

Result = TypeVar("Result")

EXTENSIONS = (".apng", ".bmp", ".dib", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm",
              ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
              *((".avif",) if features.check("avif") else ()),
              *((".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx") if features.check("jpg_2000")
                else ()))  # fmt: skip
"""Of image files, as far as this machine's Pillow reads them."""

_OTHER_EXTENSIONS = (".arw", ".avi", ".avif", ".cr2", ".cr3", ".czi", ".dcm", ".dng", ".exr",
                     ".fits", ".gif", ".hdr", ".heic", ".heif", ".j2c", ".j2k", ".jp2", ".jpc",
                     ".jpf", ".jpx", ".jxl", ".mov", ".mp4", ".nd2", ".ndpi", ".nef", ".npy",
                     ".orf", ".pcx", ".pfm", ".psd", ".raf", ".raw", ".rw2", ".sgi", ".svg",
                     ".svs", ".tga")  # fmt: skip

_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"RIFF", b"GIF8")
"""With which files of the commonest formats begin."""

SEPARATOR = "::"
"""In the path of an image in a file of many, see :mod:`jaxad.data.containers`."""

_DIGITS = re.compile(r"(\d+)")
_PAGE = re.compile(r"(.+)\[(\d{1,9})\]", re.DOTALL)


def natural_key(path: str) -> tuple:
    """Sort key under which ``2.png`` comes before ``10.png``; ties are broken by spelling."""
    pieces = _DIGITS.split(path.casefold())
    # Odd positions are the runs of digits.
    return tuple(int(p) if i % 2 else p for i, p in enumerate(pieces)), path


def image_files(folder: str | os.PathLike) -> list[str]:
    """Finds image files, by extension, in a folder and below.

    Args:
      folder: where to look. Links to folders are followed, each folder being entered once.

    Returns:
      Paths relative to ``folder`` with forward slashes, in natural order. Names that begin with
      a dot (``.DS_Store``, ``._a.png``) and ``__MACOSX`` are left out.
    """
    names = (name for name in _files(folder) if name.lower().endswith(EXTENSIONS))
    return sorted(names, key=natural_key)


def unread_note(folder: str | os.PathLike) -> str:
    """Says which image files in a folder are not read, for their endings; empty without any.

    Where none is read, all other files are named by their endings.
    """
    files = list(_files(folder))
    read = sum(file.lower().endswith(EXTENSIONS) for file in files)
    unread = [file for file in files if _is_unread_image(folder, file)]
    found = Counter(pathlib.PurePath(file).suffix.lower() or "without ending" for file in unread)
    if not found:
        if read or not files:
            return ""
        found = Counter(pathlib.PurePath(f).suffix.lower() or "without ending" for f in files)
        endings = ", ".join(f"{number} {ending}" for ending, number in found.most_common(5))
        return f"no file is read as an image: {endings}"
    endings = ", ".join(f"{number} {ending}" for ending, number in found.most_common())
    return f"{found.total()} of {found.total() + read} image files are not read: {endings}"


def _is_unread_image(folder: str | os.PathLike, file: str) -> bool:
    name = file.lower()
    if name.endswith(EXTENSIONS) or "." in os.path.basename(name):
        return name.endswith(_OTHER_EXTENSIONS) and not name.endswith(EXTENSIONS)
    try:
        with open(os.path.join(folder, file), "rb") as stream:
            return stream.read(4).startswith(_SIGNATURES)
    except OSError:
        return False


def _files(folder: str | os.PathLike) -> Iterator[str]:
    """All files in a folder and below, relative, but hidden ones."""
    folder = os.fspath(folder)
    entered = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(f for f in folders if f != "__MACOSX" and not f.startswith("."))
        prefix = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in names:
            if not name.startswith("."):
                yield name if prefix == "." else f"{prefix}/{name}"


def member_path(container: str | os.PathLike, member: str | int) -> str:
    """Returns the path of one image in a container."""
    return f"{os.fspath(container)}{SEPARATOR}{member}"


def split_member(path: str | os.PathLike) -> tuple[str, str] | None:
    """Parts a member's path into container and member; None for any other path."""
    container, separator, member = os.fspath(path).rpartition(SEPARATOR)
    # A file whose own name has the separator in it is a file.
    if not separator or not os.path.exists(container) or os.path.lexists(path):
        return None
    return container, member


def split_page(path: str | os.PathLike) -> tuple[str, int] | None:
    """Parts a page's path (``FILE[3]``) into file and number; None for any other path."""
    match = _PAGE.fullmatch(os.fspath(path))
    # A file whose own name ends so is a file.
    if match is None or not os.path.isfile(match[1]) or os.path.lexists(path):
        return None
    return match[1], int(match[2])


def file_of(path: str | os.PathLike) -> str:
    """Returns the file that a path is read from: a container, a file of pages, or the path."""
    parts = split_member(path) or split_page(path)
    return os.fspath(path) if parts is None else parts[0]


def remembered(
    maxsize: int, *within: str
) -> Callable[[Callable[[str], Result]], Callable[[str], Result]]:
    """Makes a function of a path keep its results until the file, or the folder itself, changes.

    Threads that ask at once wait for one of them to read.

    Args:
      maxsize: number of results that are kept, the last ones asked for.
      within: names of files in a folder whose changes count instead; all but the first may be
        missing.
    """

    def decorate(function: Callable[[str], Result]) -> Callable[[str], Result]:
        lock = threading.Lock()
        kept = functools.lru_cache(maxsize)(lambda path, stamps: function(path))

        @functools.wraps(function)
        def remembering(path: str) -> Result:
            files = [os.path.join(path, name) for name in within] or [path]
            stamps = tuple(_stamp(file) for file in files)
            if stamps[0] is None:
                raise UserError(f"{files[0]} does not exist")
            with lock:
                return kept(path, stamps)

        return remembering

    return decorate


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
