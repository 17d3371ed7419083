"""Layout rules: how one PyTorch tensor lies in Flax, and back.

Each rule is a pure function of numpy arrays with its inverse, so that every conversion can be
undone and tested. In shapes, ``o`` and ``i`` are output and input channels, ``h`` and ``w`` a
kernel's rows and columns, ``d`` features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray


class Rule(NamedTuple):
    """One layout rule.

    Attributes:
      to_flax: PyTorch's array or arrays to Flax's one.
      to_torch: Flax's array to the tuple of PyTorch's.
      rank: dimensions that each of PyTorch's arrays has; None: any.
    """

    to_flax: Callable[..., ndarray]
    to_torch: Callable[[ndarray], tuple[ndarray, ...]]
    rank: int | None = None


def conv_to_flax(weight: Shaped[ndarray, "o i h w"]) -> Shaped[ndarray, "h w i o"]:
    """A convolution's kernel; both cross-correlate."""
    return weight.transpose(2, 3, 1, 0)


def conv_to_torch(kernel: Shaped[ndarray, "h w i o"]) -> Shaped[ndarray, "o i h w"]:
    """Inverse of :func:`conv_to_flax`."""
    return kernel.transpose(3, 2, 0, 1)


def conv_transpose_to_flax(weight: Shaped[ndarray, "i o h w"]) -> Shaped[ndarray, "h w i o"]:
    """A transposed convolution's kernel.

    PyTorch spreads the kernel as it is; ``lax.conv_transpose`` correlates with it over the dilated
    input, hence the turn by 180 degrees. PyTorch's padding ``p`` is ``k - 1 - p`` in Flax.
    """
    return weight.transpose(2, 3, 0, 1)[::-1, ::-1]


def conv_transpose_to_torch(kernel: Shaped[ndarray, "h w i o"]) -> Shaped[ndarray, "i o h w"]:
    """Inverse of :func:`conv_transpose_to_flax`."""
    return kernel[::-1, ::-1].transpose(2, 3, 0, 1)


def linear_to_flax(weight: Shaped[ndarray, "o i"]) -> Shaped[ndarray, "i o"]:
    """A linear layer's kernel: PyTorch multiplies from the left."""
    return weight.T


def linear_to_torch(kernel: Shaped[ndarray, "i o"]) -> Shaped[ndarray, "o i"]:
    """Inverse of :func:`linear_to_flax`."""
    return kernel.T


def qkv_weights_to_flax(
    query: Shaped[ndarray, "d i"], key: Shaped[ndarray, "d i"], value: Shaped[ndarray, "d i"]
) -> Shaped[ndarray, "i 3*d"]:
    """Three projections as one, columns query, key, value; within each, head by head."""
    return np.concatenate([query, key, value], axis=0).T


def qkv_weights_to_torch(kernel: Shaped[ndarray, "i 3*d"]) -> tuple[ndarray, ndarray, ndarray]:
    """Inverse of :func:`qkv_weights_to_flax`."""
    return tuple(np.split(kernel.T, 3, axis=0))


def qkv_biases_to_flax(
    query: Shaped[ndarray, " d"], key: Shaped[ndarray, " d"], value: Shaped[ndarray, " d"]
) -> Shaped[ndarray, " 3*d"]:
    """The biases of :func:`qkv_weights_to_flax`."""
    return np.concatenate([query, key, value])


def qkv_biases_to_torch(bias: Shaped[ndarray, " 3*d"]) -> tuple[ndarray, ndarray, ndarray]:
    """Inverse of :func:`qkv_biases_to_flax`."""
    return tuple(np.split(bias, 3))


def _same(array: ndarray) -> ndarray:
    return array


CONV = Rule(conv_to_flax, lambda kernel: (conv_to_torch(kernel),), rank=4)
"""Convolutions, among them the patch embedding of a ViT: ``(d, c, p, p)`` to ``(p, p, c, d)``."""

CONV_TRANSPOSE = Rule(
    conv_transpose_to_flax, lambda kernel: (conv_transpose_to_torch(kernel),), rank=4
)
"""Transposed convolutions."""

LINEAR = Rule(linear_to_flax, lambda kernel: (linear_to_torch(kernel),), rank=2)
"""Linear layers, among them the fused query, key and value: PyTorch's rows are Flax's columns."""

SPLIT_QKV = Rule(qkv_weights_to_flax, qkv_weights_to_torch, rank=2)
"""Separate projections of query, key and value."""

SPLIT_QKV_BIAS = Rule(qkv_biases_to_flax, qkv_biases_to_torch, rank=1)
"""Their biases."""

VECTOR = Rule(_same, lambda vector: (vector,), rank=1)
"""Biases, and what normalisations hold: scale, shift, running mean and variance."""

TOKENS = Rule(_same, lambda tokens: (tokens,), rank=3)
"""``(1, n, d)``: class token, mask token, position embeddings with the class token's first."""
