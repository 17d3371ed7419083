"""Feature maps of good images, described in closed form: ridge reconstruction, residual covariance.

The maps of all stages of a network make one vector per image. A new image is reconstructed from
those of the good ones by ridge regression, and what is left at each position is compared with what
is left on good images when each of them is reconstructed from the others alone.

1. Every channel is divided by its standard deviation over all images and positions, and the mean
   of each position is subtracted: ``B``, one row per image, in which every stage has the weight of
   one position, however fine its grid.
2. ``G = B B'`` is the Gram matrix, ``s`` the mean of its diagonal, ``u_j`` and ``e_j`` its
   eigenvectors and eigenvalues. With all axes ``v_j = B' u_j / sqrt(e_j)``, the reconstruction
   ``sum_j e_j / (e_j + ridge s) v_j v_j' z`` is that of kernel ridge regression of an image on all
   good images; the first ``k`` axes give a shorter one.
3. A linear smoother ``H`` of good images leaves ``r_i = ((I - H) B)_i / (1 - H_ii)`` on an image
   that it was fitted without (Golub, Heath, Wahba, Technometrics 21(2), 1979). With all axes this
   is exact; with fewer, the axes are those of all images and only their weights are fitted anew.
4. Residuals of all stages are interpolated to the finest grid. Their second moments over images
   and positions make the pooled covariance, those over images a covariance of each position.

Images beyond a budget of memory have no part in 1 and 2. They are reconstructed from those that
have, which leaves honest residuals too, so all images have a part in 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

MATMUL_PRECISION = "highest"
"""An accelerator's default rounds to 10 bits, and residuals are differences."""

MEAN_WEIGHT = 10.0
"""Of the constant in the kernel, in units of ``s``: large, so that the mean is not shrunk."""

SMALLEST_SHARE = 1e-6
"""Of the largest eigenvalue: below, float32 knows no direction."""

TINY = 1e-12

ROWS_AT_ONCE = 32
DRAW_SEED = 0


@dataclasses.dataclass(frozen=True)
class Layout:
    """Feature maps of several stages as one vector per image.

    Attributes:
      stages: ``(rows, columns, channels)`` of each.
    """

    stages: tuple[tuple[int, int, int], ...]

    @property
    def values(self) -> int:
        """Length of a vector."""
        return sum(rows * columns * channels for rows, columns, channels in self.stages)

    @property
    def channels(self) -> int:
        """Of all stages together."""
        return sum(stage[2] for stage in self.stages)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest stage."""
        return max(stage[0] for stage in self.stages), max(stage[1] for stage in self.stages)

    def to_vectors(self, maps: tuple[Float[Array, "b _ _ _"], ...]) -> Float[Array, "b v"]:
        """Joins maps, each divided by the root of its number of positions."""
        return jnp.concatenate(
            [x.reshape(x.shape[0], -1) / math.sqrt(x.shape[1] * x.shape[2]) for x in maps], axis=1
        )

    def to_maps(self, vectors: Float[Array, "b v"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """The inverse of :meth:`to_vectors`."""
        parts, begin = [], 0
        for rows, columns, channels in self.stages:
            end = begin + rows * columns * channels
            part = vectors[:, begin:end].reshape(vectors.shape[0], rows, columns, channels)
            parts.append(part * math.sqrt(rows * columns))
            begin = end
        return tuple(parts)

    def on_finest_grid(self, vectors: Float[Array, "b v"]) -> Float[Array, "b p d"]:
        """Channels of all stages at every position of the finest grid, interpolated linearly."""
        parts = [
            jax.image.resize(x, (x.shape[0], *self.grid, x.shape[3]), "linear")
            for x in self.to_maps(vectors)
        ]
        joined = jnp.concatenate(parts, axis=-1)
        return joined.reshape(joined.shape[0], -1, self.channels)

    def some_on_finest_grid(
        self, vectors: Float[Array, "b v"], channels: Sequence[int]
    ) -> Float[Array, "b p q"]:
        """Some channels of :meth:`on_finest_grid`, in ascending order; only these are made."""
        return self.part(channels).on_finest_grid(vectors[:, self.columns(channels)])

    def part(self, channels: Sequence[int]) -> Layout:
        """The layout of some channels alone, which are in ascending order."""
        stages, begin = [], 0
        for rows, columns, own in self.stages:
            stages.append((rows, columns, sum(begin <= one < begin + own for one in channels)))
            begin += own
        return Layout(tuple(stages))

    def columns(self, channels: Sequence[int]) -> Int[np.ndarray, " w"]:
        """Where the values of some channels stand in a vector, in the order of :meth:`part`."""
        marked = np.zeros(self.channels, bool)
        marked[np.array(channels, int)] = True
        return np.flatnonzero(self.spread(marked))

    def spread(self, per_channel: Shaped[np.ndarray, " d"]) -> Shaped[np.ndarray, " v"]:
        """One value per channel, repeated at every position."""
        parts, begin = [], 0
        for rows, columns, channels in self.stages:
            parts.append(np.tile(per_channel[begin : begin + channels], rows * columns))
            begin += channels
        return np.concatenate(parts)


class Features(NamedTuple):
    """What the fit takes of some images.

    Attributes:
      vectors: as :meth:`Layout.to_vectors` makes them.
      pictures: the images, small.
    """

    vectors: Float[Array | np.ndarray, "b v"]
    pictures: Float[Array | np.ndarray, "b x"]


class Basis(NamedTuple):
    """The good images that reconstruct all others.

    Attributes:
      vectors: features, one row per image.
      pictures: of the same images.
      places: which images these are, from 0.
      chosen: for every image that was seen, whether it is one of them.
    """

    vectors: Float[np.ndarray, "m v"]
    pictures: Float[np.ndarray, "m x"]
    places: Int[np.ndarray, " m"]
    chosen: Bool[np.ndarray, " n"]


def draw_basis(parts: Iterable[Features], limit: int) -> Basis:
    """Keeps all images, or ``limit`` of them drawn at random in one pass.

    Reservoir sampling (Vitter, ACM TOMS 11(1), 1985, algorithm R): which images are kept depends
    on their order and number, not on how they come in batches.

    Args:
      parts: features of all images, in order.
      limit: most images that are kept, 2 or more.

    Raises:
      ValueError: fewer than two images.
    """
    rng = np.random.default_rng(DRAW_SEED)
    vectors: list[np.ndarray] = []
    pictures: list[np.ndarray] = []
    places: list[int] = []
    seen = 0
    for part in parts:
        for vector, picture in zip(
            np.asarray(part.vectors), np.asarray(part.pictures), strict=True
        ):
            if len(places) < limit:
                # Copied: a row of the part would keep all of the part in memory.
                vectors.append(vector.copy())
                pictures.append(picture.copy())
                places.append(seen)
            elif (place := int(rng.integers(seen + 1))) < limit:
                vectors[place][:], pictures[place][:], places[place] = vector, picture, seen
            seen += 1
    if seen < 2:
        raise ValueError(f"the fit needs at least 2 training images, it was given {seen}")
    chosen = np.zeros(seen, bool)
    chosen[places] = True
    return Basis(np.stack(vectors), np.stack(pictures), np.array(places), chosen)


class Scale(NamedTuple):
    """Mean of every position, and standard deviation of every channel."""

    mean: Float[np.ndarray, " v"]
    deviation: Float[np.ndarray, " v"]


def standardise(vectors: Float[np.ndarray, "m v"], layout: Layout, *, per_position: bool) -> Scale:
    """Brings the features of good images to unit scale, in place.

    Args:
      vectors: changed.
      layout: of the vectors.
      per_position: the mean is that of each position, else that of each channel.

    Returns:
      What was subtracted, and what it was divided by then: the deviation of a channel is that over
      all images and positions, from its mean over both.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    square = np.zeros_like(mean)
    for row in vectors:
        square += np.square(row, dtype=np.float64)
    square /= len(vectors)
    means, deviations, begin = [], [], 0
    for rows, columns, channels in layout.stages:
        part = slice(begin, begin + rows * columns * channels)
        of_channel = mean[part].reshape(-1, channels).mean(axis=0)
        variance = square[part].reshape(-1, channels).mean(axis=0) - np.square(of_channel)
        means.append(of_channel)
        # The vectors are divided by the root of the number of positions; their deviation is not.
        deviations.append(np.sqrt(np.maximum(variance, TINY) * rows * columns))
        begin = part.stop
    if not per_position:
        mean = layout.spread(np.concatenate(means))
    deviation = layout.spread(np.concatenate(deviations)).astype(np.float32)
    mean = mean.astype(np.float32)
    vectors -= mean
    vectors /= deviation
    return Scale(mean, deviation)


class Axes(NamedTuple):
    """Ridge reconstruction by ``k`` axes, and what it leaves on the images of the basis.

    Attributes:
      axes: ``v_j``, orthonormal rows.
      shrinkage: ``e_j / (e_j + ridge s)``.
      mixture: ``u_j' / sqrt(e_j)``: the axes as combinations of the images of the basis.
      leave_one_out: ``(I - H) / diag(I - H)``; times ``B`` it gives the residuals.
    """

    axes: Float[Array, "k v"]
    shrinkage: Float[np.ndarray, " k"]
    mixture: Float[np.ndarray, "k m"]
    leave_one_out: Float[np.ndarray, "m m"]


class Ridge(NamedTuple):
    """Ridge regression of centred rows on each other.

    Attributes:
      values: ``e_j``, those that float32 knows; none where the mean alone is fitted.
      vectors: ``u_j``, as columns.
      shrinkage: ``e_j / (e_j + ridge s)``.
      leave_one_out: ``(I - H) / diag(I - H)``.
    """

    values: Float[np.ndarray, " i"]
    vectors: Float[np.ndarray, "m i"]
    shrinkage: Float[np.ndarray, " i"]
    leave_one_out: Float[np.ndarray, "m m"]


def ridge_of(gram: Float[np.ndarray, "m m"], *, ridge: float, mean_alone: bool = False) -> Ridge:
    """The ridge regression of rows on each other, by their Gram matrix.

    Args:
      gram: of rows whose mean is 0.
      ridge: lambda, in units of the mean squared norm of a row.
      mean_alone: whether no axis is fitted.
    """
    m = len(gram)
    # float64 on the host: small eigenvalues of a large Gram matrix drown in float32.
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    size = max(float(np.trace(gram)) / m, TINY)
    known = min(m - 1, int(np.sum(values > SMALLEST_SHARE * max(values[0], TINY))))
    known = 0 if mean_alone else known
    values, vectors = values[:known], vectors[:, :known]
    shrinkage = values / (values + ridge * size)
    mean_kept = MEAN_WEIGHT * m / (ridge + MEAN_WEIGHT * m)
    left = np.eye(m) - (vectors * shrinkage) @ vectors.T - mean_kept / m
    return Ridge(values, vectors, shrinkage, left / np.maximum(np.diag(left), TINY)[:, None])


def ridge_axes(rows: Float[Array, "m v"], *, components: int, ridge: float) -> Axes:
    """Axes and leave-one-out weights of the ridge reconstruction by centred rows.

    Args:
      rows: ``B``, whose mean is 0.
      components: most axes; all that the rows span where they are fewer. 0: the mean alone.
      ridge: lambda, in units of the mean squared norm of a row.
    """
    whole = ridge_of(gram_matrix(rows), ridge=ridge, mean_alone=not components)
    k = min(components, len(whole.values))
    mixture = (whole.vectors[:, :k] / np.sqrt(whole.values[:k])).T
    return Axes(
        axes=_matmul(jnp.asarray(mixture, jnp.float32), rows),
        shrinkage=whole.shrinkage[:k],
        mixture=mixture,
        leave_one_out=whole.leave_one_out,
    )


def gram_matrix(rows: Float[Array, "m v"]) -> Float[np.ndarray, "m m"]:
    """Products of the rows, each pair's."""
    return np.asarray(_matmul_transposed(rows, rows), np.float64)


@jax.jit
def _matmul(a: Float[Array, "i j"], b: Float[Array, "j k"]) -> Float[Array, "i k"]:
    return jnp.matmul(a, b, precision=MATMUL_PRECISION)


@jax.jit
def _matmul_transposed(a: Float[Array, "i k"], b: Float[Array, "j k"]) -> Float[Array, "i j"]:
    return jnp.matmul(a, b.T, precision=MATMUL_PRECISION)


def reconstruct(
    rows: Float[Array, "b v"], axes: Float[Array, "k v"], shrinkage: Float[Array, " k"]
) -> tuple[Float[Array, "b v"], Float[Array, "b k"]]:
    """The ridge reconstruction of standardised rows, and its codes after shrinkage."""
    codes = codes_of(rows, axes, shrinkage)
    return back_from(codes, axes), codes.T


# Neither product transposes the axes: XLA would copy all of them for every batch, which takes a CPU
# longer than everything else for one image.


def codes_of(
    rows: Float[Array, "b v"], axes: Float[Array, "k v"], shrinkage: Float[Array, " k"]
) -> Float[Array, "k b"]:
    """The codes of standardised rows after shrinkage, as columns."""
    return shrinkage[:, None] * jax.lax.dot_general(
        axes, rows, (((1,), (1,)), ((), ())), precision=MATMUL_PRECISION
    )


def back_from(codes: Float[Array, "k b"], axes: Float[Array, "k v"]) -> Float[Array, "b v"]:
    """What codes stand for; of some columns of the axes, those values of it."""
    return jax.lax.dot_general(codes, axes, (((0,), (0,)), ((), ())), precision=MATMUL_PRECISION)


def left_out_residuals(axes: Axes, rows: Float[Array, "m v"]) -> Iterator[Float[Array, "b v"]]:
    """What the reconstruction leaves on images of the basis, each fitted by the others.

    Args:
      axes: of the rows.
      rows: of the basis.

    Yields:
      As many at a time each time, for which their moments are compiled once: rows of zeros follow
      the last image.
    """
    missing = -len(axes.leave_one_out) % ROWS_AT_ONCE
    yield from mixtures(np.pad(axes.leave_one_out, ((0, missing), (0, 0))), rows)


def mixtures(
    weights: Float[np.ndarray, "i m"], rows: Float[Array, "m v"], *, at_once: int = ROWS_AT_ONCE
) -> Iterator[Float[Array, "b v"]]:
    """``weights @ rows``, some at a time."""
    for begin in range(0, len(weights), at_once):
        yield _matmul(jnp.asarray(weights[begin : begin + at_once], jnp.float32), rows)
