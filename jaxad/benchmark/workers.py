"""Worker processes of a benchmark: the same command several times, each on devices of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from jaxad.run.errors import UserError

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Variables that tell JAX which of a machine's GPUs are a process's."""


def run_workers(command: Sequence[str], count: int) -> None:
    """Runs ``jaxad COMMAND`` in several processes and waits for all.

    How they end is not looked at: what they left undone is for the caller, who finds the cells.

    Args:
      command: words after ``jaxad``.
      count: number of processes. They part the GPUs among them; without GPUs they share the
        processor, whose cores every one of them would use alone.

    Raises:
      UserError: there are GPUs, but fewer than processes.
    """
    environments = device_environments(count, os.environ, gpus=_gpus())
    workers = []
    try:
        for environment in environments:
            words = [sys.executable, "-m", "jaxad.cli.main", *command]
            workers.append(subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL))
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
                worker.wait()


def device_environments(
    count: int, environment: Mapping[str, str], *, gpus: int = 0
) -> list[dict[str, str]]:
    """The environment of each worker.

    Args:
      count: number of workers.
      environment: of this process; a list of visible GPUs in it is kept to.
      gpus: of the machine.

    Returns:
      Copies of the environment, each with an equal share of the GPUs, the first ones one more
      where they do not divide; plain copies where there is none.

    Raises:
      UserError: fewer than one worker, or fewer GPUs than workers.
    """
    if count < 1:
        raise UserError(f"--parallel takes a number of processes from 1, not {count}")
    name = next((one for one in VISIBLE if environment.get(one)), VISIBLE[0])
    listed = [one.strip() for one in environment.get(name, "").split(",") if one.strip()]
    visible = listed or [str(number) for number in range(gpus)]
    if not visible:
        return [dict(environment) for _ in range(count)]
    if len(visible) < count:
        raise UserError(f"--parallel is {count}, but there are {len(visible)} GPUs; each process "
                        "takes the memory of its own")  # fmt: skip
    return [{**environment, name: ",".join(visible[place::count])} for place in range(count)]


def _gpus() -> int:
    """How many NVIDIA GPUs the machine has, without JAX, which would take hold of them."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())
