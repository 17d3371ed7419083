"""Position embeddings for a grid of another size, as PyTorch's bicubic interpolation gives them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

SHARPNESS = -0.75
"""The kernel's free parameter: PyTorch's choice, where most others take -0.5."""


def resize_positions(
    positions: Float[ndarray, "1 n d"], grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[ndarray, "1 m d"]:
    """Resizes the embeddings of a grid; the class token's, which comes first, stays.

    As ``torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`` without
    antialiasing, which is what MAE and transformers do. (timm antialiases: there, a smaller grid
    gets other values.)

    Args:
      positions: class token, then row by row; ``n = 1 + rows * columns``.
      grid: rows and columns that they are for.
      new_grid: rows and columns that they are wanted for.
    """
    table = positions[0, 1:].reshape(*grid, -1)
    rows = _bicubic(grid[0], new_grid[0])
    columns = _bicubic(grid[1], new_grid[1])
    resized = np.einsum("ri,cj,ijd->rcd", rows, columns, table.astype(np.float64))
    resized = resized.reshape(1, new_grid[0] * new_grid[1], -1).astype(positions.dtype)
    return np.concatenate([positions[:, :1], resized], axis=1)


def _bicubic(size: int, new_size: int) -> Float[ndarray, "m n"]:
    """The matrix that interpolates along one axis; outside, the border's value goes on."""
    place = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    first = np.floor(place).astype(int)
    matrix = np.zeros((new_size, size))
    for neighbour in (-1, 0, 1, 2):
        column = np.clip(first + neighbour, 0, size - 1)
        np.add.at(matrix, (np.arange(new_size), column), _kernel(first + neighbour - place))
    return matrix


def _kernel(distance: Float[ndarray, " m"]) -> Float[ndarray, " m"]:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29, 1981) of the given sharpness."""
    x, a = np.abs(distance), SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
