"""What a training step reads and writes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Int

from jaxad.models.base import Variables


class TrainState(struct.PyTreeNode):
    """The whole state of a training run; a pytree, on devices or the host.

    Training never stacks it; an experiment may, to train several runs under ``vmap``.

    Attributes:
      step: number of optimiser steps taken.
      params: the trained parameters.
      collections: the other Flax collections (batch statistics, moving averages).
      opt_state: the optimiser's state.
    """

    step: Int[Array | np.ndarray, ...]
    params: Any
    collections: dict[str, Any]
    opt_state: Any

    @property
    def variables(self) -> Variables:
        """The variables that a model's functions take."""
        return {"params": self.params, **self.collections}


def create_state(variables: Variables, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    params = variables["params"]
    collections = {name: value for name, value in variables.items() if name != "params"}
    return TrainState(jnp.zeros((), jnp.int32), params, collections, optimizer.init(params))
