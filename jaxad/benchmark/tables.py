"""The tables of a benchmark: rows of its cells, means over categories, spread over seeds."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxad.data.groups import GROUPS, MVTEC_AD
from jaxad.evaluation.protocols.rules import get_protocol
from jaxad.report.tables import format_seconds, markdown_table, metric_title
from jaxad.run.files import write_csv, write_json, write_text
from jaxad.run.text import counted

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")


def metric_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of metrics with their headings: those of every run, then the protocols'."""
    own = {key: None for row in rows for key in row if ":" in key}
    headings = {name: metric_title(name) for name in METRICS}
    for key in own:
        protocol, _, name = key.partition(":")
        headings[key] = f"{protocol}: {metric_title(name)}"
    return headings


DECISIONS = ("image_threshold", "defective", "defective_rejected", "good", "good_rejected")
"""What the thresholds of runs do on their test images, as results.csv has it."""


def shown_table(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows and columns for people: no empty column, no mean of a single run.

    Args:
      rows: of cells.

    Returns:
      The rows, those of means at their end, and key -> heading.
    """
    several = [mean for mean in mean_rows(rows) if not str(mean["seed"]).startswith(("0 ", "1 "))]
    shown = []
    for row in [*rows, *several]:
        told = {"threshold": row.get("image_threshold"), "time": format_seconds(row["seconds"])}
        for key, group in (("found", "defective"), ("alarms", "good")):
            if row.get(group):
                told[key] = f"{row[f'{group}_rejected']} of {row[group]}"
        shown.append({**row, **told})
    leading = {"config": "Config", "category": "Category", "seed": "Seed", "time": "Time to train"}
    if not any(row["category"] for row in shown):
        del leading["category"]
    decided = {"threshold": "Threshold", "found": "Found", "alarms": "False alarms"}
    decided = {k: v for k, v in decided.items() if any(row.get(k) is not None for row in shown)}
    return shown, leading | decided | metric_columns(rows)


def odd_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on every run with odd training images."""
    return [
        f"{row['folder']}: {row['odd_images']} of its training images score far above the others "
        "and may keep its threshold too high; odd_images.csv there names them"
        for row in rows
        if row.get("odd_images")
    ]


def mean_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of means per config: over all its categories, then over each group of them.

    A mean is over categories, of each the mean over its seeds; cells without a metric are left
    out. Groups (:data:`jaxad.data.groups.GROUPS`) are for MVTec AD's categories alone, and only
    where they part what was run.
    """
    means = []
    for config in dict.fromkeys(row["config"] for row in rows):
        mine = [row for row in rows if row["config"] == config and not row["error"]]
        present = {row["category"] for row in mine}
        means.append(_mean(mine, rows, config, "mean", counted(len(mine), "run")))
        if not present <= set(MVTEC_AD):
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
    for key in ("seconds", *metric_columns(rows)):
        per_category: dict[str, list[float]] = {}
        for row in mine:
            if row.get(key) is not None:
                per_category.setdefault(row["category"], []).append(row[key])
        known = [np.mean(values) for values in per_category.values()]
        mean[key] = float(np.mean(known)) if known else None
    return mean


def seed_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, per config and category with two seeds or more.

    The deviation is the sample's (divided by n - 1): of runs that could be repeated for ever.

    Returns:
      Rows with ``statistic`` (``"mean"``, ``"std"``) and ``seeds`` (how many) in place of a seed;
      a metric that fewer than two runs have is None.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if not row["error"]:
            groups.setdefault((row["config"], row["category"]), []).append(row)
    found = []
    for (config, category), runs in groups.items():
        if len(runs) < 2:
            continue
        one = {"config": config, "category": category, "seeds": len(runs)}
        known = {
            key: [run[key] for run in runs if run.get(key) is not None]
            for key in ("seconds", *metric_columns(rows))
        }
        for name, spread in (("mean", np.mean), ("std", lambda x: np.std(x, ddof=1))):
            values = {k: float(spread(v)) if len(v) > 1 else None for k, v in known.items()}
            found.append({**one, "statistic": name, **values})
    return found


def write_results(
    root: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    failures: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes results.csv, results.json and results.md.

    Args:
      root: their folder.
      rows: of all cells.
      failures: folder and reason of cells that failed, those with an earlier result included.
    """
    metrics = metric_columns(rows)
    columns = ["config", "category", "seed", "seconds", *metrics, *DECISIONS, "odd_images"]
    columns += ["protocol", "folder", "error"]
    write_csv(root / "results.csv", columns, rows)
    means, seeds = mean_rows(rows), seed_rows(rows)
    protocols = {name: get_protocol(name).statement for name in _protocols_of(rows)}
    results: dict[str, Any] = {"cells": list(rows), "means": means, "seeds": seeds}
    results |= {"protocols": protocols, "failures": dict(failures)}
    write_json(root / "results.json", {**results, "groups": GROUPS})
    parts = [markdown_table(*shown_table(rows))]
    if seeds:
        keys = ("config", "category", "statistic", "seeds", "seconds")
        parts.append(markdown_table(seeds, {key: metric_title(key) for key in keys} | metrics))
    parts += [f"- {folder} failed: {reason}" for folder, reason in failures]
    parts += [f"- {note}" for note in odd_notes(rows)]
    used = [name for name in GROUPS if any(mean["category"] == name for mean in means)]
    parts += [f"- {name}: {', '.join(GROUPS[name])}" for name in used]
    parts += [f"- protocol {name}: {statement}" for name, statement in protocols.items()]
    write_text(root / "results.md", "\n\n".join(parts) + "\n")


def _protocols_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["protocol"] for row in rows if not row["error"]))
