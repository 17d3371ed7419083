"""Covariances of the residuals of good images, pooled or of each position, and how they whiten.

The residuals are those of :mod:`jaxad.models.layers.feature_fit`, on the finest grid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxad.models.layers.feature_fit import MATMUL_PRECISION, TINY, Layout
from jaxad.models.layers.influence import Influence, alone, without_influence
from jaxad.ops.arrays import AnyArray


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


@functools.partial(jax.jit, static_argnames=("layout", "channels"), donate_argnums=0)
def _add_moments(
    totals: tuple[Float[Array, "d d"], Float[Array, "p q q"]],
    residuals: Float[Array, "b v"],
    layout: Layout,
    channels: tuple[int, ...],
) -> tuple[Float[Array, "d d"], Float[Array, "p q q"]]:
    pooled = totals[0] + pooled_products(residuals, layout)
    if not channels:
        return pooled, totals[1]
    some = layout.some_on_finest_grid(residuals, channels)
    each = jnp.einsum("bpi,bpj->pij", some, some, precision=MATMUL_PRECISION)
    return pooled, totals[1] + each


def pooled_products(residuals: Float[Array, "b v"], layout: Layout) -> Float[Array, "d d"]:
    """The outer products of residuals on the finest grid, summed over images, mean over positions.

    Linear interpolation of a stage is a matrix, ``A_s``, so those of two stages are
    ``x_s' (A_s' A_t) x_t``, a sum over the positions of the coarser one. Of EfficientNet-Lite0's
    stages that is an eighteenth of the products on the finest grid.

    Args:
      residuals: of standardised vectors.
      layout: of the vectors.

    Returns:
      (d, d), symmetric, channels in the order of the layout's stages.
    """
    rows, columns = layout.grid
    maps = layout.to_maps(residuals)
    # Interpolation takes rows and columns each by itself.
    along = [
        tuple(
            jax.image.resize(jnp.eye(own), (size, own), "linear")
            for size, own in zip((rows, columns), stage[:2], strict=True)
        )
        for stage in layout.stages
    ]
    product = functools.partial(jnp.einsum, precision=MATMUL_PRECISION)
    blocks: dict[tuple[int, int], Array] = {}
    by_size = sorted(range(len(maps)), key=lambda s: -math.prod(layout.stages[s][:2]))
    for i, fine in enumerate(by_size):
        for coarse in by_size[i:]:
            there = [
                product("pi,pj->ij", c, f) for c, f in zip(along[coarse], along[fine], strict=True)
            ]
            moved = product("ih,jw,bhwd->bijd", *there, maps[fine])
            block = product("bijd,bije->de", moved, maps[coarse]) / (rows * columns)
            blocks[fine, coarse], blocks[coarse, fine] = block, block.T
    stages = range(len(maps))
    return jnp.block([[blocks[s, t] for t in stages] for s in stages])


def moments_of(
    residuals: Iterable[Float[Array, "_ v"]],
    layout: Layout,
    channels: tuple[int, ...],
    *,
    count: int,
) -> Moments:
    """Second moments of residuals.

    Args:
      residuals: of standardised vectors; rows of zeros do not matter.
      layout: of the vectors.
      channels: whose covariance at each position is wanted, in ascending order; may be none.
      count: of images.
    """
    d, q = layout.channels, len(channels)
    totals = (jnp.zeros((d, d)), jnp.zeros((math.prod(layout.grid), q, q)))
    for part in residuals:
        totals = _add_moments(totals, part, layout, channels)
    return Moments(count, np.asarray(totals[0], np.float64) / count, np.asarray(totals[1]))


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
    moments: Moments, channels: tuple[int, ...], *, weight: float, floor: float
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
    # In place, since these are the largest arrays of the fit.
    covariances = moments.per_position * np.float32(weight / (moments.images - 1))
    covariances += shared[None].astype(np.float32)
    return covariances


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


def with_plain(
    squares: Float[Array, "b p"],
    residuals: Float[Array, "b p d"],
    level: Float[Array, ""],
    share: float,
) -> Float[Array, "b p"]:
    """The geometric mean of whitened squares and plain ones, both about 1 on good images.

    Args:
      squares: of whitened residuals, a mean over channels.
      residuals: as they are.
      level: mean square of those of good images that were left out.
      share: weight of the plain ones.
    """
    plain = jnp.mean(jnp.square(residuals), axis=-1) / level
    return jnp.power(squares, 1.0 - share) * jnp.power(plain, share)


@jax.jit
def left_out_log_likelihoods(
    told: Influence, factors: Float[Array, "p q q"], weight: Float[Array, ""]
) -> Float[Array, " b"]:
    """Of images under normal densities that were estimated without each, up to a constant.

    Args:
      told: what the images did to the covariances, (b, p, q); their own residuals are judged.
      factors: inverse Cholesky factors of the covariances with them.
      weight: of the sum of outer products of all residuals in the covariances.
    """
    own, mixed = (whiten_positions(rows, factors) for rows in (told.own, told.mixed))
    squares, factor = without_influence(own, Influence(own, mixed, told.square), weight)
    log_determinant = -2.0 * jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)), axis=-1)
    return -0.5 * jnp.mean(squares + log_determinant[None] + jnp.log(factor), axis=1)


def prefers_positions(
    told: Iterable[Influence],
    layout: Layout,
    moments: Moments,
    channels: tuple[int, ...],
    factors: Float[Array, "p q q"],
    *,
    weight: float,
    floor: float,
) -> bool:
    """Whether good images are likelier under covariances of positions than under the pooled one.

    Every image is judged by covariances that were estimated without it, so that images which only
    know themselves by heart decide nothing.

    Args:
      told: what good images did to the moments.
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
    in_covariances = jnp.float32(weight / (moments.images - 1))
    gains = [_gains(part, layout, channels, pooled, factors, in_covariances) for part in told]
    return float(np.mean(np.concatenate(gains))) > 0.0


@functools.partial(jax.jit, static_argnames=("layout", "channels"))
def _gains(
    told: Influence,
    layout: Layout,
    channels: tuple[int, ...],
    pooled: Float[Array, "1 q q"],
    factors: Float[Array, "p q q"],
    weight: Float[Array, ""],
) -> Float[Array, " b"]:
    """By how much images are likelier under covariances of positions than under the pooled one.

    Args:
      told: what these images did to the moments.
      layout: of the vectors.
      channels: of the covariances.
      pooled: the inverse Cholesky factor of the covariance of all positions.
      factors: those of every position.
      weight: of the sum of outer products of all residuals in the covariances of positions.
    """
    own, mixed = (layout.some_on_finest_grid(rows, channels) for rows in told[:2])
    # All positions have the pooled one: each is as an image of one position.
    alike = left_out_log_likelihoods(
        alone(own.reshape(-1, 1, len(channels))), pooled, jnp.float32(0.0)
    )
    by_position = left_out_log_likelihoods(Influence(own, mixed, told.square), factors, weight)
    return by_position - jnp.mean(alike.reshape(len(own), -1), axis=1)
