"""A network of two small maps, in place of a pretrained one; importing this makes it known."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxad.models.layers.backbones import BACKBONES, Backbone, Tap

NAME = "tiny"
TAPS = (Tap("fine", 4, 3), Tap("coarse", 16, 4))


class TinyNetwork(nn.Module):
    """Means over squares of pixels, mixed and bent; with statistics, as a batch norm has them."""

    @nn.compact
    def __call__(self, images):
        maps = []
        for name, stride, channels in TAPS:
            b, h, w, c = images.shape
            squares = images.reshape(b, h // stride, stride, w // stride, stride, c)
            mixed = nn.Dense(channels, name=name)(jnp.mean(squares, axis=(2, 4)))
            shift = self.variable(
                "batch_stats", f"{name}_shift", jnp.zeros, (1, 1, 1, channels)
            ).value
            maps.append(jnp.tanh(3.0 * mixed - shift))
        return tuple(maps)


BACKBONES[NAME] = Backbone(
    TinyNetwork(), TAPS, multiple=16, families=("tiny",), package="", origin="drawn", licence="none"
)
