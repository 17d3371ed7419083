"""What `restore` gives beside `own_features`, its closed-form part: each data set, each seed.

    python tools/studies/restore.py --output=docs/results/restore_cpu.json --work=DIR \
        --data bottle=mvtec_ad/bottle transistor=mvtec_ad/transistor

All good images are trained on and all test images judged, at the size that the model sees. Every
map of the model is judged, with the mean of its highest hundredth as the score of an image; the
product for several values of `model.floor`, which detection alone reads. The map `residual` is that
of `own_features`. Figures in percent: image AUROC, pixel AUROC, AUPRO. The file is written after
every run, runs that it holds are not judged again, and an interrupted training goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from own_features import FIGURES, Images

import jaxad
from jaxad import metrics
from jaxad.evaluation.detector import Detector
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json

FLOORS = (0.0, 0.1, 0.3, 1.0)
"""Values of `model.floor`; with the last the residual is all but alone."""

PRODUCT = "residual*probability"


def judged(detector: Detector, images: Images, maps: list[str]) -> dict[str, list[float]]:
    """Map -> the figures."""
    outputs = list(detector.batches(images.test))
    found = {}
    for name in maps:
        values = np.concatenate([one.maps[name] for one in outputs])
        scores = np.concatenate([one.scores[f"{name}:top1"] for one in outputs])
        of = metrics.evaluate_maps(
            list(values), images.masks, labels=images.labels, image_scores=scores.tolist()
        )
        found[name] = [round(100 * of[figure], 1) for figure in FIGURES if of[figure] is not None]
    return found


def row_of(root: str, work: pathlib.Path, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run, and the seconds that it took."""
    values = {"data.root": root, "data.holdout": 0.0, "seed": seed, **changes}
    run = jaxad.train(jaxad.load_config("restore", values), work)
    images = Images(root)
    found: dict[str, Any] = {}
    for floor in FLOORS:
        detector = Detector.load(run.path, overrides={"model.floor": floor})
        maps = [*detector.maps] if floor == FLOORS[0] else [PRODUCT]
        figures = judged(detector, images, maps)
        found[f"{PRODUCT}, floor {floor:g}"] = figures.pop(PRODUCT)
        found |= figures
    timing = run.read_json(run.timing)
    steps, seconds = timing["steps"], timing["train_seconds"]
    return {"steps": steps, "train_seconds": round(seconds, 1), "figures": found}


def main() -> None:
    """Reads the command line, prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=0, help="0: as in the config")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of the runs")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    changes = {"train.steps": args.steps} if args.steps else {}
    for seed in args.seeds:
        for name, root in (item.split("=", 1) for item in args.data):
            # Read anew: several processes may write different rows of one study.
            rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
            if any((row["data"], row["seed"]) == (name, seed) for row in rows):
                continue
            row = {"data": name, "seed": seed}
            rows.append(row | row_of(root, args.work / f"{name}_{seed}", seed, changes))
            print(rows[-1], flush=True)
            write_json(args.output, {"processor": processor_name(), "rows": rows})


if __name__ == "__main__":
    main()
