"""A part of `make chaos`: mutated files over every reader are read as promised, or refused."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_mutated_files_are_read_as_promised_or_refused(project_root):
    # From a place of its own, so that it is no repetition of `make chaos`.
    command = [sys.executable, "tests/chaos/inputs.py", "--count=4800", "--seed=1000000"]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
