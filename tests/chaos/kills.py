"""Kills at random moments: `make chaos`; prints a table and fails where a goal is missed.

    python tests/chaos/kills.py [--count=240] [--seed=0] [--only=SCENE] [--json=FILE]

A command is killed (SIGKILL), terminated (SIGTERM) or interrupted (SIGINT) at a random time, or
just before a random change of its folder. Then the same command is given again. What came of it:

  survived        it ends with what it gives undisturbed, to the byte
  lost            it ends with an error, or began anew although a checkpoint was there
  silently wrong  it ends well, with something else
  traceback       one of the two commands showed one, or ended with a status of no meaning
  left behind     temporary files are there after the second command
  memory          one of the two took more than 1.5 GiB

Signals that came after the command had ended are not counted. A case is repeated by
`--only=SCENE --seed=CASE --count=1`.
"""

from __future__ import annotations

import hashlib
import pathlib
import random
import shutil
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from campaign import main, side_by_side, started
from tally import Tally
from world import FILES_OF_EVALUATION, World, digests, litter, training_results
from zygote import PROJECT, Ended, Zygote

from jaxad.data.shards import METADATA, open_shards

BAD = ("lost", "silently wrong", "traceback", "left behind", "memory")
COLUMNS = ("survived", *BAD)
MEBIBYTES = 1536
SIGNALS = (signal.SIGKILL,) * 3 + (signal.SIGTERM, signal.SIGINT)
STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


class Scene(NamedTuple):
    """A command to be killed.

    Attributes:
      words: of the command.
      results: folder -> name -> what must be the same.
      start: folders of the world that a try begins with, by name.
      share: of the tries, relative to other scenes.
    """

    words: list[str]
    results: Callable[[pathlib.Path], dict[str, str]]
    start: Mapping[str, pathlib.Path] = MappingProxyType({})
    share: int = 2


def records(folder: pathlib.Path) -> dict[str, str]:
    """Digests of what record shards hold: each process writes an example's features in its order."""
    found = {}
    for table in folder.glob(f"**/{METADATA}"):
        shards = open_shards(table.parent)
        for split in ("train", "test"):
            for row in range(len(shards.table[split])):
                content = sorted(shards.record(split, row).items())
                found[f"{split} {row}"] = hashlib.sha256(repr(content).encode()).hexdigest()
    return found


def scenes(world: World) -> dict[str, Scene]:
    """All commands that write more than one file."""
    evaluation = lambda at: digests(at / "run", [*FILES_OF_EVALUATION, "figures/*"])
    prediction = lambda at: digests(at / "out", ["scores.csv", "predictions.json", "*/**/*"])
    evaluated, trained = {"run": world.evaluated}, {"run": world.trained}
    predict = ["predict", "--workdir=run", f"--input={world.data}/test", "--output=out", "--tiff"]
    fit = ("--config.data.calibration=held_out", "--config.data.holdout=0.2")
    shards = ["data", "prepare", f"--config={world.toy}", "--shards=shards", *world.keys]
    return {
        "train": Scene(world.train(), lambda at: training_results(at / "run", 8), share=4),
        "train longer": Scene(
            world.train("--config.train.steps=12"),
            lambda at: training_results(at / "run", 12),
            trained,
            share=4,
        ),
        "train folds": Scene(
            world.train("--config.data.calibration=cross_fitted", "--config.train.steps=4"),
            lambda at: (
                training_results(at / "run", 4)
                | {
                    f"{n} {name}": value
                    for n in range(5)
                    for name, value in training_results(at / "run" / "folds" / str(n), 4).items()
                    if name not in ("config.json", "data.json")
                }
            ),
        ),
        "fit": Scene(
            [word for word in world.train(*fit, config="pca") if ".train." not in word],
            lambda at: training_results(at / "run", 0),
            share=1,
        ),
        "evaluate": Scene(["evaluate", "--workdir=run"], evaluation, trained, share=3),
        "evaluate again": Scene(
            ["evaluate", "--workdir=run", "--config.evaluate.smoothing=2"], evaluation, evaluated
        ),
        "predict": Scene(predict, prediction, evaluated, share=4),
        "benchmark": Scene(
            [
                "benchmark",
                "--configs",
                str(world.toy),
                "--seeds=0,1",
                "--workdir=grid",
                *world.keys,
            ],
            lambda at: digests(
                at / "grid",
                [f"**/{name}" for name in ("history.csv", *FILES_OF_EVALUATION[:4])],
            ),
            share=3,
        ),
        "prepare": Scene(
            ["data", "prepare", f"--config={world.toy}", *world.keys],
            lambda at: digests(at / "cache", ["images/*"]),
            share=3,
        ),
        "prepare shards": Scene(
            shards,
            lambda at: digests(at / "shards", ["**/*.json"]) | records(at / "shards"),
            share=1,
        ),
        "export": Scene(
            ["export", "--workdir=run", "--output=program"],
            lambda at: digests(at, ["program", "program.json", "program.sha256"]),
            evaluated,
            share=1,
        ),
    }


class Reference(NamedTuple):
    """What a command gives, how long it takes, and how often it changes its folder."""

    results: dict[str, str]
    seconds: float
    changes: int


@dataclass
class Chaos:
    """The state of one call.

    Attributes:
      world: of all scenes.
      scenes: by name.
      references: what the scenes give undisturbed, by name.
    """

    world: World
    scenes: dict[str, Scene]
    references: dict[str, Reference] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def fresh(self, name: str, place: pathlib.Path) -> pathlib.Path:
        """The folder in which a command starts."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for run, template in self.scenes[name].start.items():
            shutil.copytree(template, place / run)
        return place

    def refer(self, name: str, zygote: Zygote, place: pathlib.Path) -> None:
        """Runs a scene twice, once for all: the first compiles, and both must give the same."""
        with self._locks[name]:
            if name not in self.references:
                self.references[name] = self._refer(name, zygote, place)

    def _refer(self, name: str, zygote: Zygote, place: pathlib.Path) -> Reference:
        scene, results = self.scenes[name], []
        for _ in range(2):
            ended = World.succeed(zygote, scene.words, self.fresh(name, place))
            results.append(scene.results(place))
            if left := litter(place):
                raise SystemExit(f"{name} leaves behind, undisturbed: {left}")
        if results[0] != results[1] or "missing" in results[0].values() or not results[0]:
            raise SystemExit(f"{name} gives {results[0]} and then {results[1]}")
        return Reference(results[0], ended.seconds, ended.changes)

    def attempt(self, name: str, case: int, zygote: Zygote, place: pathlib.Path) -> tuple[str, str]:
        """Kills once and goes on; returns the outcome, and a note on a bad one."""
        scene, reference = self.scenes[name], self.references[name]
        rng = random.Random(f"{name} {case}")
        number = rng.choice(SIGNALS)
        # Seconds differ with the load of the machine; changes of the folder do not.
        by_time, share = rng.random() < 0.5, rng.random()
        self.fresh(name, place)
        first = zygote.run(
            scene.words,
            place,
            signal_number=number,
            after_seconds=share * reference.seconds if by_time else None,
            at_change=0 if by_time else 1 + int(share * reference.changes),
        )
        if first.status == 0:
            return "too late", ""
        before = newest_checkpoint(place / "run") if scene.words[0] == "train" else 0
        second = zygote.run(scene.words, place)
        outcome = self._outcome(scene, reference, number, first, second, before, place)
        if outcome == "survived":
            return outcome, ""
        seconds, changes = reference.seconds, reference.changes
        at = f"{share * seconds:.2f} s" if by_time else f"change {1 + int(share * changes)}"
        return outcome.partition(":")[0], (
            f"{name} {case}: {outcome}, {number.name} at {at} of {seconds:.2f} s, {changes} changes\n"
            f"{first.status}: {first.text[-1500:]}\n--- {second.status}: {second.text[-1500:]}"
        )

    @staticmethod
    def _outcome(
        scene: Scene,
        reference: Reference,
        number: signal.Signals,
        first: Ended,
        second: Ended,
        before: int,
        place: pathlib.Path,
    ) -> str:
        # Killed by the signal itself: it came when the command was done and Python was leaving.
        has_meaning = first.status in (STATUS[number], -number)
        if first.has_traceback or second.has_traceback or not has_meaning:
            return "traceback"
        if second.status:
            return "lost"
        # The line in which a training says where it goes on.
        if before and f"step {before}" not in second.text:
            return f"lost: began anew behind checkpoint {before}"
        found = scene.results(place)
        if found != reference.results:
            differing = [n for n in reference.results if found.get(n) != reference.results[n]]
            return f"silently wrong: {differing}, {[*set(found) - set(reference.results)]}"
        if left := litter(place):
            return f"left behind: {left}"
        return "memory" if max(first.mebibytes, second.mebibytes) > MEBIBYTES else "survived"


def newest_checkpoint(run: pathlib.Path) -> int:
    """The step of the newest complete one; 0 for none."""
    folder = run / "checkpoints"
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=0)


def run(count: int, seed: int, workers: int, only: str = "", json_file: str = "") -> list[str]:
    """Prints the table; returns a note for every bad outcome."""
    with started(workers) as (world, zygotes):
        known = scenes(world)
        chaos = Chaos(world, {n: known[n] for n in only.split(",")} if only else known)
        shares = {name: scene.share for name, scene in chaos.scenes.items()}
        tally = Tally("killed", COLUMNS, shares, count, seed=seed, json_file=json_file)

        def work(zygote: Zygote, place: pathlib.Path) -> None:
            for name, case in tally.cases():
                chaos.refer(name, zygote, place)
                outcome, note = chaos.attempt(name, case, zygote, place)
                if outcome == "too late":
                    tally.again(name)
                else:
                    tally.add(name, outcome, note)

        side_by_side(world, zygotes, work)
    tally.show()
    return tally.notes


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    sys.exit(main(run, __doc__, count=240, tried="scenes"))
