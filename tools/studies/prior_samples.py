"""How far do images drawn from a prior correlate? Compares samples of runs with their data.

    python tools/studies/prior_samples.py --runs RUNS/identity RUNS/matern --output=FILE.json

For the training images of each run, their reconstructions and as many decoded samples of the
prior: gray values less the mean of each image, their autocovariance at all offsets (each divided by
the number of pairs), averaged over images and over directions, and the distance in pixels at which
it has fallen to 1/e of the variance. Ratios are samples over data.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from jaxad.evaluation.detector import Detector
from jaxad.models.vae_grf import to_gray
from jaxad.ops.correlation import correlation_length, radial_autocorrelation
from jaxad.report.tables import markdown_table
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import prepare_inputs


def measure(folder: pathlib.Path, count: int) -> dict:
    run = RunFolder(folder)
    detector = Detector.load(folder)
    config, model = detector.config, detector.model
    inputs = prepare_inputs(config)
    # Spread over the data set: neighbouring files may show the same part.
    chosen = np.linspace(0, len(inputs.train) - 1, min(count, len(inputs.train))).astype(int)
    images = np.asarray(inputs.train[chosen])
    draw = jax.jit(model.sample, static_argnums=2)
    parts = [
        np.asarray(draw(detector.variables, jax.random.key(k), detector.batch_size))
        for k in range(-(-count // detector.batch_size))
    ]
    curves = {
        "data": images / 255.0,
        "reconstructions": detector(images).reconstruction / 255.0,
        "samples": np.concatenate(parts)[:count],
    }
    measured = jax.jit(lambda x: radial_autocorrelation(to_gray(x)[..., 0]))
    curves = {name: np.asarray(measured(np.float32(x))) for name, x in curves.items()}
    lengths = {name: correlation_length(curve) for name, curve in curves.items()}
    history = run.history.read_text().splitlines()
    last = dict(zip(history[0].split(","), history[-1].split(","), strict=True))
    return {
        "config": f"{config.model.name}:{config.variants}".rstrip(":"),
        "run": folder.name,
        "data": inputs.record["category"] or inputs.record["name"],
        "images": len(images),
        "family": config.model.options.get("family", "standard normal"),
        "range": float(last["range"]) if "range" in last else None,
        "deviation": float(last["deviation"]) if "deviation" in last else None,
        "length_data": lengths["data"],
        "length_reconstructions": lengths["reconstructions"],
        "length_samples": lengths["samples"],
        "ratio": lengths["samples"] / lengths["data"],
        "curves": {name: [round(float(v), 5) for v in curve] for name, curve in curves.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", nargs="+", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=256, help="how many of each kind")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file")
    options = parser.parse_args(arguments)
    rows = [measure(folder, options.images) for folder in options.runs]
    titles = {name: name.replace("_", " ") for name in rows[0] if name != "curves"}
    print(markdown_table(rows, titles))
    write_json(options.output, json.loads(json.dumps(rows)))


if __name__ == "__main__":
    main()
