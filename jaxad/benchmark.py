"""Many runs in one go: configs x categories x seeds, one table, nothing run twice."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxad.config import load_config, set_key, to_json, with_absolute_root
from jaxad.errors import UserError
from jaxad.evaluation.evaluate import evaluate
from jaxad.report.cases import load_cases
from jaxad.report.compare import write_comparison
from jaxad.report.content import RunSummary, common_scale
from jaxad.report.tables import markdown_table
from jaxad.run_folder import RunFolder, write_json, write_text
from jaxad.training.train import train

FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")


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
    title: str = "Benchmark",
) -> list[dict[str, Any]]:
    """Trains and evaluates every cell of a grid that is not finished yet.

    Args:
      configs: such as ``["pca", "vqvae:small"]``.
      categories: of the data set of ``data.root``.
      seeds: each gives a run of its own.
      workdir: one run folder per cell, ``results.csv``, ``results.json``, ``results.md`` and
        ``report.html`` (all runs side by side).
      overrides: config keys for every cell.
      title: heading of the page.

    Returns:
      One row per cell: config, category, seed, seconds, the figures, and ``error``: a cell that
      cannot run is a row with its reason, and the others go on.

    Raises:
      UserError: nothing to run, or the folder cannot be written.
    """
    cells = [Cell(c, k, s) for k in categories or [""] for c in configs for s in seeds]
    if not cells:
        raise UserError("a benchmark needs at least one config and one seed")
    root = pathlib.Path(workdir)
    RunFolder(root).create()
    # Every config is read before the first is run: a misprint shows at once, not after hours.
    settings = {cell: _settings(cell, overrides or {}) for cell in cells}
    rows = []
    for number, cell in enumerate(cells, start=1):
        print(f"[{number}/{len(cells)}] {cell.config} {cell.category} seed {cell.seed}",
              file=sys.stderr, flush=True)  # fmt: skip
        rows.append(_run(cell, settings[cell], root))
        write_results(root, rows)
    finished = [summary_of(root, row) for row in rows if not row["error"]]
    write_comparison(root / "report.html", finished, title=title)
    return rows


def _settings(cell: Cell, overrides: Mapping[str, Any]):
    config = load_config(cell.config, overrides)
    with config.unlocked():
        set_key(config, "seed", cell.seed)
        if cell.category:
            set_key(config, "data.category", cell.category)
    return with_absolute_root(config)


def _run(cell: Cell, config: Any, root: pathlib.Path) -> dict[str, Any]:
    run = RunFolder(root / cell.folder)
    row: dict[str, Any] = {**cell._asdict(), "folder": cell.folder, "error": ""}
    try:
        if run.metrics.exists() and run.config.read_text() == to_json(config):
            print("  already finished", file=sys.stderr)
            metrics = run.read_json(run.metrics)
        else:
            train(config, run.path)
            metrics = evaluate(run.path)
    except UserError as error:
        print(f"  failed: {error}", file=sys.stderr)
        return {**row, "error": str(error), **dict.fromkeys(("seconds", *FIGURES))}
    seconds = run.read_json(run.timing)["train_seconds"]
    return {**row, "seconds": seconds, **{name: metrics[name] for name in FIGURES}}


def mean_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per config: the means over categories and seeds of the cells that have a figure."""
    means = []
    for config in dict.fromkeys(row["config"] for row in rows):
        mine = [row for row in rows if row["config"] == config and not row["error"]]
        mean: dict[str, Any] = {"config": config, "category": "mean", "seed": f"{len(mine)} runs"}
        for name in ("seconds", *FIGURES):
            known = [row[name] for row in mine if row[name] is not None]
            mean[name] = float(np.mean(known)) if known else None
        means.append(mean)
    return means


def write_results(root: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes results.csv, results.json and results.md."""
    columns = ["config", "category", "seed", "seconds", *FIGURES, "folder", "error"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(root / "results.csv", buffer.getvalue())
    means = mean_rows(rows)
    write_json(root / "results.json", {"cells": list(rows), "means": means})
    shown = ["config", "category", "seed", "seconds", *FIGURES]
    write_text(root / "results.md", markdown_table([*rows, *means], shown) + "\n")


def summary_of(root: pathlib.Path, row: Mapping[str, Any]) -> RunSummary:
    """What the page over all runs says of one."""
    run = RunFolder(root / row["folder"])
    return RunSummary(
        name=" ".join(filter(None, [row["config"], row["category"], f"seed {row['seed']}"])),
        metrics=run.read_json(run.metrics),
        link=f"{row['folder']}/report.html",
        seconds=row["seconds"],
        cases=(cases := load_cases(run.cases)),
        scale=common_scale(run.read_json(run.calibration), cases),
    )
