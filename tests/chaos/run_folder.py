"""Damage to every file of run folders: `make chaos`; prints a table and fails where a goal is missed.

    python tests/chaos/run_folder.py [--count=800] [--seed=0] [--only=COMMAND] [--json=FILE]

One file of a trained and evaluated run, of a finished benchmark or of converted weights has a bit
flipped, is cut off, emptied, removed, overwritten in part, or exchanged for another one. Then a
command uses the folder. What came of it:

  same            it ends with what it gives undamaged, to the byte
  refused         it ends with an error status and one sentence
  silently wrong  it ends well, with something else
  traceback       it shows one
  crash           it died, or took more than a quarter of an hour
  memory          it took more than 1.5 GiB

A case is repeated by `--only=COMMAND --seed=CASE --count=1`.
"""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from campaign import main, side_by_side, started
from tally import Tally
from world import FILES_OF_EVALUATION, World, digests, training_results
from zygote import PROJECT, Ended, Zygote

BAD = ("silently wrong", "traceback", "crash", "memory")
COLUMNS = ("same", "refused", *BAD)
MEBIBYTES, SECONDS = 1536, 900.0
REMOVABLE = {
    # Documented ways out of damage: the run goes on without the rows so far, counts time anew.
    "history.csv": "history.csv",
    # A page over several runs shows no pictures of this one.
    "cases.npz": "cases.npz",
}
"""File -> the result that may differ when it is removed."""

MAE = {
    "data.image_size": "12,12", "data.pipeline": "memory", "train.weights": "weights",
    "train.optimizer": "none", "train.devices": "1", "model.patch": "4", "model.features": "16",
    "model.depth": "2", "model.heads": "2", "model.decoder_features": "8",
    "model.decoder_depth": "1", "model.decoder_heads": "2", "model.block": "1",
    "model.layer_norm_epsilon": "1e-12",
}  # fmt: skip
"""Keys of a masked autoencoder that starts from the converted weights of the golden files."""


class Use(NamedTuple):
    """A command that uses a folder.

    Attributes:
      words: of the command.
      folder: name of the folder in the place of a try.
      template: what is copied there and damaged.
      results: place -> name -> what must be the same.
      also: other folders that are copied, undamaged.
      share: of the tries.
    """

    words: list[str]
    folder: str
    template: pathlib.Path
    results: Callable[[pathlib.Path], dict[str, str]]
    share: int = 1


def uses(world: World, zygote: Zygote) -> dict[str, Use]:
    """The commands, and the folders that they need, made now."""
    grid, weights = world.folder / "grid", world.folder / "weights"
    benchmark = [
        "benchmark",
        "--configs",
        str(world.toy),
        "--seeds=0",
        "--workdir=grid",
        *world.keys,
    ]
    place = world.folder / "made"
    place.mkdir()
    world.succeed(zygote, benchmark, place)
    shutil.copytree(place / "grid", grid)
    source = PROJECT / "tests" / "golden" / "convert" / "hf_mae"
    convert = ["convert", "--from=hf-mae", f"--input={source}", "--output=weights"]
    world.succeed(zygote, convert, place)
    shutil.copytree(place / "weights", weights)
    run, evaluated = "run", world.evaluated
    return {
        "evaluate": Use(
            ["evaluate", "--workdir=run"], run, evaluated,
            lambda at: digests(at / "run", FILES_OF_EVALUATION), share=4,
        ),
        "evaluate best": Use(
            ["evaluate", "--workdir=run", "--checkpoint=best"], run, evaluated,
            lambda at: digests(at / "run", FILES_OF_EVALUATION), share=2,
        ),
        "predict": Use(
            ["predict", "--workdir=run", f"--input={world.data}/test", "--output=out"], run, evaluated,
            lambda at: digests(at / "out", ["scores.csv", "predictions.json", "overlays/**/*"]),
            share=4,
        ),
        "resume": Use(
            world.train("--config.train.steps=12"), run, evaluated,
            lambda at: training_results(at / "run", 12), share=4,
        ),
        "export": Use(
            ["export", "--workdir=run", "--output=program"], run, evaluated,
            lambda at: digests(at, ["program", "program.json", "program.sha256"]), share=2,
        ),
        "benchmark": Use(benchmark, "grid", grid, _benchmark_results, share=3),
        "converted": Use(
            ["train", "--config=mae", "--workdir=run", f"--config.data.root={world.data}",
             *(f"--config.{key}={value}" for key, value in MAE.items())],
            "weights", weights, lambda at: training_results(at / "run", 0), share=1,
        ),
    }  # fmt: skip


def _benchmark_results(place: pathlib.Path) -> dict[str, str]:
    """The table without seconds; a cell that is run again takes others."""
    try:
        rows = json.loads((place / "grid" / "results.json").read_text())
    except (OSError, ValueError):
        return {"results.json": "missing"}
    return {"results.json": json.dumps(_without_seconds(rows), sort_keys=True)}


def _without_seconds(value):
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [*map(_without_seconds, value)] if isinstance(value, list) else value


def damage(path: pathlib.Path, others: list[pathlib.Path], rng: random.Random) -> str:
    """Damages one file; says how."""
    content = path.read_bytes()
    kind = rng.choice(("flip",) * 6 + ("cut", "cut", "empty", "remove", "overwrite", "exchange"))
    if not content:
        kind = "remove"
    place = rng.randrange(len(content)) if content else 0
    match kind:
        case "flip":
            bit = rng.randrange(8)
            path.write_bytes(_put(content, place, bytes([content[place] ^ 1 << bit])))
            return f"bit {bit} of byte {place} of {len(content)} flipped"
        case "cut":
            path.write_bytes(content[:place])
            return f"cut to {place} of {len(content)} bytes"
        case "empty":
            path.write_bytes(b"")
        case "remove":
            path.unlink()
        case "overwrite":
            path.write_bytes(_put(content, place, rng.randbytes(16)[: len(content) - place]))
            return f"16 bytes from byte {place} overwritten"
        case "exchange":
            # For the file of the same name elsewhere, of another checkpoint say, or any.
            alike = [o for o in others if o.name == path.name] or others
            other = rng.choice(alike)
            path.write_bytes(other.read_bytes())
            return f"exchanged for {other}"
    return kind


def _put(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def attempt(
    use: Use, reference: dict[str, str], case: int, name: str, zygote: Zygote, place: pathlib.Path
) -> tuple[str, str]:
    """Damages one file and runs the command; returns the outcome, and a note on a bad one."""
    files = sorted(p.relative_to(use.template) for p in use.template.rglob("*") if p.is_file())
    # All files in turn, in an order of the command's own.
    random.Random(name).shuffle(files)
    file = files[case % len(files)]
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copytree(use.template, place / use.folder)
    others = [place / use.folder / f for f in files if f != file]
    how = damage(place / use.folder / file, others, random.Random(f"{name} {case}"))
    ended = zygote.run(use.words, place, limit=SECONDS)
    outcome, why = _outcome(use, reference, ended, place, file, how)
    return outcome, f"{name} {case}: {outcome}{why}, {file}: {how}\n{ended.text[-1500:]}"


def _outcome(
    use: Use,
    reference: dict[str, str],
    ended: Ended,
    place: pathlib.Path,
    file: pathlib.Path,
    how: str,
) -> tuple[str, str]:
    if ended.has_traceback:
        return "traceback", ""
    if ended.mebibytes > MEBIBYTES:
        return "memory", ""
    if ended.status in (1, 2):
        said = any(line.startswith("jaxad: ") for line in ended.text.splitlines())
        said |= ended.status == 1 and "failed: " in ended.text
        return ("refused", "") if said else ("traceback", " (no sentence)")
    if ended.status:
        return "crash", f" ({ended.status})"
    found = use.results(place)
    free = REMOVABLE.get(file.name) if how == "remove" else None
    differing = [n for n in reference if found.get(n) != reference[n] and n != free]
    return ("silently wrong", f" {differing}") if differing else ("same", "")


def run(count: int, seed: int, workers: int, only: str = "", json_file: str = "") -> list[str]:
    """Prints the table; returns a note for every bad outcome."""
    with started(workers) as (world, zygotes):
        known = uses(world, zygotes[0])
        known = {name: known[name] for name in only.split(",")} if only else known
        shares = {name: use.share for name, use in known.items()}
        tally = Tally("damaged", COLUMNS, shares, count, seed=seed, json_file=json_file)
        references: dict[str, dict[str, str]] = {}
        locks = {name: threading.Lock() for name in known}

        def work(zygote: Zygote, place: pathlib.Path) -> None:
            for name, case in tally.cases():
                use = known[name]
                with locks[name]:
                    if name not in references:
                        references[name] = undamaged(use, world, zygote, place)
                outcome, note = attempt(use, references[name], case, name, zygote, place)
                tally.add(name, outcome, note if outcome in BAD else "")

        side_by_side(world, zygotes, work)
    tally.show()
    return tally.notes


def undamaged(use: Use, world: World, zygote: Zygote, place: pathlib.Path) -> dict[str, str]:
    """What a command gives with the folder as it should be."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copytree(use.template, place / use.folder)
    world.succeed(zygote, use.words, place)
    reference = use.results(place)
    if not reference or "missing" in reference.values():
        raise SystemExit(f"{' '.join(use.words)} gives {reference}")
    return reference


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    sys.exit(main(run, __doc__, count=800, tried="commands"))
