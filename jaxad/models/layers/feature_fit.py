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
import functools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxad.ops.arrays import AnyArray

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
            part = vectors[:, begin:end].reshape(-1, rows, columns, channels)
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

    def spread(self, per_channel: Float[np.ndarray, " d"]) -> Float[np.ndarray, " v"]:
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
      chosen: for every image that was seen, whether it is one of them.
    """

    vectors: Float[np.ndarray, "m v"]
    pictures: Float[np.ndarray, "m x"]
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
                vectors.append(vector)
                pictures.append(picture)
                places.append(seen)
            elif (place := int(rng.integers(seen + 1))) < limit:
                vectors[place], pictures[place], places[place] = vector, picture, seen
            seen += 1
    if seen < 2:
        raise ValueError(f"feature_pca needs at least 2 training images, it was given {seen}")
    chosen = np.zeros(seen, bool)
    chosen[places] = True
    return Basis(np.stack(vectors), np.stack(pictures), chosen)


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


def ridge_axes(rows: Float[Array, "m v"], *, components: int, ridge: float) -> Axes:
    """Axes and leave-one-out weights of the ridge reconstruction by centred rows.

    Args:
      rows: ``B``, whose mean is 0.
      components: most axes; all that the rows span where they are fewer. 0: the mean alone.
      ridge: lambda, in units of the mean squared norm of a row.
    """
    m = rows.shape[0]
    gram = np.asarray(_matmul_transposed(rows, rows), np.float64)
    # float64 on the host: small eigenvalues of a large Gram matrix drown in float32.
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    size = max(float(np.trace(gram)) / m, TINY)
    known = min(m - 1, int(np.sum(values > SMALLEST_SHARE * max(values[0], TINY))))
    known = known if components else 0
    values, vectors = values[:known], vectors[:, :known]
    shrinkage = values / (values + ridge * size)
    mean_kept = MEAN_WEIGHT * m / (ridge + MEAN_WEIGHT * m)
    left = np.eye(m) - (vectors * shrinkage) @ vectors.T - mean_kept / m
    k = min(components, known)
    mixture = (vectors[:, :k] / np.sqrt(values[:k])).T
    return Axes(
        axes=_matmul(jnp.asarray(mixture, jnp.float32), rows),
        shrinkage=shrinkage[:k],
        mixture=mixture,
        leave_one_out=left / np.maximum(np.diag(left), TINY)[:, None],
    )


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
    # Written so that neither product transposes the axes: XLA would copy all of them for every
    # batch, which takes a CPU longer than everything else for one image.
    codes = shrinkage[:, None] * jax.lax.dot_general(
        axes, rows, (((1,), (1,)), ((), ())), precision=MATMUL_PRECISION
    )
    back = jax.lax.dot_general(codes, axes, (((0,), (0,)), ((), ())), precision=MATMUL_PRECISION)
    return back, codes.T


class Moments(NamedTuple):
    """Second moments of residuals, about 0.

    Attributes:
      images: how many.
      pooled: of all channels, a mean over images and positions.
      per_position: of some channels, a sum over images.
    """

    images: int
    pooled: Float[np.ndarray, "d d"]
    per_position: Float[np.ndarray, "p q q"]


@functools.partial(jax.jit, static_argnames="layout")
def _add_moments(
    totals: tuple[Float[Array, "d d"], Float[Array, "p q q"]],
    residuals: Float[Array, "b v"],
    channels: Int[Array, " q"],
    layout: Layout,
) -> tuple[Float[Array, "d d"], Float[Array, "p q q"]]:
    fine = layout.on_finest_grid(residuals)
    flat = fine.reshape(-1, layout.channels)
    some = fine[:, :, channels]
    pooled = jnp.matmul(flat.T, flat, precision=MATMUL_PRECISION)
    each = jnp.einsum("bpi,bpj->pij", some, some, precision=MATMUL_PRECISION)
    return totals[0] + pooled / fine.shape[1], totals[1] + each


def moments_of(
    residuals: Iterable[Float[Array, "_ v"]],
    layout: Layout,
    channels: Int[np.ndarray, " q"],
    *,
    count: int,
) -> Moments:
    """Second moments of residuals.

    Args:
      residuals: of standardised vectors; rows of zeros do not matter.
      layout: of the vectors.
      channels: whose covariance at each position is wanted; may be none.
      count: of images.
    """
    d, q = layout.channels, len(channels)
    totals = (jnp.zeros((d, d)), jnp.zeros((math.prod(layout.grid), q, q)))
    for part in residuals:
        totals = _add_moments(totals, part, jnp.asarray(channels), layout)
    return Moments(
        count, np.asarray(totals[0], np.float64) / count, np.asarray(totals[1], np.float64)
    )


def whitening(covariance: Float[np.ndarray, "d d"], *, floor: float) -> Float[np.ndarray, "d d"]:
    """``W`` such that ``W' r`` has the identity as its covariance, as columns of one scale each.

    Args:
      covariance: of ``r``.
      floor: added to every eigenvalue, in units of their mean.
    """
    values, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(np.maximum(values, 0.0) + floor * np.mean(values) + TINY)


def outside_subspace(covariance: Float[np.ndarray, "d d"], *, share: float) -> np.ndarray:
    """Projects on what is left out by the fewest leading axes that hold a share of the variance."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(values), share * np.sum(values))) + 1
    return vectors * (np.arange(len(values)) >= kept)


def position_covariances(
    moments: Moments, channels: Int[np.ndarray, " q"], *, weight: float, floor: float
) -> Float[np.ndarray, "p q q"]:
    """``weight S_p + (1 - weight) S + floor I``: of each position, shrunk to the pooled one.

    Args:
      moments: of the residuals.
      channels: of the covariances.
      weight: of the position's own, ``S_p``, which divides by one less than the images.
      floor: in units of the mean variance.
    """
    pooled = moments.pooled[np.ix_(channels, channels)]
    q = len(channels)
    shared = (1 - weight) * pooled + (floor * np.trace(pooled) / q + TINY) * np.eye(q)
    return weight / (moments.images - 1) * moments.per_position + shared[None]


@jax.jit
def inverse_factors(covariances: Float[AnyArray, "p q q"]) -> Float[Array, "p q q"]:
    """The inverse of each lower Cholesky factor: ``|F r|^2`` is the Mahalanobis distance of r."""
    lower = jnp.linalg.cholesky(jnp.asarray(covariances, jnp.float32))
    one = jnp.broadcast_to(jnp.eye(lower.shape[-1]), lower.shape)
    return jax.scipy.linalg.solve_triangular(lower, one, lower=True)


def whiten_positions(
    residuals: Float[Array, "b p q"], factors: Float[Array, "p q q"]
) -> Float[Array, "b p q"]:
    """``F_p r`` at every position."""
    return jnp.einsum("pij,bpj->bpi", factors, residuals, precision=MATMUL_PRECISION)


@jax.jit
def left_out_log_likelihoods(
    residuals: Float[Array, "b p q"],
    factors: Float[Array, "p q q"],
    removed: Float[Array, ""],
) -> Float[Array, " b"]:
    """Of images under normal densities that were estimated without each, up to a constant.

    Taking r r' with a factor ``removed`` out of a covariance divides the Mahalanobis distance m by
    ``1 - removed m`` (Sherman, Morrison) and multiplies the determinant by the same.
    """
    white = whiten_positions(residuals, factors)
    m = jnp.sum(jnp.square(white), axis=-1)
    left = jnp.maximum(1.0 - removed * m, TINY)
    log_determinant = -2.0 * jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)), axis=-1)
    return -0.5 * jnp.mean(m / left + log_determinant[None] + jnp.log(left), axis=1)


def prefers_positions(
    residuals: Iterable[Float[Array, "_ v"]],
    layout: Layout,
    moments: Moments,
    channels: Int[np.ndarray, " q"],
    factors: Float[Array, "p q q"],
    *,
    weight: float,
    floor: float,
) -> bool:
    """Whether good images are likelier under covariances of positions than under the pooled one.

    Every image is judged by covariances that were estimated without it, so that images which only
    know themselves by heart decide nothing.

    Args:
      residuals: of good images that are in the moments.
      layout: of the vectors.
      moments: of the residuals.
      channels: of the covariances.
      factors: of :func:`position_covariances`, inverted.
      weight: of :func:`position_covariances`.
      floor: the same.
    """
    pooled = inverse_factors(
        position_covariances(
            moments._replace(per_position=np.zeros((1, len(channels), len(channels)))),
            channels,
            weight=0.0,
            floor=floor,
        )
    )
    alike = jnp.broadcast_to(pooled, factors.shape)
    removed = jnp.float32(weight / (moments.images - 1))
    gains = []
    for part in residuals:
        some = layout.on_finest_grid(part)[:, :, channels]
        gains.append(
            left_out_log_likelihoods(some, factors, removed)
            - left_out_log_likelihoods(some, alike, jnp.float32(0.0))
        )
    return float(jnp.mean(jnp.concatenate(gains))) > 0.0


def left_out_residuals(
    axes: Axes, rows: Float[Array, "m v"], *, only: Int[np.ndarray, " i"] | None = None
) -> Iterator[Float[Array, "b v"]]:
    """What the reconstruction leaves on images of the basis, each fitted by the others.

    Args:
      axes: of the rows.
      rows: of the basis.
      only: the images wanted; all by default.
    """
    weights = axes.leave_one_out if only is None else axes.leave_one_out[only]
    for begin in range(0, len(weights), ROWS_AT_ONCE):
        yield _matmul(jnp.asarray(weights[begin : begin + ROWS_AT_ONCE], jnp.float32), rows)
