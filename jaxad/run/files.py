"""How folders are made and files are written, whole or not at all; tables as csv; locks.

This file alone names ``tempfile`` and ``os.replace``; it and :mod:`jaxad.run.lists`, which reads
what users write, name ``csv`` (kept by the import law's test).
"""

from __future__ import annotations

import contextlib
import contextvars
import csv
import errno
import functools
import hashlib
import io
import json
import math
import os
import pathlib
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxad.run.errors import UserError
from jaxad.run.text import csv_cell, from_csv_cell

_UNFINISHED = re.compile(r"\.(?:([0-9a-f]{8})-(\d+)-)?[0-9a-f]{16}\.tmp$")
"""Ends the name of what is being written: machine and process of the writer, sixteen digits."""
_NAME_KEPT = 40


class _Written(NamedTuple):
    """A file or folder that is whole and has not its name yet."""

    temporary: pathlib.Path
    target: pathlib.Path
    what: str
    advice: str
    durable: bool

    def rename(self) -> None:
        with explaining_writes(self.what, self.advice):
            os.replace(self.temporary, self.target)
            if self.durable:
                sync(self.target.parent)


_WAITING: contextvars.ContextVar[list[_Written] | None] = contextvars.ContextVar(
    "what together() renames", default=None
)


def make_folder(path: str | os.PathLike, *, what: str | None = None) -> None:
    """Makes a folder, with its parents, and checks that files can be written there.

    Args:
      path: of the folder; it may exist.
      what: how an error names it; None takes the path.

    Raises:
      UserError: it cannot be made or written (below a regular file, read-only).
    """
    path = pathlib.Path(path)
    what = what or str(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        reserve(path)
    except (NotADirectoryError, FileExistsError):
        file = next(p for p in (path, *path.parents) if p.exists() and not p.is_dir())
        raise UserError(f"{what} cannot be a folder: {file} is a regular file") from None
    except OSError as error:
        raise UserError(f"{what} cannot be written: {error.strerror}") from None


def reserve(folder: pathlib.Path, size: int = 0) -> None:
    """Makes a file of a size in a folder and removes it: what follows will find the room.

    Raises:
      OSError: the disk is full, a quota reached, or the folder cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


@contextlib.contextmanager
def writing(
    path: str | os.PathLike, *, what: str | None = None, advice: str = "", durable: bool = False
) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside ``path`` and moves it there on success: all or nothing.

    The caller writes a file there, or makes a folder; a folder that exists already is replaced
    only where it is empty.

    Args:
      path: of the file or folder.
      what: how an error names it; None takes the path.
      advice: ends the sentence of an error.
      durable: it is on the disk, and not only in memory, before it takes its name: a power cut
        leaves the old content or the new one.

    Raises:
      UserError: the disk is full or the folder cannot be written; what was there stays.
    """
    target = pathlib.Path(path).absolute()
    # Unique among threads, processes and machines with a common disk; never too long a name.
    unique = f"{_machine()}-{os.getpid()}-{os.urandom(8).hex()}.tmp"
    temporary = target.with_name(f".{target.name[:_NAME_KEPT]}.{unique}")
    written = _Written(temporary, target, what or str(path), advice, durable)
    try:
        with explaining_writes(written.what, advice):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                sync_below(temporary)
        waiting = _WAITING.get()
        if waiting is not None:
            waiting.append(written)
            return
        written.rename()
    except BaseException:
        _remove(temporary)
        raise


@contextlib.contextmanager
def explaining_writes(what: str, advice: str = "") -> Iterator[None]:
    """Raises a failure of the disk inside as a sentence.

    Args:
      what: is written.
      advice: ends the sentence.

    Raises:
      UserError: the disk is full, or what is written there cannot be.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{what} could not be written: {reason}{advice}") from error


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What :func:`writing` writes inside takes its names when all of it is there, or none does.

    For files that belong together: on a full disk the old ones stay. Of this thread's alone.
    """
    waiting: list[_Written] = []
    token = _WAITING.set(waiting)
    try:
        yield
        for written in waiting:
            written.rename()
    finally:
        _WAITING.reset(token)
        for written in waiting:
            _remove(written.temporary)


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk.

    Raises:
      OSError: the disk is full, or failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do it for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_below(path: pathlib.Path) -> None:
    """:func:`sync` of a file, or of a folder with all that is in it."""
    if path.is_dir():
        for below in path.iterdir():
            sync_below(below)
    sync(path)


@functools.cache
def _machine() -> str:
    """Tells apart where a process number means the same process: machine, start, container."""
    marks = [socket.gethostname()]
    for read in (
        lambda: pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            marks.append(read())
    return hashlib.sha256(" ".join(marks).encode()).hexdigest()[:8]


def remove_unfinished(
    folder: pathlib.Path, name: str = "", *, older_than_seconds: float | int = 3600
) -> None:
    """Removes what killed processes left of :func:`writing`.

    What a process of this machine wrote that has ended goes at once; of others, what has not
    changed for a while: a live one wrote a moment ago.

    Args:
      folder: where to look; it may be missing.
      name: of the file or folder that was to be written; empty for any.
      older_than_seconds: by the last change.
    """
    start = f".{name[:_NAME_KEPT]}." if name else "."
    with contextlib.suppress(OSError):
        for left in os.scandir(folder):
            match = _UNFINISHED.search(left.name)
            if match and left.name.startswith(start):
                ended = match[1] == _machine() and not _is_alive(int(match[2]))
                if ended or time.time() - left.stat().st_mtime >= older_than_seconds:
                    _remove(pathlib.Path(left.path))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def write_bytes(path: str | os.PathLike, content: bytes, *, what: str | None = None) -> None:
    """Writes a file whole or not at all, see :func:`writing`."""
    with writing(path, what=what) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, text: str, *, durable: bool = False) -> None:
    """Writes a text file whole or not at all, see :func:`writing`."""
    with writing(path, durable=durable) as temporary:
        # Names of files that are not valid Unicode reach Python as lone surrogates.
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_json(path: str | os.PathLike, values: Any) -> None:
    """Writes JSON whole or not at all; NaN and infinities become null."""
    write_text(path, json.dumps(plain(values), indent=2) + "\n")


def plain(value: Any) -> Any:
    """Numpy scalars as Python's, non-finite floats as None: valid JSON everywhere."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def csv_line(values: Iterable[Any]) -> str:
    """One line of a csv file, with its end; None is an empty cell, no cell is a formula."""
    line = io.StringIO()
    # It quotes the characters of the end that it is given: names may hold either of them.
    csv.writer(line, lineterminator="\r\n").writerow(map(csv_cell, values))
    return line.getvalue().removesuffix("\r\n") + "\n"


def write_csv(
    path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes a table whole or not at all.

    Args:
      path: of the file.
      columns: keys of the rows that are written, in this order; they become the first line.
      rows: what a row lacks is an empty cell.
    """
    lines = ([row.get(name) for name in columns] for row in rows)
    write_text(path, "".join(map(csv_line, [columns, *lines])))


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    """Reads a table: a line that a kill cut off is dropped, empty cells are left out.

    Returns:
      One dict per line after the first; nothing where there is no such file.

    Raises:
      UserError: it cannot be read as a table of text.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        width = len(reader.fieldnames or ())
        return [
            {name: from_csv_cell(value) for name, value in row.items() if value}
            for row in reader
            if len(row) == width and None not in row.values()
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


@contextlib.contextmanager
def try_lock(path: pathlib.Path) -> Iterator[bool]:
    """Holds a lock file, without waiting; a kill frees it.

    Gives False where another process holds it. Where there are no locks at all (systems that are
    not POSIX, some network file systems) it gives True, and the user is on their own.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield True
        return
    with path.open("w") as file:
        mine = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            mine = error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        yield mine
