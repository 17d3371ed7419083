"""What the parts of `own_features` give, beside `pca`: each setting on each data set, one fit.

    python tools/studies/own_features.py --output=docs/results/own_features_cpu.json \
        --data bottle=mvtec_ad/bottle transistor=mvtec_ad/transistor

All good images are fitted to and all test images judged, at the size that the model sees; nothing
is drawn at random. Figures in percent: image AUROC, pixel AUROC, AUPRO. The file is written after
every row, and rows that it holds are not computed again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

import jaxad
from jaxad import metrics, models
from jaxad.data.pipeline import BatchLoader, evaluation_batches
from jaxad.evaluation.inputs import read_truths
from jaxad.evaluation.postprocess import make_detect
from jaxad.run.config import settings_of
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json
from jaxad.training.inputs import decode, open_table

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "pca": ("pca", {}),
    "own_features": ("own_features", {}),
    "whitened alone": ("own_features", {"model.plain": 0.0}),
    "whitened alone, pooled": ("own_features:pooled", {"model.plain": 0.0}),
    "whitened alone, no reconstruction": (
        "own_features",
        {"model.plain": 0.0, "model.components": 0, "model.covariance": "position"},
    ),
}  # fmt: skip
"""Name of a row -> config and changed keys."""

FIGURES = ("image_auroc", "pixel_auroc", "aupro")


class Images:
    """A data set, decoded once for all settings."""

    def __init__(self, root: str):
        self.config = settings_of(jaxad.load_config("own_features", {"data.root": root}))
        table = open_table(self.config.data)
        samples, good = list(table.test()), list(table.train_good())
        data = self.config.data
        self.train, self.test = (decode(of, data, (0.0, 65535.0)) for of in (good, samples))
        self.masks = [truth.mask for truth in read_truths(samples, self.config)]
        self.labels = np.array([int(sample.label) for sample in samples])


def row_of(images: Images, root: str, config_name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The figures of a setting, and the seconds that its fit took."""
    config = settings_of(jaxad.load_config(config_name, {"data.root": root, **changes}))
    model = models.build_from(config)
    assert model.fit is not None
    begun, processor = time.perf_counter(), time.process_time()
    variables = jax.block_until_ready(model.fit(BatchLoader(images.train)))
    seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    detect = jax.jit(make_detect(model, smoothing=config.evaluate.smoothing))
    maps, scores = [], []
    for batch in evaluation_batches(images.test, batch_size=16, pipeline="memory"):
        found = detect(variables, batch.image)
        maps += list(np.asarray(found.maps[config.evaluate.primary_map])[batch.valid])
        kept = np.asarray(found.scores[config.evaluate.primary_score])[batch.valid]
        scores += kept.tolist()
    judged = metrics.evaluate_maps(maps, images.masks, labels=images.labels, image_scores=scores)
    row = {name: round(100 * judged[name], 1) for name in FIGURES if judged[name] is not None}
    if "by_position" in variables["params"]:
        row["by_position"] = bool(variables["params"]["by_position"] > 0.5)
    return row | {"fit_seconds": round(seconds, 1), "fit_processor_seconds": round(processor, 1)}


def main() -> None:
    """Reads the command line, prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    for name, root in (item.split("=", 1) for item in args.data):
        known = {row["setting"] for row in rows if row["data"] == name}
        wanted = [setting for setting in args.settings if setting not in known]
        if not wanted:
            continue
        images = Images(root)
        for setting in wanted:
            row = {"data": name, "good_images": len(images.train), "setting": setting}
            rows.append(row | row_of(images, root, *SETTINGS[setting]))
            print(rows[-1], flush=True)
            write_json(args.output, {"processor": processor_name(), "rows": rows})


if __name__ == "__main__":
    main()
