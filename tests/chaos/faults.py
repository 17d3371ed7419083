"""Reads that fail or are slow, and clocks that jump: `make chaos`; a table, and goals as of kills.py.

    python tests/chaos/faults.py [--count=60] [--seed=0] [--only=FAULT] [--json=FILE]

One of the commands of kills.py runs on a disk as network disks are at their worst, or while the
clock is set: faults.c, loaded before it, fails a random one of its reads of the data, the run and
the cache with EIO (`one read`), or all from there on (`all reads`), makes each of them 2 ms slower
(`slow reads`), or sets the clock forth or back by up to three years (`clock`). Then the same
command is given again, undisturbed. What came of it:

  same            both ended as undisturbed, with what it gives undisturbed
  refused         the first ended with an error status and one sentence, the second with all of it
  lost, silently wrong, traceback, left behind, memory   as of kills.py

Reads of files that are mapped into memory do not fail here; where they do, the kernel ends the
process. A case is repeated by `--only=FAULT --seed=CASE --count=1`. It needs a C compiler.
"""

from __future__ import annotations

import pathlib
import random
import shutil
import subprocess
import sys
from typing import NamedTuple

from campaign import main, side_by_side, started
from kills import BAD, MEBIBYTES, Chaos, newest_checkpoint, scenes
from tally import Tally
from world import litter
from zygote import PROJECT, Ended, Zygote

COLUMNS = ("same", "refused", *BAD)
FAULTS = {"one read": 5, "all reads": 3, "slow reads": 1, "clock": 3}
"""Name -> share of the tries."""
YEARS = 3 * 365 * 86400


class Counts(NamedTuple):
    """How often an undisturbed command reads, and looks at the clock."""

    reads: int
    looks: int


def compiled(folder: pathlib.Path) -> dict[str, str]:
    """Compiles what is loaded before commands; the variable that has it loaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise SystemExit("faults need a C compiler")
    library = folder / "faults.so"
    source = pathlib.Path(__file__).with_name("faults.c")
    subprocess.run(
        [compiler, "-O1", "-w", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library)}


def described(fault: str, counts: Counts, rng: random.Random) -> str:
    """A fault as faults.c takes it."""
    match fault:
        case "one read":
            return f"eio:{rng.randint(1, counts.reads)}"
        case "all reads":
            return f"dead:{rng.randint(1, counts.reads)}"
        case "slow reads":
            return "slow:2000"
    return f"clock:{rng.randint(1, counts.looks)}:{rng.randint(-YEARS, YEARS)}"


def count(chaos: Chaos, name: str, zygote: Zygote, place: pathlib.Path) -> Counts:
    """Runs a command undisturbed and counts."""
    chaos.refer(name, zygote, place)
    told = place.with_name(f"{place.name}.counts")
    folders = f"{chaos.world.data}:{place}"
    ended = zygote.run(
        chaos.scenes[name].words,
        chaos.fresh(name, place),
        CHAOS_FOLDERS=folders,
        CHAOS_COUNT=str(told),
    )
    if ended.status:
        raise SystemExit(f"{name} does not work undisturbed:\n{ended.text}")
    return Counts(*map(int, told.read_text().split()))


def attempt(
    chaos: Chaos, name: str, how: str, zygote: Zygote, place: pathlib.Path
) -> tuple[str, str]:
    """Runs a command with a fault and again without; the outcome, and a note on a bad one."""
    scene, reference = chaos.scenes[name], chaos.references[name]
    chaos.fresh(name, place)
    folders = f"{chaos.world.data}:{place}"
    first = zygote.run(scene.words, place, CHAOS_FOLDERS=folders, CHAOS_FAULT=how)
    found = scene.results(place) if first.status == 0 else reference.results
    before = newest_checkpoint(place / "run") if scene.words[0] == "train" else 0
    second = zygote.run(scene.words, place)
    outcome = "same" if first.status == 0 else "refused"
    if first.has_traceback or second.has_traceback or not has_meaning(first, how):
        outcome = "traceback"
    elif second.status:
        outcome = "lost"
    elif before and first.status and f"step {before}" not in second.text:
        outcome = "lost"  # it began anew
    elif found != reference.results or scene.results(place) != reference.results:
        outcome = "silently wrong"
    elif litter(place):
        outcome = "left behind"
    elif max(first.mebibytes, second.mebibytes) > MEBIBYTES:
        outcome = "memory"
    return outcome, (
        f"{name}, {how}: {outcome}, {litter(place)}\n"
        f"{first.status}: {first.text[-1500:]}\n--- {second.status}: {second.text[-1500:]}"
    )


def has_meaning(ended: Ended, how: str) -> bool:
    """Whether a status and what is said fit the fault."""
    if ended.status == 0 or how.startswith("slow"):
        return ended.status == 0
    said = any(line.startswith("jaxad: ") for line in ended.text.splitlines())
    return (ended.status == 2 and said) or (ended.status == 1 and bool(ended.text.strip()))


def run(number: int, seed: int, workers: int, only: str = "", json_file: str = "") -> list[str]:
    """Prints the table; returns a note for every bad outcome."""
    with started(workers, compiled) as (world, zygotes):
        chaos = Chaos(world, scenes(world))
        shares = {name: FAULTS[name] for name in only.split(",")} if only else FAULTS
        tally = Tally("disturbed", COLUMNS, shares, number, seed=seed, json_file=json_file)
        counts: dict[str, Counts] = {}

        def work(zygote: Zygote, place: pathlib.Path) -> None:
            for fault, case in tally.cases():
                rng = random.Random(f"{fault} {case}")
                name = None
                # Not every command looks at the clock; those that do are most.
                while name is None or (fault == "clock" and not counts[name].looks):
                    name = rng.choice([*chaos.scenes])
                    if name not in counts:
                        counts[name] = count(chaos, name, zygote, place)
                how = described(fault, counts[name], rng)
                outcome, note = attempt(chaos, name, how, zygote, place)
                tally.add(fault, outcome, note if outcome in BAD else "")

        side_by_side(world, zygotes, work)
    tally.show()
    return tally.notes


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    sys.exit(main(run, __doc__, count=60, tried="faults"))
