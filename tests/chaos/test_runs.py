"""A part of `make chaos`: kills, failing reads and damage to run folders lose nothing, silently or not."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "part, count",
    [("reading", 300), ("run_folder", 40), ("kills", 18), ("faults", 8), ("several", 2)],
)
def test_commands_survive(part, count, project_root):
    # From a place of its own, so that it is no repetition of `make chaos`.
    words = [f"tests/chaos/{part}.py", f"--count={count}", "--seed=1000"]
    done = subprocess.run(
        [sys.executable, *words], cwd=project_root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
