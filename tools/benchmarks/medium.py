"""How long the ``medium`` variants train: CPU time of a few steps of each, times its steps.

    python tools/benchmarks/medium.py --output=docs/results/medium_cpu.json

Each config is a process of its own: it compiles its training step, takes one that is not counted
and then a few on noise, whose CPU time (of all threads) is measured, so that other work on the
machine counts little. Two cores that are kept busy take half of it, one core all of it; data,
validation and checkpoints come on top. The file is rewritten after every config, and configs that
stand in it already are left alone. It prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import worker

CONFIGS = ("vae", "vae_grf", "cae", "vqvae", "vit_vae", "anovit", "vit_memory", "vt_adl", "mae")


def time_steps(name: str, steps: int) -> dict:
    """CPU seconds of a step of the medium variant, and of its compilation."""
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
    size, shape = config.train.batch_size, config.image_shape
    model, optimizer = models.build_from(config), optax.adam(1e-4)
    state = create_state(jax.jit(model.init)(parameter_key(0)), optimizer)
    step = jax.jit(make_train_step(model, optimizer, seed=0), donate_argnums=0)
    images = np.random.default_rng(0).integers(0, 255, (size, *shape), np.uint8)
    batch = Batch(images, np.arange(size, dtype=np.int32), np.ones(size, bool))
    begun = time.process_time()
    state, _ = jax.block_until_ready(step(state, batch))
    compiled = time.process_time()
    for _ in range(steps):
        state, _ = jax.block_until_ready(step(state, batch))
    seconds = (time.process_time() - compiled) / steps
    return {
        "config": name,
        "image": list(shape),
        "batch": size,
        "steps": config.train.steps,
        "cpu_seconds_a_step": seconds,
        "cpu_minutes": seconds * config.train.steps / 60,
        "cpu_seconds_first_step": compiled - begun,
        "parameters": sum(x.size for x in jax.tree.leaves(state.variables["params"])),
    }


def markdown(rows: list[dict]) -> str:
    """The table of docs/results/medium.md."""
    from jaxad.report.tables import markdown_table

    lines = [
        {
            "config": f"`{row['config']}`",
            "image": "{} x {}".format(*row["image"]),
            "parameters": f"{row['parameters'] / 1e6:.1f} M",
            "steps": f"{row['steps']} of {row['batch']}",
            "step": f"{row['cpu_seconds_a_step']:.2f}",
            "time": f"{row['cpu_minutes'] / 2:.0f} to {row['cpu_minutes']:.0f}",
        }
        for row in rows
    ]
    titles = {
        "config": "config",
        "image": "pixels",
        "parameters": "parameters",
        "steps": "steps",
        "step": "CPU s a step",
        "time": "minutes, two cores to one",
    }
    return markdown_table(lines, titles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=2, help="that are measured")
    parser.add_argument("--one", metavar="CONFIG", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(time_steps(options.one, options.steps)))
        return
    names = [f"{name}:medium" for name in CONFIGS]
    rows = worker.measure_each(__file__, names, options.output, [f"--steps={options.steps}"])
    print(markdown(rows))


if __name__ == "__main__":
    main()
