"""The continuous Bernoulli distribution: the likelihood of pixels in [0, 1].

Loaiza-Ganem and Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in
variational autoencoders". With parameter lambda = sigmoid(l), l the logit, its density is::

    p(x) = C(lambda) lambda^x (1 - lambda)^(1 - x),   C = 2 artanh(1 - 2 lambda) / (1 - 2 lambda)
         = exp(l (x - 1/2)) (l/2) / sinh(l/2)         on [0, 1]

Everything here is a function of the logit, because lambda rounds to 0 or 1 where logits still
differ: values and gradients are finite and accurate at every finite logit. From lambda itself,
pass ``jax.scipy.special.logit(lambda)``. Around l = 0, where the closed forms are
0/0, they are replaced by their Taylor series; both agree to 1e-12 where they meet.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxad.ops.arrays import AnyArray, at_least_float32

# |logit| below which the series is used. With terms up to the tenth power its remainder here is
# 1e-14, and the closed forms have lost less than a digit to cancellation.
_SERIES_RADIUS = 0.5


def log_likelihood(x: Float[AnyArray, "*s"], logits: Float[AnyArray, "*s"]) -> Float[Array, "*s"]:
    """Returns the log-density of every value, ``x l - softplus(l) + log C``.

    Args:
      x: values in [0, 1].
      logits: logits of lambda, any finite values.

    Returns:
      Log-densities in nats, not summed, in at least float32. They are not bounded by 0.
    """
    near_zero, small, large = _split(logits)
    x = at_least_float32(x)
    inner = small * (x - 0.5) + _log_x_over_sinh(0.5 * small)
    # The density falls from its bound, reached at x = 0 or 1, at rate |l|: no large terms cancel.
    distance = jnp.where(large > 0, 1.0 - x, x)
    outer = _log_density_bound(large) - jnp.abs(large) * distance
    return jnp.where(near_zero, inner, outer)


def mean(logits: Float[AnyArray, "*s"], *, clip: float | None = None) -> Float[Array, "*s"]:
    """Returns the expectation: the reconstruction to show and to compare, rather than lambda.

    mu = lambda / (2 lambda - 1) + 1 / (2 artanh(1 - 2 lambda)) = (1 + coth(l/2)) / 2 - 1/l

    Args:
      logits: logits of lambda, any finite values.
      clip: limits lambda to [clip, 1 - clip] first, as published code does: with 1e-5 the means
        stay in [0.0868, 0.9132], so that black and white are never reproduced. None: no limit.

    Returns:
      Means in (0, 1), in at least float32.

    Raises:
      ValueError: if clip is not between 0 and 1/2.
    """
    if clip is not None:
        if not 0.0 < clip < 0.5:
            raise ValueError(f"The limit of lambda is between 0 and 0.5, not {clip}.")
        bound = float(np.log1p(-clip) - np.log(clip))
        logits = jnp.clip(at_least_float32(logits), -bound, bound)
    near_zero, small, large = _split(logits)
    inner = 0.5 + 0.5 * _coth_minus_inverse(0.5 * small)
    distance = jnp.abs(large)
    decay = jnp.exp(-distance)
    # The mean for the negative logit of this size; the distribution is symmetric.
    low = 1.0 / distance + decay / jnp.expm1(-distance)
    outer = jnp.where(large > 0, 1.0 - low, low)
    return jnp.where(near_zero, inner, outer)


def _split(logits: AnyArray) -> tuple[Array, Array, Array]:
    """Returns (is near zero, logits for the series, logits for the closed form).

    Each branch of a `where` is evaluated everywhere, and so is its gradient: where a branch is
    not taken it gets a harmless value instead of one that gives NaN or overflows.
    """
    logits = at_least_float32(logits)
    near_zero = jnp.abs(logits) < _SERIES_RADIUS
    return near_zero, jnp.where(near_zero, logits, 0.0), jnp.where(near_zero, 1.0, logits)


def _log_density_bound(logits: Array) -> Array:
    """Returns log(|l| / (1 - exp(-|l|))), the largest log-density, away from logit 0."""
    distance = jnp.abs(logits)
    return jnp.log(distance) - jnp.log(-jnp.expm1(-distance))


def _log_x_over_sinh(x: Array) -> Array:
    """Returns log(x / sinh(x)) for small x by its series."""
    s = jnp.square(x)
    return -s * (1 / 6 - s * (1 / 180 - s * (1 / 2835 - s * (1 / 37800 - s / 467775))))


def _coth_minus_inverse(x: Array) -> Array:
    """Returns coth(x) - 1/x for small x by its series."""
    s = jnp.square(x)
    return x * (1 / 3 - s * (1 / 45 - s * (2 / 945 - s * (1 / 4725 - s * (2 / 93555)))))
