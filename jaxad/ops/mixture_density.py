"""Gaussian mixtures as the output of a network: densities, responsibilities.

Bishop 1994, "Mixture density networks". The density of a vector y of length d is::

    p(y) = sum_k w_k N(y; mu_k, Sigma_k),        w = softmax(logits)

A network that maps x to (logits, mu, Sigma) makes it the conditional density p(y | x). Training
minimises ``-log p(y)``. Mishra et al. 2021 (VT-ADL) print, as their equation 8, an arg min under a
minus sign of a sum of log-likelihoods: taken literally it would make normal data unlikely. The
maximum of the likelihood is meant; :func:`log_likelihood` computes the log-likelihood itself.

Covariances are diagonal (logarithms of variances) or full (Cholesky factors L, Sigma = L L^T).
Everything is float32 or wider inside, whatever comes in.

Memory: with n vectors the parameters of a diagonal mixture are 2 n k d numbers. Computing a density
adds no array of that size. Its gradient adds two cotangents and three products: 7 n k d numbers at
the peak (measured on a CPU) for any d, and no array of ``(n, k, d, d)``. Full covariances are
``(n, k, d, d)``, so they are for small d.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxad.ops.arrays import AnyArray, at_least_float32, in_common_dtype

LOG_2PI = math.log(2.0 * math.pi)

LARGEST_LOG_VARIANCE = 64.0
"""Log-variances are cut to plus or minus this: standard deviations from 1e-14 to 8e13."""

LARGEST_DISTANCE = 1e12
"""Distances are cut to this many standard deviations per dimension, so that nothing overflows."""

_FLOOR_OF_SQUARES = 1e-30
"""Below this floor the square of a softplus may matter where float32 has none."""
_LARGEST_SCALE = 1e18
"""Of standard deviations that are squared; beyond :data:`LARGEST_LOG_VARIANCE`."""


def diagonal_log_densities(
    y: Float[AnyArray, "*n d"],
    means: Float[AnyArray, "*m k d"],
    log_variances: Float[AnyArray, "*m k d"],
) -> Float[Array, "*n k"]:
    """Log-density of every component with a diagonal covariance.

    Args:
      y: vectors.
      means: of the components; ``*m`` broadcasts against ``*n``, so ``(k, d)`` is one mixture for
        all vectors.
      log_variances: natural logarithms of the variances.

    Returns:
      ``log N(y; mu_k, diag(exp(log_variances_k)))``. Beyond :data:`LARGEST_DISTANCE` standard
      deviations it is constant and its gradient zero, rather than infinite and not a number.
    """
    y, means, log_variances = in_common_dtype(y, means, log_variances)
    means, log_variances = (_lift(p, y.ndim + 1) for p in (means, log_variances))
    log_variances = jnp.clip(log_variances, -LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
    # Scaled before it is squared: a variance's inverse overflows where its root's does not.
    distance = (y[..., None, :] - means) * jnp.exp(-0.5 * log_variances)
    distance = jnp.clip(distance, -LARGEST_DISTANCE, LARGEST_DISTANCE)
    return -0.5 * jnp.sum(LOG_2PI + log_variances + jnp.square(distance), axis=-1)


def full_log_densities(
    y: Float[AnyArray, "*n d"],
    means: Float[AnyArray, "*m k d"],
    cholesky: Float[AnyArray, "*m k d d"],
) -> Float[Array, "*n k"]:
    """Log-density of every component with a full covariance.

    Args:
      y: vectors.
      means: of the components; ``*m`` broadcasts against ``*n`` as for a diagonal covariance.
      cholesky: lower-triangular L with a positive diagonal, ``Sigma = L L^T``; what is above its
        diagonal is not read.

    Returns:
      ``log N(y; mu_k, L_k L_k^T)``.
    """
    y, means, cholesky = in_common_dtype(y, means, cholesky)
    means, cholesky = _lift(means, y.ndim + 1), _lift(cholesky, y.ndim + 2)
    difference = y[..., None, :] - means
    shape = jnp.broadcast_shapes(cholesky.shape[:-1], difference.shape)
    cholesky = jnp.broadcast_to(cholesky, (*shape, shape[-1]))
    difference = jnp.broadcast_to(difference, shape)
    whitened = lax.linalg.triangular_solve(
        cholesky, difference[..., None], left_side=True, lower=True
    )[..., 0]
    whitened = jnp.clip(whitened, -LARGEST_DISTANCE, LARGEST_DISTANCE)
    diagonal = jnp.diagonal(cholesky, axis1=-2, axis2=-1)
    return -0.5 * jnp.sum(LOG_2PI + 2.0 * jnp.log(diagonal) + jnp.square(whitened), axis=-1)


def log_likelihood(
    logits: Float[AnyArray, "*m k"], log_densities: Float[AnyArray, "*n k"]
) -> Float[Array, "*n"]:
    """``log sum_k softmax(logits)_k exp(log_densities_k)``, the mixture's log-density.

    Args:
      logits: of the weights; logarithms of normalised weights will do.
      log_densities: of the components.
    """
    return jax.nn.logsumexp(_joint(logits, log_densities), axis=-1)


def responsibilities(
    logits: Float[AnyArray, "*m k"], log_densities: Float[AnyArray, "*n k"]
) -> Float[Array, "*n k"]:
    """Probability of each component given the vector: sums to 1 over k, however far it lies."""
    return jax.nn.softmax(_joint(logits, log_densities), axis=-1)


def expected_component_nll(
    logits: Float[AnyArray, "*m k"], log_densities: Float[AnyArray, "*n k"], *, dimensions: int
) -> Float[Array, "*n"]:
    """What the public code of VT-ADL minimises instead of the likelihood.

    The weighted sum of the components' negative log-likelihoods, with the constant ``log 2 pi``
    counted once and not ``dimensions`` times. With the constant in full it is, by Jensen's
    inequality, an upper bound of ``-log_likelihood``; it is not the likelihood of any density.
    There the variances come from a softplus taken as their logarithm, so they are at least 1.

    Args:
      logits: of the weights.
      log_densities: of the components, in full as the other functions give them.
      dimensions: length d of the vectors.
    """
    log_densities = at_least_float32(log_densities)
    weights = jax.nn.softmax(_lift(at_least_float32(logits), log_densities.ndim), axis=-1)
    return -jnp.sum(weights * log_densities, axis=-1) - 0.5 * (dimensions - 1) * LOG_2PI


def log_variance_of_softplus(
    raw: Float[AnyArray, "*n"], *, floor: float = 0.0
) -> Float[Array, "*n"]:
    """``log(softplus(raw)^2 + floor)``: standard deviations by softplus, as VT-ADL's equation 6.

    Args:
      raw: a network's output.
      floor: added to the variance. With 0 the variance may fall towards zero, and a likelihood
        that has a component at the target itself then grows without bound.

    Returns:
      The logarithms; with a floor of 1e-30 or more they end at those of deviations of 1e18.
    """
    raw = at_least_float32(raw)
    if floor >= _FLOOR_OF_SQUARES:
        # Where the square of a softplus would be zero, or infinite, it changes no density.
        return jnp.log(jnp.square(jnp.minimum(jax.nn.softplus(raw), _LARGEST_SCALE)) + floor)
    # Below -20 the softplus is exp(raw) to float32, and its logarithm would be that of zero.
    inner = jnp.maximum(raw, -20.0)
    log_scale = jnp.where(raw < -20.0, raw, jnp.log(jax.nn.softplus(inner)))
    if floor <= 0.0:
        return 2.0 * log_scale
    return jnp.logaddexp(2.0 * log_scale, jnp.full_like(raw, math.log(floor)))


def cholesky_of_raw(
    raw: Float[AnyArray, "*n p"], *, dimensions: int, floor: float = 0.0
) -> Float[Array, "*n d d"]:
    """Cholesky factors from unconstrained numbers, ``p = d (d + 1) / 2``.

    Args:
      raw: the rows of the lower triangle one after the other.
      dimensions: d.
      floor: added to the squared diagonal, which is ``softplus(raw)^2`` without it: the variance
        of each dimension given those before it is at least this.
    """
    rows, columns = np.tril_indices(dimensions)
    raw = at_least_float32(raw)
    log_variances = log_variance_of_softplus(raw, floor=floor)
    diagonal = jnp.exp(0.5 * jnp.clip(log_variances, -LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE))
    on_diagonal = jnp.asarray(rows == columns).reshape((1,) * (raw.ndim - 1) + (-1,))
    factors = jnp.zeros((*raw.shape[:-1], dimensions, dimensions), raw.dtype)
    return factors.at[..., rows, columns].set(jnp.where(on_diagonal, diagonal, raw))


def _joint(logits: AnyArray, log_densities: AnyArray) -> Array:
    """Logarithm of weight times density."""
    logits, log_densities = in_common_dtype(logits, log_densities)
    return jax.nn.log_softmax(_lift(logits, log_densities.ndim), axis=-1) + log_densities


def _lift(array: Array, ndim: int) -> Array:
    """The array with axes of 1 in front, to this many axes."""
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)
