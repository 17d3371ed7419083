"""A disk that fills up while a model trains: one sentence, and the run goes on once there is room."""

from __future__ import annotations

import errno
import pathlib
import resource
import shutil

import pytest

from jaxad.cli import main as cli
from jaxad.evaluation.detector import Detector
from jaxad.training.checkpoints import Checkpoints


@pytest.fixture
def command(tiny, tiny_data, toy_config):
    """Six steps of a model whose checkpoints are larger than all its other files."""

    def words(workdir: pathlib.Path) -> list[str]:
        keys = {key: value for key, value in tiny.items() if not key.startswith("model.")}
        keys |= {"data.root": tiny_data, "model.width": 4000}
        keys |= {"train.steps": 6, "train.checkpoint_every": 2}
        return ["train", f"--config={toy_config}", f"--workdir={workdir}"] + [
            f"--config.{key}={value}" for key, value in keys.items()
        ]

    return words


def fails(command, workdir: pathlib.Path, capsys) -> str:
    assert cli.main(command(workdir)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.count("jaxad: ") == 1
    assert error.splitlines()[-1].startswith("jaxad: ")
    return error


def detector_step(workdir: pathlib.Path) -> int:
    return Detector.load(workdir).step


def test_a_full_disk_when_a_row_of_history_is_appended(command, tmp_path, capsys, monkeypatch):
    original = pathlib.Path.open

    def full(path, mode="r", *args, **options):
        if path.name == "history.csv" and "a" in mode and len(path.read_text().splitlines()) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return original(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", full)
        error = fails(command, tmp_path / "w", capsys)
    assert "history.csv could not be written: No space left on device" in error
    assert detector_step(tmp_path / "w") == 4
    assert cli.main(command(tmp_path / "w")) == 0
    assert detector_step(tmp_path / "w") == 6


@pytest.mark.parametrize(
    "moment", ["before the write", "during the asynchronous write", "in the last one"]
)
def test_a_full_disk_in_a_checkpoint(moment, command, tmp_path, capsys, monkeypatch):
    """No file may grow beyond 20 kB from some save on: that is where only checkpoints get."""
    original, before, calls = Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE), []
    full_from = 3 if moment == "in the last one" else 2

    def save(self, state, *, validation_loss):
        calls.append(1)
        if len(calls) == full_from:
            self.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        original(self, state, validation_loss=validation_loss)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        if moment != "before the write":
            patch.setattr(Checkpoints, "_check_space", lambda self, state: None)
        try:
            error = fails(command, tmp_path / "w", capsys)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "a checkpoint could not be written to" in error and "File too large" in error
    assert "run the same command again, it goes on from the last one" in error
    assert detector_step(tmp_path / "w") == 2 * (full_from - 1)
    assert cli.main(command(tmp_path / "w")) == 0
    assert detector_step(tmp_path / "w") == 6


@pytest.mark.parametrize("moved", [True, False])
def test_a_workdir_that_is_gone_is_named_as_such(moved, command, tmp_path, capsys, monkeypatch):
    workdir, calls = tmp_path / "w", []
    original = Checkpoints.save

    def save(self, *arguments, **options):
        original(self, *arguments, **options)
        self.wait()
        calls.append(1)
        if len(calls) == 2:
            workdir.rename(tmp_path / "elsewhere")
            if not moved:
                shutil.rmtree(tmp_path / "elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        error = fails(command, workdir, capsys)
    assert f"{workdir} was removed or renamed while a run was training in it" in error
    if moved:
        shutil.rmtree(workdir, ignore_errors=True)
        (tmp_path / "elsewhere").rename(workdir)
        assert cli.main(command(workdir)) == 0
        assert detector_step(workdir) == 6
