"""The mixture density: the published module, and a likelihood that has no maximum."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxad.models.base import parameter_key
from jaxad.models.layers.mixture_head import MixtureHead
from jaxad.ops import mixture_density


def density_params(values):
    """(d k, d) with the component fastest, to (d, k, d)."""
    by_component = lambda name: values[f"weight/{name}"].reshape(8, 3, 8).transpose(2, 1, 0)
    return {
        "weights": {"kernel": values["weight/pi.weight"].T},
        "means": {"kernel": by_component("mu.weight")},
        "variances": {"kernel": by_component("sigma_sq.weight")},
    }


def test_the_published_density_and_its_gradient_equal_the_published_ones(golden_values):
    values = golden_values("vt_adl", "density")
    head = MixtureHead(3, published=True)
    variables = {"params": density_params(values)}

    def loss(tokens):
        logits, log_densities, log_variances = head.apply(variables, tokens, tokens)
        each = mixture_density.expected_component_nll(logits, log_densities, dimensions=8)
        return jnp.mean(jnp.sum(each, axis=1)), (logits, log_variances, each)

    tokens = jnp.asarray(values["tokens"])
    gradient, (logits, log_variances, each) = jax.jit(jax.grad(loss, has_aux=True))(tokens)
    np.testing.assert_allclose(jax.nn.softmax(logits), values["weights"], rtol=1e-5)
    published = values["log_variances"].swapaxes(-1, -2)
    np.testing.assert_allclose(log_variances, published, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each, values["per_patch"], rtol=1e-5)
    np.testing.assert_allclose(loss(tokens)[0], values["loss"], rtol=1e-5)
    np.testing.assert_allclose(gradient, values["gradient_tokens"], rtol=1e-4, atol=1e-5)
    assert published.min() >= 0, "a softplus taken as logarithm: no variance below 1"


# --- the likelihood that has no maximum -------------------------------------------------------


def best_likelihood(floor, noise, steps=400):
    """Mean negative log-likelihood of fixed tokens given themselves, after training the head."""
    draw = np.random.default_rng(0)
    tokens = jnp.float32(np.abs(draw.normal(size=(4, 8, 4))))
    head = MixtureHead(2, variance_floor=floor)
    params = head.init(parameter_key(0), tokens, tokens)
    optimizer = optax.adam(1e-2)

    def loss(params, key):
        condition = tokens + noise * jax.random.normal(key, tokens.shape)
        logits, log_densities, _ = head.apply(params, condition, tokens)
        return -jnp.mean(mixture_density.log_likelihood(logits, log_densities))

    def step(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    start = (params, optimizer.init(params))
    keys_ = jax.random.split(jax.random.key(1), steps)
    _, values = jax.jit(lambda c: jax.lax.scan(step, c, keys_))(start)
    return np.asarray(values)


def test_without_a_floor_the_likelihood_grows_without_end():
    """Target and condition are one: means copy it, variances fall, and nothing stops them."""
    values = best_likelihood(0.0, 0.0, steps=2000)
    assert np.all(np.isfinite(values))
    best = np.minimum.accumulate(values)
    early, later, last = best[[200, 1000, 1999]]
    # When it falls depends on rounding; that it goes on falling does not.
    assert early - later > 0.5 and later - last > 0.5 and early - last > 6, (early, later, last)


def test_a_floor_bounds_the_likelihood_and_noise_keeps_it_from_the_bound():
    """With every variance at its floor f and the mean at the target: d / 2 log(2 pi f)."""
    bound = 4 / 2 * math.log(2 * math.pi * 0.04)
    still, noisy = best_likelihood(0.04, 0.0), best_likelihood(0.04, 0.2)
    assert bound <= still.min() + 1e-4
    assert still[-50:].mean() < noisy[-50:].mean() - 0.3


def test_eq_8_as_printed_would_make_normal_data_unlikely():
    """An arg min of the log-likelihood drives it down; its negative is what is minimised."""
    y, logits = jnp.zeros((5, 2)), jnp.zeros(1)
    likelihood = lambda mean: jnp.mean(
        mixture_density.log_likelihood(
            logits, mixture_density.diagonal_log_densities(y, mean, jnp.zeros((1, 2)))
        )
    )
    mean = jnp.ones((1, 2))
    gradient = jax.grad(likelihood)(mean)
    assert float(likelihood(mean - 0.1 * gradient)) < float(likelihood(mean)), "as printed"
    assert float(likelihood(mean + 0.1 * gradient)) > float(likelihood(mean)), "what is meant"
