"""Signals end a command wherever they come, also where libraries hush what they raise."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from jaxad.run import interruption

PROGRAM = """
import os, signal, sys, time
from jaxad.run import interruption
interruption.listen()

class Hushed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass

try:
    {body}
except KeyboardInterrupt:
    sys.exit(int(interruption.came()))
"""
BODIES = {
    "at once": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", signal.SIGINT),
    "hushed": ("Hushed(); time.sleep(60)", signal.SIGINT),
    "terminated": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", signal.SIGTERM),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_signal_is_not_lost(name):
    body, number = BODIES[name]
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == number, done.stderr
    assert done.stderr == ""


def test_an_interrupted_import_is_no_traceback():
    """numpy and others make an ImportError of the KeyboardInterrupt that they meet."""
    program = (
        "import os, signal, sys; from jaxad.cli import commands\n"
        "def run(arguments, overrides):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(1000)]\n"
        "    except KeyboardInterrupt: raise ImportError('numpy could not be loaded') from None\n"
        "commands.config = run\n"
        "from jaxad.cli import main\n"
        "sys.argv = ['jaxad', 'config']; sys.exit(main.main())"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "jaxad: interrupted; the same command goes on where it stopped"


def test_a_loop_that_ends_by_itself_is_left_to(monkeypatch):
    came: list[int] = []
    monkeypatch.setattr(interruption, "_came", came)
    monkeypatch.setattr(interruption, "_last", [])
    now = [0.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    with interruption.ending_by_itself():
        interruption._handle(signal.SIGTERM, None)
        interruption.check()
        assert interruption.came() == signal.SIGTERM
        now[0] = 0.9  # the same again, passed on by a wrapper
        interruption._handle(signal.SIGTERM, None)
        interruption.check()
        now[0] = 1.5
        with pytest.raises(KeyboardInterrupt):  # once more: at once
            interruption._handle(signal.SIGTERM, None)
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    came.clear()
    with interruption.ending_by_itself(), pytest.raises(KeyboardInterrupt):
        interruption._handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        interruption.check()
