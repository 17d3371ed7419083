"""How the benchmarks that time each row alone run a row: in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
from collections.abc import Sequence
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


def measure_each(
    script: str, names: Sequence[str], output: pathlib.Path, arguments: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rows of configs, each measured by a process of its own.

    The file is rewritten after every config, and configs that stand in it are left alone.

    Args:
      script: with ``--one=NAME`` it prints the row of a config as its last line.
      names: of the configs.
      output: JSON file of the rows.
      arguments: further ones of the script.
    """
    import jax

    from jaxad.run.environment import processor_name

    made_by = f"tools/benchmarks/{pathlib.Path(script).name}"
    head = {"made_by": made_by, "processor": processor_name(), "jax": jax.__version__}
    rows = json.loads(output.read_text())["rows"] if output.exists() else []
    for name in names:
        if name in [row["config"] for row in rows]:
            continue
        command = [sys.executable, script, f"--output={output}", f"--one={name}", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
        write_report(head | {"rows": rows}, output)
    return rows


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
