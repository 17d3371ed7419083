"""Fixed position embeddings of a grid of tokens."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def sincos_positions(grid: tuple[int, int], features: int) -> Float[Array, "n d"]:
    """The fixed two-dimensional table of masked autoencoders (He et al. 2022, public code).

    The first half of the features encodes the column, the second the row, each as the sines, then
    the cosines, of the coordinate times ``10000 ** (-k / (features / 4))``. (That the column comes
    first is a slip of the published code to which its weights are bound.)

    Args:
      grid: numbers of rows and columns.
      features: length of an embedding, a multiple of 4.

    Returns:
      The embeddings, row by row of the grid, computed in float64 and rounded to float32.

    Raises:
      ValueError: if the features are not a multiple of 4.
    """
    if features < 4 or features % 4:
        raise ValueError(
            f"Sine-cosine positions have a multiple of 4 features, not {features}: two coordinates "
            "with a sine and a cosine each."
        )
    rows, columns = grid
    frequency = 10000.0 ** (-np.arange(features // 4) / (features // 4))
    angle = lambda count: np.arange(count)[:, None] * frequency[None]
    wave = lambda angles: np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    shape = (rows, columns, features // 2)
    column = np.broadcast_to(wave(angle(columns))[None], shape)
    row = np.broadcast_to(wave(angle(rows))[:, None], shape)
    table = np.concatenate([column, row], axis=-1).reshape(rows * columns, features)
    return jnp.asarray(table, jnp.float32)
