"""jaxad: reconstruction-based visual anomaly detection as pure functions in JAX/Flax.

The same line in Python as on the command line::

    import jaxad

    config = jaxad.load_config("vqvae:small", {"data.root": "mvtec_ad", "data.category": "bottle"})
    jaxad.train(config, "runs/bottle")
    metrics = jaxad.evaluate("runs/bottle")
    predictions = jaxad.load_detector("runs/bottle").predict(images)

Names are imported when first used, so that ``import jaxad`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "UserError": "jaxad.run.errors",
    "evaluate": "jaxad.evaluation.evaluate",
    "load_config": "jaxad.run.config",
    "load_detector": "jaxad.evaluation.predict",
    "read_exported": "jaxad.run.exported",
    "select": "jaxad.selection.select",
    "train": "jaxad.training.train",
}
_MODULES = ("metrics", "models", "ops", "data", "report")

__all__ = ["__version__", *_MODULES, *_PLACES]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxad.{name}")
    raise AttributeError(f"module 'jaxad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
