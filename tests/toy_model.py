"""A model of two layers that compiles in no time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxad.models import Architecture
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    ModelOptions,
    dtype_option,
    to_unit_float,
)
from jaxad.run.options import option

CONFIG = """
from . import common

def get_config(variants=""):
    config = common.get_config()
    config.model.name = "toy"
    config.model.width = 4
    config.model.noise = 0.1
    config.model.dtype = "float32"
    config.train.learning_rate = 0.01
    config.evaluate.primary_map = "l2"
    config.evaluate.primary_score = "l2:max"
    return config
"""


class Toy(nn.Module):
    """Every pixel through a batch normalisation and a hidden layer."""

    channels: int
    width: int
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x, *, train):
        # Without a bias: batch normalisation takes it out again, its gradient is rounding errors,
        # and Adam would make whole steps of them.
        x = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="encoder")(x)
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        return nn.Dense(self.channels, dtype=self.dtype, name="decoder")(nn.relu(x))


@dataclasses.dataclass(frozen=True)
class ToyOptions(ModelOptions):
    width: int = option(4, "of the hidden layer", at_least=1)
    noise: float = option(0.1, "standard deviation of the noise", at_least=0)
    dtype: str = dtype_option()


def build_toy(image_shape, options=None, *, axis_name=None) -> Model:
    """All that a training step has to carry: batch statistics, keys, terms, sums and scalars."""
    h, w, c = image_shape
    options = options or ToyOptions()
    module = Toy(c, options.width, axis_name, jnp.dtype(options.dtype))

    def loss(variables, batch, keys, train):
        images = to_unit_float(batch.image)
        drawn = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
        output, collections = module.apply(
            variables,
            images + options.noise * drawn,
            train=train,
            mutable=["batch_stats"] if train else [],
        )
        error = output.astype(jnp.float32) - images
        l2, l1 = jnp.mean(error**2, (1, 2, 3)), jnp.mean(jnp.abs(error), (1, 2, 3))
        brightest = jnp.zeros(c).at[jnp.argmax(images, -1).ravel()].add(1.0)
        bias = variables["params"]["decoder"]["bias"]
        return LossOutput(
            l2 + 0.1 * l1,
            {"l1": l1, "l2": l2},
            dict(collections),
            {"channels": brightest},
            {"bias": jnp.max(bias)},
        )

    def detect(variables, images):
        images = to_unit_float(images)
        output = jnp.clip(module.apply(variables, images, train=False), 0, 1).astype(jnp.float32)
        return Detection({"l2": jnp.mean((output - images) ** 2, -1)}, {}, output)

    return Model(
        module=module,
        image_shape=image_shape,
        init=lambda key: module.init(key, jnp.zeros((1, h, w, c)), train=False),
        loss=loss,
        detect=detect,
        param_labels=lambda params: {
            name: jax.tree.map(lambda _, name=name: name.split("_")[0], leaf)
            for name, leaf in params.items()
        },
    )


TOY = Architecture(ToyOptions, build_toy)
