"""Position embeddings of a grid of tokens: a fixed table, and what a table is for another grid."""

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


SHARPNESS = -0.75
"""Of PyTorch's cubic kernel, where most others take -0.5."""

SMOOTHED_SHARPNESS = -0.5
"""Of PyTorch's cubic kernel with antialiasing."""


def bicubic_matrix(
    size: int, new_size: int, *, offset: float = 0.0, antialias: bool = False
) -> Float[np.ndarray, "m n"]:
    """The matrix that interpolates along one axis as PyTorch's ``interpolate(mode="bicubic")``.

    With ``align_corners=False``. Without antialiasing the border's value goes on outside; with it
    the kernel (Keys, IEEE Trans. ASSP 29, 1981) is as wide as the step where the size shrinks, and
    what lies outside has no weight.

    Args:
      size: values along the axis.
      new_size: values wanted.
      offset: as if ``new_size + offset`` were wanted: PyTorch given this ratio as scale_factor.
      antialias: see above.
    """
    step = size / (new_size + offset)
    place = (np.arange(new_size) + 0.5) * step - 0.5
    matrix = np.zeros((new_size, size))
    if antialias:
        distance = (np.arange(size) - place[:, None]) / max(step, 1.0)
        matrix = _cubic(distance, SMOOTHED_SHARPNESS)
        return matrix / matrix.sum(axis=1, keepdims=True)
    first = np.floor(place).astype(int)
    for neighbour in (-1, 0, 1, 2):
        column = np.clip(first + neighbour, 0, size - 1)
        weight = _cubic(first + neighbour - place, SHARPNESS)
        np.add.at(matrix, (np.arange(new_size), column), weight)
    return matrix


def _cubic(distance: Float[np.ndarray, "*m"], sharpness: float) -> Float[np.ndarray, "*m"]:
    """Keys' cubic convolution kernel; the sharpness is its free parameter."""
    x, a = np.abs(distance), sharpness
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
