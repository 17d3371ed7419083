"""Gaussian mixtures against quadrature, scipy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn.mixture import GaussianMixture

from jaxad.ops import mixture_density as md


def rng(seed=0):
    return np.random.default_rng(seed)


def diagonal_mixture(k, d, seed=0):
    """logits (k,), means (k, d), log-variances (k, d)."""
    draw = rng(seed)
    return (
        np.float32(draw.normal(size=k)),
        np.float32(2 * draw.normal(size=(k, d))),
        np.float32(draw.normal(size=(k, d))),
    )


def full_mixture(k, d, seed=0):
    """logits (k,), means (k, d), Cholesky factors (k, d, d)."""
    draw = rng(seed)
    factors = np.tril(draw.normal(size=(k, d, d)), -1) + np.eye(d) * draw.uniform(0.3, 2, (k, d, 1))
    return (
        np.float32(draw.normal(size=k)),
        np.float32(2 * draw.normal(size=(k, d))),
        np.float32(factors),
    )


def scipy_mixture(y, logits, means, covariances):
    weights = special.softmax(np.float64(logits))
    parts = [
        stats.multivariate_normal.logpdf(y, mean, covariance)
        for mean, covariance in zip(np.float64(means), np.float64(covariances), strict=True)
    ]
    return special.logsumexp(np.stack(parts, -1), b=weights, axis=-1)


def diagonal(y, logits, means, log_variances):
    return md.log_likelihood(logits, md.diagonal_log_densities(y, means, log_variances))


def full(y, logits, means, cholesky):
    return md.log_likelihood(logits, md.full_log_densities(y, means, cholesky))


# --- densities --------------------------------------------------------------------------------


def test_a_density_on_the_line_integrates_to_one():
    """The trapezoid rule is exact to rounding for gaussians that the grid resolves."""
    y = np.linspace(-30, 30, 20001, dtype=np.float32)
    density = jnp.exp(diagonal(y[:, None], *diagonal_mixture(5, 1)))
    assert float(np.trapezoid(np.float64(density), np.float64(y))) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_a_density_on_the_plane_integrates_to_one(kind):
    axis = np.linspace(-16, 16, 801)
    y = np.float32(np.stack(np.meshgrid(axis, axis), -1))
    log_density = (
        diagonal(y, *diagonal_mixture(3, 2)) if kind == "diagonal" else full(y, *full_mixture(3, 2))
    )
    density = np.exp(np.float64(log_density))
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("k", "d"), [(1, 1), (4, 3), (150, 6)])
def test_densities_equal_scipy(k, d):
    y = np.float32(3 * rng(1).normal(size=(20, d)))
    logits, means, log_variances = diagonal_mixture(k, d)
    expected = scipy_mixture(
        y, logits, means, [np.diag(v) for v in np.exp(np.float64(log_variances))]
    )
    # Sums of d float32 terms of some hundred nats.
    np.testing.assert_allclose(diagonal(y, logits, means, log_variances), expected, rtol=2e-5)
    logits, means, factors = full_mixture(k, d)
    wide = np.float64(factors)
    expected = scipy_mixture(y, logits, means, wide @ np.swapaxes(wide, 1, 2))
    # The condition of the factors multiplies float32's rounding.
    np.testing.assert_allclose(full(y, logits, means, factors), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_log_likelihoods_equal_scikit_learn(kind):
    draw = rng(3)
    data = np.concatenate([draw.normal(m, s, (200, 3)) for m, s in ((0, 1), (4, 0.3), (-3, 2))])
    mixture = GaussianMixture(3, covariance_type=kind, random_state=0).fit(data)
    y = np.float32(data)
    if kind == "diag":
        parts = md.diagonal_log_densities(
            y, jnp.float32(mixture.means_), jnp.log(jnp.float32(mixture.covariances_))
        )
    else:
        parts = md.full_log_densities(
            y, jnp.float32(mixture.means_), jnp.linalg.cholesky(jnp.float32(mixture.covariances_))
        )
    logits = jnp.log(jnp.float32(mixture.weights_))
    ours = md.log_likelihood(logits, parts)
    np.testing.assert_allclose(ours, mixture.score_samples(y), rtol=1e-4, atol=1e-4)
    shares = md.responsibilities(logits, parts)
    np.testing.assert_allclose(shares, mixture.predict_proba(y), atol=2e-4)


def test_full_equals_diagonal_for_diagonal_factors():
    y = np.float32(rng(1).normal(size=(7, 4)))
    logits, means, log_variances = diagonal_mixture(5, 4)
    factors = jnp.exp(0.5 * log_variances)[..., None] * jnp.eye(4)[None]
    np.testing.assert_allclose(
        full(y, logits, means, factors), diagonal(y, logits, means, log_variances), rtol=1e-5
    )


def test_each_vector_may_have_its_own_mixture_and_leading_axes_are_free():
    y = np.float32(rng(1).normal(size=(2, 3, 4)))
    draw = rng(2)
    logits, means, log_variances = (
        np.float32(draw.normal(size=s)) for s in ((2, 3, 5), (2, 3, 5, 4), (2, 3, 5, 4))
    )
    whole = diagonal(y, logits, means, log_variances)
    assert whole.shape == (2, 3)
    one = diagonal(y[1, 2], logits[1, 2], means[1, 2], log_variances[1, 2])
    np.testing.assert_allclose(whole[1, 2], one, rtol=1e-6)


def test_logits_need_not_be_normalised():
    y = np.float32(rng(1).normal(size=(7, 4)))
    logits, means, log_variances = diagonal_mixture(5, 4)
    np.testing.assert_allclose(
        diagonal(y, logits + 7, means, log_variances),
        diagonal(y, logits, means, log_variances),
        rtol=1e-5,
    )


def test_bfloat16_is_computed_in_float32():
    y = jnp.bfloat16(rng(1).normal(size=(7, 4)))
    logits, means, log_variances = map(jnp.bfloat16, diagonal_mixture(5, 4))
    ours = diagonal(y, logits, means, log_variances)
    assert ours.dtype == jnp.float32
    wide = [jnp.float32(p) for p in (logits, means, log_variances)]
    np.testing.assert_allclose(ours, diagonal(jnp.float32(y), *wide), rtol=1e-6)


# --- the quantity of the published code -------------------------------------------------------


def test_the_published_quantity_equals_its_formula_and_is_no_likelihood():
    """sum_k pi_k 1/2 [log 2 pi + sum_d (s + (y - mu)^2 / exp(s))], s = softplus(raw) >= 0."""
    y = np.float32(rng(1).normal(size=(9, 6)))
    logits, means, raw = diagonal_mixture(4, 6)
    s = np.float64(jax.nn.softplus(raw))
    weights = special.softmax(np.float64(logits))
    squared = np.square(np.float64(y)[:, None] - means[None])
    component = 0.5 * (np.log(2 * np.pi) + np.sum(s[None] + squared / np.exp(s)[None], -1))
    parts = md.diagonal_log_densities(y, means, jnp.float32(s))
    ours = md.expected_component_nll(logits, parts, dimensions=6)
    np.testing.assert_allclose(ours, component @ weights, rtol=2e-6)
    # Jensen: with all of its constant it bounds the negative log-likelihood from above.
    bound = np.asarray(ours) + 0.5 * 5 * np.log(2 * np.pi)
    nll = -np.asarray(md.log_likelihood(logits, parts))
    assert np.all(bound > nll + 0.1)


# --- responsibilities -------------------------------------------------------------------------


def test_responsibilities_sum_to_one_however_far_the_vector():
    y = np.float32(rng(1).normal(size=(6, 3)) * 10.0 ** np.arange(-2, 10, 2)[:, None])
    logits, means, log_variances = diagonal_mixture(5, 3)
    shares = md.responsibilities(logits, md.diagonal_log_densities(y, means, log_variances))
    np.testing.assert_allclose(jnp.sum(shares, -1), 1.0, rtol=1e-6)
    assert float(shares.min()) >= 0


# --- where float32 ends -----------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.0, 1.0, 1e6, 1e20])
@pytest.mark.parametrize("log_variance", [-200.0, -60.0, 0.0, 60.0, 200.0])
def test_gradients_are_finite_for_tiny_variances_and_far_vectors(distance, log_variance):
    y = jnp.full((2, 3), distance)
    means, log_variances = jnp.zeros((4, 3)), jnp.full((4, 3), log_variance)
    value, gradients = jax.value_and_grad(lambda *p: jnp.sum(diagonal(*p)), (0, 1, 2, 3))(
        y, jnp.zeros(4), means, log_variances
    )
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))


def test_gradients_equal_finite_differences_of_scipy():
    y = np.float32(rng(1).normal(size=(2,)))
    logits, means, log_variances = diagonal_mixture(3, 2)

    def value(shift):
        covariances = [np.diag(v) for v in np.exp(np.float64(log_variances))]
        return scipy_mixture(y + shift, logits, means, covariances)

    gradient = jax.grad(diagonal)(y, logits, means, log_variances)
    step = 1e-5
    expected = [(value(step * unit) - value(-step * unit)) / (2 * step) for unit in np.eye(2)]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


# --- parameters from a network's outputs ------------------------------------------------------


@pytest.mark.parametrize("floor", [0.0, 1e-36, 1e-30, 1e-8, 1e-4, 0.04, 1.0])
def test_log_variances_of_softplus_equal_float64_and_keep_their_floor(floor):
    raw = np.float32([*np.linspace(-60, 60, 101), 1e9, 1e17])
    variance = np.square(np.logaddexp(0, np.float64(raw))) + floor
    ours = md.log_variance_of_softplus(raw, floor=floor)
    np.testing.assert_allclose(ours, np.log(variance), rtol=1e-5, atol=1e-6)
    gradient = jax.vmap(jax.grad(lambda r: md.log_variance_of_softplus(r, floor=floor)))(raw)
    wide = np.float64(raw)
    # By hand: the derivative of softplus is the logistic function.
    expected = 2 * np.logaddexp(0, wide) / (1 + np.exp(-wide)) / variance
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    farther = jax.value_and_grad(lambda r: md.log_variance_of_softplus(r, floor=floor))
    for extreme in np.float32([-1e38, -1e20, 1e20, 1e38]):
        assert np.all(np.isfinite(farther(extreme)))
    if floor:  # to the rounding of float32, whose steps are 8e-6 at log(1e-36)
        assert float(ours.min()) >= np.log(floor) - 1e-6 * max(1.0, abs(np.log(floor)))


def test_cholesky_factors_are_triangular_with_a_floor():
    raw = np.float32(3 * rng(0).normal(size=(5, 2, 6)))
    without_floor = md.cholesky_of_raw(raw, dimensions=3, floor=0.0)
    np.testing.assert_array_equal(md.cholesky_of_raw(raw, dimensions=3), without_floor)
    factors = np.asarray(md.cholesky_of_raw(raw, dimensions=3, floor=0.25))
    assert factors.shape == (5, 2, 3, 3)
    assert np.all(np.triu(factors, 1) == 0)
    diagonal_part = np.diagonal(factors, axis1=-2, axis2=-1)
    expected = np.sqrt(np.square(np.logaddexp(0, raw[..., [0, 2, 5]])) + 0.25)
    np.testing.assert_allclose(diagonal_part, expected, rtol=1e-5)
    np.testing.assert_array_equal(factors[..., 2, :2], raw[..., 3:5])


# --- memory -----------------------------------------------------------------------------------


def test_memory_grows_with_n_k_d_and_not_with_d_squared():
    """The gradient's peak beside its arguments: two cotangents and three products."""
    n, k, d = 16, 10, 256
    shapes = [(n, d), (n, k), (n, k, d), (n, k, d)]
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    gradient = jax.jit(jax.grad(lambda *p: -jnp.sum(diagonal(*p)), (0, 1, 2, 3)))
    memory = gradient.lower(*arguments).compile().memory_analysis()
    block = 4 * n * k * d
    assert memory.output_size_in_bytes + memory.temp_size_in_bytes < 5.5 * block
