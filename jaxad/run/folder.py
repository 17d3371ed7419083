"""The run folder: where a run's files are.

config.json  data.json  environment.json  history.csv  events.*  checkpoints/<step>/
calibration.json  metrics.json  scores.csv  report.html  figures/  region_mask.png  coarse/
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxad.run import config as config_lib, schema
from jaxad.run.errors import UserError
from jaxad.run.files import make_folder, plain, remove_unfinished, try_lock, write_text
from jaxad.run.settings import Settings

_SCHEMAS = {
    "data.json": schema.DATA,
    "environment.json": schema.ENVIRONMENT,
    "timing.json": schema.TIMING,
    "calibration.json": schema.CALIBRATION,
    "metrics.json": schema.METRICS,
    "outcome.json": schema.OUTCOME,
}


class RunFolder:
    """Names the files of one run.

    Attributes:
      path: the folder (``--workdir``).
    """

    def __init__(self, workdir: str | os.PathLike):
        self.path = pathlib.Path(os.path.expanduser(workdir))

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
    odd_images = property(lambda self: self.path / "odd_images.csv")
    folds = property(lambda self: self.path / "folds")
    cases = property(lambda self: self.path / "figures" / "cases.npz")
    region_mask = property(lambda self: self.path / "region_mask.png")
    coarse = property(lambda self: self.path / "coarse")
    outcome = property(lambda self: self.path / "outcome.json")

    def fold(self, number: int) -> RunFolder:
        """The run of one fold's model (``data.calibration=cross_fitted``)."""
        return RunFolder(self.folds / str(number))

    def create(self) -> None:
        """Makes the folder.

        Raises:
          UserError: it cannot be made or written (below a regular file, read-only).
        """
        make_folder(self.path, what=f"--workdir {self.path}")

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
        return self.last_step() is not None

    def last_step(self) -> int | None:
        """The step of the newest finished checkpoint; None without one."""
        names = [p.name for p in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        return max((int(name) for name in names if name.isdigit()), default=None)

    def unfinished(self) -> str:
        """What is to be known of a run whose training was not brought to its end; else empty."""
        step, total = self.last_step(), self.read_timing().get("of_steps", 0)
        if step is None or step >= total:
            return ""
        return (
            f"training stopped at step {step} of {total}, so what is judged here is a model that "
            "is not trained to its end; the command that began it goes on from there"
        )

    def has_folds(self, numbers: Iterable[int]) -> bool:
        """Whether every fold of these numbers has a model of its own."""
        return all(self.fold(number).has_checkpoint() for number in set(numbers))

    def read_config(self) -> Settings:
        """The settings that the run was started with.

        Raises:
          UserError: this is not a run folder, or its config is damaged.
        """
        return config_lib.from_json(self._read(self.config), source=str(self.config))

    def read_timing(self) -> dict[str, Any]:
        """What timing.json holds; {} where there is none."""
        return self.read_json(self.timing) if self.timing.exists() else {}

    def read_json(self, path: pathlib.Path) -> dict[str, Any]:
        """A JSON file of the run, held against its schema (:mod:`jaxad.run.schema`).

        Raises:
          UserError: it is missing or damaged, or of another version of jaxad.
        """
        return _SCHEMAS[path.name].read(self._read(path), str(path))

    def write_json(self, path: pathlib.Path, values: Mapping[str, Any]) -> None:
        """Writes a JSON file of the run whole or not at all; NaN and infinities become null.

        Raises:
          UserError: it cannot be written.
        """
        write_text(path, _SCHEMAS[path.name].write(plain(values)), durable=True)

    def write_config(self, config: Settings) -> None:
        """Writes config.json whole or not at all.

        Raises:
          UserError: it cannot be written.
        """
        write_text(self.config, config_lib.to_json(config), durable=True)

    def remove_unfinished(self) -> None:
        """Removes what killed processes left half written, in the folders of folds too."""
        for folder in (self.path, self.figures, self.coarse, *self.folds.glob("[0-9]*")):
            remove_unfinished(folder)

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
