"""Maximum likelihood of the probabilistic PCA in passes over any number of vectors.

M. E. Tipping, C. M. Bishop, "Probabilistic Principal Component Analysis", JRSS B 61(3), 1999,
eqs. 7 and 8. Only a block of vectors is held as floats, so memory does not grow with the number of
images. By the numbers of vectors n and of their values d there are three ways to the axes: the
d x d covariance, the n x n Gram matrix, or randomised subspace iteration.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jaxad.data.batch import Batch
from jaxad.models.layers.principal_axes import check_enough, parameters_of
from jaxad.ops.arrays import AnyArray

EXACT_UP_TO = 2048
"""Number of vectors up to which the Gram matrix is solved whole; above, subspace iteration."""

OVERSAMPLING = 16
SUBSPACE_ITERATIONS = 6

Parameters = dict[str, Array]
"""Those of :class:`jaxad.models.pca.ProbabilisticPCA`."""


class VectorPasses:
    """Passes over the training vectors, one block of an image batch at a time.

    Overlapping patches hold every pixel many times: of large images a block is a band.

    Attributes:
      parts: the batches, in parts (of one or several folds).
      dimension: d of the vectors.
    """

    def __init__(
        self,
        parts: Sequence[Iterable[Batch]],
        to_vectors: Callable[[AnyArray], Array],
        dimension: int,
        blocks: Callable[[Shaped[np.ndarray, "b h w c"]], Iterable[Shaped[np.ndarray, "b i w c"]]],
    ):
        """Keeps what is read.

        Args:
          parts: batches of images; each can be iterated several times.
          to_vectors: images to vectors.
          dimension: d of the vectors.
          blocks: images to the parts of them that make a block each.
        """
        self.parts, self.dimension = parts, dimension
        self._to_vectors, self._blocks = to_vectors, blocks

    def of(self, parts: Sequence[Iterable[Batch]]) -> VectorPasses:
        """The same over other batches."""
        return VectorPasses(parts, self._to_vectors, self.dimension, self._blocks)

    def __iter__(self) -> Iterator[Float[Array, "n d"]]:
        for batch in itertools.chain.from_iterable(self.parts):
            images = np.asarray(batch.image)[np.asarray(batch.valid)]
            if len(images):
                yield from map(self._to_vectors, self._blocks(images))


class Sums(NamedTuple):
    """Of some vectors: how many, and their sum in float64."""

    n: int
    total: Float[np.ndarray, " d"]


def sums_of(vectors: VectorPasses) -> Sums:
    """Counts and adds the vectors."""
    count, total = 0, np.zeros(vectors.dimension)
    for block in vectors:
        count += block.shape[0]
        total += np.asarray(jnp.sum(block, axis=0), np.float64)
    return Sums(count, total)


def fit(vectors: VectorPasses, components: int, *, streaming: bool) -> Parameters:
    """The parameters of the largest likelihood.

    Args:
      vectors: to fit to.
      components: axes; those that the vectors do not span are 0.
      streaming: whether there are many more vectors than values of one.

    Raises:
      ValueError: fewer than two vectors.
    """
    count, total_vector = sums_of(vectors)
    check_enough(count)
    mean = jnp.asarray(total_vector / count, jnp.float32)
    total = sum(float(jnp.sum(jnp.square(block - mean[None]))) for block in vectors) / count
    # A centred set of n vectors spans at most n - 1 directions.
    k = min(components, count - 1)
    if streaming or vectors.dimension <= EXACT_UP_TO:
        variances, columns = leading(scatter_of(vectors, mean) / count, k)
        axes = jnp.asarray(columns.T, jnp.float32)
    elif count <= EXACT_UP_TO:
        variances, columns = leading(gram_of(vectors, mean, count) / count, k)
        axes = orthonormal_rows(combined(vectors, mean, columns.T))
    else:
        variances, axes = _by_subspace_iteration(vectors, mean, count, k)
    noise = noise_of(total, variances, vectors.dimension)
    return parameters_of(mean, axes, variances, noise, components)


def noise_of(total: float, variances: Float[Array, " k"], dimension: int) -> float:
    """The mean variance in the directions that are left out (Tipping & Bishop, eq. 8).

    Args:
      total: the variance in all directions together.
      variances: along the axes.
      dimension: d of the vectors.
    """
    return (total - float(jnp.sum(variances))) / (dimension - len(variances))


@jax.jit
def _add_scatter(
    scatter: Float[Array, "d d"], block: Float[Array, "n d"], mean: Float[Array, " d"]
) -> Float[Array, "d d"]:
    centred = block - mean[None]
    return scatter + centred.T @ centred


def scatter_of(vectors: VectorPasses, mean: Float[Array, " d"]) -> Float[np.ndarray, "d d"]:
    """The sum of products of the vectors about a point: for patches, whose number is large."""
    scatter = jnp.zeros((vectors.dimension, vectors.dimension))
    for block in vectors:
        scatter = _add_scatter(scatter, block, mean)
    return np.asarray(scatter, np.float64)


def leading(
    matrix: Float[np.ndarray, "i i"], k: int
) -> tuple[Float[Array, " k"], Float[np.ndarray, "i k"]]:
    """The largest eigenvalues, none below 0, and their eigenvectors.

    In float64 on the host: small eigenvalues of a large matrix drown in float32.
    """
    values, columns = np.linalg.eigh(matrix)
    return jnp.asarray(np.maximum(values[::-1][:k], 0.0), jnp.float32), columns[:, ::-1][:, :k]


@jax.jit
def _products(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    return a @ b.T


def gram_of(
    vectors: VectorPasses, mean: Float[Array, " d"], count: int
) -> Float[np.ndarray, "n n"]:
    """Products of all vectors with one another, about a point."""
    gram = np.zeros((count, count))
    row = 0
    for a in vectors:
        column = 0
        for b in vectors:
            if column >= row:
                part = np.asarray(_products(a - mean[None], b - mean[None]), np.float64)
                gram[row : row + len(a), column : column + len(b)] = part
                gram[column : column + len(b), row : row + len(a)] = part.T
            column += len(b)
        row += len(a)
    return gram


def combined(
    vectors: VectorPasses, mean: Float[Array, " d"], weights: Float[np.ndarray, "k n"]
) -> Float[Array, "k d"]:
    """Sums of the vectors about a point, with weights."""
    total, row = jnp.zeros((len(weights), vectors.dimension)), 0
    for block in vectors:
        some = jnp.asarray(weights[:, row : row + len(block)], jnp.float32)
        total, row = total + some @ (block - mean[None]), row + len(block)
    return total


def _by_subspace_iteration(
    vectors: VectorPasses, mean: Float[Array, " d"], count: int, k: int
) -> tuple[Array, Array]:
    """Leading axes of any number of images in ``SUBSPACE_ITERATIONS`` + 2 passes.

    Randomised subspace iteration (Halko, Martinsson, Tropp, SIAM Review 53(2), 2011,
    algorithm 4.4): memory is that of ``k + OVERSAMPLING`` axes and one block.
    """
    width = min(k + OVERSAMPLING, vectors.dimension)
    step = jax.jit(lambda total, x, q: total + ((x - mean[None]) @ q.T).T @ (x - mean[None]))
    basis = orthonormal_rows(jax.random.normal(jax.random.key(0), (width, vectors.dimension)))
    for _ in range(SUBSPACE_ITERATIONS):
        total = jnp.zeros_like(basis)
        for block in vectors:
            total = step(total, block, basis)
        basis = orthonormal_rows(total)
    codes_scatter = np.zeros((width, width))
    project = jax.jit(lambda x: ((x - mean[None]) @ basis.T).T @ ((x - mean[None]) @ basis.T))
    for block in vectors:
        codes_scatter += np.asarray(project(block), np.float64)
    variances, rotation = leading(codes_scatter / count, k)
    return variances, jnp.asarray(rotation.T, jnp.float32) @ basis


def orthonormal_rows(rows: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Made so from the first on."""
    return jnp.linalg.qr(rows.T)[0].T
