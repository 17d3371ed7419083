"""A disk that fails to read, as network disks do at times: one sentence, and nothing is lost."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import shutil

import pytest

from jaxad.cli import main as cli


@pytest.fixture
def failing(monkeypatch):
    """Lets every opening of files whose path ends in a name fail with EIO, in a context."""

    @contextlib.contextmanager
    def context(name: str):
        failed = []
        original = io.open

        def fail(file, *arguments, **options):
            if isinstance(file, str | os.PathLike) and os.fspath(file).endswith(name):
                failed.append(file)
                raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(file))
            return original(file, *arguments, **options)

        with monkeypatch.context() as patch:
            for module in (io, builtins):
                patch.setattr(module, "open", fail)
            yield
        assert failed, f"nothing reads {name}"

    return context


@pytest.fixture
def own(calibrated, tmp_path):
    """A calibrated run of one's own."""
    return shutil.copytree(calibrated, tmp_path / "run")


COMMANDS = {
    "evaluate": (),
    "predict": ("--output={out}", "--input={data}/test", "--no-overlays"),
    "export": ("--output={out}.file",),
}


FILES = ("config.json", "data.json", "calibration.json", "test/box/001.png")
CASES = [(c, n) for c in COMMANDS for n in FILES if (c, n) != ("export", FILES[-1])]


@pytest.mark.parametrize("command, name", CASES)
def test_a_read_that_fails_is_one_sentence(command, name, own, data, tmp_path, failing, capsys):
    words = [word.format(out=tmp_path / "out", data=data) for word in COMMANDS[command]]
    before = {path: path.read_bytes() for path in own.glob("*.json")}
    with failing(name):
        status = cli.main([command, f"--workdir={own}", *words])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if command == "predict" and name.endswith("png"):
        assert status == 1 and "Input/output error" in (tmp_path / "out/scores.csv").read_text()
    else:
        assert status == 2
        (sentence,) = [line for line in said.splitlines() if line.startswith("jaxad: ")]
        assert name in sentence and "Input/output error" in sentence
    assert {path: path.read_bytes() for path in own.glob("*.json")} == before
    assert cli.main([command, f"--workdir={own}", *words]) == 0
