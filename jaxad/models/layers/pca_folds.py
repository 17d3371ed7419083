"""Probabilistic PCAs of all folds, each fitted to all others, in little more time than one takes.

A covariance or Gram matrix without a fold is made from the parts of that of all vectors, so the
vectors are read as often for all folds as for one model. Axes of folds by the Gram matrix are
combined from the vectors in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxad.models.layers import pca_passes as passes
from jaxad.models.layers.pca_passes import Parameters, Sums, VectorPasses
from jaxad.models.layers.principal_axes import check_enough, parameters_of


def fit_to_others(
    vectors: VectorPasses, components: int, *, streaming: bool
) -> Iterator[Parameters]:
    """For each part of the vectors, the parameters of the largest likelihood of all other parts.

    Args:
      vectors: of two parts at the least.
      components: axes; those that the vectors do not span are 0.
      streaming: whether there are many more vectors than values of one.

    Raises:
      ValueError: a part has fewer than two vectors beside it.
    """
    parts = vectors.parts
    sums = [passes.sums_of(vectors.of([part])) for part in parts]
    count, total = sum(one.n for one in sums), np.sum([one.total for one in sums], axis=0)
    check_enough(count - max(one.n for one in sums))
    others = [Sums(count - one.n, total - one.total) for one in sums]
    # All are measured from one point near the means of all folds, for the sake of rounding.
    centre = jnp.asarray(total / count, jnp.float32)
    if streaming or vectors.dimension <= passes.EXACT_UP_TO:
        yield from _by_scatter(vectors, others, centre, components)
    elif count <= passes.EXACT_UP_TO:
        yield from _by_gram(vectors, sums, others, centre, components)
    else:
        for number in range(len(parts)):
            rest = [part for i, part in enumerate(parts) if i != number]
            yield passes.fit(vectors.of(rest), components, streaming=False)


def _by_scatter(
    vectors: VectorPasses, others: list[Sums], centre: Float[Array, " d"], components: int
) -> Iterator[Parameters]:
    """By d x d matrices: that of all parts less a part's own."""
    own = [passes.scatter_of(vectors.of([part]), centre) for part in vectors.parts]
    whole = np.sum(own, axis=0)
    for one, scatter in zip(others, own, strict=True):
        mean = one.total / one.n
        shift = mean - np.asarray(centre, np.float64)
        covariance = (whole - scatter) / one.n - np.outer(shift, shift)
        variances, columns = passes.leading(covariance, min(components, one.n - 1))
        yield parameters_of(
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(columns.T, jnp.float32),
            variances,
            passes.noise_of(float(np.trace(covariance)), variances, vectors.dimension),
            components,
        )


def _by_gram(
    vectors: VectorPasses,
    sums: list[Sums],
    others: list[Sums],
    centre: Float[Array, " d"],
    components: int,
) -> Iterator[Parameters]:
    """By the n x n matrix of all vectors: rows and columns of the others, centred anew."""
    counts = [one.n for one in sums]
    gram = passes.gram_of(vectors, centre, sum(counts))
    of_part = np.repeat(np.arange(len(sums)), counts)
    found = [_of_rows(gram, of_part != i, components) for i in range(len(sums))]
    weights = np.concatenate([one.weights for one in found])
    rows = np.split(
        passes.combined(vectors, centre, weights),
        np.cumsum([len(one.weights) for one in found])[:-1],
    )
    for one, fold, some in zip(others, found, rows, strict=True):
        yield parameters_of(
            jnp.asarray(one.total / one.n, jnp.float32),
            passes.orthonormal_rows(jnp.asarray(some)),
            fold.variances,
            passes.noise_of(fold.total, fold.variances, vectors.dimension),
            components,
        )


class _OfRows(NamedTuple):
    """Variances, their total in all directions, and the weights of vectors that make the axes."""

    variances: Float[Array, " k"]
    total: float
    weights: Float[np.ndarray, "k n"]


def _of_rows(
    gram: Float[np.ndarray, "n n"], taken: Bool[np.ndarray, " n"], components: int
) -> _OfRows:
    """Of the vectors that are taken, about their own mean."""
    rows = np.flatnonzero(taken)
    some = gram[np.ix_(rows, rows)]
    means = some.mean(axis=0)
    some = some - means[None] - means[:, None] + means.mean()
    variances, columns = passes.leading(some / len(rows), min(components, len(rows) - 1))
    weights = np.zeros((columns.shape[1], len(gram)))
    # Their sum is 0, so it does not matter which point the vectors are measured from.
    weights[:, rows] = (columns - columns.mean(axis=0)).T
    return _OfRows(variances, float(np.trace(some)) / len(rows), weights)
