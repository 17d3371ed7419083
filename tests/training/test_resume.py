"""A run that is killed at any moment and started again ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxad.run import interruption
from jaxad.run.errors import UserError
from jaxad.run.files import read_csv
from jaxad.run.folder import RunFolder
from jaxad.training import session
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.events import Events
from jaxad.training.history import History


class Killed(BaseException):
    """Not an Exception: nothing between the loop and the test may catch it."""


# What is interrupted, at which of its calls, and whether it has done its work by then.
MOMENTS = {
    "in the first step": (session, "summarise_steps", 1, False),
    "first row written": (History, "append", 1, True),
    "row written, its checkpoint not": (Checkpoints, "save", 2, False),
    "checkpoint begun, its event not written": (Events, "write", 6, False),
    "between two checkpoints": (History, "append", 5, True),
    "in the last save": (Checkpoints, "save", 3, True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_going_on_gives_the_same_run(moment, finished, train_tiny, same_run, tmp_path, monkeypatch):
    owner, name, at, afterwards = MOMENTS[moment]
    original, calls = getattr(owner, name), []

    def interrupted(*args, **kwargs):
        calls.append(name)
        if len(calls) == at and not afterwards:
            raise Killed
        result = original(*args, **kwargs)
        if len(calls) == at:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(Killed):
        train_tiny(tmp_path / "run")
    assert len(calls) == at
    monkeypatch.undo()
    same_run(train_tiny(tmp_path / "run"), finished, step=12)


def test_a_termination_keeps_a_checkpoint(finished, train_tiny, same_run, tmp_path, monkeypatch):
    """At the next report, which is no regular checkpoint; the run goes on as if nothing was."""
    original, rows_so_far = History.append, []

    def append(self, row):
        original(self, row)
        rows_so_far.append(row["step"])
        if row["step"] == 4:
            with contextlib.suppress(KeyboardInterrupt):  # as a library may
                interruption._handle(signal.SIGTERM, None)

    with monkeypatch.context() as patch:
        patch.setattr(interruption, "_came", [])
        patch.setattr(History, "append", append)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(tmp_path / "run")
    assert rows_so_far == [2, 4, 6]
    run = RunFolder(tmp_path / "run")
    assert sorted(f.name for f in run.checkpoints.iterdir()) == ["4", "6"]
    same_run(train_tiny(run.path), finished, step=12)


def test_a_finished_run_is_left_as_it_is(finished, train_tiny, monkeypatch, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.checkpoints.rglob("*")}
    history = finished.history.read_bytes()
    monkeypatch.setattr(session, "training_batches", None)  # a step would fail
    train_tiny(finished.path)
    assert "already trained to step 12 of 12" in capsys.readouterr().err
    assert finished.history.read_bytes() == history
    assert {p: p.stat().st_mtime_ns for p in finished.checkpoints.rglob("*")} == before


def test_a_finished_run_is_trained_longer(finished, train_tiny, same_run, tmp_path):
    shorter = train_tiny(tmp_path / "run", train__steps=8)
    with pytest.raises(UserError, match=r"train\.steps is 8 there and 6 here"):
        train_tiny(tmp_path / "run", train__steps=6)
    same_run(train_tiny(tmp_path / "run"), finished, step=12)
    assert shorter.read_config().train.steps == 12


def unfinished_save(run: RunFolder) -> bool:
    """Orbax writes into a folder with a longer name first: this one has begun and not ended."""
    return run.checkpoints.is_dir() and any(
        not folder.name.isdigit() and folder.name.startswith("8.")
        for folder in run.checkpoints.iterdir()
    )


def rows(run: RunFolder, count: int) -> bool:
    try:
        return len(read_csv(run.history)) >= count
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_kills_of_the_process(tiny, tiny_data, toy_config, same_run, tmp_path):
    """SIGKILL during an asynchronous save, and between two of them."""

    # The toy compiles at once, so that the time goes into what is tested.
    program = (
        "import sys, toy_model, jaxad.cli.main; from jaxad.models import ARCHITECTURES; "
        "ARCHITECTURES['toy'] = toy_model.TOY; sys.exit(jaxad.cli.main.main())"
    )
    keys = {k: v for k, v in tiny.items() if not k.startswith("model.")}
    keys |= {"data.root": tiny_data, "train.steps": 40, "train.log_every": 1}
    words = ["train", f"--config={toy_config}"]
    words += [f"--config.{key}={value}" for key, value in keys.items()]
    path = os.pathsep.join([str(pathlib.Path(__file__).parents[1]), os.getcwd()])

    def start(run: RunFolder) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", program, *words, f"--workdir={run.path}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )

    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    uninterrupted = start(whole)
    moments = [
        lambda: unfinished_save(run),
        lambda: rows(run, 27),
    ]
    for reached in moments:
        process = start(run)
        while not reached() and process.poll() is None:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        # Were it ever too late, this test would no longer test anything.
        assert process.wait(60) == -signal.SIGKILL
    for process in (start(run), uninterrupted):
        assert process.wait(300) == 0, process.stderr.read()
    same_run(run, whole, step=40)
    assert not [f.name for f in run.checkpoints.iterdir() if not f.name.isdigit()]
