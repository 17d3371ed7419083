r"""What brings a ``small`` model nearer to its paper: steps, width, size of the images, smoothing?

    python tools/studies/gap_factors.py --workdir=runs/gap_factors --data-root=MVTEC_AD \
        --output=docs/results/gap_factors_cpu.json

The systems and categories are those where docs/results/beside_papers.md found a figure below print
that no other map of the same run closes. Each is trained as ``small`` says and then with one thing
changed towards the paper; every run is judged at several widths of the smoothing, by the metric of
the printed table, on the map that the config decides by and on the best of all its maps. A run that
is finished in the folder is judged again, not trained again, and the output keeps the rows of other
runs, so that the study can be made in parts (--models, --changes). It prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any, NamedTuple

from beside_papers import METRICS, value_of

import jaxad
from jaxad.report.tables import markdown_table
from jaxad.run.environment import describe
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder

SMOOTHING = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Deviations of the filter in pixels at 128 x 128; at 256 x 256 they are twice as many."""


class Gap(NamedTuple):
    """A figure below print, and what is tried to close it.

    Attributes:
      config: of the small run.
      category: of MVTec AD.
      metric: key of metrics.json.
      map: that the printed column names.
      printed: the figure, a share.
      changes: what is tried -> the keys that it sets.
    """

    config: str
    category: str
    metric: str
    map: str
    printed: float
    changes: dict[str, dict[str, Any]]


_OF_TRANSFORMERS = {
    "as small": {},
    "twice the steps": {"train.steps": 1600},
    "twice the width": {"model.features": 384, "model.width": 1.0},
    "twice the size": {"data.image_size": (256, 256), "model.patch": 16},
}
GAPS = (
    Gap(
        "vae:small", "screw", "pixel_auroc_per_image_mean", "mad*ssim", 0.92,
        {
            "as small": {},
            "twice the steps": {"train.steps": 3000},
            "twice the width": {"model.width": 64, "model.latent": 128},
            "twice the size": {"data.image_size": (256, 256)},
        },
    ),
    Gap("anovit:small", "transistor", "image_auroc", "l2", 0.83, _OF_TRANSFORMERS),
    Gap(
        "vit_memory:small,base_m_ca", "transistor", "aupro", "anomaly", 0.81, _OF_TRANSFORMERS
    ),
)  # fmt: skip


def figures_of(metrics: dict[str, Any], gap: Gap) -> dict[str, Any]:
    """The metric of the column's map and of the best map."""
    of_maps = {name: value_of(metrics, name, gap.metric) for name in metrics["maps"]}
    if gap.metric != "image_auroc":
        of_maps[metrics["primary_map"]] = metrics[gap.metric]
    best, name = max((value, name) for name, value in of_maps.items() if value is not None)
    return {"value": of_maps[gap.map], "best": best, "best_map": name}


def rows_of(gap: Gap, what: str, root: pathlib.Path, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Trains one run unless it is finished, and judges it at every smoothing."""
    keys = {"data.root": str(root), "data.category": gap.category, **gap.changes[what]}
    config = jaxad.load_config(gap.config, keys)
    name = "-".join([config.model.name, gap.category, *what.split()])
    run = RunFolder(workdir / name)
    if not run.metrics.exists():
        jaxad.train(config, run.path)
    scale = config.data.image_size[0] / 128
    rows = []
    for smoothing in SMOOTHING:
        metrics = jaxad.evaluate(run.path, overrides={"evaluate.smoothing": smoothing * scale})
        rows.append({
            "config": gap.config, "category": gap.category, "metric": gap.metric, "map": gap.map,
            "printed": gap.printed, "change": what, "set": gap.changes[what],
            "smoothing_pixels": smoothing * scale, "smoothing": smoothing,
            "seconds": run.read_timing()["train_seconds"],
            **figures_of(metrics, gap),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the study lists them; of one that stands there twice the later."""
    places = [
        (gap.config, what, smoothing)
        for gap in GAPS
        for what in gap.changes
        for smoothing in SMOOTHING
    ]
    known = {(row["config"], row["change"], row["smoothing"]): row for row in rows}
    return [known[place] for place in places if place in known]


def markdown(rows: list[dict[str, Any]]) -> str:
    """One row per run; a column per smoothing: the column's map / the best map."""
    runs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault((row["config"], row["category"], row["change"]), []).append(row)
    lines = []
    for (config, category, change), of_run in runs.items():
        first = of_run[0]
        cells = {
            f"{row['smoothing']:g}": f"{100 * row['value']:.1f} / {100 * row['best']:.1f}"
            for row in of_run
        }
        lines.append({
            "system": f"`{config}`, {category}", "metric": METRICS[first["metric"]],
            "printed": f"{100 * first['printed']:.1f}", "changed": change, **cells,
        })  # fmt: skip
    return markdown_table(lines, {key: key for key in lines[0]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of all runs")
    parser.add_argument("--data-root", type=pathlib.Path, required=True, help="of MVTec AD")
    parser.add_argument("--models", nargs="*", help="of these alone: vae anovit vit_memory")
    parser.add_argument("--changes", nargs="*", help='of these alone: "twice the size"')
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file")
    options = parser.parse_args()
    output = options.output
    rows = json.loads(output.read_text())["rows"] if output.exists() else []
    machine = {k: v for k, v in describe(0).items() if k in ("versions", "platform", "processor")}
    for gap in GAPS:
        if options.models and gap.config.partition(":")[0] not in options.models:
            continue
        for what in gap.changes:
            if options.changes and what not in ("as small", *options.changes):
                continue
            rows = in_order(rows + rows_of(gap, what, options.data_root, options.workdir))
            report = {"made_by": "tools/studies/gap_factors.py", "machine": machine}
            write_json(output, report | {"rows": rows})
    print(markdown(rows))


if __name__ == "__main__":
    main()
