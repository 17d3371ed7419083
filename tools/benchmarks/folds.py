"""Times the models of all folds of `pca` fitted together, against one fold after another.

    python tools/benchmarks/folds.py --root=mvtec_ad/bottle --output=docs/results/folds_cpu.json

Cross-fitting fits a model to the good images without each of five folds. Together, they share what
all of them read: `jaxad.models.layers.pca_folds`. Both ways are timed in turn on the images of one
folder in memory, compiled before; the least of some repeats counts. The largest difference of the
scores of the images left out is that of both ways, relative to the score.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxad import models
from jaxad.data.pipeline import BatchLoader
from jaxad.data.rows import ImageRows
from jaxad.run.config import load_settings
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json
from jaxad.training.inputs import open_table, prepare_inputs

CASES = {
    "pca": {},
    "pca, 256 x 256": {"data.image_size": "256,256"},
    "pca:patch": {},
}


def least(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest call, after one that compiles."""
    call()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - begun)
    return min(taken)


def row_of(title: str, keys: dict[str, str], root: str, *, repeats: int) -> dict[str, Any]:
    """Seconds of one model, of the folds one by one, and of all together."""
    config = load_settings(title.split(",")[0], {"data.root": root, **keys})
    inputs = prepare_inputs(config, train=True, closed_form=True, table=open_table(config.data))
    images, folds = inputs.train, inputs.folds
    assert folds is not None
    model = models.build_from(config)
    assert model.fit is not None and model.fit_to_others is not None
    numbers = range(int(folds.max()) + 1)
    parts = [BatchLoader(ImageRows(images, np.flatnonzero(folds == i))) for i in numbers]
    others = [BatchLoader(ImageRows(images, np.flatnonzero(folds != i))) for i in numbers]
    seconds = {
        "one model": least(lambda: model.fit(BatchLoader(images)), repeats),
        "one by one": least(lambda: [model.fit(some) for some in others], repeats),
        "together": least(lambda: model.fit_to_others(parts), repeats),
    }
    detect, differences = jax.jit(model.detect), []
    for number, (alone, together) in enumerate(
        zip([model.fit(some) for some in others], model.fit_to_others(parts), strict=True)
    ):
        some = np.asarray(images[np.flatnonzero(folds == number)[:16]])
        one, other = (
            np.asarray(detect(of, some).maps[config.evaluate.primary_map]).mean(axis=(1, 2))
            for of in (alone, together)
        )
        differences.append(np.abs(other / one - 1).max())
    return {
        "model": title,
        "images": len(images),
        "folds": len(numbers),
        "seconds": seconds,
        "largest_relative_difference": float(max(differences)),
    }


def table(report: dict[str, Any]) -> str:
    """In Markdown."""
    lines = [
        "| model | one model, s | five folds one by one, s | together, s | ratio | difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        one, apart, together = row["seconds"].values()
        lines.append(
            f"| `{row['model']}` | {one:.2f} | {apart:.2f} | {together:.2f} | "
            f"{apart / together:.1f} | {row['largest_relative_difference']:.0e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", required=True, help="a category in MVTec AD's layout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    rows = [
        row_of(title, keys, arguments.root, repeats=arguments.repeats)
        for title, keys in CASES.items()
    ]
    report = {
        "device": str(jax.devices()[0]),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "rows": rows,
    }
    write_json(arguments.output, report)
    print(table(report))


if __name__ == "__main__":
    main()
