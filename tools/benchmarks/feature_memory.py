"""Memory and time of the fit of feature_pca, and of its left-out scores, by number of images.

    python tools/benchmarks/feature_memory.py --data=mvtec_ad/bottle --images 500 2000 10000 \
        --output=docs/results/feature_memory_cpu.json

The good images of a data set are repeated, each copy moved by up to four pixels and of another
brightness, and made when they are asked for, so that the pixels themselves take no memory. Every
number of images is fitted in a process of its own; memory is the peak of the resident set over
what the process held before, and beside it stands the budget that the config states for the
features (`model.memory_limit_mb`). Seconds include compilation; those of the processor say more on
a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from feature_rows import resident

import jaxad
from jaxad import models
from jaxad.data.batch import Batch
from jaxad.data.split import split_folds
from jaxad.run.config import settings_of
from jaxad.run.environment import describe
from jaxad.run.files import write_json
from jaxad.training.backbones import load_backbone
from jaxad.training.inputs import decode, open_table

BATCH = 16
SHIFT = 4
BRIGHTNESS = 0.1


class Copies:
    """Batches of copies of some images; may be iterated several times."""

    def __init__(self, images: np.ndarray, count: int):
        """Copies that are made anew in every pass.

        Args:
          images: bytes (n, h, w, c).
          count: of all copies.
        """
        self._images, self._count = images, count

    def __iter__(self) -> Iterator[Batch]:
        for begin in range(0, self._count, BATCH):
            index = np.arange(begin, min(begin + BATCH, self._count))
            yield Batch(np.stack([self._copy(i) for i in index]), index, np.ones(len(index), bool))

    def _copy(self, i: int) -> np.ndarray:
        rng = np.random.default_rng(i)
        moved = np.roll(
            self._images[i % len(self._images)], rng.integers(-SHIFT, SHIFT + 1, 2), (0, 1)
        )
        light = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)
        return np.uint8(np.clip(np.rint(light * moved), 0, 255))


def measure(name: str, overrides: dict[str, str], count: int, *, fit_alone: bool) -> dict[str, Any]:
    """Fits, and leaves images out unless the fit alone is wanted, in this process."""
    config = settings_of(jaxad.load_config(name, overrides))
    good = list(open_table(config.data).train_good())
    decoded = decode(good, config.data, (0.0, 65535.0))
    batches = Copies(np.stack([decoded[i] for i in range(len(good))]), count)
    model = models.build_from(config)
    assert model.fit is not None and model.left_out is not None and model.backbone
    weights = load_backbone(model.backbone).variables
    row: dict[str, Any] = {
        "config": name,
        "image_size": list(config.data.image_size),
        "images": count,
        "budget_mb": config.model.options["memory_limit_mb"],
        "mb_before": resident("VmRSS"),
    }

    def take(what: str, begun: tuple[float, float]) -> None:
        row[f"{what}_seconds"] = time.perf_counter() - begun[0]
        row[f"{what}_processor_seconds"] = time.process_time() - begun[1]
        row[f"{what}_mb"] = resident("VmHWM") - row["mb_before"]

    begun = time.perf_counter(), time.process_time()
    variables = model.fit(batches, backbone=weights)
    take("fit", begun)
    row["by_position"] = bool(variables["params"]["by_position"] > 0.5)
    if fit_alone:
        return row
    begun = time.perf_counter(), time.process_time()
    folds = split_folds(count, folds=config.data.folds, seed=0)
    seen = sum(len(unseen.places) for unseen in model.left_out(variables, batches, folds))
    assert seen == count
    take("left_out", begun)
    return row


def table_of(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| images | fit, s (of the processor) | left out, s (of the processor) | peak, MB |",
        "|---|---|---|---|",
    ]
    for row in rows:
        times = [f"{row[f'{what}_seconds']:.0f} ({row[f'{what}_processor_seconds']:.0f})"
                 if f"{what}_seconds" in row else "–" for what in ("fit", "left_out")]  # fmt: skip
        peak = row.get("left_out_mb", row["fit_mb"])
        lines.append(f"| {row['images']:,} | {times[0]} | {times[1]} | {peak:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--images", nargs="+", type=int, default=[500, 2000, 10000])
    parser.add_argument("--config", default="feature_pca")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--fit-alone", action="store_true", help="leave no images out")
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        overrides = {
            "data.root": options.data,
            **dict(pair.split("=", 1) for pair in options.overrides),
        }
        count = options.images[0]
        print(json.dumps(measure(options.config, overrides, count, fit_alone=options.fit_alone)))
        return
    rows = []
    for count in options.images:
        done = subprocess.run(
            [sys.executable, __file__, f"--data={options.data}", f"--images={count}", "--worker",
             f"--config={options.config}", "--overrides", *options.overrides,
             *(["--fit-alone"] if options.fit_alone else [])],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )  # fmt: skip
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
        if options.output:
            facts = {key: describe(0)[key] for key in ("processor", "commit")}
            facts["cores"] = len(os.sched_getaffinity(0))
            write_json(options.output, {**facts, "rows": rows})
    print(table_of(rows))


if __name__ == "__main__":
    main()
