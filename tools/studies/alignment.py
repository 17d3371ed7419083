"""What bringing parts to one pose gives: ``data.align`` against images as they lie.

    python tools/studies/alignment.py --output=docs/results/alignment_cpu.json \
        --configs pca feature_pca --data screw=mvtec_ad/screw bottle=mvtec_ad/bottle

Trains and evaluates every config with each ``--kinds`` on every data set. Beside the metrics stand
the defective and good test images that the threshold rejects, and what ``auto`` has decided. A run
that the output holds is not made again. The table goes beside the JSON file as .md.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

import jaxad
from jaxad.evaluation.detector import Detector
from jaxad.models.alignment import alignment_in_words
from jaxad.report.tables import markdown_table
from jaxad.run.environment import describe
from jaxad.run.files import write_json

METRICS = ("image_auroc", "pixel_auroc", "aupro")


def main() -> None:
    """Reads the command line, and writes the files after every run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", required=True, metavar="CONFIG")
    parser.add_argument("--kinds", nargs="+", default=["none", "auto"], metavar="KIND")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if arguments.output.exists():
        runs = json.loads(arguments.output.read_text(encoding="utf-8"))["runs"]
    for named in arguments.data:
        name, _, root = named.partition("=")
        for config in arguments.configs:
            for kind in arguments.kinds:
                what = {"data": name, "config": config, "align": kind}
                if any(what.items() <= run.items() for run in runs):
                    continue
                runs.append(what | one(config, root, kind))
                described = describe(0)
                machine = {k: described[k] for k in ("versions", "platform", "processor")}
                record = {"made_by": "tools/studies/alignment.py", "machine": machine}
                write_json(arguments.output, record | {"runs": runs})
                print(runs[-1], flush=True)
    table = markdown_table([row_of(run) for run in runs], list(row_of(runs[0])))
    print(table)
    text = f"# {arguments.output.stem}\n\n{table}\n"
    arguments.output.with_suffix(".md").write_text(text, encoding="utf-8")


def one(config: str, root: str, kind: str) -> dict[str, Any]:
    """Trains and judges one run."""
    keys = {"data.root": root, "data.align": kind}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        jaxad.train(jaxad.load_config(config, keys), folder)
        seconds = time.perf_counter() - begun
        found = jaxad.evaluate(folder)
        decided = alignment_in_words(Detector.load(folder).variables)
        scores = {name: one["image_auroc"] for name, one in found["scores"].items()}
    return {
        **{metric: found[metric] for metric in METRICS},
        "primary_score": found["primary_score"],
        "scores": scores,
        "decisions": found["decisions"],
        "decided": decided,
        "seconds": seconds,
    }


def row_of(run: dict[str, Any]) -> dict[str, str]:
    """A line of the table."""
    counts = run["decisions"]
    return {
        "data": run["data"],
        "config": f"`{run['config']}`",
        "align": run["align"],
        "image / pixel AUROC / AUPRO": " / ".join(f"{100 * run[m]:.1f}" for m in METRICS),
        "found": f"{counts['defective_rejected']} of {counts['defective']}",
        "false alarms": f"{counts['good_rejected']} of {counts['good']}",
        "decided": (run["decided"] or "").partition(" before")[0],
    }


if __name__ == "__main__":
    main()
