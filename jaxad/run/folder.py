"""The run folder: where a run's files are, and how they are written so that none is half there.

config.json  data.json  environment.json  history.csv  events.*  checkpoints/<step>/
calibration.json  metrics.json  scores.csv  report.html  figures/
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxad.run import config as config_lib
from jaxad.run.errors import UserError


class RunFolder:
    """Names the files of one run.

    Attributes:
      path: the folder (``--workdir``).
    """

    def __init__(self, workdir: str | os.PathLike):
        self.path = pathlib.Path(workdir)

    config = property(lambda self: self.path / "config.json")
    data = property(lambda self: self.path / "data.json")
    environment = property(lambda self: self.path / "environment.json")
    timing = property(lambda self: self.path / "timing.json")
    history = property(lambda self: self.path / "history.csv")
    checkpoints = property(lambda self: self.path / "checkpoints")
    calibration = property(lambda self: self.path / "calibration.json")
    metrics = property(lambda self: self.path / "metrics.json")
    scores = property(lambda self: self.path / "scores.csv")
    report = property(lambda self: self.path / "report.html")
    figures = property(lambda self: self.path / "figures")
    cases = property(lambda self: self.path / "figures" / "cases.npz")
    outcome = property(lambda self: self.path / "outcome.json")

    def create(self) -> None:
        """Makes the folder.

        Raises:
          UserError: it cannot be made or written (below a regular file, read-only).
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except (NotADirectoryError, FileExistsError):
            file = next(p for p in (self.path, *self.path.parents) if p.exists())
            raise UserError(
                f"--workdir {self.path} cannot be a folder: {file} is a regular file"
            ) from None
        except OSError as error:
            raise UserError(f"--workdir {self.path} cannot be written: {error.strerror}") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from training in the same folder; a kill frees it.

        Raises:
          UserError: another process is training here.
        """
        with try_lock(self.path / ".lock") as mine:
            if not mine:
                raise UserError(
                    f"another process is training in {self.path}; wait for it, or use another "
                    "--workdir"
                )
            yield

    def has_checkpoint(self) -> bool:
        """Whether a finished checkpoint is there (unfinished ones have longer names)."""
        return self.checkpoints.is_dir() and any(
            folder.name.isdigit() for folder in self.checkpoints.iterdir()
        )

    def read_config(self) -> ConfigDict:
        """The config that the run was started with.

        Raises:
          UserError: this is not a run folder, or its config is damaged.
        """
        return config_lib.from_json(self._read(self.config), source=str(self.config))

    def read_json(self, path: pathlib.Path) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
          UserError: it is missing or damaged.
        """
        try:
            return json.loads(self._read(path))
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is damaged: {error}") from None

    def _read(self, path: pathlib.Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{self.path} is not a run folder: it has no {path.name}; "
                "give the --workdir of a `jaxad train`"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
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


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside ``path`` and moves it there on success: all or nothing.

    Raises:
      UserError: the disk is full or the folder cannot be written; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes JSON whole or not at all; NaN and infinities become null."""
    write_text(path, json.dumps(_plain(values), indent=2) + "\n")


def _plain(value: Any) -> Any:
    """Numpy scalars as Python's, non-finite floats as None: valid JSON everywhere."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
