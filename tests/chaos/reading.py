"""Damage to every file of run folders, weights and exports, as it is read: `make chaos`; many tries without commands.

    python tests/chaos/reading.py [--count=3000] [--seed=0] [--json=FILE]

One file of a trained and evaluated run, of converted weights or of the run's exports (StableHLO and
ONNX) is damaged as in run_folder.py. Then what is taken from such files is read: the JSON files, the
history, the cases of the report, the variables of the last and of the best checkpoint, the newest
whole training state, weights, and exported programs. Each must be what was written, or be refused with a UserError; what is read without
one is compared. The names of outcomes are those of run_folder.py.
"""

from __future__ import annotations

import argparse
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

from run_folder import BAD, COLUMNS, REMOVABLE, damage
from world import PROJECT, Tally, World
from zygote import Zygote

EXPORTS = ("stablehlo", "onnx")
PARTS = {
    "run": ("config", "json", "history", "cases"),
    "run/checkpoints": ("last", "best", "newest"),
    "weights": ("weights",),
    "exported": EXPORTS,
}
"""Folder -> what is read of its files; of the longest folder that a file lies in."""
NAMES = [part for parts in PARTS.values() for part in parts]


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


def run_child(template: pathlib.Path, first: int, count: int) -> None:
    """In a process of its own: prints the case before each, and its outcomes behind it."""
    from jaxad.run.errors import UserError

    files = sorted(p.relative_to(template) for p in template.rglob("*") if p.is_file())
    random.Random(0).shuffle(files)
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "good"
        shutil.copytree(template, place)
        good = {part: {read(place, part)} for part in NAMES}
        for name in ("commit_success.txt", "_CHECKPOINT_METADATA"):  # the state before the newest
            (place / "run" / "checkpoints" / "8" / name).unlink(missing_ok=True)
        shutil.rmtree(place / "run" / "checkpoints" / "8")
        good["newest"].add(read(place, "newest"))
        for case in range(first, first + count):
            print(json.dumps([case]), flush=True)
            place, file = pathlib.Path(folder) / str(case), files[case % len(files)]
            shutil.copytree(template, place)
            how = damage(place / file, [place / f for f in files if f != file], random.Random(case))
            outcomes = []
            within = max((f for f in PARTS if file.is_relative_to(f)), key=len)
            for part in PARTS[within]:
                outcome, why = attempt(functools.partial(read, place, part), good[part], UserError)
                if how == "remove" and file.name in REMOVABLE and file.stem == part:
                    outcome = "refused"
                outcomes.append([part, outcome, f"{file}: {how}. {why}"])
            print(json.dumps([case, outcomes]), flush=True)
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


def run(count: int, seed: int, json_file: str) -> list[str]:
    """Prints the table; returns a note for every bad outcome."""
    tally = Tally("read", COLUMNS, dict.fromkeys(NAMES, 1), count, seed=seed, json_file=json_file)
    with tempfile.TemporaryDirectory(prefix="jaxad-chaos-") as scratch:
        folder = pathlib.Path(scratch)
        zygote, world = Zygote(folder / "zygote"), World(folder)
        world.make_runs(zygote)
        template = folder / "template"
        source = PROJECT / "tests" / "golden" / "convert" / "hf_mae"
        convert = ["convert", "--from=hf-mae", f"--input={source}", "--output=template/weights"]
        shutil.copytree(world.evaluated, template / "run")
        world.succeed(zygote, convert, folder)
        (template / "exported").mkdir()
        for form in EXPORTS:
            words = ["--workdir=template/run", f"--output=template/exported/{form}"]
            world.succeed(zygote, ["export", *words, f"--format={form}"], folder)
        zygote.close()
        first, end = seed, seed + count
        while first < end:
            words = [f"--child={template}", f"--seed={first}", f"--count={end - first}"]
            done = subprocess.run(
                [sys.executable, __file__, *words], cwd=PROJECT, capture_output=True, text=True
            )
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
            if not lines:
                raise SystemExit(done.stderr[-2000:])
            for case, *outcomes in lines:
                for part, outcome, why in outcomes[0] if outcomes else ():
                    note = f"{part} {case}: {outcome}, {why}" if outcome in BAD else ""
                    tally.add(part, outcome, note)
            first = lines[-1][0] + 1
            if len(lines[-1]) == 1:
                tally.add("last", "crash", f"{first - 1}: the process died ({done.returncode})")
    tally.show()
    return tally.notes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000, help="of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--json", default="", help="file for the table")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(pathlib.Path(arguments.child), arguments.seed, arguments.count)
        return 0
    return 1 if run(arguments.count, arguments.seed, arguments.json) else 0


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    sys.exit(main())
