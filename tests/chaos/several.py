"""Kills of one of two processes that train one run: `make chaos`; a table, and goals as of kills.py.

    python tests/chaos/several.py [--count=8] [--seed=0] [--only=PROCESS] [--json=FILE]

Two processes train the toy model (`--coordinator`, `--processes`, `--process`). One of them is
killed, terminated or interrupted when the run has got to a random row of its history. Both must
end by themselves, with a sentence; the same two commands are given again, and must end with what
they give undisturbed. Outcomes are those of kills.py. A process starts in seconds, not in a fork,
so that this is slower.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import time

from campaign import main, started
from kills import BAD, COLUMNS, SIGNALS, newest_checkpoint
from tally import Tally
from world import World, litter, training_results
from zygote import PROJECT

STEPS = 24
KEYS = [f"--config.train.steps={STEPS}", "--config.train.log_every=1"]
PROCESSES = {"first": 0, "second": 1}
SECONDS = 300.0
PROGRAM = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 1)
import toy_model
from jaxad.models import ARCHITECTURES
ARCHITECTURES["toy"] = toy_model.TOY
import jaxad.cli.main
sys.exit(jaxad.cli.main.main())
"""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Pair:
    """Two processes that have been started together."""

    def __init__(self, world: World, place: pathlib.Path):
        """Starts them in a folder, in which they write ``run`` and what they print."""
        self._said = [place / "first.txt", place / "second.txt"]
        words = [*world.train(*KEYS), f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(world.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAXAD_CACHE": str(place / "cache"),
        }
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words, f"--process={number}"],
                cwd=place, env=environment, stdout=said.open("w"), stderr=subprocess.STDOUT,
            )
            for number, said in enumerate(self._said)
        ]  # fmt: skip

    def run_on(self) -> bool:
        """Whether both are still running."""
        return all(process.poll() is None for process in self.processes)

    def end(self) -> list[int]:
        """Waits for both; their statuses, None of one that had to be killed."""
        until = time.monotonic() + SECONDS
        statuses = []
        for process in self.processes:
            try:
                statuses.append(process.wait(max(0.1, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                statuses.append(None)
        return statuses

    def text(self) -> list[str]:
        """What each has printed."""
        return [said.read_text(errors="replace") for said in self._said]


def rows(place: pathlib.Path) -> int:
    """Of the history, without its heading."""
    file = place / "run" / "history.csv"
    return max(0, file.read_bytes().count(b"\n") - 1) if file.exists() else 0


def fresh(place: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def attempt(
    world: World, place: pathlib.Path, reference: dict[str, str], signalled: int, rng: random.Random
) -> tuple[str, str]:
    """Signals one of two and starts both again; the outcome, and a note on a bad one."""
    number, row = rng.choice(SIGNALS), rng.randint(1, STEPS - 4)
    pair = Pair(world, fresh(place))
    while pair.run_on() and rows(place) < row:
        time.sleep(0.002)
    pair.processes[signalled].send_signal(number)
    first, said = pair.end(), pair.text()
    if first == [0, 0]:
        return "too late", ""
    before = newest_checkpoint(place / "run")
    again = Pair(world, place)
    second, then = again.end(), again.text()
    other = first[1 - signalled]
    sentences = [any("jaxad: " in line for line in text.splitlines()) for text in said]
    if (
        any("Traceback" in text or "stack trace" in text for text in said + then)
        or other not in (0, 2, 130, 143)
        or (other and not sentences[1 - signalled])
    ):
        outcome = "traceback"
    elif second != [0, 0] or (before and f"step {before}" not in then[0]):
        outcome = "lost"
    elif training_results(place / "run", STEPS) != reference:
        outcome = "silently wrong"
    else:
        outcome = "left behind" if litter(place) else "survived"
    return outcome, (
        f"{number.name} to process {signalled} at row {row}: {outcome}, {first}, {second}\n"
        + "\n--- ".join(text[-1200:] for text in said + then)
    )


def run(count: int, seed: int, workers: int, only: str = "", json_file: str = "") -> list[str]:
    """Prints the table; returns a note for every bad outcome."""
    del workers  # a try has two processes already
    shares = dict.fromkeys(only.split(",") if only else PROCESSES, 1)
    tally = Tally("several", COLUMNS, shares, count, seed=seed, json_file=json_file)
    with started(1) as (world, _):
        place = world.folder / "try"
        references = []
        for _ in range(2):
            pair = Pair(world, fresh(place))
            if pair.end() != [0, 0]:
                raise SystemExit("\n".join(pair.text()))
            references.append(training_results(place / "run", STEPS))
        if references[0] != references[1]:
            raise SystemExit(f"two processes give {references[0]} and then {references[1]}")
        for name, case in tally.cases():
            rng = random.Random(f"{name} {case}")
            outcome, note = attempt(world, place, references[0], PROCESSES[name], rng)
            if outcome == "too late":
                tally.again(name)
            else:
                tally.add(name, outcome, f"{name} {case}: {note}" if outcome in BAD else "")
    tally.show()
    return tally.notes


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    sys.exit(main(run, __doc__, count=8, tried="processes"))
