"""Many runs in one go: configs x categories x seeds, nothing run twice, by one process or several.

Every cell of the grid has a run folder. Whoever holds its lock runs it, others go on to the next
cell and come back; its ``outcome.json``, written last, says that it is done, or why it failed.
The tables and the page are of all cells of the folder, whichever call ran them: a comparison that
is finished loses nothing to the next command.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from jaxad.benchmark.papers import write_paper_tables
from jaxad.benchmark.runs_page import RunSummary, write_comparison
from jaxad.benchmark.tables import METRICS, write_results
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.protocols.rules import get_protocol
from jaxad.models import detection_keys
from jaxad.report.cases import load_cases
from jaxad.report.content import common_scale
from jaxad.run import interruption
from jaxad.run.config import flatten, load_settings, with_absolute_root
from jaxad.run.errors import UserError
from jaxad.run.files import remove_unfinished, try_lock
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings
from jaxad.run.text import say
from jaxad.run.variants import about_config
from jaxad.training.preparation import CHANGEABLE
from jaxad.training.train import train

_TOLD = ("train.", "model.", "data.image_size", "data.illumination", "data.calibration",
         "data.holdout", "data.tiles", "data.tile_models", "data.region", "data.limit",
         "evaluate.primary", "evaluate.smoothing")  # fmt: skip
"""Keys that change what a model is; the page tells them where the config says otherwise."""

POLL_SECONDS = 1.0
"""Between looks at cells that other processes are running."""


_Known: TypeAlias = tuple[dict[str, Any], RunSummary | None]
"""The row of a cell, and what the page says of it; None for one that failed or cannot be read."""


class Cell(NamedTuple):
    """One run of a benchmark.

    Attributes:
      config: as on a command line, ``vqvae:small``.
      category: of the data set; empty where it has none.
      seed: of everything random.
    """

    config: str
    category: str
    seed: int

    @property
    def folder(self) -> str:
        """Where its run folder lies below the benchmark's."""
        parts = [self.config, self.category or "default", f"seed{self.seed}"]
        return "/".join(re.sub(r"[^\w.+-]+", "-", part).strip("-") for part in parts)


def benchmark(
    configs: Sequence[str],
    categories: Sequence[str],
    seeds: Sequence[int],
    workdir: str | os.PathLike,
    *,
    overrides: Mapping[str, Any] | None = None,
    own_overrides: Mapping[str, Mapping[str, Any]] | None = None,
    papers: Sequence[str] = (),
    variant: str = "",
    title: str = "Benchmark",
    failures_since: float | None = None,
) -> list[dict[str, Any]]:
    """Trains and evaluates every cell of a grid that is not finished yet.

    Several processes may be given the same grid and workdir at once: each cell is run by one of
    them, and each returns when all cells are done.

    Args:
      configs: such as ``["pca", "vqvae:small"]``.
      categories: of the data set of ``data.root``.
      seeds: each gives a run of its own.
      workdir: one run folder per cell, ``results.csv``, ``results.json``, ``results.md`` and
        ``report.html``: all cells of the folder side by side, those of earlier calls too.
      overrides: config keys for every cell.
      own_overrides: config -> keys that stand in place of ``overrides`` for its cells.
      papers: ids of printed tables (:mod:`jaxad.benchmark.printed`) to write beside the cells'
        metrics.
      variant: with which the configs of the printed tables are run.
      title: heading of the page.
      failures_since: a cell that failed after this time (seconds since 1970) is not tried again;
        by default, the time of the call.

    Returns:
      One row per cell: config, category, seed, seconds, the metrics, ``protocol`` with its own
      metrics (``"vae_compare:pixel_auroc_per_image_mean"``) where it is another than ``"jaxad"``,
      and ``error``: a cell that cannot run is a row with its reason, and the others go on.

    Raises:
      UserError: nothing to run, or the folder cannot be written.
    """
    since = time.time() if failures_since is None else failures_since
    cells = [Cell(c, k, s) for k in categories or [""] for c in configs for s in seeds]
    if not cells:
        raise UserError("a benchmark needs at least one config and one seed")
    root = pathlib.Path(workdir)
    RunFolder(root).create()
    remove_unfinished(root)
    # Every config is read before the first is run: a misprint shows at once, not after hours.
    own = own_overrides or {}
    settings = {cell: _settings(cell, own.get(cell.config, overrides or {})) for cell in cells}
    rows: dict[Cell, dict[str, Any]] = {}
    shown = _found(root, [cell.folder for cell in cells])
    while len(rows) < len(cells):
        before = len(rows)
        for number, cell in enumerate(cells, start=1):
            if cell in rows:
                continue
            name = f"[{number}/{len(cells)}] {cell.config} {cell.category} seed {cell.seed}"
            taken = _take(cell, settings[cell], root, since=since, name=name)
            if taken is not None:
                rows[cell] = taken[0]
                # Where other keys were refused, the finished run stays what the tables tell of.
                shown[cell.folder] = _read(root, cell) or taken if taken[0]["error"] else taken
                write_results(root, [row for row, _ in shown.values()], _failures(rows, shown))
                known = [rows[one] for one in cells if one in rows]
                write_paper_tables(root, papers, known, variant=variant)
        if len(rows) == before:
            time.sleep(POLL_SECONDS)  # the cells that are left are with other processes
    # Other commands may have finished cells in the same folder meanwhile.
    shown = _found(root, [cell.folder for cell in cells], besides=shown)
    failures = _failures(rows, shown)
    write_results(root, [row for row, _ in shown.values()], failures)
    finished = [summary for _, summary in shown.values() if summary is not None]
    write_comparison(root / "report.html", finished, title=title, failures=failures)
    return [rows[cell] for cell in cells]


def _found(
    root: pathlib.Path, first: Sequence[str], besides: Mapping[str, _Known] | None = None
) -> dict[str, _Known]:
    """The cells of a benchmark's folder that are done or failed: folder -> what is known of them.

    Args:
      root: the folder.
      first: folders that come first, in this order; the others follow by name.
      besides: what is known already, which is not read again.
    """
    there = [
        path.parent.relative_to(root).as_posix() for path in root.glob("*/*/seed*/outcome.json")
    ]
    known = dict(besides or {})
    for folder in sorted(set(there) - set(known)):
        config, category, seed = folder.split("/")
        category, number = "" if category == "default" else category, seed.removeprefix("seed")
        if number.isdecimal() and (read := _read(root, Cell(config, category, int(number)))):
            known[folder] = read
    return {folder: known[folder] for folder in dict.fromkeys([*first, *known]) if folder in known}


def _failures(
    rows: Mapping[Cell, Mapping[str, Any]], shown: Mapping[str, _Known]
) -> list[tuple[str, str]]:
    """Folder and reason of every cell that failed now, or has nothing but its failure."""
    every = {folder: row["error"] for folder, (row, _) in shown.items()}
    every |= {row["folder"]: row["error"] for row in rows.values()}
    return [(folder, error) for folder, error in every.items() if error]


_GRID_KEYS = {
    "seed": "--seeds=1,2 instead",
    "data.category": "--categories alone, or the key alone",
}


def _settings(cell: Cell, overrides: Mapping[str, Any]) -> Settings:
    own = {"seed": cell.seed} | ({"data.category": cell.category} if cell.category else {})
    # Each cell sets these itself: a key beside them would be given and not heeded.
    for key in own.keys() & overrides.keys():
        raise UserError(f"a benchmark sets {key} itself, run by run: give {_GRID_KEYS[key]}")
    settings = load_settings(cell.config, {**overrides, **own})
    get_protocol(settings.evaluate.protocol)  # an unknown one is told before the first run
    return with_absolute_root(settings)


def _take(
    cell: Cell, config: Settings, root: pathlib.Path, *, since: float, name: str
) -> _Known | None:
    """Runs a cell unless it is done; None where another process is at it."""
    run = RunFolder(root / cell.folder)
    try:
        run.create()
        with try_lock(run.path / ".cell.lock") as mine:
            if not mine:
                return None
            outcome = run.read_json(run.outcome) if run.outcome.exists() else None
            # One of the future is from before the clock was set back.
            if outcome and outcome["error"] and since <= outcome["time"] <= time.time():
                raise UserError(outcome["error"])
            finished = bool(outcome and not outcome["error"])
            done = finished and _is_of(run, config)
            say(f"{name}: finished before" if done else name, file=sys.stderr)
            if not done:
                _run(run, cell, config, finished=finished)
        return _finished(root, cell)
    except UserError as error:
        say(f"{name}: failed: {error}", file=sys.stderr)
        return _failed(cell, str(error)), None


def _failed(cell: Cell, error: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("seconds", *METRICS))
    return {**cell._asdict(), "folder": cell.folder, "error": error, **nothing}


def _finished(root: pathlib.Path, cell: Cell) -> _Known:
    row = {**cell._asdict(), "folder": cell.folder, "error": ""}
    row |= _metrics(RunFolder(root / cell.folder))
    return row, summary_of(root, row)


def _read(root: pathlib.Path, cell: Cell) -> _Known | None:
    """What a folder holds of a cell; None where it was not run to its end.

    Args:
      root: the folder of the benchmark.
      cell: whose names may be those of folders; its outcome tells the right ones.
    """
    run = RunFolder(root / cell.folder)
    try:
        if not run.outcome.exists():
            return None
        outcome = run.read_json(run.outcome)
        # Outcomes of an earlier version do not tell them.
        named = cell._replace(**{key: outcome[key] for key in cell._fields if key in outcome})
        cell = named if named.folder == cell.folder else cell
        return (
            (_failed(cell, outcome["error"]), None) if outcome["error"] else _finished(root, cell)
        )
    except UserError as error:
        return _failed(cell, str(error)), None


def _is_of(run: RunFolder, config: Settings) -> bool:
    """Whether the run has these settings, but for keys that change no metric."""
    free = tuple(key for key in CHANGEABLE if not key.startswith("evaluate."))
    there, here = (
        {key: value for key, value in flatten(one).items() if not key.startswith(free)}
        for one in (run.read_config(), config)
    )
    return there == here and run.metrics.exists()


def _run(run: RunFolder, cell: Cell, config: Settings, *, finished: bool) -> None:
    outcome: dict[str, Any] = {**cell._asdict(), "error": ""}
    before = flatten(run.read_config()) if finished else None
    run.outcome.unlink(missing_ok=True)
    try:
        train(config, run.path)
        # A run that was trained before keeps the judgement it was trained with.
        saved, own = flatten(run.read_config()), detection_keys(config.model.name)
        evaluate(
            run.path,
            overrides={
                key: value
                for key, value in flatten(config).items()
                if (key.startswith("evaluate.") or key in own) and saved.get(key) != value
            },
        )
    except UserError as error:
        outcome["error"] = str(error)
    except Exception as error:  # out of memory, say: the other cells may still run
        interruption.check()  # which a library may have made another error of
        traceback.print_exc()
        outcome["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    reason = outcome["error"]
    if finished and reason and run.metrics.exists() and flatten(run.read_config()) == before:
        outcome["error"] = ""  # other keys were refused, and the finished run is as it was
    run.write_json(run.outcome, outcome | {"time": time.time()})
    if reason:
        raise UserError(reason)


def _metrics(run: RunFolder) -> dict[str, Any]:
    metrics = run.read_json(run.metrics)
    row = {name: metrics[name] for name in METRICS}
    protocol = metrics.get("protocol", "jaxad")
    if protocol != "jaxad":
        row |= {
            f"{protocol}:{name}": value
            for name, value in metrics["protocol_figures"].items()
            if not isinstance(value, Mapping)
        }
    row |= {"image_threshold": metrics.get("image_threshold")} | (metrics.get("decisions") or {})
    row["odd_images"] = len(run.read_json(run.calibration).get("odd_images", []))
    seconds = run.read_json(run.timing)["train_seconds"]
    return {"seconds": seconds, "protocol": protocol, **row}


def summary_of(root: pathlib.Path, row: Mapping[str, Any]) -> RunSummary:
    """What the page over all runs says of one."""
    run = RunFolder(root / row["folder"])
    calibration = run.read_json(run.calibration)
    return RunSummary(
        name=row["config"],
        about=_about(row["config"], run),
        data=pathlib.PurePath(run.read_json(run.data)["root"]).name,
        odd_images=len(calibration.get("odd_images", [])),
        category=row["category"],
        seed=row["seed"],
        metrics=run.read_json(run.metrics),
        link=f"{row['folder']}/report.html",
        seconds=row["seconds"],
        cases=(cases := load_cases(run.cases)),
        scale=common_scale(calibration, cases),
    )


def _about(config: str, run: RunFolder) -> str:
    """What a config is for, and the keys of a run that say otherwise than it does."""
    about = about_config(config)
    if not about:
        return ""
    usual = flatten(load_settings(config, {}))
    # A fit in closed form takes no steps: what is said of them changes nothing.
    told = _TOLD if run.read_timing().get("steps") else _TOLD[1:]
    changed = [
        f"{key} is {value} here, not {usual.get(key)}"
        for key, value in flatten(run.read_config()).items()
        if repr(value) != repr(usual.get(key)) and key.startswith(told)
    ]
    return "; ".join([about, *changed])
