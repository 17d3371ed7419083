"""Which of a model's maps and scores decide, checked before anything runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxad import models
from jaxad.evaluation.postprocess import REDUCTIONS
from jaxad.models.base import Model, parameter_key
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.settings import Settings


def check_primary(config: Settings, model: Model, variables: Any) -> tuple[str, ...]:
    """Checks that a model has the primary map and score of its config, without running it.

    Args:
      config: of the run, like the model.
      model: of it.
      variables: of the model, or their shapes.

    Returns:
      The names of all maps.

    Raises:
      UserError: it has none of this name.
    """
    shape = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.uint8)
    detection = jax.eval_shape(model.detect, variables, shape)
    scores = [f"{m}:{r}" for m in detection.maps for r in REDUCTIONS]
    if config.evaluate.region_mask:  # scores of whole images know nothing of it
        if config.evaluate.primary_score in detection.scores:
            raise UserError(
                f"evaluate.primary_score {config.evaluate.primary_score!r} is of whole images, "
                "which evaluate.region_mask does not reach" + did_you_mean("", scores)
            )
    else:
        scores += detection.scores
    for key, known in (("primary_map", [*detection.maps]), ("primary_score", scores)):
        name = config.evaluate[key]
        if name not in known:
            raise UserError(f"evaluate.{key} is {name!r}" + did_you_mean(name, known))
    return (*detection.maps,)


def check_primary_of(config: Settings) -> None:
    """Likewise, before there is a trained model.

    Raises:
      UserError: as of :func:`check_primary`, or the model cannot be made.
    """
    model = models.build_from(config)
    check_primary(config, model, jax.eval_shape(model.init, parameter_key(0)))
