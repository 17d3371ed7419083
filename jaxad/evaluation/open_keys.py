"""Keys of a run's config that may change after training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxad import models
from jaxad.run import config as config_lib
from jaxad.run.errors import UserError
from jaxad.run.settings import Settings

_LIMIT = "data.limit_megapixels"
"""Says which images are refused, not what is seen of those that are read."""


def override_detection(config: Settings, overrides: Mapping[str, Any]) -> Settings:
    """A copy of a run's config with other keys of what comes after training.

    These are ``evaluate.*``, ``data.limit_megapixels`` and those of
    :func:`jaxad.models.detection_keys`.

    Raises:
      UserError: another key, an unknown one, or a bad value.
    """
    for key in overrides:
        if not stays_open(key, config.model.name):
            own = ("evaluate.*", _LIMIT, *models.detection_keys(config.model.name))
            can = f"{key} cannot change after training, only {', '.join(own)} can"
            raise UserError(f"{can}; train into a new --workdir")
    return config_lib.with_keys(config, overrides)


def stays_open(key: str, model: str) -> bool:
    """Whether a key may change after training of a model of this name."""
    return key.startswith("evaluate.") or key in (_LIMIT, *models.detection_keys(model))
