"""Position embeddings for a grid of another size, as PyTorch's bicubic interpolation gives them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from jaxad.ops.positions import bicubic_matrix


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
    rows = bicubic_matrix(grid[0], new_grid[0])
    columns = bicubic_matrix(grid[1], new_grid[1])
    resized = np.einsum("ri,cj,ijd->rcd", rows, columns, table.astype(np.float64))
    resized = resized.reshape(1, new_grid[0] * new_grid[1], -1).astype(positions.dtype)
    return np.concatenate([positions[:, :1], resized], axis=1)
