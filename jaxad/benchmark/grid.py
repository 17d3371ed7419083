"""Many runs in one go: configs x categories x seeds, nothing run twice, by one process or several.

Every cell of the grid has a run folder. Whoever holds its lock runs it, others go on to the next
cell and come back; its ``outcome.json``, written last, says that it is done, or why it failed.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

POLL_SECONDS = 1.0
"""Between looks at cells that other processes are running."""


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
        ``report.html`` (all runs side by side).
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
    summaries: dict[Cell, RunSummary] = {}
    while len(rows) < len(cells):
        before = len(rows)
        for number, cell in enumerate(cells, start=1):
            if cell in rows:
                continue
            name = f"[{number}/{len(cells)}] {cell.config} {cell.category} seed {cell.seed}"
            taken = _take(cell, settings[cell], root, since=since, name=name)
            if taken is not None:
                rows[cell], summary = taken
                if summary is not None:
                    summaries[cell] = summary
                known = [rows[one] for one in cells if one in rows]
                write_results(root, known)
                write_paper_tables(root, papers, known, variant=variant)
        if len(rows) == before:
            time.sleep(POLL_SECONDS)  # the cells that are left are with other processes
    finished = [summaries[cell] for cell in cells if cell in summaries]
    write_comparison(root / "report.html", finished, title=title)
    return [rows[cell] for cell in cells]


def _settings(cell: Cell, overrides: Mapping[str, Any]) -> Settings:
    own = {"seed": cell.seed} | ({"data.category": cell.category} if cell.category else {})
    settings = load_settings(cell.config, {**overrides, **own})
    get_protocol(settings.evaluate.protocol)  # an unknown one is told before the first run
    return with_absolute_root(settings)


def _take(
    cell: Cell, config: Settings, root: pathlib.Path, *, since: float, name: str
) -> tuple[dict[str, Any], RunSummary | None] | None:
    """Runs a cell unless it is done; None where another process is at it.

    Returns:
      Its row and what the page says of it, None for a cell that failed or cannot be read.
    """
    run = RunFolder(root / cell.folder)
    row: dict[str, Any] = {**cell._asdict(), "folder": cell.folder, "error": ""}
    try:
        run.create()
        with try_lock(run.path / ".cell.lock") as mine:
            if not mine:
                return None
            outcome = run.read_json(run.outcome) if run.outcome.exists() else None
            # One of the future is from before the clock was set back.
            if outcome and outcome["error"] and since <= outcome["time"] <= time.time():
                raise UserError(outcome["error"])
            done = outcome and not outcome["error"] and _is_of(run, config)
            say(f"{name}: finished before" if done else name, file=sys.stderr)
            if not done:
                _run(run, config)
        row |= _metrics(run)
        return row, summary_of(root, row)
    except UserError as error:
        say(f"{name}: failed: {error}", file=sys.stderr)
        return {**row, "error": str(error), **dict.fromkeys(("seconds", *METRICS))}, None


def _is_of(run: RunFolder, config: Settings) -> bool:
    """Whether the run has these settings, but for keys that change no metric."""
    free = tuple(key for key in CHANGEABLE if not key.startswith("evaluate."))
    there, here = (
        {key: value for key, value in flatten(one).items() if not key.startswith(free)}
        for one in (run.read_config(), config)
    )
    return there == here and run.metrics.exists()


def _run(run: RunFolder, config: Settings) -> None:
    run.outcome.unlink(missing_ok=True)
    reason = ""
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
        reason = str(error)
    except Exception as error:  # out of memory, say: the other cells may still run
        interruption.check()  # which a library may have made another error of
        traceback.print_exc()
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    run.write_json(run.outcome, {"error": reason, "time": time.time()})
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
    seconds = run.read_json(run.timing)["train_seconds"]
    return {"seconds": seconds, "protocol": protocol, **row}


def summary_of(root: pathlib.Path, row: Mapping[str, Any]) -> RunSummary:
    """What the page over all runs says of one."""
    run = RunFolder(root / row["folder"])
    return RunSummary(
        name=row["config"],
        about=about_config(row["config"]),
        category=row["category"],
        seed=row["seed"],
        metrics=run.read_json(run.metrics),
        link=f"{row['folder']}/report.html",
        seconds=row["seconds"],
        cases=(cases := load_cases(run.cases)),
        scale=common_scale(run.read_json(run.calibration), cases),
    )
