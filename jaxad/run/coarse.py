"""The run of another model inside a run (``evaluate.coarse``): one of whole photographs.

It is copied into the run that judges with it, so that everything a run needs is in its folder.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
from typing import NamedTuple

from jaxad.run.errors import UserError
from jaxad.run.files import writing
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings

_RECORDS = ("config.json", "data.json", "environment.json", "timing.json")
"""What a copy has beside checkpoints; what was trained when and on what tells two runs apart."""
_FOLDERS = ("checkpoints", "folds")
_COPY = re.compile("coarse/[0-9a-f]{16}")


class CoarseRun(NamedTuple):
    """A run of a model of whole photographs.

    Attributes:
      run: its folder.
      sha256: of its records.
    """

    run: RunFolder
    sha256: str


def read_coarse_run(run: RunFolder, config: Settings) -> CoarseRun | None:
    """The run that ``evaluate.coarse`` names; None without it.

    Args:
      run: which keeps a copy.
      config: of the run; its ``evaluate.coarse`` names the copy, or another run folder.

    Raises:
      UserError: it is no run folder, or one of another kind of model.
    """
    name = config.evaluate.coarse
    if not name:
        return None
    if not any(config.data.tiles):
        raise UserError(
            "evaluate.coarse joins a model of whole photographs to one of tiles, and this run has "
            "no data.tiles; leave it empty"
        )
    # The name of a copy is that of no other folder: where it is gone, nothing stands in for it.
    found = RunFolder(run.path / name if _COPY.fullmatch(name) else os.path.expanduser(name))
    _check_fits(config, found.read_config(), name)
    if not found.has_checkpoint():
        raise UserError(f"evaluate.coarse {name} holds no trained model; train it first")
    files = [found.path / name for name in _RECORDS]
    content = b"".join(file.read_bytes() for file in files if file.exists())
    return CoarseRun(found, hashlib.sha256(content).hexdigest())


def _check_fits(tiles: Settings, coarse: Settings, name: str) -> None:
    if any(coarse.data.tiles):
        raise UserError(
            f"evaluate.coarse {name} is a run with data.tiles too; give one that sees photographs "
            "as a whole"
        )
    for key in ("region", "channels", "alpha", "range_16bit"):
        here, there = getattr(tiles.data, key), getattr(coarse.data, key)
        if here != there:
            raise UserError(
                f"evaluate.coarse {name} has data.{key}={there!r}, and this run {here!r}; both "
                "must read photographs in the same way"
            )


def keep_coarse(run: RunFolder, config: Settings) -> Settings:
    """Copies the run that ``evaluate.coarse`` names into the run folder, and names the copy.

    Raises:
      UserError: as of :func:`read_coarse_run`, or the copy cannot be written.
    """
    found = read_coarse_run(run, config)
    if found is None:
        return config
    target = run.coarse / found.sha256[:16]  # another one does not take its place half-way
    if not target.exists():
        with writing(target, what=f"the copy of {found.run.path}", durable=True) as temporary:
            _copy(found.run.path, temporary)
    return config.changed("evaluate", coarse=target.relative_to(run.path).as_posix())


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.mkdir(parents=True)
    for name in _RECORDS:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    for name in _FOLDERS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
