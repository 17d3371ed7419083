"""Layout rules: how PyTorch's tensors lie in Flax, as pure functions of numpy arrays.

In shapes, ``o`` and ``i`` are output and input channels, ``h`` and ``w`` a kernel's rows and
columns, ``d`` features.
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
      rank: dimensions that each of PyTorch's arrays has.
    """

    to_flax: Callable[..., ndarray]
    rank: int


def conv_to_flax(weight: Shaped[ndarray, "o i h w"]) -> Shaped[ndarray, "h w i o"]:
    """A convolution's kernel; both cross-correlate."""
    return weight.transpose(2, 3, 1, 0)


def linear_to_flax(weight: Shaped[ndarray, "o i"]) -> Shaped[ndarray, "i o"]:
    """A linear layer's kernel: PyTorch multiplies from the left."""
    return weight.T


def qkv_weights_to_flax(
    query: Shaped[ndarray, "d i"], key: Shaped[ndarray, "d i"], value: Shaped[ndarray, "d i"]
) -> Shaped[ndarray, "i 3*d"]:
    """Three projections as one, columns query, key, value; within each, head by head."""
    return np.concatenate([query, key, value], axis=0).T


def qkv_biases_to_flax(
    query: Shaped[ndarray, " d"], key: Shaped[ndarray, " d"], value: Shaped[ndarray, " d"]
) -> Shaped[ndarray, " 3*d"]:
    """The biases of :func:`qkv_weights_to_flax`."""
    return np.concatenate([query, key, value])


CONV = Rule(conv_to_flax, rank=4)
"""Convolutions, among them the patch embedding of a ViT: ``(d, c, p, p)`` to ``(p, p, c, d)``."""

LINEAR = Rule(linear_to_flax, rank=2)
"""Linear layers, among them the fused query, key and value: PyTorch's rows are Flax's columns."""

SPLIT_QKV = Rule(qkv_weights_to_flax, rank=2)
"""Separate projections of query, key and value."""

SPLIT_QKV_BIAS = Rule(qkv_biases_to_flax, rank=1)
"""Their biases."""

VECTOR = Rule(lambda vector: vector, rank=1)
"""Biases, and what normalisations hold: scale, shift, running mean and variance."""

TOKENS = Rule(lambda tokens: tokens, rank=3)
"""``(1, n, d)``: class token, mask token, position embeddings with the class token's first."""
