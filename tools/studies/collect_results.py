"""Gathers the metrics of run folders into one JSON file and a Markdown table of every map.

    python tools/studies/collect_results.py --runs RUNS --output=docs/results/cpu.json

Every folder below the given ones that holds a metrics.json counts as a run. Paths of the machine
are left out; its processor, devices and versions are kept.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections import Counter

from jaxad.report.tables import markdown_table
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder

METRICS = ("pixel_auroc", "pixel_ap", "aupro", "pixel_auroc_per_image_mean")
TITLES = {
    "data": "data",
    "config": "config",
    "steps": "steps",
    "seconds": "seconds",
    "map": "map",
    "image_auroc_max": "image AUROC (max)",
    "image_auroc_mean": "image AUROC (mean)",
    "image_auroc_top1": "image AUROC (top 1 %)",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
    "pixel_auroc_per_image_mean": "pixel AUROC per image",
}


def read_run(folder: pathlib.Path) -> dict:
    run = RunFolder(folder)
    config, metrics = run.read_config(), run.read_json(run.metrics)
    record, timing = run.read_json(run.data), run.read_json(run.timing)
    environment = run.read_json(run.environment)
    # One reason stands for all the metrics of a data set without masks: counted, not listed.
    metrics["undefined"] = dict(Counter(metrics["undefined"].values()))
    return {
        "data": record["category"] or pathlib.Path(record["root"]).name,
        "config": f"{config.model.name}:{config.variants}".rstrip(":"),
        "seed": config.seed,
        "image_size": list(config.data.image_size),
        "model": config.model.to_dict(),
        "steps": timing["steps"],
        "seconds": timing["train_seconds"],
        "training_images": len(record["training"]),
        "held_out_images": len(record["holdout"]),
        "metrics": metrics,
        "machine": {k: environment[k] for k in ("versions", "platform", "processor", "devices")},
    }


def rows_of(run: dict) -> list[dict]:
    scores = run["metrics"]["scores"]
    return [
        {
            **{name: run[name] for name in ("data", "config", "steps", "seconds")},
            "map": name,
            **{
                f"image_auroc_{how}": scores[f"{name}:{how}"]["image_auroc"]
                for how in ("max", "mean", "top1")
            },
            **{metric: values[metric] for metric in METRICS},
        }
        for name, values in run["metrics"]["maps"].items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True, help="run folders, or folders of them")
    parser.add_argument(
        "--output", required=True, help="JSON file; the table goes beside it as .md"
    )
    arguments = parser.parse_args()
    folders = [f.parent for d in arguments.runs for f in pathlib.Path(d).rglob("metrics.json")]
    runs = sorted(map(read_run, folders), key=lambda run: (run["data"], run["config"]))
    output = pathlib.Path(arguments.output)
    write_json(output, {"made_by": "tools/studies/collect_results.py", "runs": runs})
    table = markdown_table([row for run in runs for row in rows_of(run)], TITLES)
    output.with_suffix(".md").write_text(f"# {output.stem}\n\n{table}\n")
    print(table)
    print(json.dumps({run["machine"]["processor"]: len(folders) for run in runs}))


if __name__ == "__main__":
    main()
