"""Image scores made of connected components, beside those that jaxad has: image AUROC of all.

    python tools/studies/component_scores.py --output=docs/results/component_scores_cpu.json \
        --configs pca pca:patch feature_pca --data bottle=mvtec_ad/bottle screw=mvtec_ad/screw

Trains every config on every data set (a run that the output holds is not made again), or reads
runs that are there (``--runs bottle=RUN``), of which the primary map alone. It thresholds
each map as an evaluation would if it were the primary one, and takes from the components over the
threshold: the share of the image that they cover (``area``), the share that the largest covers
(``largest``), and the highest value in the largest (``peak``). ``default_scores.py`` compares them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
from jaxtyping import Float

import jaxad
from jaxad.evaluation.calibration import calibrate, calibration_of
from jaxad.evaluation.connected_components import find_components
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import read_inputs
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder

KINDS = ("area", "largest", "peak")


def main() -> None:
    """Reads the command line, and writes the file after every run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", default=[], metavar="CONFIG")
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME=DIR")
    parser.add_argument("--runs", nargs="+", default=[], metavar="NAME=RUN")
    parser.add_argument("--steps", type=int, default=0, help="train.steps of all (default: theirs)")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if arguments.output.exists():
        runs = json.loads(arguments.output.read_text(encoding="utf-8"))["runs"]

    def keep(config: str, name: str, figures: dict[str, Any]) -> None:
        runs.append({"config": config, "data": name, **figures})
        runs.sort(key=lambda run: (run["data"], run["config"]))
        record = {"made_by": "tools/studies/component_scores.py", "runs": runs}
        write_json(arguments.output, record)
        best = sorted(figures["metrics"]["scores"].items(), key=lambda s: -s[1]["image_auroc"])
        print(config, name, [(k, round(v["image_auroc"], 3)) for k, v in best[:4]], flush=True)

    done = {(run["config"], run["data"]) for run in runs}
    for config in arguments.configs:
        label = f"{config} ({arguments.steps} steps)" if arguments.steps else config
        for named in arguments.data:
            name, _, root = named.partition("=")
            if (label, name) not in done:
                keep(label, name, trained(config, root, arguments.steps))
    for named in arguments.runs:
        name, _, folder = named.partition("=")
        run = RunFolder(folder)
        settings = run.read_config()
        label = f"{settings.model.name}:{settings.variants}".rstrip(":")
        if (label, name) not in done:
            keep(label, name, measured(run, settings.evaluate.primary_map))


def trained(config: str, root: str, steps: int) -> dict[str, Any]:
    """Trains and measures one run."""
    keys: dict[str, Any] = {"data.root": root, "train.devices": 1}
    keys |= {"train.steps": steps} if steps else {}
    with tempfile.TemporaryDirectory() as folder:
        return measured(jaxad.train(jaxad.load_config(config, keys), folder))


def measured(run: RunFolder, only: str = "") -> dict[str, Any]:
    """Measures one run, all of its maps or one."""
    detector = Detector.load(run.path)
    test = read_inputs(run, detector.config, None)
    output = detector(test.images)
    scores, thresholds = dict(output.scores), {}
    for name, maps in output.maps.items():
        if only not in ("", name):
            continue
        if name == detector.primary_map:
            found = calibration_of(run, detector, test.table)
        else:
            own = {"evaluate.primary_map": name, "evaluate.primary_score": f"{name}:max"}
            as_primary = Detector.load(run.path, overrides=own)
            found = calibrate(run, as_primary, test.table, run.read_json(run.data))
        thresholds[name] = found["pixel_threshold"]
        columns = np.array([of_components(one, thresholds[name]) for one in maps], np.float64).T
        scores |= {f"{name}:{k}": v for k, v in zip(KINDS, columns, strict=True)}
    environment = run.read_json(run.environment)
    labels = np.array([bool(sample.label) for sample in test.samples])
    figures = {n: {"image_auroc": jaxad.metrics.auroc(labels, s)} for n, s in scores.items()}
    return {
        "seed": detector.config.seed,
        "train_seconds": run.read_timing().get("train_seconds"),
        "counts": {"good": int((~labels).sum()), "defective": int(labels.sum())},
        "pixel_thresholds": thresholds,
        "metrics": {"primary_score": detector.primary_score, "scores": figures},
        "machine": {
            key: environment[key] for key in ("versions", "platform", "processor", "devices")
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
