"""Image scores made of connected components, beside those that jaxad has: image AUROC of all.

    python tools/studies/component_scores.py --output=docs/results/component_scores_cpu.json \
        --configs pca pca:patch feature_pca --data bottle=mvtec_ad/bottle screw=mvtec_ad/screw

Trains every config on every data set (a run that the output holds is not made again), thresholds
each map as an evaluation would if it were the primary one, and takes from the components over the
threshold: the share of the image that they cover (``area``), the share that the largest covers
(``largest``), and the highest value in the largest (``peak``). ``default_scores.py`` compares them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
from jaxtyping import Float

import jaxad
from jaxad.evaluation.calibration import calibrate
from jaxad.evaluation.connected_components import find_components
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import read_inputs
from jaxad.run.files import write_json

KINDS = ("area", "largest", "peak")


def main() -> None:
    """Reads the command line, and writes the file after every run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", required=True, metavar="CONFIG")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--steps", type=int, default=0, help="train.steps of all (default: theirs)")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if arguments.output.exists():
        runs = json.loads(arguments.output.read_text(encoding="utf-8"))["runs"]
    done = {(run["config"], run["data"]) for run in runs}
    for config in arguments.configs:
        label = f"{config} ({arguments.steps} steps)" if arguments.steps else config
        for named in arguments.data:
            name, _, root = named.partition("=")
            if (label, name) in done:
                continue
            run = {"config": label, "data": name, **one(config, root, arguments.steps)}
            runs = sorted([*runs, run], key=lambda run: (run["data"], run["config"]))
            write_json(
                arguments.output, {"made_by": "tools/studies/component_scores.py", "runs": runs}
            )
            best = sorted(run["metrics"]["scores"].items(), key=lambda s: -s[1]["image_auroc"])
            print(label, name, [(k, round(v["image_auroc"], 3)) for k, v in best[:4]], flush=True)


def one(config: str, root: str, steps: int) -> dict[str, Any]:
    """Trains and measures one run."""
    keys: dict[str, Any] = {"data.root": root, "train.devices": 1}
    keys |= {"train.steps": steps} if steps else {}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = jaxad.train(jaxad.load_config(config, keys), folder)
        seconds = time.perf_counter() - begun
        detector = Detector.load(folder)
        test = read_inputs(run, detector.config, None)
        output = detector(test.images)
        scores, thresholds = dict(output.scores), {}
        for name, maps in output.maps.items():
            own = {"evaluate.primary_map": name, "evaluate.primary_score": f"{name}:max"}
            as_primary = Detector.load(folder, overrides=own)
            found = calibrate(run, as_primary, test.table, run.read_json(run.data))
            thresholds[name] = found["pixel_threshold"]
            columns = np.array([of_components(one, thresholds[name]) for one in maps], np.float64).T
            scores |= {f"{name}:{k}": v for k, v in zip(KINDS, columns, strict=True)}
        environment_of_run = run.read_json(run.environment)
    labels = np.array([bool(sample.label) for sample in test.samples])
    figures = {n: {"image_auroc": jaxad.metrics.auroc(labels, s)} for n, s in scores.items()}
    return {
        "seed": 0,
        "train_seconds": seconds,
        "counts": {"good": int((~labels).sum()), "defective": int(labels.sum())},
        "pixel_thresholds": thresholds,
        "metrics": {"primary_score": detector.primary_score, "scores": figures},
        "machine": {
            key: environment_of_run[key] for key in ("versions", "platform", "processor", "devices")
        },
    }


def of_components(values: Float[np.ndarray, "h w"], threshold: float) -> tuple[float, float, float]:
    """What the components of a map over a threshold are worth, in the order of :data:`KINDS`."""
    components = find_components(values, values > threshold)
    if not components:
        return 0.0, 0.0, 0.0
    largest = max(components, key=lambda component: component.area)
    area = sum(component.area for component in components)
    return area / values.size, largest.area / values.size, largest.peak


if __name__ == "__main__":
    main()
