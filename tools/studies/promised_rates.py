"""Whether thresholds keep their promise on new good images, as many as it takes to tell.

    python tools/studies/promised_rates.py --output=docs/results/promised_rates_cpu.json

Real sets have a few dozen good test images, on which a rate of 5 % cannot be told from 15 %. The
generator of images has as many as wanted. Each config is trained and calibrated on several sets of
a hundred good images of one kind; then 400 new good ones are judged. The promise holds on average
over sets: one threshold may lie anywhere in its interval. An interrupted study goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
from scipy import stats

import jaxad
from jaxad.data.synthetic.dataset import render
from jaxad.run.environment import describe, processor_name
from jaxad.run.files import write_json

NEW = 400
_FIRST_NEW = 10_000_000
"""Seed of the first new image; those of the data sets are far below."""


def row_of(config: str, category: str, seed: int) -> dict[str, Any]:
    """What one threshold promises, and how many of the new images it rejects."""
    keys = {"data.name": "synthetic", "data.category": category, "data.synthetic_seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        jaxad.train(jaxad.load_config(config, keys), folder)
        predictor = jaxad.load_detector(folder)
        size = predictor.detector.config.data.image_size
        seeds = range(_FIRST_NEW, _FIRST_NEW + NEW)
        images = (render(category, seed=one, image_size=size)[0] for one in seeds)
        rejected = sum(found.decision for found in predictor.predict(list(images)))
        calibration = predictor.calibration
    return {
        "config": config,
        "category": category,
        "seed": seed,
        "good_images": calibration["held_out"],
        "promised": calibration["promised_false_positive_rate"],
        "interval": calibration["promised_interval"],
        "rejected": int(rejected),
    }


def table_of(rows: list[dict[str, Any]], seeds: int) -> str:
    """A line for each config and kind of image, in Markdown."""
    out = ["| config | images | promised | rejected of the new ones, mean (each set) | inside |",
           "|---|---|---|---|---|"]  # fmt: skip
    for config, category in dict.fromkeys((row["config"], row["category"]) for row in rows):
        own = [row for row in rows if (row["config"], row["category"]) == (config, category)]
        if len(own) < seeds:
            continue
        each = ", ".join(f"{100 * row['rejected'] / NEW:.1f}" for row in own)
        mean = 100 * float(np.mean([row["rejected"] / NEW for row in own]))
        inside = sum(_inside(row) for row in own)
        promised = f"{100 * own[0]['promised']:.1f} %"
        out.append(
            f"| `{config}` | {category} | {promised} | {mean:.1f} % ({each}) "
            f"| {inside} of {len(own)} |"
        )
    return "\n".join(out)


def _inside(row: dict[str, Any]) -> bool:
    """Whether so many lie in the interval of 95 % that the promise allows for."""
    n, k = row["good_images"], round(row["promised"] * (row["good_images"] + 1)) - 1
    low, high = stats.betabinom.interval(0.95, NEW, k + 1, n - k)
    return bool(low <= row["rejected"] <= high)


def main() -> None:
    """Reads the command line, writes a row at a time, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--configs", nargs="+", default=["pca", "own_features", "feature_pca:small"]
    )
    parser.add_argument("--categories", nargs="+", default=["flange", "board", "metal"])
    parser.add_argument("--seeds", type=int, default=4, help="sets of each kind")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    rows = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    known = {(row["config"], row["category"], row["seed"]) for row in rows}
    for seed in range(arguments.seeds):
        for category in arguments.categories:
            for config in arguments.configs:
                if (config, category, seed) not in known:
                    rows.append(row_of(config, category, seed))
                    made = {"processor": processor_name(), "commit": describe(0)["commit"]}
                    write_json(arguments.output, {**made, "new_images": NEW, "rows": rows})
    print(table_of(rows, arguments.seeds), flush=True)


if __name__ == "__main__":
    main()
