"""Training several seeds of a small model in one program against one after the other.

    python tools/benchmarks/members.py --output=docs/results/members_cpu.json

The states of so many members are stacked and the training step is mapped over them by ``vmap``,
each with a batch of its own; beside it the same step of one member after the other. Milliseconds
a step of all members, medians of repeats that take turns, and seconds to compile. Each config is a
process of its own. It prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import time
from typing import Any

import worker

CONFIGS = ("vae:small", "vqvae:small", "cae:small", "vit_vae:small", "vt_adl:small", "restore")
REPEATS = 5


def row_of(name: str, members: int) -> dict[str, Any]:
    """The times of one config."""
    import jax
    import jax.numpy as jnp
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
    optimizer = optax.adam(1e-4)
    init = jax.jit(model.init)
    states = [create_state(init(parameter_key(seed)), optimizer) for seed in range(members)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    images = np.random.default_rng(0).integers(0, 255, (members, size, *config.image_shape))
    index, valid = np.arange(size, dtype=np.int32), np.ones(size, bool)
    batches = [Batch(np.uint8(some), index, valid) for some in images]
    together = Batch(np.uint8(images), np.stack([index] * members), np.stack([valid] * members))
    step = make_train_step(model, optimizer, seed=0)

    one, mapped = jax.jit(step), jax.jit(jax.vmap(step))
    ways = {
        "one after the other": lambda: [one(*each) for each in zip(states, batches, strict=True)],
        "vmap": lambda: mapped(stacked, together),
    }
    row: dict[str, Any] = {"config": name, "members": members, "batch": size}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(REPEATS + 1):
        for way, run in ways.items():
            begun = time.perf_counter()
            jax.block_until_ready(run())
            seconds = time.perf_counter() - begun
            if number:
                found[way].append(1000 * seconds)
            else:
                row[f"{way}, first, s"] = round(seconds, 1)
    return row | {f"{way}, ms": round(statistics.median(ms), 1) for way, ms in found.items()}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| config | members | one after the other, ms | vmap, ms | times as fast |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        apart, together = row["one after the other, ms"], row["vmap, ms"]
        lines.append(
            f"| `{row['config']}` | {row['members']} | {apart:.0f} | {together:.0f} | "
            f"{apart / together:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the command line and writes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--one", metavar="CONFIG", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(row_of(args.one, args.members)))
        return
    print(
        markdown(
            worker.measure_each(__file__, args.configs, args.output, [f"--members={args.members}"])
        )
    )


if __name__ == "__main__":
    main()
