"""Tiles of generated photographs against whole ones: figures, seconds and memory.

    python tools/studies/photographs.py --work=DIR --output=docs/results/photographs_cpu.json

Draws two textures and an object of 4096 x 3000 pixels with defects of 10 pixels (of each 10 good
photographs, half of them to train on and half for thresholds, 5 good and 5 defective ones to test
on), and trains, evaluates and predicts with every model, by tiles and on whole photographs. Every
command is a process of its own, whose seconds and highest memory are kept. What is already in DIR
is not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
from PIL import Image

from jaxad.data.synthetic.photographs import CAMERA, SCENES, write_photographs

DEFECT = (10.0, 10.0)
COUNTS = {"train": 10, "test_good": 5, "test_defective": 5}
SHARED = {"data.calibration": "held_out", "data.holdout": "0.5"}
"""Half of the good photographs is held out: cross-fitting would cost five fits more."""

FEATURES = {"data.image_size": "256,256"}
PATCHES = {
    "data.image_size": "256,256",
    "model.patch": "8",
    "model.components": "64",
    "evaluate.primary_score": "nll:max",
}
RUNS: dict[str, tuple[str, dict[str, str]]] = {
    "feature_pca, tiles": ("feature_pca:fine", {**FEATURES, "data.tiles": "256,32"}),
    "feature_pca, tiles, cross-fitted": (
        "feature_pca:fine",
        {
            **FEATURES,
            "data.tiles": "256,32",
            "data.calibration": "cross_fitted",
            "data.holdout": "0",
        },
    ),
    "feature_pca, whole": ("feature_pca:fine", FEATURES),
    "pca:patch, tiles": ("pca:patch", {**PATCHES, "data.tiles": "256,32"}),
    "pca:patch, per position": (
        "pca:patch",
        {**PATCHES, "data.tiles": "256,32", "data.tile_models": "per_position"},
    ),
    "pca:patch, whole": ("pca:patch", PATCHES),
}
"""Name -> config and keys."""

ALIGNED = ("plate",)
"""Scenes whose places look like themselves, for a model for each place."""


class Cost(NamedTuple):
    """What a process took.

    Attributes:
      seconds: from its start to its end.
      cpu_seconds: of all its threads.
      megabytes: of memory at its peak, in 2**20 bytes.
    """

    seconds: float
    cpu_seconds: float
    megabytes: float


def main() -> None:
    """Reads the command line and runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--runs", nargs="*", default=list(RUNS))
    parser.add_argument("--categories", nargs="*", default=list(SCENES))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for category in arguments.categories:
        if not (arguments.work / category / "test").is_dir():
            write_photographs(arguments.work, category, sides=DEFECT, **COUNTS)
    rows = []
    for name in arguments.runs:
        for category in arguments.categories:
            if "per position" in name and category not in ALIGNED:
                continue
            row = run(arguments.work, category, name)
            print(json.dumps(row), flush=True)
            rows.append(row)
    head = {
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        "jax": jax.__version__,
        "size": CAMERA,
        "defect_pixels": DEFECT[0],
        **COUNTS,
    }
    arguments.output.write_text(json.dumps({**head, "runs": rows}, indent=1) + "\n")


def run(work: pathlib.Path, category: str, name: str) -> dict[str, Any]:
    """Trains, evaluates and predicts; the row of the table."""
    config, keys = RUNS[name]
    folder = work / "runs" / f"{name.replace(', ', '-').replace(':', '-')}-{category}"
    done = folder / "study.json"
    if done.exists():
        return json.loads(done.read_text())
    options = [f"--config.{key}={value}" for key, value in (SHARED | keys).items()]
    data = [f"--config.data.root={work}", f"--config.data.category={category}"]
    workdir = f"--workdir={folder}"
    train = process("train", f"--config={config}", workdir, *data, *options)
    evaluate = process("evaluate", workdir)
    test = work / category / "test"
    count = sum(1 for _ in test.rglob("*.png"))
    output = ["--input", str(test), "--output", str(folder / "predicted"), "--no-overlays"]
    predict = process("predict", workdir, *output)
    metrics = json.loads((folder / "metrics.json").read_text())
    predicted = json.loads((folder / "predicted" / "predictions.json").read_text())["images"]
    row = {
        "run": name,
        "category": category,
        "config": config,
        "keys": keys,
        "image_auroc": metrics["image_auroc"],
        "image_auroc_of_scores": {
            score: found["image_auroc"] for score, found in metrics["scores"].items()
        },
        "aupro": metrics["aupro"],
        "pixel_ap": metrics["pixel_ap"],
        "decisions": metrics["decisions"],
        **regions(work / category, predicted),
        "train": train._asdict(),
        "evaluate": evaluate._asdict(),
        "predict": predict._asdict() | {"images": count},
    }
    done.write_text(json.dumps(row))
    return row


def process(verb: str, *options: str) -> Cost:
    """Runs one command of jaxad to its end."""
    begun = time.perf_counter()
    started = subprocess.Popen([sys.executable, "-m", "jaxad", verb, *options])
    _, status, used = os.wait4(started.pid, 0)
    if status:
        raise SystemExit(f"{verb} failed: {options}")
    cpu = used.ru_utime + used.ru_stime
    return Cost(time.perf_counter() - begun, cpu, used.ru_maxrss / 1024)


def regions(folder: pathlib.Path, predicted: list[dict[str, Any]]) -> dict[str, int]:
    """How many defects have a predicted region, and how many regions lie on none."""
    found = defects = false = on_good = 0
    for one in predicted:
        path = pathlib.Path(one["path"])
        kind = path.parent.name
        box = None
        if kind != "good":
            mask = folder / "ground_truth" / kind / f"{path.stem}_mask.png"
            box = Image.open(mask).getbbox()
            defects += 1
        hits = [overlaps(region, box) for region in one["regions"]]
        found += any(hits)
        wrong = len(hits) - sum(hits)
        false += wrong
        on_good += wrong if box is None else 0
    return {
        "defects": defects,
        "defects_found": found,
        "false_regions": false,
        "false_regions_on_good": on_good,
    }


def overlaps(region: dict[str, Any], box: tuple[int, int, int, int] | None) -> bool:
    """Whether a predicted region touches the box (left, top, right, bottom) of a defect."""
    if box is None:
        return False
    left, top, right, bottom = box
    across = region["x"] < right and region["x"] + region["width"] > left
    return across and region["y"] < bottom and region["y"] + region["height"] > top


if __name__ == "__main__":
    main()
