"""How the benchmarks that time each row alone run a row: in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output``, and what only the processes of rows are given."""
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)


def answer_of(row: str, options: argparse.Namespace) -> str:
    """Runs this command once more for one row, and returns what it prints.

    Args:
      row: given as ``--worker``.
      options: whose ``folder`` all rows share.
    """
    script = pathlib.Path(sys.argv[0]).resolve()
    done = subprocess.run(
        [sys.executable, script, *sys.argv[1:], f"--worker={row}", f"--folder={options.folder}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    return done.stdout


def resident(key: str) -> float:
    """``VmRSS`` or ``VmHWM`` (its peak) of this process in MiB; elsewhere the peak for both."""
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def write_report(report: dict[str, Any], target: pathlib.Path | None) -> None:
    """Writes the report as JSON, if a file was asked for."""
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=1) + "\n")
