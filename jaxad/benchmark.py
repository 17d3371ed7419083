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
from jaxad.evaluation.protocols import get_protocol
from jaxad.report.cases import load_cases
from jaxad.report.compare import write_comparison
from jaxad.report.content import RunSummary, common_scale
from jaxad.report.tables import markdown_table, metric_title
from jaxad.run_folder import RunFolder, write_json, write_text
from jaxad.training.train import train

FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")

_TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
_OBJECTS = ("bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush",
            "transistor", "zipper")  # fmt: skip

GROUPS = {
    "mean of textures": _TEXTURES,
    "mean of objects": _OBJECTS,
    "mean of textures with hazelnut": (*_TEXTURES, "hazelnut"),
    "mean of objects without hazelnut": tuple(k for k in _OBJECTS if k != "hazelnut"),
}
"""Groups of MVTec AD's categories. The first two are the data set's own; the comparison of VAE,
VAE-GRF and ViT-VAE calls the other two texture and non-texture."""


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
      One row per cell: config, category, seed, seconds, the figures, ``protocol`` with its own
      figures (``"vae_compare:pixel_auroc_per_image_mean"``) where it is another than ``"jaxad"``,
      and ``error``: a cell that cannot run is a row with its reason, and the others go on.

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
            # A run that was trained before keeps the judgement it was trained with.
            saved = run.read_config().evaluate
            asked = {k: v for k, v in config.evaluate.items() if saved.get(k) != v}
            overrides = {f"evaluate.{key}": value for key, value in asked.items()}
            metrics = evaluate(run.path, overrides=overrides)
    except UserError as error:
        print(f"  failed: {error}", file=sys.stderr)
        return {**row, "error": str(error), **dict.fromkeys(("seconds", *FIGURES))}
    seconds = run.read_json(run.timing)["train_seconds"]
    figures = {name: metrics[name] for name in FIGURES}
    protocol = metrics.get("protocol", "jaxad")
    if protocol != "jaxad":
        figures |= {
            f"{protocol}:{name}": value
            for name, value in metrics["protocol_figures"].items()
            if not isinstance(value, Mapping)
        }
    return {**row, "seconds": seconds, "protocol": protocol, **figures}


def figure_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of figures with their headings: those of every run, then the protocols'."""
    own = {key: None for row in rows for key in row if ":" in key}
    headings = {name: metric_title(name) for name in FIGURES}
    for key in own:
        protocol, _, name = key.partition(":")
        headings[key] = f"{protocol}: {metric_title(name)}"
    return headings


def mean_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of means per config: over all its categories, then over each group of :data:`GROUPS`.

    A mean is over categories, of each the mean over its seeds; cells without a figure are left
    out. Groups are for MVTec AD's categories alone, and only where they part what was run.
    """
    means = []
    for config in dict.fromkeys(row["config"] for row in rows):
        mine = [row for row in rows if row["config"] == config and not row["error"]]
        present = {row["category"] for row in mine}
        means.append(_mean(mine, rows, config, "mean", f"{len(mine)} runs"))
        if not present <= {*_TEXTURES, *_OBJECTS}:
            continue
        for name, group in GROUPS.items():
            if present & set(group) and not present <= set(group):
                inside = [row for row in mine if row["category"] in group]
                count = f"{len(present & set(group))} of {len(group)} categories"
                means.append(_mean(inside, rows, config, name, count))
    return means


def _mean(
    mine: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    config: str,
    name: str,
    count: str,
) -> dict[str, Any]:
    mean: dict[str, Any] = {"config": config, "category": name, "seed": count}
    for key in ("seconds", *figure_columns(rows)):
        per_category: dict[str, list[float]] = {}
        for row in mine:
            if row.get(key) is not None:
                per_category.setdefault(row["category"], []).append(row[key])
        known = [np.mean(values) for values in per_category.values()]
        mean[key] = float(np.mean(known)) if known else None
    return mean


def write_results(root: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes results.csv, results.json and results.md."""
    figures = figure_columns(rows)
    columns = ["config", "category", "seed", "seconds", *figures, "protocol", "folder", "error"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(root / "results.csv", buffer.getvalue())
    means = mean_rows(rows)
    protocols = {name: get_protocol(name).statement for name in _protocols_of(rows)}
    write_json(
        root / "results.json",
        {"cells": list(rows), "means": means, "protocols": protocols, "groups": GROUPS},
    )
    shown = {key: metric_title(key) for key in ("config", "category", "seed", "seconds")}
    parts = [markdown_table([*rows, *means], shown | figures)]
    used = [name for name in GROUPS if any(mean["category"] == name for mean in means)]
    parts += [f"- {name}: {', '.join(GROUPS[name])}" for name in used]
    parts += [f"- protocol {name}: {statement}" for name, statement in protocols.items()]
    write_text(root / "results.md", "\n\n".join(parts) + "\n")


def _protocols_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["protocol"] for row in rows if not row["error"]))


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
