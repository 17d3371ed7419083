"""What few good images cost: one config fitted to 5, 10, 20, 50 and all of them, three draws each.

    python tools/studies/few_images.py --output=docs/results/few_images_cpu.json \
        --data bottle=mvtec_ad/bottle aws_cookies=aws_cookies

Every draw takes its images at random among the good training images (smaller draws are parts of
larger ones, as with `data.limit` and `data.limit_seed`); all test images judge it, at the size that
the model sees. Figures in percent: image AUROC, pixel AUROC, AUPRO.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

import jax
import numpy as np

import jaxad
from jaxad import metrics, models
from jaxad.data.pipeline import BatchLoader, evaluation_batches
from jaxad.data.split import random_order
from jaxad.evaluation.inputs import read_truths
from jaxad.evaluation.postprocess import make_detect
from jaxad.run.config import settings_of
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json
from jaxad.training.backbones import load_backbone
from jaxad.training.inputs import decode, open_table

COUNTS = (5, 10, 20, 50, 0)
FIGURES = ("image_auroc", "pixel_auroc", "aupro")


def rows_of(name: str, root: str, config_name: str, counts: list[int], draws: int):
    """One row per number of images and draw; 0 stands for all images, which are drawn once."""
    config = settings_of(jaxad.load_config(config_name, {"data.root": root}))
    table = open_table(config.data)
    samples, good = list(table.test()), list(table.train_good())
    train, test = (decode(of, config.data, (0.0, 65535.0)) for of in (good, samples))
    masks = [truth.mask for truth in read_truths(samples, config)]
    labels = np.array([int(sample.label) for sample in samples])
    model = models.build_from(config)
    own = {"backbone": load_backbone(model.backbone).variables} if model.backbone else {}
    detect = jax.jit(make_detect(model, smoothing=config.evaluate.smoothing))
    assert model.fit is not None
    for count in counts:
        if count > len(train):
            continue
        for seed in range(draws if count else 1):
            begun = time.process_time()
            chosen = np.sort(random_order(len(train), seed, 0)[: count or len(train)])
            variables = model.fit(BatchLoader(train[chosen]), **own)
            fitted = time.process_time() - begun
            maps, scores = [], []
            for batch in evaluation_batches(test, batch_size=16, pipeline="memory"):
                found = detect(variables, batch.image)
                maps += list(np.asarray(found.maps[config.evaluate.primary_map])[batch.valid])
                kept = np.asarray(found.scores[config.evaluate.primary_score])[batch.valid]
                scores += kept.tolist()
            figures = metrics.evaluate_maps(maps, masks, labels=labels, image_scores=scores)
            yield {
                "data": name,
                "config": config_name,
                "images": len(chosen),
                "draw": seed,
                **{key: 100 * figures[key] for key in FIGURES},
                "fit_processor_seconds": fitted,
            }


def table_of(rows: list[dict[str, Any]]) -> str:
    """Means over draws, and the spread of image AUROC."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    counts = sorted({row["images"] for row in rows})
    lines = ["| good images | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for count in counts:
        cells = []
        for name in names:
            these = [r for r in rows if (r["data"], r["images"]) == (name, count)]
            means = [np.mean([r[key] for r in these]) for key in FIGURES] if these else []
            each = [r["image_auroc"] for r in these]
            spread = f" ({min(each):.1f} to {max(each):.1f})" if len(these) > 1 else ""
            cells.append(" / ".join(f"{mean:.1f}" for mean in means) + spread)
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="feature_pca", help="in closed form")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="0: all")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for named in arguments.data:
        name, _, root = named.partition("=")
        for row in rows_of(name, root, arguments.config, arguments.counts, arguments.draws):
            rows.append(row)
            print(row, flush=True)
            write_json(arguments.output, {"processor": processor_name(), "rows": rows})
    print(table_of(rows))


if __name__ == "__main__":
    main()
