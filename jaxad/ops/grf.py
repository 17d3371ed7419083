"""Stationary zero-mean Gaussian random fields on an h x w torus.

The covariance of two sites depends on their offset only, so that the N x N covariance matrix
Sigma, N = h w, is block-circulant with circulant blocks: its first row, reshaped to (h, w), is
enough, and the Fourier transform diagonalises it (Rue and Held 2005, "Gaussian Markov Random
Fields", section 2.6). That row is the *base* b; the eigenvalues are lambda = F b, F the
unnormalised transform. With real transforms, everything here takes O(N log N) a field::

    log |Sigma|     = sum log lambda                  (Sigma^-1)_ii = mean 1 / lambda
    x' Sigma^-1 x   = sum |F x|^2 / (N lambda)        Sigma^-1 x    = F^-1 (F x / lambda)

The way through is ``covariance_base`` -> ``eigenvalues`` -> anything else. Fields are
``b h w c``, each channel a field of its own; bases and eigenvalues are (h, w), shared by all
channels, or (h, w, c). Ranges are in lattice units, the distance of two neighbours. All is
evaluated in float32 or wider, whatever the input, and differentiable in range and variance.

Positive definiteness. A covariance of the plane evaluated at the distances of a torus
(``wrap="nearest"``, what the published VAE-GRF code does) may have negative eigenvalues once the
range is not small against the torus. The smallest of Matern 3/2 is -0.46 on 32 x 32 at range 4 and
-0.241 on 8 x 8 at range 1.3, that of the gaussian -6.4e-7 on 32 x 32 at range 4, and the
exponential has none there. ``wrap="sum"`` has none, at any range. ``eigenvalues`` raises what is
left below ``floor * variance`` to that value: the nearest matrix without smaller ones, in Frobenius
norm. This adds to the variance, which becomes ``mean(eigenvalues)``. ``smallest_eigenvalue`` tells
whether it was needed.

Precision. In float32 an eigenvalue has an error of up to 1e-7 times the largest one, which is
about 6 pi range^2 variance for Matern 3/2: on 32 x 32 the smallest has 4 digits at range 2, 2 at
range 4. A prior that is not learned can have its eigenvalues from float64, under
``jax.enable_x64``, and all the rest in float32 loses nothing.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxad.ops.arrays import AnyArray, at_least_float32

Wrap = Literal["nearest", "sum"]
Family = Literal["exponential", "matern32", "matern32_sqrt3", "matern52", "gaussian", "identity"]
FAMILIES: tuple[Family, ...] = get_args(Family)
"""Names of the correlations."""

# Of the variance. Below it float32 has no digit left even for moderate ranges. The smallest
# eigenvalue of Matern 3/2 at the longest range published code allows, 1.25 on 32 x 32, is 2e-2.
FLOOR = 1e-6

# Ranges below are taken for it: neighbours have a covariance of exp(-64) < 1e-16 by then, and the
# gradient, zero in effect, would overflow on its way.
_SHORTEST_RANGE = 1 / 64

# wrap="sum": copies on each side along the longer axis, and the decay, as an exponent, beyond them.
_COPIES = 4
_CUT_OFF = 20.0


def torus_distances(shape: tuple[int, int]) -> Float[Array, "h w"]:
    """Returns the Euclidean distance of every site to site (0, 0), the shorter way round.

    Args:
      shape: (h, w), any sizes from 1.

    Returns:
      sqrt(min(i, h - i)^2 + min(j, w - j)^2).
    """
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    return jnp.asarray(np.hypot(rows[:, None], columns[None, :]), jnp.result_type(float))


def covariance_base(
    shape: tuple[int, int],
    family: Family,
    range_: Float[AnyArray, "*#c"] | float,
    variance: Float[AnyArray, "*#c"] | float = 1.0,
    *,
    wrap: Wrap = "nearest",
) -> Float[Array, "h w *c"]:
    """Returns the covariance of every site with site (0, 0): the first row of Sigma.

    With d the distance and r the range, correlations in the plane are::

        exponential      exp(-d/r), Matern 1/2
        matern32         (1 + d/r) exp(-d/r), as in the VAE-GRF code: no root of 3
        matern32_sqrt3   the same at sqrt(3) d/r, the usual definition
        matern52         (1 + u + u^2/3) exp(-u), u = sqrt(5) d/r, the usual definition
        gaussian         exp(-(d/r)^2), no one half
        identity         1 at site (0, 0), 0 elsewhere; range and *variance* are ignored, as in
                         the VAE-GRF code: the field is standard normal noise

    Args:
      shape: (h, w), any sizes from 1.
      family: one of ``FAMILIES``.
      range_: positive, in lattice units: a scalar, or (c,) for a field per channel. Below 1/64 it
        is taken for 1/64, which is white noise already.
      variance: positive, a scalar or (c,).
      wrap: ``"nearest"`` evaluates the correlation at the distance on the torus. ``"sum"`` adds
        it up over the copies of each site in the plane, and divides by the sum at site (0, 0), so
        that the variance stays ``variance``. The copies reach 4.5 times the longer side, which
        takes some 25 evaluations a site, and as many a channel for vectors. What they leave out
        is below 1e-6 as long as the correlation decays to exp(-20) by there (Matern 3/2: range
        up to 0.22 sides). For longer ranges it is first multiplied by a gaussian that makes it
        do so, which keeps it positive definite; ranges of several sides, when a field is all but
        constant, are then hardly told apart. For every family and range no eigenvalue is below
        -1e-9 N ``variance``, the part that was cut off, which float32 cannot see.

    Returns:
      (h, w), or (h, w, c) if range or variance are vectors.

    Raises:
      ValueError: if the family or wrap is unknown, a size is below 1, or a range or variance that
        is a Python number is not positive.
    """
    _check(shape, family, range_, variance, wrap)
    dtype = jnp.promote_types(jnp.result_type(range_, variance, 1.0), jnp.float32)
    range_, variance = jnp.asarray(range_, dtype), jnp.asarray(variance, dtype)
    h, w = shape
    channels = jnp.broadcast_shapes(range_.shape, variance.shape)
    if family == "identity":
        return jnp.zeros((h, w, *channels), dtype).at[0, 0].set(1.0)
    range_ = jnp.maximum(jnp.broadcast_to(range_, channels), _SHORTEST_RANGE)
    # The base is even along each axis: one quarter of it, mirrored, is enough.
    if wrap == "nearest":
        distances = torus_distances(shape)[: h // 2 + 1, : w // 2 + 1]
        quarter = _correlation(distances.astype(dtype), family, range_)
    else:
        quarter = _sum_of_copies(shape, family, range_)
        quarter = quarter / quarter[:1, :1]
    rows = jnp.concatenate([quarter, quarter[1 : (h + 1) // 2][::-1]], axis=0)
    base = jnp.concatenate([rows, rows[:, 1 : (w + 1) // 2][:, ::-1]], axis=1)
    return base * jnp.broadcast_to(variance, channels)[None, None]


def length_of_unit_range(family: Family) -> float:
    """Returns the distance at which the correlation falls to 1/e, in units of the range.

    1 for exponential and gaussian, 2.146 for matern32.

    Raises:
      ValueError: for the identity, which has no range.
    """
    if family == "identity":
        raise ValueError("The identity correlation has no range, and so no length.")
    distances = np.linspace(0.0, 4.0, 4001)
    values = np.asarray(_correlation(jnp.asarray(distances), family, jnp.ones(())))
    return float(np.interp(math.exp(-1), values[::-1], distances[::-1]))


def raw_eigenvalues(base: Float[AnyArray, "h w *c"]) -> Float[Array, "h w *c"]:
    """Returns F b, negative values included.

    Args:
      base: covariances with site (0, 0), such that b[i, j] = b[-i, -j].

    Returns:
      Eigenvalue [k, l] belongs to the frequency (k / h, l / w); they sum to N times the variance.
    """
    w = base.shape[1]
    half = jnp.fft.rfft2(at_least_float32(base), axes=(0, 1)).real
    opposite = half[:, 1 : (w + 1) // 2][:, ::-1]
    opposite = jnp.concatenate([opposite[:1], opposite[1:][::-1]], axis=0)
    return jnp.concatenate([half, opposite], axis=1)


def eigenvalues(base: Float[AnyArray, "h w *c"], *, floor: float = FLOOR) -> Float[Array, "h w *c"]:
    """Returns the eigenvalues of the nearest covariance matrix that is positive definite.

    Args:
      base: covariances with site (0, 0), as of ``covariance_base``.
      floor: smallest eigenvalue allowed, as a fraction of the variance b[0, 0].

    Returns:
      ``max(F b, floor * variance)``; gradients are finite, and those with respect to the range
      vanish where the floor holds.
    """
    return jnp.maximum(raw_eigenvalues(base), floor * at_least_float32(base)[:1, :1])


def smallest_eigenvalue(base: Float[AnyArray, "h w *c"]) -> Float[Array, "*c"]:
    """Returns the smallest raw eigenvalue over the variance: negative if b is no covariance."""
    return jnp.min(raw_eigenvalues(base), axis=(0, 1)) / at_least_float32(base)[0, 0]


def log_determinant(eigenvalues: Float[AnyArray, "h w *c"]) -> Float[Array, "*c"]:
    """Returns the logarithm of the determinant of Sigma."""
    return jnp.sum(jnp.log(eigenvalues), axis=(0, 1))


def precision_diagonal(eigenvalues: Float[AnyArray, "h w *c"]) -> Float[Array, "*c"]:
    """Returns a diagonal entry of Sigma^-1; all are equal, 1 / conditional variance."""
    return jnp.mean(1.0 / eigenvalues, axis=(0, 1))


def quadratic_form(
    x: Float[AnyArray, "b h w c"], eigenvalues: Float[AnyArray, "h w *c"]
) -> Float[Array, "b c"]:
    """Returns x' Sigma^-1 x of every field: one transform forward, and one for its gradient."""
    h, w = x.shape[1:3]
    columns = w // 2 + 1
    precision = 1.0 / _per_channel(x, eigenvalues)[:, :columns]
    # The half spectrum: columns whose mirror image is left out count twice.
    count = np.full(columns, 2.0 / (h * w), precision.dtype)
    count[0] = 1.0 / (h * w)
    if w % 2 == 0:
        count[-1] = 1.0 / (h * w)
    transform = jnp.fft.rfft2(at_least_float32(x), axes=(1, 2))
    power = jnp.square(transform.real) + jnp.square(transform.imag)
    return jnp.sum(power * (count[None, :, None] * precision)[None], axis=(1, 2))


def log_density(
    x: Float[AnyArray, "b h w c"], eigenvalues: Float[AnyArray, "h w *c"]
) -> Float[Array, "b c"]:
    """Returns the log-density of every field in nats, summed over its sites."""
    sites = x.shape[1] * x.shape[2]
    constant = sites * math.log(2 * math.pi) + log_determinant(_per_channel(x, eigenvalues))
    return -0.5 * (quadratic_form(x, eigenvalues) + constant[None])


def sample(
    key: Array, shape: tuple[int, int, int, int], eigenvalues: Float[AnyArray, "h w *c"]
) -> Float[Array, "b h w c"]:
    """Draws fields exactly: Sigma^(1/2) times white noise, by two transforms.

    Args:
      key: of ``jax.random``.
      shape: (b, h, w, c) of the fields; channels are independent.
      eigenvalues: as of ``eigenvalues``. Samples are differentiable in them.

    Returns:
      Fields of the dtype of the eigenvalues, which is float32 at least.
    """
    noise = jax.random.normal(key, shape, at_least_float32(eigenvalues).dtype)
    return _filter(noise, jnp.sqrt(_per_channel(noise, eigenvalues)))


def kl_divergence(
    mean: Float[AnyArray, "b h w c"],
    log_variance: Float[AnyArray, "b h w c"],
    eigenvalues: Float[AnyArray, "h w *c"],
) -> Float[Array, "b c"]:
    """Returns KL(N(mean, diag(exp(log_variance))) || N(0, Sigma)) of every field.

    In closed form it is::

        1/2 [ m' Sigma^-1 m + p sum v - sum log v + log |Sigma| - N ],     p = (Sigma^-1)_ii
      = 1/2 [ m' Sigma^-1 m + sum (exp a - 1 - a) + N log p + log |Sigma| ],   a = log v + log p

    The second form is evaluated. Its terms are not negative, so nothing large cancels: the mean;
    the variances, least at v = 1/p; and what independent sites pay for correlated ones. With
    eigenvalues of 1 it is the divergence from the standard normal distribution.

    Returns:
      Nats, summed over sites: the term of a true evidence lower bound, once summed over channels.
    """
    sites = mean.shape[1] * mean.shape[2]
    eigenvalues = _per_channel(mean, eigenvalues)
    log_precision = jnp.log(precision_diagonal(eigenvalues))
    excess = at_least_float32(log_variance) + log_precision[None, None, None]
    variances = jnp.sum(jnp.expm1(excess) - excess, axis=(1, 2))
    correlation = sites * log_precision + log_determinant(eigenvalues)
    return 0.5 * (quadratic_form(mean, eigenvalues) + variances + correlation[None])


def kl_shares(
    mean: Float[AnyArray, "b h w c"],
    log_variance: Float[AnyArray, "b h w c"],
    eigenvalues: Float[AnyArray, "h w *c"],
) -> Float[Array, "b h w c"]:
    """Returns what every site contributes to :func:`kl_divergence`, in nats.

    Of the quadratic form, site i has ``m_i (Sigma^-1 m)_i``, which may be negative where its
    neighbours explain it; of the constants, each site has the same.
    """
    eigenvalues = _per_channel(mean, eigenvalues)
    log_precision = jnp.log(precision_diagonal(eigenvalues))
    excess = at_least_float32(log_variance) + log_precision[None, None, None]
    constant = log_precision + log_determinant(eigenvalues) / (mean.shape[1] * mean.shape[2])
    quadratic = at_least_float32(mean) * _filter(mean, 1.0 / eigenvalues)
    return 0.5 * (quadratic + jnp.expm1(excess) - excess + constant[None, None, None])


def _per_channel(x: AnyArray, eigenvalues: AnyArray) -> Array:
    """Returns the eigenvalues as (h, w, 1 or c), once they are known to fit the fields."""
    fits = x.ndim == 4 and eigenvalues.shape[:2] == x.shape[1:3]
    if not fits or eigenvalues.shape[2:] not in ((), (1,), x.shape[3:]):
        raise ValueError(
            f"Fields of shape {x.shape} (b, h, w, c) and eigenvalues of shape {eigenvalues.shape} "
            "do not fit: eigenvalues are (h, w) or (h, w, c)."
        )
    return at_least_float32(eigenvalues).reshape(*x.shape[1:3], -1)


def _filter(x: AnyArray, response: Array) -> Array:
    """Multiplies the spectrum of x (b, h, w, c) with a real response (h, w, 1 or c)."""
    transform = jnp.fft.rfft2(at_least_float32(x), axes=(1, 2))
    transform = transform * response[None, :, : transform.shape[2]]
    return jnp.fft.irfft2(transform, s=x.shape[1:3], axes=(1, 2))


def _decay(u: Array, family: Family) -> Array:
    """Returns t such that the correlation at u = distance / range is polynomial(t) exp(-t)."""
    if family == "gaussian":
        return jnp.square(u)
    return u * {"matern32_sqrt3": math.sqrt(3.0), "matern52": math.sqrt(5.0)}.get(family, 1.0)


def _correlation(
    distances: Array, family: Family, range_: Array, reach: float | None = None
) -> Array:
    """Returns the correlation (*distances, *range_), all but 0 beyond ``reach`` if there is one."""
    distances = distances.reshape(*distances.shape, *[1] * range_.ndim)
    range_ = range_.reshape(*[1] * (distances.ndim - range_.ndim), *range_.shape)
    t = _decay(distances / range_, family)
    exponent = t
    if reach is not None:
        # The product with a gaussian, a covariance itself, is a covariance for every range.
        missing = jnp.maximum(_CUT_OFF - _decay(reach / range_, family), 0.0)
        exponent = t + missing * jnp.square(distances / reach)
    if family in ("matern32", "matern32_sqrt3"):
        return (1.0 + t) * jnp.exp(-exponent)
    if family == "matern52":
        return (1.0 + t + jnp.square(t) / 3.0) * jnp.exp(-exponent)
    return jnp.exp(-exponent)


def _sum_of_copies(shape: tuple[int, int], family: Family, range_: Array) -> Array:
    """Returns the correlation summed over periodic copies, for the first quarter of the torus."""
    reach = (_COPIES + 0.5) * max(shape)
    squares = []
    for side in shape:
        copies = math.ceil(reach / side - 0.5)
        offsets = np.arange(side // 2 + 1)[:, None] + side * np.arange(-copies, copies + 1)[None]
        squares.append(jnp.asarray(np.square(offsets), range_.dtype))
    distances = jnp.sqrt(squares[0][:, :, None, None] + squares[1][None, None])
    values = _correlation(distances, family, range_, reach)
    return jnp.sum(values, axis=(1, 3))


def _check(shape, family, range_, variance, wrap) -> None:
    if family not in FAMILIES:
        raise ValueError(f"The family {family!r} is unknown; there are {', '.join(FAMILIES)}.")
    if wrap not in ("nearest", "sum"):
        raise ValueError(f"wrap is 'nearest' or 'sum', not {wrap!r}.")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"The torus has a shape (h, w) of sizes from 1, not {shape}.")
    for name, value in (("range", range_), ("variance", variance)):
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"The {name} of a field is positive, not {value}.")
