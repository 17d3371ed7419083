"""Vector quantisation: the discrete latent of the VQ-VAE and its codebook by moving averages.

van den Oord et al. 2017, "Neural discrete representation learning", equations 1 to 3 and
appendix A.1. Squared distances are sums over the channels, as the paper writes them; take means
outside where a model wants them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxad.ops.arrays import at_least_float32


class Quantisation(NamedTuple):
    """What quantisation gives per position.

    Attributes:
      quantised: the nearest codes; gradients pass straight through to the encoder.
      indices: which code.
      squared_distance: ``||z - e||^2``, the alignment map: how far a position lies from
        everything the codebook has learned.
      codebook_loss: ``||sg[z] - e||^2``, the same value, moves codes only.
      commitment_loss: ``||z - sg[e]||^2``, the same value, moves the encoder only.
    """

    quantised: Float[Array, "*b h w d"]
    indices: Int[Array, "*b h w"]
    squared_distance: Float[Array, "*b h w"]
    codebook_loss: Float[Array, "*b h w"]
    commitment_loss: Float[Array, "*b h w"]


class CodeAverages(NamedTuple):
    """Moving averages from which the codebook follows without gradients.

    Attributes:
      counts: how many vectors chose each code in a step.
      sums: the sum of the vectors that chose it.
    """

    counts: Float[Array, " k"]
    sums: Float[Array, "k d"]


def nearest_code(
    z: Float[Array, "*b h w d"], codebook: Float[Array, "k d"]
) -> Int[Array, "*b h w"]:
    """Returns the index of the code nearest to each vector, the first one of equals.

    Args:
      z: vectors.
      codebook: k codes.

    Returns:
      Indices in [0, k). The (positions, k) distances exist in memory, in at least float32.

    Raises:
      ValueError: if the vectors and the codes differ in length.
    """
    _check(z, codebook)
    wide = at_least_float32(z)
    codebook = codebook.astype(wide.dtype)
    # |z|^2 - 2 z.e + |e|^2 without its first term, which is the same for every code. At full
    # precision: with the 10 bits of an accelerator's default, near codes would be mixed up.
    products = jnp.einsum("...d,kd->...k", wide, codebook, precision=lax.Precision.HIGHEST)
    norms = jnp.sum(jnp.square(codebook), axis=-1)
    norms = jnp.expand_dims(norms, tuple(range(products.ndim - 1)))
    return jnp.argmin(norms - 2.0 * products, axis=-1)


def quantise(z: Float[Array, "*b h w d"], codebook: Float[Array, "k d"]) -> Quantisation:
    """Replaces each vector by its nearest code and returns what training and detection need.

    Args:
      z: the encoder's output.
      codebook: k codes.

    Returns:
      The codes in the dtype of ``z``; distances and losses, unweighted, in at least float32. The
      distance is a sum of squared differences, exactly 0 where a vector is a code.

    Raises:
      ValueError: if the vectors and the codes differ in length.
    """
    indices = nearest_code(z, codebook)
    codes = _look_up(codebook, indices)
    wide_z = at_least_float32(z)
    wide_codes = codes.astype(wide_z.dtype)
    squared = lambda difference: jnp.sum(jnp.square(difference), axis=-1)

    return Quantisation(
        # z + sg[e - z] would return the codes with a rounding error.
        quantised=_straight_through(z, lax.stop_gradient(codes).astype(z.dtype)),
        indices=indices,
        squared_distance=squared(wide_z - wide_codes),
        codebook_loss=squared(lax.stop_gradient(wide_z) - wide_codes),
        commitment_loss=squared(wide_z - lax.stop_gradient(wide_codes)),
    )


def code_counts_and_sums(
    z: Float[Array, "*b h w d"], indices: Int[Array, "*b h w"], k: int
) -> tuple[Float[Array, " k"], Float[Array, "k d"]]:
    """Returns how many vectors chose each code, and their sums: the input of `ema_update`.

    Both add up over parts of a batch: over several devices, sum them before the update.

    Args:
      z: vectors; no gradient flows back to them.
      indices: the code that each chose.
      k: the number of codes.

    Returns:
      (counts, sums), in at least float32.
    """
    vectors = at_least_float32(lax.stop_gradient(z)).reshape(-1, z.shape[-1])
    chosen = jax.nn.one_hot(indices.reshape(-1), k, dtype=vectors.dtype)
    # A product rather than a scatter, whose order of additions varies on a GPU.
    sums = jnp.einsum("nk,nd->kd", chosen, vectors, precision=lax.Precision.HIGHEST)
    return jnp.sum(chosen, axis=0), sums


def init_averages(codebook: Float[Array, "k d"]) -> CodeAverages:
    """Returns averages that stand for this codebook, as if each code had been chosen once."""
    codebook = at_least_float32(codebook)
    return CodeAverages(jnp.ones(codebook.shape[0], codebook.dtype), codebook)


def ema_update(
    state: CodeAverages,
    counts: Float[Array, " k"],
    sums: Float[Array, "k d"],
    *,
    decay: float = 0.99,
    epsilon: float = 1e-5,
) -> tuple[CodeAverages, Float[Array, "k d"]]:
    """Moves the averages by one step and returns them with the codebook that follows.

    N <- decay N + (1 - decay) n,  m <- decay m + (1 - decay) sum(z),  e = m / N'

    with N' the Laplace-smoothed counts (N + epsilon) / (sum(N) + k epsilon) sum(N), so that a
    code which nothing chooses is not divided by 0.

    Args:
      state: the averages before the step, from `init_averages` at first.
      counts: vectors per code in this step, over the whole batch.
      sums: sums of these vectors.
      decay: share of the past that is kept, in [0, 1).
      epsilon: pseudo-count of every code.

    Returns:
      (averages, codebook).
    """
    averages = CodeAverages(
        decay * state.counts + (1.0 - decay) * counts,
        decay * state.sums + (1.0 - decay) * sums,
    )
    total = jnp.sum(averages.counts)
    k = averages.counts.shape[0]
    smoothed = (averages.counts + epsilon) / (total + k * epsilon) * total
    return averages, averages.sums / smoothed[:, None]


def perplexity(counts: Float[Array, " k"]) -> Float[Array, ""]:
    """Returns exp(entropy) of the use of the codes: from 1 (one code used) to k (all alike)."""
    total = jnp.sum(counts)
    shares = counts / jnp.where(total > 0, total, 1.0)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(shares)))


def _check(z: Array, codebook: Array) -> None:
    if codebook.ndim != 2 or z.ndim < 1 or z.shape[-1] != codebook.shape[-1]:
        raise ValueError(
            f"Vectors of shape {z.shape} cannot be quantised with a codebook of shape "
            f"{codebook.shape}: the last axes must be equal, and the codebook (k, d)."
        )


@jax.custom_jvp
def _look_up(codebook: Array, indices: Array) -> Array:
    """Returns codebook[indices], with a gradient that is the same in every run.

    The gradient of a gather is a scatter, whose order of additions varies on a GPU; that of the
    equal product with one-hot rows does not.
    """
    return jnp.take(codebook, indices, axis=0)


@_look_up.defjvp
def _look_up_jvp(primals, tangents):
    (codebook, indices), (tangent, _) = primals, tangents
    chosen = jax.nn.one_hot(indices, codebook.shape[0], dtype=tangent.dtype)
    return _look_up(codebook, indices), jnp.einsum(
        "...k,kd->...d", chosen, tangent, precision=lax.Precision.HIGHEST
    )


@jax.custom_jvp
def _straight_through(z: Array, codes: Array) -> Array:
    """Returns the codes; its derivative is that of ``z``."""
    del z
    return codes


@_straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    return primals[1], tangents[0]
