"""Image files below a folder, in an order that is the same on every machine."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

EXTENSIONS = (
    ".bmp",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)

_DIGITS = re.compile(r"(\d+)")


def natural_key(path: str) -> tuple:
    """Sort key under which ``2.png`` comes before ``10.png``; ties are broken by spelling."""
    pieces = _DIGITS.split(path.casefold())
    # Odd positions are the runs of digits.
    return tuple(int(p) if i % 2 else p for i, p in enumerate(pieces)), path


def image_files(folder: str | os.PathLike, *, skip: Collection[str] = ()) -> list[str]:
    """Finds image files, by extension, in a folder and below.

    Args:
      folder: where to look. Links to folders are followed, each folder being entered once.
      skip: names of folders that are left out at any depth.

    Returns:
      Paths relative to ``folder`` with forward slashes, in natural order. Names that begin with
      a dot (``.DS_Store``, ``._a.png``) and ``__MACOSX`` are left out.
    """
    folder = os.fspath(folder)
    found = []
    entered = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(
            f for f in folders if f not in skip and f != "__MACOSX" and not f.startswith(".")
        )
        prefix = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in names:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                found.append(name if prefix == "." else f"{prefix}/{name}")
    return sorted(found, key=natural_key)
