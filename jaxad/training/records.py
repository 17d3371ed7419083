"""What a run writes while it trains: rows, checkpoints, seconds, events, progress."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator

from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.run.progress import Progress
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.events import Events
from jaxad.training.history import History, Row, digest_of
from jaxad.training.state import TrainState


class Records:
    """The records of one session, as a context manager."""

    def __init__(
        self, run: RunFolder, checkpoints: Checkpoints, *, first: int, total: int, images_each: int
    ):
        """Goes on with the files of a run.

        Args:
          run: where they are.
          checkpoints: of the run.
          first: steps that earlier sessions took; what was written of later ones is dropped.
          total: steps in all.
          images_each: images in a step.
        """
        self._run, self._checkpoints, self._total = run, checkpoints, total
        self._folder = _identity(run.path)
        timing = run.read_timing() if first else {}
        self._history = History(run.history, up_to_step=first, timing=timing)
        # As if the sessions so far had ended just now.
        self._begun = time.perf_counter() - timing.get("train_seconds", 0.0)
        self._events = Events(run.path, first_step=first)
        self._progress = Progress(
            "step", total, done=first, images_each=images_each, always=True, warm_up=True
        )

    def __enter__(self) -> Records:
        self._progress.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.__exit__(*failure)

    def write(self, row: Row, state: TrainState | None) -> None:
        """Writes a row of history.csv and, with a state, a checkpoint.

        Raises:
          UserError: the disk is full.
        """
        step = int(row["step"])
        with self._in_its_folder():
            self._history.append(row)
            if state is not None:
                self._history.sync()
                self._checkpoints.save(state, validation_loss=row.get("validation_loss"))
                self._write_timing(step)
            self._progress.update(step, _note(row), row)
            speed = self._progress.images_per_second(step)
            self._events.write(step, {**row, "images_per_second": speed})

    def _write_timing(self, step: int) -> None:
        """Writes timing.json: seconds, steps and of how many, digest of the history up to there."""
        seconds = time.perf_counter() - self._begun
        history = digest_of(self._history.rows, up_to_step=step)
        values = {"train_seconds": seconds, "steps": step, "of_steps": self._total}
        self._run.write_json(self._run.timing, {**values, "history": history})

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk.

        Raises:
          UserError: it could not be written.
        """
        with self._in_its_folder():
            self._checkpoints.wait()

    @contextlib.contextmanager
    def _in_its_folder(self) -> Iterator[None]:
        """Names a run folder that is gone, where every file in it fails with words of its own."""
        self._check_folder()
        try:
            yield
        except UserError:
            self._check_folder()
            raise
        self._check_folder()

    def _check_folder(self) -> None:
        # Not only whether it exists: what is written in it makes it anew.
        if _identity(self._run.path) != self._folder:
            raise UserError(
                f"{self._run.path} was removed or renamed while a run was training in it, so "
                "training has stopped; put it back to go on from its last checkpoint, or start "
                "again"
            )


def _identity(folder: pathlib.Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _note(row: Row) -> str:
    note = f"loss {row['loss']:.5g}"
    return note + (f"  validation {row['validation_loss']:.5g}" if "validation_loss" in row else "")
