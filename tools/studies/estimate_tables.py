"""Estimates how long the papers' tables take: their arithmetic, over rates measured or assumed.

    python tools/studies/estimate_tables.py --output=docs/results/table_costs.json

Nothing is trained. XLA counts the floating-point operations of one training step (loss and
gradients) and of the detection of one image, for every config of every table; steps and images
come from the published counts. Methods that a paper compares with are left out
(``--columns=own``). The rate of the processor is that of the full-size VQ-VAE's step in
docs/results/train_step_cpu.json; for small variants, and for networks whose step takes no more
operations than those of the measured small runs, it is that of the slowest of these runs. The rate
of the GPU is an assumption, as is the least time of a step there. It prints the table of
docs/tables.md.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxad import models
from jaxad.benchmark.papers import plan
from jaxad.benchmark.printed import paper_tables
from jaxad.data.batch import Batch
from jaxad.data.published.catalogue import CATALOGUE
from jaxad.report.tables import markdown_table
from jaxad.run.config import load_settings
from jaxad.run.files import write_json
from jaxad.run.settings import Settings

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"
MEASURED_RUNS = ("small_cpu.json", "variational_cpu.json")
ASSUMED_GPU = 20e12
"""Operations a second that a data-centre GPU sustains on such networks in float32: assumed."""
ASSUMED_GPU_STEP_S = 1e-3
"""Least seconds of a training step on a GPU, however small the network: assumed."""

WITHOUT_COUNTS = {"miad": (10_000, 1_200), "ucsd_ped1": (6_800, 2_000)}
"""(training, test images) of a category where the catalogue has no test counts: for MIAD what its
paper gives as the least, for UCSD Ped1 its clips with masks."""


def operations(config: Settings) -> tuple[float, float]:
    """Floating-point operations of (a training step, the detection of one image)."""
    name, size, shape = config.model.name, config.train.batch_size, config.image_shape
    options = dict(config.model.options)
    if name == "mae":  # operations inside a loop are counted once, so there is to be none
        options["passes_at_once"] = 10_000
    model = models.build(name, shape, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    detection = _count(model.detect, variables, one)
    if model.fit is not None:
        return 0.0, detection

    def step(variables, images, keys):
        batch = Batch(images, jnp.arange(size), jnp.ones(size, bool))
        others = {k: v for k, v in variables.items() if k != "params"}
        loss = lambda params: jnp.mean(
            model.loss({"params": params, **others}, batch, keys, True).per_example
        )
        return jax.grad(loss)(variables["params"])

    images = jax.ShapeDtypeStruct((size, *shape), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    return _count(step, variables, images, keys), detection


def _count(function, *arguments) -> float:
    return float(jax.jit(function).lower(*arguments).cost_analysis()["flops"])


def images_of(data: str, category: str) -> tuple[int, int]:
    """(training, test images) as published."""
    if data in WITHOUT_COUNTS:
        return WITHOUT_COUNTS[data]
    counts = CATALOGUE[data].categories[category]
    return sum(counts.train.values()), sum(counts.test.values())


def steps_of(config: Settings, images: int) -> int:
    """Optimiser steps of a run over so many good training images."""
    if not config.train.takes_steps:
        return 0
    if config.train.steps:
        return config.train.steps
    return config.train.epochs * ((images - round(config.data.holdout * images))
                                  // config.train.batch_size)  # fmt: skip


def cost(
    table: str,
    variant: str,
    known: dict[str, tuple[float, float]],
    rate_of: Callable[[float], float],
) -> dict[str, Any]:
    """Steps, operations and hours of one table, over all of its cells but the baseline's.

    Args:
      table: its id.
      variant: of its configs.
      known: config -> operations of a step and of a detection; filled.
      rate_of: operations of a step -> operations a second of the processor.
    """
    planned = plan([table], variant=variant, overrides={"data.root": "."}, own_only=True)
    total: dict[str, Any] = {
        "cells": 0,
        "steps": 0,
        "operations": 0.0,
        "hours_cpu_2_cores": 0.0,
        "hours_gpu_assumed": 0.0,
        "configs": list(planned.configs[:-1]),
    }
    for spec in planned.configs[:-1]:
        config = load_settings(spec, planned.overrides)
        if spec not in known:
            known[spec] = operations(config)
            print(spec, *(f"{count:.3g}" for count in known[spec]), flush=True)
        step, detection = known[spec]
        for category in planned.categories:
            train, test = images_of(config.data.name, category)
            train = min(train, config.data.limit or train)
            steps = steps_of(config, train)
            held = round(config.data.holdout * train)
            total["cells"] += 1
            total["steps"] += steps
            work = steps * step + (test + held) * detection
            total["operations"] += work
            total["hours_cpu_2_cores"] += work / rate_of(step) / 3600
            gpu = max(work / ASSUMED_GPU, steps * ASSUMED_GPU_STEP_S)
            total["hours_gpu_assumed"] += gpu / 3600
    return total


def rate_of_full_size() -> float:
    """Operations a second of the processor of train_step_cpu.json, on the full-size VQ-VAE."""
    bench = json.loads((RESULTS / "train_step_cpu.json").read_text())
    row = next(row for row in bench["rows"] if row["row"] == "jaxad")
    config = load_settings(
        "vqvae",
        {
            "train.batch_size": bench["batch"],
            "data.image_size": (bench["size"], bench["size"]),
            "model.features": bench["channels"],
        },
    )
    return operations(config)[0] / row["seconds_median"]


def rates_of_small() -> tuple[dict[str, float], float]:
    """Operations a second of whole training runs of ``small`` variants, the slowest of each.

    The second result is the most operations of a step among them.
    """
    rates: dict[str, float] = {}
    most = 0.0
    for file in MEASURED_RUNS:
        for run in json.loads((RESULTS / file).read_text())["runs"]:
            if run["steps"]:
                spec = run["config"]
                step, _ = operations(load_settings(spec))
                rate = step * run["steps"] / run["seconds"]
                rates[spec] = min(rate, rates.get(spec, rate))
                most = max(most, step)
    return rates, most


def markdown(costs: dict[str, Any]) -> str:
    """The table of docs/tables.md."""
    lines = []
    for name, variants in costs["tables"].items():
        paper, small = variants["paper"], variants["small"]
        lines.append({
            "table": f"`{name}`",
            "cells": str(paper["cells"]),
            "paper": in_words(paper["hours_cpu_2_cores"]),
            "gpu": in_words(paper["hours_gpu_assumed"]),
            "small": in_words(small["hours_cpu_2_cores"]),
        })  # fmt: skip
    titles = {
        "table": "table",
        "cells": "runs",
        "paper": "paper's sizes, 2 CPU cores",
        "gpu": "paper's sizes, a GPU (assumed)",
        "small": "`--variant=small`, 2 CPU cores",
    }
    return markdown_table(lines, titles)


def in_words(hours: float) -> str:
    """A duration to one or two digits: an estimate has no more."""
    if hours < 1:
        return f"{max(1, round(60 * hours)):d} min"
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h" if hours < 48 else (
        f"{hours / 24:.0f} days")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    (small_rates, most), known, tables = rates_of_small(), {}, {}
    full, small = rate_of_full_size(), min(small_rates.values())
    for name, table in paper_tables().items():
        if table["metric"]["key"] == "counts":
            continue
        tables[name] = {}
        for variant in ("", "small"):
            rate_of = lambda step, variant=variant: small if variant or step <= most else full
            tables[name][variant or "paper"] = cost(name, variant, known, rate_of)
    costs = {
        "made_by": "tools/studies/estimate_tables.py",
        "rate_cpu_paper": full,
        "rate_cpu_small": small,
        "operations_of_a_small_step_at_most": most,
        "rates_cpu_of_small_runs": small_rates,
        "rate_gpu_assumed": ASSUMED_GPU,
        "step_seconds_gpu_assumed": ASSUMED_GPU_STEP_S,
        "operations_per_step_and_detection": known,
        "tables": tables,
    }
    write_json(arguments.output, costs)
    print(markdown(costs))


if __name__ == "__main__":
    main()
