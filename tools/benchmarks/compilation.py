"""What the options of `jaxad/run/compilation.py` change on a CPU.

    python tools/benchmarks/compilation.py --output=docs/results/compilation_cpu.json

Each config is a process of its own, with random weights and noise as images. The same function is
compiled without options and with those of detection, and both take turns; medians and ratios of
the time for one image, for sixteen, and for a training step (which is not compiled with them). The
file is rewritten after every config, and configs that stand in it are left alone. It prints
Markdown.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import worker

CONFIGS = ("feature_pca", "pca", "own_features", "restore", "cae:small", "vqvae:small", "vae:small",
           "vae_grf:small", "vit_vae:small", "anovit:small", "vit_memory:small", "vt_adl:small",
           "mae:small,fast")  # fmt: skip
REPEATS = {"one image": 31, "16 images": 9, "training step": 9}


def compare(function: Callable, arguments: tuple, repeats: int) -> dict[str, float]:
    """Median milliseconds without and with the options."""
    import jax

    from jaxad.run.compilation import detection_options

    ways = {
        "without": jax.jit(function),
        "with": jax.jit(function, compiler_options=detection_options()),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, compiled in ways.items():
            begun = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            if number:  # the first call compiles
                found[name].append(1000 * (time.perf_counter() - begun))
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def row_of(name: str) -> dict[str, Any]:
    """The times of one config."""
    import jax
    import numpy as np
    import optax

    from jaxad import models
    from jaxad.data.batch import Batch
    from jaxad.models.base import parameter_key
    from jaxad.run.config import load_settings
    from jaxad.run.environment import keep_freed_memory
    from jaxad.training.state import create_state
    from jaxad.training.step import make_train_step

    keep_freed_memory()
    config = load_settings(name)
    model, size = models.build_from(config), config.train.batch_size
    shape = (max(16, size), *config.image_shape)
    images = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    variables = jax.jit(model.init)(parameter_key(0))
    row: dict[str, Any] = {"config": name, "image": list(config.image_shape)}
    for what, count in (("one image", 1), ("16 images", 16)):
        given = (variables, images[:count])
        row[what] = compare(model.detect, given, REPEATS[what])
    if model.fit is None:
        optimizer = optax.adam(1e-4)
        step = make_train_step(model, optimizer, seed=0)
        batch = Batch(images[:size], np.arange(size, dtype=np.int32), np.ones(size, bool))
        given = (create_state(variables, optimizer), batch)
        row["training step"] = compare(step, given, REPEATS["training step"])
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["| config | " + " | ".join(f"{what}, ms" for what in REPEATS) + " |"]
    lines.append("|---" * (len(REPEATS) + 1) + "|")
    for row in rows:
        cells = []
        for what in REPEATS:
            if what not in row:
                cells.append("–")
                continue
            without, now = row[what]["without"], row[what]["with"]
            cells.append(f"{without:.1f} → {now:.1f} (x {without / now:.2f})")
        lines.append(f"| `{row['config']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line and writes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--one", metavar="CONFIG", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(row_of(args.one)))
        return
    print(markdown(worker.measure_each(__file__, args.configs, args.output)))


if __name__ == "__main__":
    main()
