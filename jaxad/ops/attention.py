"""Multi-head softmax attention whose memory does not grow with the square of the tokens.

The scores of all heads, ``b h n n`` numbers, are the largest array of a transformer, and a
gradient by the chain rule keeps several of their size per layer. Here the backward pass computes
them from query, key and the logarithms of their sums (as T. Dao et al., "FlashAttention", NeurIPS
2022), and both passes go through the batch in parts whose scores take at most
:data:`SCORE_BYTES`. If the scores of the whole batch take less than that, XLA sees that both passes
compute the same product, and keeps it: few scores cost no second product, many cost no memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

SCORE_BYTES = 32 * 2**20
"""The most that the float32 scores of one part take, if one image does not take more."""


def attention(
    query: Float[Array, "b n h d"],
    key: Float[Array, "b n h d"],
    value: Float[Array, "b n h d"],
    *,
    scale: float | None = None,
) -> Float[Array, "b n h d"]:
    """``softmax(scale query key^T) value``, over the tokens, for each head.

    The softmax is float32 whatever the dtype. In bfloat16 or float16 on an NVIDIA GPU, cuDNN's
    fused kernel does all of it where it takes the shape (head length a multiple of 8, up to 128).
    First-order reverse mode only.

    Args:
      query: one vector per token and head.
      key: likewise.
      value: likewise.
      scale: of the scores; None is ``d ** -0.5``.

    Returns:
      The mixed values, in the dtype of the query.
    """
    b, n, h, d = query.shape
    scale = d**-0.5 if scale is None else scale
    if query.dtype in (jnp.bfloat16, jnp.float16) and d % 8 == 0 and d <= 128 and _has_cudnn():
        return jax.nn.dot_product_attention(query, key, value, scale=scale, implementation="cudnn")
    heads_first = lambda x: x.transpose(0, 2, 1, 3).reshape(b * h, n, d)
    # Scaled before the product: n d numbers instead of n n.
    query = query * jnp.asarray(scale, query.dtype)
    # The free batch size of an export cannot be divided.
    parts = _parts(b, 4 * h * n * n) if isinstance(b, int) else 1
    mixed = _attention(parts, *map(heads_first, (query, key, value)))
    return mixed.reshape(b, h, n, d).transpose(0, 2, 1, 3)


def _has_cudnn() -> bool:
    """Whether the arrays of this process lie on an Ampere GPU or a newer one, with cuDNN."""
    if jax.default_backend() != "gpu":
        return False
    capability = getattr(jax.local_devices()[0], "compute_capability", "")  # not of AMD's
    try:
        return float(capability) >= 8.0
    except ValueError:
        return False


def _parts(b: int, bytes_each: int) -> int:
    """The least divisor of the batch for which the scores of a part fit."""
    fits = (m for m in range(1, b) if b % m == 0 and (b // m) * bytes_each <= SCORE_BYTES)
    return next(fits, max(b, 1))


def _in_parts(parts: int, function: Callable, *arrays: Array) -> tuple[Array, ...]:
    """The function of the arrays, computed for some of their first axis at a time."""
    if parts == 1:
        return function(*arrays)
    split = tuple(x.reshape(parts, -1, *x.shape[1:]) for x in arrays)
    results = lax.map(lambda part: function(*part), split)
    return tuple(x.reshape(-1, *x.shape[2:]) for x in results)


def _product(left: Array, right: Array, axes: tuple[int, int]) -> Array:
    """A batch of matrix products over these axes, added up in float32."""
    dimensions = (((axes[0],), (axes[1],)), ((0,), (0,)))
    return lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(parts: int, query: Array, key: Array, value: Array) -> Array:
    """Attention of ``(b h, n, d)`` arrays with the unit scale."""
    return _forward(parts, query, key, value)[0]


def _forward(parts, query, key, value):
    def part(query, key, value):
        scores = _product(query, key, (2, 2))
        highest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        # Divided after the product: n d numbers instead of n n.
        mixed = _product(weights.astype(value.dtype), value, (2, 1)) / total
        return mixed.astype(value.dtype), highest + jnp.log(total)

    mixed, log_total = _in_parts(parts, part, query, key, value)
    return mixed, (query, key, value, mixed, log_total)


def _backward(parts, residuals, gradient):
    def part(query, key, value, mixed, log_total, gradient):
        dtype = query.dtype
        weights = jnp.exp(_product(query, key, (2, 2)) - log_total)
        along = gradient.astype(jnp.float32) * mixed.astype(jnp.float32)
        change = _product(gradient, value, (2, 2)) - jnp.sum(along, axis=-1, keepdims=True)
        change = (weights * change).astype(dtype)
        of_query = _product(change, key, (2, 1))
        of_key = _product(change, query, (1, 1))
        of_value = _product(weights.astype(dtype), gradient, (1, 1))
        return of_query.astype(dtype), of_key.astype(dtype), of_value.astype(dtype)

    return _in_parts(parts, part, *residuals, gradient)


_attention.defvjp(_forward, _backward)
