"""Coordinate attention: a gate per row and channel times a gate per column and channel.

Source: Q. Hou, D. Zhou, J. Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR
2021, with the sizes of its authors' public code.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.layers.basic import BatchNorm, Conv


class CoordinateAttention(nn.Module):
    """``x * g_w * g_h`` with gates in (0, 1).

    Means over each row and over each column go, one after the other, through one 1 x 1 convolution
    to ``max(8, d / reduction)`` channels, batch normalisation and h-swish; a 1 x 1 convolution for
    the rows and one for the columns, each with a sigmoid, give the gates.

    Attributes:
      reduction: by which the channels are divided in between.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation; parameters and statistics are float32.
    """

    reduction: int = 32
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"], *, train: bool) -> Float[Array, "b h w d"]:
        """Gates the features."""
        h, d = x.shape[1], x.shape[-1]
        conv = lambda features, name: Conv(features, (1, 1), dtype=self.dtype, name=name)
        rows, columns = jnp.mean(x, axis=2), jnp.mean(x, axis=1)
        both = jnp.concatenate([rows, columns], axis=1)[:, :, None, :]
        both = conv(max(8, d // self.reduction), "squeeze")(both)
        both = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name="norm")(both, train=train)
        both = nn.hard_swish(both)
        row_gates = nn.sigmoid(conv(d, "rows")(both[:, :h]))
        column_gates = nn.sigmoid(conv(d, "columns")(both[:, h:]))
        return x * jnp.swapaxes(column_gates, 1, 2) * row_gates
