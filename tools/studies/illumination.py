"""What a change of light does to decisions, and what its normalisation costs in detection.

    python tools/studies/illumination.py --output=docs/results/illumination_cpu.json \
        --configs pca feature_pca --data bottle=mvtec_ad/bottle transistor=mvtec_ad/transistor

Trains every config with each ``data.illumination`` and judges the test images as they are, and
under other light: all values raised and lowered by 10 of 255, multiplied by 0.9 and 1.1, and by a
gradient that falls by a fifth from left to right. A run that the output holds is not made again;
``--runs bottle=RUN`` takes runs that are there.
The table goes beside the JSON file as .md.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

import jaxad
from jaxad.evaluation.calibration import calibration_of
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import read_inputs, read_masks
from jaxad.report.tables import markdown_table
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder

Images = UInt8[np.ndarray, "n h w c"]

KINDS = ("none", "level", "gradient")


def _scaled(images: Images, factor: Any, offset: float = 0.0) -> Images:
    return np.rint(np.clip(images * factor + offset, 0, 255)).astype(np.uint8)


def _gradient(images: Images) -> Images:
    return _scaled(images, np.linspace(1.1, 0.9, images.shape[2])[:, None])


LIGHTS: dict[str, Callable[[Images], Images]] = {
    "as it is": lambda images: images,
    "+10": lambda images: _scaled(images, 1.0, 10.0),
    "-10": lambda images: _scaled(images, 1.0, -10.0),
    "x 0.9": lambda images: _scaled(images, 0.9),
    "x 1.1": lambda images: _scaled(images, 1.1),
    "gradient": _gradient,
}
"""Other lights, of images in [0, 255]."""


def main() -> None:
    """Reads the command line, and writes both files after every run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", default=[], metavar="CONFIG")
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME=DIR")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--runs", nargs="+", default=[], metavar="NAME=RUN")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if arguments.output.exists():
        runs = json.loads(arguments.output.read_text(encoding="utf-8"))["runs"]

    def keep(key: dict[str, str], figures: dict[str, Any]) -> None:
        runs.append(key | figures)
        print(row(runs[-1]), flush=True)
        runs.sort(key=lambda r: (r["data"], r["config"], KINDS.index(r["illumination"])))
        write_json(arguments.output, {"made_by": "tools/studies/illumination.py", "runs": runs})
        rows = [row(run) for run in runs]
        table = markdown_table(rows, {name: name for name in rows[0]})
        arguments.output.with_suffix(".md").write_text(
            f"# {arguments.output.stem}\n\n{table}\n", encoding="utf-8"
        )

    for named in arguments.runs:
        name, _, folder = named.partition("=")
        run = RunFolder(folder)
        settings = run.read_config()
        config = f"{settings.model.name}:{settings.variants}".rstrip(":")
        key = {"data": name, "config": config, "illumination": settings.data.illumination}
        if not any(key.items() <= other.items() for other in runs):
            keep(key, judged(run))
    for named in arguments.data:
        name, _, root = named.partition("=")
        for config in arguments.configs:
            for kind in arguments.kinds:
                key = {"data": name, "config": config, "illumination": kind}
                if not any(key.items() <= other.items() for other in runs):
                    keep(key, trained(config, root, kind))


def trained(config: str, root: str, kind: str) -> dict[str, Any]:
    """Trains one run and judges its test images in every light."""
    keys = {"data.root": root, "data.illumination": kind, "train.devices": 1}
    with tempfile.TemporaryDirectory() as folder:
        return judged(jaxad.train(jaxad.load_config(config, keys), folder))


def judged(run: RunFolder) -> dict[str, Any]:
    """Judges the test images of a run in every light."""
    detector = Detector.load(run.path)
    test = read_inputs(run, detector.config, None)
    threshold = calibration_of(run, detector, test.table)["image_threshold"]
    environment = run.read_json(run.environment)
    labels = np.array([bool(sample.label) for sample in test.samples])
    masks = read_masks(test.samples, detector.config)
    figures = {}
    for name, change in LIGHTS.items():
        output = detector(change(test.images))
        scores = output.scores[detector.primary_score]
        over = scores > threshold
        figures[name] = {
            "image_auroc": jaxad.metrics.auroc(labels, scores),
            "good_rejected": int((over & ~labels).sum()),
            "defective_rejected": int((over & labels).sum()),
        }
        if name == "as it is" and all(mask is not None for mask in masks):
            maps = output.maps[detector.primary_map]
            pixels = np.concatenate([np.asarray(mask).ravel() for mask in masks])
            figures[name]["pixel_auroc"] = jaxad.metrics.auroc(pixels, maps.ravel())
    return {
        "counts": {"good": int((~labels).sum()), "defective": int(labels.sum())},
        "threshold": threshold,
        "lights": figures,
        "machine": {k: environment[k] for k in ("versions", "platform", "processor", "devices")},
    }


def row(run: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table."""
    lights, counts = run["lights"], run["counts"]
    plain = lights["as it is"]
    pixel = plain.get("pixel_auroc")
    return {
        "data": run["data"],
        "config": f"`{run['config']}`",
        "illumination": run["illumination"],
        "image AUROC": f"{100 * plain['image_auroc']:.1f}",
        "pixel AUROC": "–" if pixel is None else f"{100 * pixel:.1f}",
        "good / defective": f"{counts['good']} / {counts['defective']}",
        **{
            name: f"{one['good_rejected']} / {one['defective_rejected']}"
            for name, one in lights.items()  # rejected good ones / rejected defective ones
        },
    }


if __name__ == "__main__":
    main()
