"""A memory of normal patterns: addressing, hard shrinkage, reading, entropy of the weights.

Gong et al. 2019, "Memorizing normality to detect anomaly" (MemAE), and Yang and Guo 2024 (Sensors
24, 2440; equation numbers are theirs). A query z of length d is replaced by a weighted sum of n
items m_i, of which only a few weigh anything::

    w = softmax(similarity(z, m_i) / temperature)                                     (eqs. 7, 8)
    w^ = max(w - t, 0) w / (|w - t| + eps),  then  w^ / sum(w^)                          (eq. 10)
    z^ = sum_i w^_i m_i                                                                   (eq. 9)

The similarity is the cosine (Yang and Guo) or the dot product (MemAE's text has the cosine, its
public code the dot product). Cosines lie in [-1, 1], so at temperature 1 no weight is more than
e^2 = 7.4 times another and a read is nearly the mean of the items that pass the threshold.

Yang and Guo's equation 14 lacks the minus sign of an entropy: minimised as printed, it would make
the weights equal, where their text (and MemAE) wants few large ones. :func:`entropy` has the sign.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxad.ops.arrays import AnyArray, in_common_dtype

Similarity = Literal["cosine", "dot"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)


class Reading(NamedTuple):
    """What reading a memory gives per query.

    Attributes:
      output: the weighted sum of the items.
      weights: after shrinkage and normalisation; they sum to 1, or are all 0 where none passed.
    """

    output: Float[Array, "*b d"]
    weights: Float[Array, "*b n"]


def read(
    queries: Float[AnyArray, "*b d"],
    items: Float[AnyArray, "n d"],
    *,
    similarity: Similarity = "cosine",
    temperature: float = 1.0,
    threshold: float = 0.0,
) -> Reading:
    """Reads the memory at every query.

    Args:
      queries: vectors.
      items: the memory.
      similarity: ``"cosine"`` or ``"dot"``.
      temperature: by which similarities are divided; the lower, the fewer items count.
      threshold: t of the shrinkage; 0 leaves the weights as they are.

    Returns:
      The reading, in float32 at least. Where no weight passes the threshold it is 0, with zero
      gradients.

    Raises:
      ValueError: if queries and items differ in length, or an option has no meaning.
    """
    weights = address(queries, items, similarity=similarity, temperature=temperature)
    if threshold > 0:
        weights = normalise(hard_shrink(weights, threshold=threshold))
    output = jnp.einsum(
        "...n,nd->...d", weights, items.astype(weights.dtype), precision=lax.Precision.HIGHEST
    )
    return Reading(output, weights)


def address(
    queries: Float[AnyArray, "*b d"],
    items: Float[AnyArray, "n d"],
    *,
    similarity: Similarity = "cosine",
    temperature: float = 1.0,
) -> Float[Array, "*b n"]:
    """Softmax over the items of similarity / temperature.

    Args:
      queries: vectors; of a zero vector the cosine is 0 with everything.
      items: the memory.
      similarity: ``"cosine"`` or ``"dot"``.
      temperature: above 0.

    Raises:
      ValueError: if queries and items differ in length, or an option has no meaning.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"The similarity of a memory is 'cosine' or 'dot', not {similarity!r}.")
    if not temperature > 0:
        raise ValueError(f"The temperature of a memory is above 0, not {temperature}.")
    if items.ndim != 2 or queries.ndim < 1 or queries.shape[-1] != items.shape[-1]:
        raise ValueError(
            f"Queries of shape {queries.shape} cannot address items of shape {items.shape}: the "
            "last axes must be equal, and the items (n, d)."
        )
    queries, items = in_common_dtype(queries, items)
    if similarity == "cosine":
        queries, items = _unit(queries), _unit(items)
    # Near items differ in the last digits, which an accelerator's default precision drops.
    similarities = jnp.einsum("...d,nd->...n", queries, items, precision=lax.Precision.HIGHEST)
    return jax.nn.softmax(similarities / temperature, axis=-1)


def hard_shrink(
    weights: Float[Array, "*b"], *, threshold: float, epsilon: float = 1e-12
) -> Float[Array, "*b"]:
    """Keeps the weights above the threshold, makes the others 0 (eq. 10).

    ``epsilon`` only keeps the formula from dividing by zero, but within an epsilon above the
    threshold it makes its slope ``w / epsilon``: gradients of 1e9 at weights that happen to lie
    within a rounding error of the threshold. Here the factor ``max(w - t, 0) / (|w - t| + eps)``
    passes no gradient: the slope is that of the hard shrinkage, 1 above and 0 below.

    Args:
      weights: not negative.
      threshold: t.
      epsilon: as in the formula.
    """
    excess = weights - threshold
    kept = jax.nn.relu(excess) / (jnp.abs(excess) + epsilon)
    return weights * lax.stop_gradient(kept)


def normalise(weights: Float[Array, "*b n"], *, epsilon: float = 1e-12) -> Float[Array, "*b n"]:
    """Divides by the sum of absolute values, or by ``epsilon`` where that is less."""
    total = jnp.sum(jnp.abs(weights), axis=-1, keepdims=True)
    return weights / jnp.maximum(total, epsilon)


def entropy(weights: Float[Array, "*b n"], *, epsilon: float = 1e-12) -> Float[Array, "*b"]:
    """``-sum_i w_i log(w_i + epsilon)`` in nats: 0 for one item, log n for all alike."""
    return -jnp.sum(weights * jnp.log(weights + epsilon), axis=-1)


def hits(weights: Float[Array, "*b n"]) -> Float[Array, " n"]:
    """How many queries each item was the largest weight of; queries without weight are left out."""
    n = weights.shape[-1]
    strongest = jnp.argmax(weights, axis=-1)
    counted = jnp.max(weights, axis=-1) > 0
    chosen = jax.nn.one_hot(strongest, n) * counted[..., None]
    return jnp.sum(chosen.reshape(-1, n), axis=0)


def reads(weights: Float[Array, "*b n"]) -> Float[Array, " n"]:
    """How many queries read each item with any weight; an item with 0 is dead to them."""
    n = weights.shape[-1]
    return jnp.sum((weights > 0).astype(weights.dtype).reshape(-1, n), axis=0)


def _unit(vectors: Array) -> Array:
    """Vectors of length 1; zero stays zero, with a finite gradient."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * lax.rsqrt(jnp.maximum(squared, 1e-16))
