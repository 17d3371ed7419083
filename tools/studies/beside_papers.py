"""What the stored small runs measure, beside the figures that the papers print.

    python tools/studies/beside_papers.py --output=docs/results/beside_papers.json

Nothing is trained: the runs are those of docs/results (small_cpu, variational_cpu,
transformers_cpu and medium_runs_cpu.json), and the printed figures those of
jaxad/benchmark/printed_tables, of the systems that are the papers' own, on the categories that were
run. Beside the map that the config decides by stands the best of the maps of the same run, which
costs nothing to take instead, and what the variant changes of the paper's settings. It prints the
tables of docs/results/beside_papers.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
from typing import Any

from jaxad.benchmark.papers import run_columns
from jaxad.benchmark.printed import divisor_of, paper_tables
from jaxad.report.tables import markdown_table
from jaxad.run.config import flatten, load_config
from jaxad.run.files import write_json

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"
FILES = ("small_cpu.json", "variational_cpu.json", "transformers_cpu.json", "medium_runs_cpu.json")
STANDS_FOR = {
    "vqvae:paper": ("vqvae:small",),
    "vae:reference": ("vae:small",),
    "vae_grf:reference,matern32": ("vae_grf:small",),
    "vit_vae:reference": ("vit_vae:small",),
    "vit_memory:paper": ("vit_memory:small,base_m_ca",),
    "vt_adl:mvtec,no_noise,paper": (
        "vt_adl:small,no_noise",
        "vt_adl:paper,medium,mvtec,no_noise",
    ),
    "cae:ssim,paper": ("cae:small",),
    "anovit:paper": ("anovit:small",),
}
"""Config of a printed column -> the stored runs that come next to it."""
METRICS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "pixel_auroc_per_image_mean": "pixel AUROC per image",
}
CHANGED = (
    "data.image_size",
    "train.batch_size",
    "train.learning_rate",
    "data.holdout",
    "evaluate.smoothing",
)


def stored_runs() -> dict[tuple[str, str], dict[str, Any]]:
    """(config, category) -> metrics of a run, the first one where there are several."""
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    for file in FILES:
        for run in json.loads((RESULTS / file).read_text())["runs"]:
            runs.setdefault((run["config"], run["data"]), run["metrics"])
    return runs


def value_of(metrics: dict[str, Any], name: str, key: str) -> float | None:
    """A metric of a map; of image scores, that of the reduction which the run decides by."""
    if key != "image_auroc":
        return metrics["maps"][name].get(key)
    reduction = metrics["primary_score"].rpartition(":")[2]
    scores = metrics["scores"]
    one = scores.get(f"{name}:{reduction}")
    return one["image_auroc"] if one else None


def rows() -> list[dict[str, Any]]:
    """Printed figure, ours, their difference, and the best of the other maps."""
    runs, found, seen = stored_runs(), [], set()
    for table in paper_tables().values():
        key = table["metric"]["key"]
        if table["data"] != "mvtec_ad" or key not in METRICS:
            continue
        names = [column["name"] for column in table["columns"]]
        for column in run_columns(table):
            specs = STANDS_FOR.get(column["config"], ())
            for spec, row in itertools.product(specs, table["rows"]):
                metrics = runs.get((spec, row["category"]))
                printed = row["values"][names.index(column["name"])]
                again = (spec, key, column.get("map"), row["category"], printed)
                if metrics is None or printed is None or again in seen:
                    continue
                seen.add(again)  # figures that one paper takes from another
                shown = column.get("map") or metrics["primary_map"]
                ours = metrics[key] if shown == metrics["primary_map"] else None
                if ours is None:
                    ours = value_of(metrics, shown, key)
                of_maps = {name: value_of(metrics, name, key) for name in metrics["maps"]}
                best = max((v, k) for k, v in {**of_maps, shown: ours}.items() if v is not None)
                found.append({
                    "table": table["id"], "column": column["name"], "own": column["own"],
                    "config": spec, "category": row["category"], "metric": key, "map": shown,
                    "printed": printed / divisor_of(table), "ours": ours,
                    "difference": ours - printed / divisor_of(table),
                    "best_map": best[1], "best": best[0],
                })  # fmt: skip
    return found


def changes() -> dict[str, str]:
    """Stored run -> what it changes of the settings of the printed column, in words."""
    found = {}
    pairs = [(paper, spec) for paper, specs in STANDS_FOR.items() for spec in specs]
    for paper, spec in pairs:
        theirs, ours = (flatten(load_config(name)) for name in (paper, spec))
        keys = [k for k in ours if k in CHANGED or k.startswith("model.")]
        told = [f"{ours['train.steps']} steps for {theirs['train.epochs']} epochs"]
        for key in keys:
            if ours[key] != theirs.get(key):
                told.append(f"`{key}` {_word(ours[key])} for {_word(theirs.get(key))}")
        found[spec] = ", ".join(told)
    return found


def _word(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return " x ".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def markdown(found: list[dict[str, Any]], changed: dict[str, str]) -> str:
    """Two tables: the figures, and what is different."""
    percent = lambda x: f"{100 * x:.1f}"
    lines = [
        {
            "system": f"`{row['config']}`",
            "table": f"`{row['table']}`, {row['column']}",
            "category": row["category"],
            "metric": METRICS[row["metric"]],
            "map": f"`{row['map']}`",
            "printed": percent(row["printed"]),
            "ours": percent(row["ours"]),
            "difference": f"{100 * row['difference']:+.1f}",
            "best": f"`{row['best_map']}` {percent(row['best'])}",
        }
        for row in sorted(found, key=lambda r: (r["config"], r["category"], r["metric"]))
    ]
    titles = {key: key for key in lines[0]} | {"best": "best of its maps"}
    different = [{"system": f"`{k}`", "what": v} for k, v in changed.items()]
    second = markdown_table(different, {"system": "system", "what": "set otherwise than in print"})
    return markdown_table(lines, titles) + "\n\n" + second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    found, changed = rows(), changes()
    made_by = "tools/studies/beside_papers.py"
    write_json(options.output, {"made_by": made_by, "rows": found, "changes": changed})
    print(markdown(found, changed))


if __name__ == "__main__":
    main()
