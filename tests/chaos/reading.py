"""Damage to every file of run folders, weights and exports, as it is read: `make chaos`; many tries without commands.

    python tests/chaos/reading.py [--count=3000] [--seed=0] [--only=FOLDER] [--json=FILE]

One file of a trained and evaluated run, of converted weights or of the run's exports (StableHLO and
ONNX) is damaged as in run_folder.py. Then what is taken from such files is read: the JSON files, the
history, the cases of the report, the variables of the last and of the best checkpoint, the newest
whole training state, weights, and exported programs. Each must be what was written, or be refused with a UserError; what is read without
one is compared. The names of outcomes are those of run_folder.py.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from campaign import main, started
from run_folder import BAD, COLUMNS, REMOVABLE, damage
from tally import Tally
from world import PROJECT, World
from zygote import Zygote

EXPORTS = ("stablehlo", "onnx")
PARTS = {
    "run": ("config", "json", "history", "cases"),
    "run/checkpoints": ("last", "best", "newest"),
    "weights": ("weights",),
    "exported": EXPORTS,
}
"""Folder -> what is read of its files; of the longest folder that a file lies in."""
CHILD = "--child="
SHARES = {"run": 2, "run/checkpoints": 4, "weights": 1, "exported": 1}
ORDER = (*reversed(BAD), "refused", "same")
"""From the worst outcome to the best."""


@functools.cache
def state_like() -> tuple[Any, Any]:
    """Shapes of the toy's variables, and a training state of it."""
    import jax
    from toy_model import CONFIG, TOY
    from world import KEYS

    from jaxad import models
    from jaxad.models import ARCHITECTURES
    from jaxad.models.base import parameter_key
    from jaxad.run.config import load_settings
    from jaxad.training.optimizer import make_optimizer
    from jaxad.training.state import create_state

    ARCHITECTURES["toy"] = TOY
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "toy.py"
        file.write_text(CONFIG)
        settings = load_settings(str(file), KEYS)
    model = models.build_from(settings)
    drawn = jax.jit(model.init)(parameter_key(0))
    labels = model.param_labels(drawn["params"])
    optimizer = make_optimizer(settings.train, labels, total_steps=8)
    return jax.eval_shape(model.init, parameter_key(0)), create_state(drawn, optimizer)


def read(place: pathlib.Path, part: str) -> str:
    """What a part of the folder holds, as text to be compared."""
    from jaxad.report.cases import load_cases
    from jaxad.run.exported import read_exported
    from jaxad.run.folder import RunFolder
    from jaxad.training.checkpoints import Checkpoints, digest_of
    from jaxad.training.history import read_history
    from jaxad.training.weights import read_provenance, read_tree

    run = RunFolder(place / "run")
    match part:
        case "config":
            return repr(run.read_config())
        case "json":
            files = (run.data, run.calibration, run.metrics, run.timing, run.environment)
            return repr([run.read_json(file) for file in files])
        case "history":
            return repr(read_history(run.history, run.read_timing()))
        case "cases":
            return repr(load_cases(run.cases))
        case "weights":
            weights = place / "weights"
            return repr(read_provenance(weights)) + digest_of(read_tree(weights))
        case "stablehlo" | "onnx":
            return repr(read_exported(place / "exported" / part))
    like, state = state_like()
    with contextlib.closing(Checkpoints(run.checkpoints, read_only=part != "newest")) as found:
        if part == "newest":
            restored = found.restore_newest(state)
            # A damaged newest one gives the one before: both are what was written.
            return f"{int(restored.step)} {digest_of((restored.variables, restored.opt_state))}"
        variables, step = found.restore_variables(like, part)
        return f"{step} {digest_of(variables)}"


def run_child(template: pathlib.Path, row: str, first: int, count: int) -> None:
    """In a process of its own: prints the case before each, and its outcome behind it."""
    from jaxad.run.errors import UserError

    files = sorted(p.relative_to(template) for p in template.rglob("*") if p.is_file())
    random.Random(0).shuffle(files)
    damaged = [f for f in files if max(filter(f.is_relative_to, PARTS), key=len) == row]
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "good"
        shutil.copytree(template, place)
        good = {part: {read(place, part)} for part in PARTS[row]}
        if "newest" in good:
            for name in ("commit_success.txt", "_CHECKPOINT_METADATA"):  # the state before it
                (place / "run" / "checkpoints" / "8" / name).unlink(missing_ok=True)
            shutil.rmtree(place / "run" / "checkpoints" / "8")
            good["newest"].add(read(place, "newest"))
        for case in range(first, first + count):
            print(json.dumps([case]), flush=True)
            place, file = pathlib.Path(folder) / str(case), damaged[case % len(damaged)]
            shutil.copytree(template, place)
            how = damage(place / file, [place / f for f in files if f != file], random.Random(case))
            outcomes = []
            for part in PARTS[row]:
                outcome, why = attempt(functools.partial(read, place, part), good[part], UserError)
                if how == "remove" and file.name in REMOVABLE and file.stem == part:
                    outcome = "refused"
                outcomes.append((ORDER.index(outcome), f"{part} of {file}: {how}. {why}"))
            worst, why = min(outcomes)
            print(json.dumps([case, ORDER[worst], why]), flush=True)
            shutil.rmtree(place)


def attempt(reader: Callable[[], str], good: set[str], refusal: type[Exception]) -> tuple[str, str]:
    """Reads once."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found = reader()
    except refusal:
        return "refused", ""
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"[:300]
    return ("same", "") if found in good else ("silently wrong", found[:300])


def run(count: int, seed: int, workers: int, only: str = "", json_file: str = "") -> list[str]:
    """Prints the table; returns a note for every bad outcome."""
    del workers  # a process at a time: a try takes milliseconds
    shares = {name: SHARES[name] for name in only.split(",")} if only else SHARES
    tally = Tally("read", COLUMNS, shares, count, seed=seed, json_file=json_file)
    with started(1) as (world, zygotes):
        template = make_template(world, zygotes[0])
        for name, first, number in tally.batches():
            try_files(tally, template, name, first, number)
    tally.show()
    return tally.notes


def make_template(world: World, zygote: Zygote) -> pathlib.Path:
    """All that is damaged: a run, converted weights, exports of the run."""
    template = world.folder / "template"
    source = PROJECT / "tests" / "golden" / "convert" / "hf_mae"
    convert = ["convert", "--from=hf-mae", f"--input={source}", "--output=template/weights"]
    shutil.copytree(world.evaluated, template / "run")
    world.succeed(zygote, convert, world.folder)
    (template / "exported").mkdir()
    for form in EXPORTS:
        words = ["--workdir=template/run", f"--output=template/exported/{form}"]
        world.succeed(zygote, ["export", *words, f"--format={form}"], world.folder)
    return template


def try_files(tally: Tally, template: pathlib.Path, name: str, first: int, count: int) -> None:
    """Damages files of a row, again behind every case that kills the process."""
    end = first + count
    while first < end:
        words = [
            f"{CHILD}{template}",
            f"--only={name}",
            f"--seed={first}",
            f"--count={end - first}",
        ]
        done = subprocess.run(
            [sys.executable, __file__, *words], cwd=PROJECT, capture_output=True, text=True
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        if not lines:
            raise SystemExit(done.stderr[-2000:])
        for case, *found in lines:
            if found:
                outcome, why = found
                tally.add(name, outcome, f"{name} {case}: {outcome}, {why}" * (outcome in BAD))
        first = lines[-1][0] + 1
        if len(lines[-1]) == 1:
            why = f"{name} {first - 1}: the process died ({done.returncode})"
            tally.add(name, "crash", why)


def run_as_child(words: list[str]) -> None:
    """Reads the words that `try_files` gave."""
    given = dict(word.removeprefix("--").split("=", 1) for word in words)
    template, count = pathlib.Path(given["child"]), int(given["count"])
    run_child(template, given["only"], int(given["seed"]), count)


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    if any(word.startswith(CHILD) for word in sys.argv):
        run_as_child(sys.argv[1:])
    else:
        sys.exit(main(run, __doc__, count=3000, tried="rows"))
