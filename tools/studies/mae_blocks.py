r"""How large should the sliding mask of a masked autoencoder be? Blocks of 1 to 4 patches, fused.

    python tools/studies/mae_blocks.py --runs bottle=RUN tile=RUN \
        --output=docs/results/mae_blocks_cpu.json

Every run is a finished run folder of ``mae``. The paper slides a block of 2 x 2 patches and says
that other sizes were tried; how they fared is not printed. Here the test images are reconstructed
once for every size of block; a fused map is the mean of the maps of several sizes, by pixel. The
paper chooses SSIM windows of 7, 9 or 11 pixels and filters of 2 or 4 by texture, without saying
which for which: all six are taken of the same reconstructions.

Image AUROC is that of the mean of the map, as in the paper; pixel AUROC is pooled. Without
``--test-images`` all are taken, else an even choice of good and of defective ones. It prints
Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mae_schedules import chosen

from jaxad import metrics, models
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import read_masks, run_table
from jaxad.models.mae import anomaly_maps
from jaxad.ops.blur import gaussian_blur
from jaxad.report.tables import markdown_table
from jaxad.run.config import with_keys
from jaxad.run.environment import keep_freed_memory, processor_name
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import decode

BLOCKS = (1, 2, 3, 4)
FUSED = ((1, 2), (2, 4), (1, 2, 4), BLOCKS)
WINDOWS, FILTERS = (7, 9, 11), (2, 4)
MAP = "ssim+l1"


def reconstructions(
    detector: Detector, images: np.ndarray, block: int, size: int
) -> tuple[np.ndarray, float]:
    """What the sliding block of this size leaves of the images, and CPU seconds of an image."""
    options = detector.config.model.options | {"schedule": "sliding", "block": block, "stride": 0}
    model = models.build("mae", detector.model.image_shape, **options)
    step = jax.jit(lambda v, x: model.detect(v, x).reconstruction)
    found, seconds = [], []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        if not start:
            jax.block_until_ready(step(detector.variables, padded))
        began = time.process_time()
        found.append(np.asarray(step(detector.variables, padded))[: len(part)])
        seconds.append((time.process_time() - began) / size)
    return np.concatenate(found), float(np.median(seconds))


def maps_of(
    images: np.ndarray, rebuilt: np.ndarray, *, window: int, size: int, smoothing: float
) -> np.ndarray:
    """The paper's map: SSIM and absolute error, filtered, then smoothed as the run does."""
    values = anomaly_maps(
        jnp.float32(images) / 255, jnp.asarray(rebuilt), ssim_window=window, morphology="opening",
        morphology_size=size, map_threshold=0.0,
    )[MAP]  # fmt: skip
    return np.asarray(gaussian_blur(values, sigma=smoothing))


def figures(labels: np.ndarray, masks: Sequence[np.ndarray | None], maps: np.ndarray) -> dict:
    """Image AUROC of the maps' means, and pixel AUROC over all pixels."""
    kept = [i for i, mask in enumerate(masks) if mask is not None]
    truth = np.stack([masks[i] for i in kept])
    return {
        "image_auroc": metrics.auroc(labels, maps.mean(axis=(1, 2), dtype=np.float64)),
        "pixel_auroc": metrics.auroc(truth.ravel(), maps[kept].ravel()),
    }


def study(folder: pathlib.Path, most: int) -> dict[str, Any]:
    """All figures of one run."""
    run, detector = RunFolder(folder), Detector.load(folder)
    config = with_keys(detector.config, {"evaluate.resolution": "model"})
    samples = list(run_table(config, None).test())
    labels = np.array([int(sample.label) for sample in samples])
    kept = chosen(labels, most)
    samples, labels = [samples[i] for i in kept], labels[kept]
    images = np.asarray(decode(samples, config.data, tuple(run.read_json(run.data)["range_16bit"])))
    masks = read_masks(samples, config)
    smoothing = config.evaluate.smoothing
    rebuilt, rows = {}, []
    options = {"window": config.model.options["ssim_window"], "smoothing": smoothing,
               "size": config.model.options["morphology_size"]}  # fmt: skip
    for block in BLOCKS:
        rebuilt[block], cpu = reconstructions(detector, images, block, config.evaluate.batch_size)
        maps = maps_of(images, rebuilt[block], **options)
        row = {"blocks": [block], "cpu_seconds_per_image": cpu}
        rows.append(row | figures(labels, masks, maps))
        print(folder, rows[-1], flush=True)
    for blocks in FUSED:
        maps = np.mean([maps_of(images, rebuilt[b], **options) for b in blocks], axis=0)
        cpu = sum(row["cpu_seconds_per_image"] for row in rows if row["blocks"][0] in blocks
                  and len(row["blocks"]) == 1)  # fmt: skip
        row = {"blocks": list(blocks), "cpu_seconds_per_image": cpu}
        rows.append(row | figures(labels, masks, maps))
    details = [
        {"window": window, "filter": size}
        | figures(
            labels,
            masks,
            maps_of(images, rebuilt[2], window=window, size=size, smoothing=smoothing),
        )
        for window, size in itertools.product(WINDOWS, FILTERS)
    ]
    counts = {"good": int(np.sum(labels == 0)), "anomalous": int(np.sum(labels == 1))}
    return {
        "image_size": list(config.data.image_size),
        "steps": run.read_json(run.timing)["steps"],
        "test_images": counts,
        "blocks": rows,
        "windows": details,
    }


def markdown(found: dict[str, Any]) -> str:
    """Two tables: by blocks, and by window and filter of blocks of 2."""
    cell = lambda row: f"{100 * row['image_auroc']:.1f} / {100 * row['pixel_auroc']:.1f}"
    first = next(iter(found.values()))
    lines = []
    for place, row in enumerate(first["blocks"]):
        cost = np.mean([
            one["blocks"][place]["cpu_seconds_per_image"]
            / one["blocks"][1]["cpu_seconds_per_image"] for one in found.values()
        ])  # fmt: skip
        words = " + ".join(str(block) for block in row["blocks"])
        cells = {name: cell(one["blocks"][place]) for name, one in found.items()}
        lines.append({"blocks": words, "cost": f"{cost:.1f}", **cells})
    titles = {"blocks": "side of the block, patches", "cost": "CPU time, relative"}
    by_block = markdown_table(lines, titles | {name: name for name in found})
    lines = [
        {"window": str(row["window"]), "filter": str(row["filter"])}
        | {name: cell(one["windows"][place]) for name, one in found.items()}
        for place, row in enumerate(first["windows"])
    ]
    titles = {"window": "SSIM window", "filter": "filter"}
    return by_block + "\n\n" + markdown_table(lines, titles | {name: name for name in found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--test-images", type=int, default=0, help="at most; 0: all")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file")
    options = parser.parse_args()
    keep_freed_memory()
    runs = dict(one.split("=", 1) for one in options.runs)
    found = {
        name: study(pathlib.Path(folder), options.test_images) for name, folder in runs.items()
    }
    device = f"{processor_name()}, {jax.devices()[0]}"
    report = {"made_by": "tools/studies/mae_blocks.py", "device": device, "map": MAP, "data": found}
    write_json(options.output, json.loads(json.dumps(report)))
    print(markdown(found))


if __name__ == "__main__":
    main()
