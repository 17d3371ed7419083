"""Continuous Bernoulli against numerical integration and the paper's formulas in float64."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logit
from scipy import integrate

from jaxad.ops import continuous_bernoulli as cb

LOGITS = np.array([-50, -8, -1.3, -0.5, -0.2, -1e-3, 0, 1e-3, 0.3, 0.49, 0.51, 2, 11.5, 50])
# Around the place where series and closed form meet.
JOINT = np.array([0.5 - 1e-7, 0.5 + 1e-7, -0.5 + 1e-7, -0.5 - 1e-7])


def log_c(lam):
    """The paper's normaliser, and its fourth-order series near one half."""
    if abs(lam - 0.5) < 1e-3:
        return np.log(2) + 4 / 3 * (lam - 0.5) ** 2 + 104 / 45 * (lam - 0.5) ** 4
    return np.log(2 * np.arctanh(1 - 2 * lam) / (1 - 2 * lam))


def paper_mean(lam):
    if abs(lam - 0.5) < 1e-3:
        return 0.5 + (lam - 0.5) / 3 + 16 / 45 * (lam - 0.5) ** 3
    return lam / (2 * lam - 1) + 1 / (2 * np.arctanh(1 - 2 * lam))


def log_normaliser(logits):
    """log C by the likelihood of 0, which is C (1 - lambda)."""
    return cb.log_likelihood(jnp.zeros_like(logits), logits) + jax.nn.softplus(
        logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    )


@pytest.mark.parametrize("lam", [0.001, 0.2, 0.3775, 0.49, 0.4999, 0.5, 0.5003, 0.51, 0.7, 0.9999])
def test_equals_the_formulas_in_lambda(lam):
    with jax.enable_x64(True):
        logits = logit(jnp.float64(lam))
        np.testing.assert_allclose(log_normaliser(logits), log_c(lam), rtol=1e-11)
        np.testing.assert_allclose(cb.mean(logits), paper_mean(lam), rtol=1e-11)
        for x in (0.0, 0.37, 1.0):
            expected = x * np.log(lam) + (1 - x) * np.log1p(-lam) + log_c(lam)
            actual = cb.log_likelihood(jnp.float64(x), logits)
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)
        single = jnp.float32(logits)
    # float32, from the logit, for 1 - lambda has lost digits: some roundings of terms up to 10.
    np.testing.assert_allclose(log_normaliser(single), log_c(lam), atol=1e-6)
    np.testing.assert_allclose(cb.mean(single), paper_mean(lam), atol=5e-7)


@pytest.mark.parametrize("l", LOGITS)
def test_density_integrates_to_one_and_to_its_mean(l):
    with jax.enable_x64(True):
        density = jax.jit(lambda x: jnp.exp(cb.log_likelihood(x, jnp.float64(l))))
        total = integrate.quad(lambda x: float(density(x)), 0, 1, epsabs=1e-11)[0]
        first = integrate.quad(lambda x: x * float(density(x)), 0, 1, epsabs=1e-11)[0]
        np.testing.assert_allclose(total, 1.0, rtol=1e-10)
        np.testing.assert_allclose(cb.mean(jnp.float64(l)), first, rtol=1e-10)


@pytest.mark.parametrize("l", [*LOGITS, *JOINT])
@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_score_is_the_value_minus_the_mean(l, x):
    """d log p / d logit = x - mean, an identity of exponential families."""
    gradient = jax.grad(cb.log_likelihood, argnums=1)
    np.testing.assert_allclose(
        gradient(jnp.float32(x), jnp.float32(l)), x - cb.mean(jnp.float32(l)), atol=5e-7
    )
    np.testing.assert_allclose(jax.grad(cb.log_likelihood)(jnp.float32(x), jnp.float32(l)), l)
    with jax.enable_x64(True):
        actual = gradient(jnp.float64(x), jnp.float64(l))
        np.testing.assert_allclose(actual, x - cb.mean(jnp.float64(l)), atol=2e-12)


@pytest.mark.parametrize("function", [log_normaliser, cb.mean])
@pytest.mark.parametrize("l", [*LOGITS, *JOINT])
def test_gradients_match_finite_differences(function, l):
    with jax.enable_x64(True):
        step = 1e-5
        difference = (function(jnp.float64(l + step)) - function(jnp.float64(l - step))) / (
            2 * step
        )
        gradient = jax.grad(function)(jnp.float64(l))
        # Rounding of the difference, 1e-16 / step, and its second-order error.
        np.testing.assert_allclose(gradient, difference, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(jax.grad(function)(jnp.float32(l)), gradient, rtol=1e-4, atol=3e-7)


def test_series_and_closed_form_meet():
    x = jnp.float32(0.3)
    below = jnp.nextafter(jnp.float32(0.5), jnp.float32(0))
    for function in (log_normaliser, cb.mean, lambda l: cb.log_likelihood(x, l)):
        for derivative in (function, jax.grad(function)):
            np.testing.assert_allclose(derivative(below), derivative(jnp.float32(0.5)), atol=5e-7)


@pytest.mark.parametrize("l", [0.0, 100.0, -100.0, 1e4, -1e4, 3e38, -3e38])
def test_values_and_gradients_are_finite_at_every_finite_logit(l):
    l = jnp.float32(l)
    for x in (0.0, 0.5, 1.0):
        for value in jax.value_and_grad(cb.log_likelihood, argnums=1)(jnp.float32(x), l):
            assert np.isfinite(value)
    for function in (log_normaliser, cb.mean):
        for value in jax.value_and_grad(function)(l):
            assert np.isfinite(value)
    assert 0.0 <= cb.mean(l) <= 1.0


def test_no_digits_are_lost_at_large_logits():
    # p(1) = l / (1 - exp(-l)): ten thousand times the density's height, with nothing cancelled.
    actual = cb.log_likelihood(jnp.float32(1.0), jnp.float32(1e4))
    np.testing.assert_allclose(actual, np.log(1e4), rtol=2e-7)
    np.testing.assert_allclose(cb.mean(jnp.float32(-1e4)), 1e-4, rtol=2e-7)


def test_clip_limits_the_mean_as_published_code_does():
    extremes = jnp.array([-1e3, 1e3])
    np.testing.assert_allclose(cb.mean(extremes, clip=1e-5), [0.0868, 0.9132], atol=5e-5)
    np.testing.assert_allclose(cb.mean(extremes, clip=1e-6), [0.0724, 0.9276], atol=5e-5)
    inside = jnp.array([-11.5, -3.0, 0.0, 0.7, 11.5])
    np.testing.assert_array_equal(cb.mean(inside, clip=1e-5), cb.mean(inside))
    np.testing.assert_allclose(cb.mean(extremes), [1e-3, 1 - 1e-3], rtol=1e-6)
    with pytest.raises(ValueError, match="between 0 and"):
        cb.mean(extremes, clip=0.5)


def test_bfloat16_is_evaluated_in_float32():
    logits = jnp.bfloat16([-7.0, 0.1, 3.0])
    x = jnp.bfloat16([0.5, 0.25, 1.0])
    assert cb.log_likelihood(x, logits).dtype == jnp.float32
    np.testing.assert_array_equal(
        cb.log_likelihood(x, logits), cb.log_likelihood(jnp.float32(x), jnp.float32(logits))
    )
    np.testing.assert_array_equal(
        cb.mean(logits, clip=1e-5), cb.mean(jnp.float32(logits), clip=1e-5)
    )
    np.testing.assert_array_equal(log_normaliser(logits), log_normaliser(jnp.float32(logits)))


# --- the functions of the VAE-GRF authors -----------------------------------------------------

# They work with lambda, limited to [1e-6, 1 - 1e-6] for the normaliser and [1e-5, 1 - 1e-5] for the
# mean; where lambda is within [0.49, 0.51] they put 0.49 in its place instead of a series; and they
# add 1e-6 within each logarithm. Here there are no such constants: the logit says it all.
EPSILON = 1e-6


@pytest.fixture(scope="module")
def authors():
    """Arrays of golden/grf.npz, with the parameters that the authors treat apart."""
    with np.load(pathlib.Path(__file__).parent.parent / "golden" / "grf.npz") as file:
        values = {name: file[name] for name in file.files if "/matern" not in name}
    lam = values["lam"]
    values["middle"] = ~((lam < 0.49) | (lam > 0.51))
    values["end"] = (lam <= 1e-5) | (lam >= 1 - 1e-5)
    assert values["middle"].sum() >= 8 and values["end"].sum() >= 8
    return values


def logits_of(lam):
    """In float64, -inf and inf kept finite."""
    lam = np.clip(lam, 1e-300, 1 - 1e-16)
    return jnp.asarray(np.log(lam) - np.log1p(-lam))


@pytest.mark.parametrize("repository", ["vae_grf", "VAE-compare"])
def test_mean_equals_the_authors(repository, authors):
    expected = authors[f"{repository}/mean_from_lambda"]
    with jax.enable_x64(True):
        actual = np.asarray(cb.mean(logits_of(authors["lam"]), clip=1e-5))
        constant = cb.mean(logits_of(np.float64(0.49)))
    middle = authors["middle"]
    np.testing.assert_allclose(actual[~middle], expected[~middle], rtol=1e-10)
    # In the middle theirs is one number, 0.4967, and so off by up to twice its distance from 1/2.
    np.testing.assert_allclose(expected[middle], constant, rtol=1e-10)
    assert np.abs(actual - expected)[middle].max() < 0.0067


@pytest.mark.parametrize("repository", ["vae_grf", "VAE-compare"])
def test_likelihood_equals_the_authors(repository, authors):
    x, lam, middle, end = (authors[name] for name in ("x", "lam", "middle", "end"))
    with jax.enable_x64(True):
        ours = np.asarray(cb.log_likelihood(jnp.asarray(x), logits_of(lam)))
        replaced = np.where(middle, 0.49, np.clip(lam, EPSILON, 1 - EPSILON))
        log_c = np.asarray(log_normaliser(logits_of(replaced)))
    # With their constants put in, it is theirs: mean over pixels of the sum over channels in the
    # newer repository, mean over channels of the sum over pixels in the older one.
    theirs = x * np.log(lam + EPSILON) + (1 - x) * np.log(1 - lam + EPSILON)
    theirs += np.log(np.exp(log_c) + EPSILON)
    reduced = {
        "vae_grf": theirs.mean(axis=(1, 2)).sum(axis=-1),
        "VAE-compare": theirs.sum(axis=(1, 2)).mean(axis=-1),
    }
    np.testing.assert_allclose(reduced[repository], authors[f"{repository}/xent"], rtol=1e-10)
    # What the constants change, in nats a value: in the middle log C(0.49) - log C(1/2) = 1.3e-4;
    # elsewhere first order in 1e-6, over lambda or 1 - lambda; at the ends there is no comparison,
    # for a likelihood of 0 becomes one of 1e-6.
    difference = np.abs(theirs - ours)
    assert 1e-5 < difference[middle].max() < 1.4e-4
    inside = ~middle & ~end
    bound = EPSILON * (x[inside] / lam[inside] + (1 - x[inside]) / (1 - lam[inside]) + 1)
    assert np.all(difference[inside] <= 1.01 * bound)
    assert difference[end].max() > 1
