"""``jaxad demo``: from nothing to a report in under two minutes on two processor cores."""

from __future__ import annotations

import os

from jaxad.benchmark.grid import benchmark
from jaxad.benchmark.tables import METRICS
from jaxad.report.tables import format_metrics_table
from jaxad.run.text import say

CONFIGS = ("pca", "vqvae:small,demo")
# The in-memory pipeline: importing TensorFlow alone would take a good part of the demo's time.
OVERRIDES = {"data.pipeline": "memory"}


def demo(workdir: str | os.PathLike) -> None:
    """Generates images, fits the linear model, trains a deep one, compares them on one page.

    Args:
      workdir: one run folder per model, and ``report.html`` that compares them. A second call
        goes on where the first one stopped.
    """
    rows = benchmark(
        CONFIGS,
        ["flange"],
        [0],
        workdir,
        overrides=OVERRIDES,
        title="jaxad demo: a linear and a deep model on generated flanges",
    )
    say(format_metrics_table(rows, ["config", "seconds", *METRICS]))
    say(f"\nOpen {workdir}/report.html: it compares both and leads to each model's own report.")
