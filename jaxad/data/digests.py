"""Whether image files still hold what they held: their sizes, and a digest of each.

A file of many images (:mod:`jaxad.data.containers`) counts as one, a folder of shards as its files.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxad.data.files import file_of
from jaxad.data.table import Sample, SampleTable
from jaxad.data.threads import map_ahead
from jaxad.run.errors import UserError

_SHOWN = 3


def contents_of(
    table: SampleTable, samples: Iterable[Sample], *, hashed: bool = True
) -> dict[str, Any]:
    """What the files of samples hold.

    Args:
      table: their paths are named from its root.
      samples: of the table.
      hashed: read the files; if not, only their sizes are taken.

    Returns:
      ``"bytes"``: name -> size, and ``"sha256"``: name -> digest in hexadecimal digits, of no file
      where ``hashed`` is False.

    Raises:
      UserError: a file cannot be read.
    """
    files = sorted({file for sample in samples for file in _files(file_of(sample.path))})
    names = [_name(file, table.root) for file in files]
    try:
        sizes = [os.stat(file).st_size for file in files]
        digests = list(map_ahead(sha256_of, files)) if hashed else []
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    return {
        "bytes": dict(zip(names, sizes, strict=True)),
        "sha256": dict(zip(names, digests, strict=False)),
    }


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], *, run: object) -> None:
    """Refuses files that hold something else than before.

    Files that only one of the two records names are not compared.

    Args:
      before: what :func:`contents_of` gave, perhaps among other keys; nothing of it in records of
        older runs.
      now: what it gives now.
      run: named in the error.

    Raises:
      UserError: names what changed, and how.
    """
    changed = []
    for name, size in now["bytes"].items():
        one, other = (record.get("sha256", {}).get(name) for record in (before, now))
        former = before.get("bytes", {}).get(name, size)
        if former != size:
            changed.append(f"{name} ({former} bytes then, {size} now)")
        elif one and other and one != other:
            changed.append(f"{name} (other content of the same size)")
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise UserError(
            f"image files have changed since {run} was started with them: "
            f"{', '.join(changed[:_SHOWN])}{more}; restore them, or train into a new --workdir"
        )


def _files(path: str) -> list[str]:
    """The path, or all files of a folder."""
    place = pathlib.Path(path)
    return [str(file) for file in place.rglob("*") if file.is_file()] if place.is_dir() else [path]


def _name(file: str, root: str) -> str:
    """The path from the root with forward slashes; absolute outside, a name for the root itself."""
    absolute, base = pathlib.PurePath(os.path.abspath(file)), os.path.abspath(root)
    if not absolute.is_relative_to(base):
        return absolute.as_posix()
    return absolute.name if str(absolute) == base else absolute.relative_to(base).as_posix()


def sha256_of(file: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
      OSError: it cannot be read.
    """
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
