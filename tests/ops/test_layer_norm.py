"""Layer normalisation against the formula in float64 and its automatic gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops.layer_norm import layer_norm


def plain(x, scale, bias, epsilon):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    normed = centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + epsilon)
    return normed * scale + bias


@pytest.mark.parametrize("epsilon", [1e-12, 1e-6, 1e-2])
def test_value_and_gradients(epsilon):
    keys = jax.random.split(jax.random.key(0), 4)
    x, weights = (jax.random.normal(k, (2, 3, 8)) for k in keys[:2])
    scale, bias = (jax.random.normal(k, (8,)) for k in keys[2:])
    ours, pull = jax.vjp(lambda *a: layer_norm(*a, epsilon), x, scale, bias)
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        exact = [jnp.asarray(a, jnp.float64) for a in (x, scale, bias)]
        theirs, pull_theirs = jax.vjp(lambda *a: plain(*a, epsilon), *exact)
        theirs, gradients = np.asarray(theirs), pull_theirs(jnp.asarray(weights, jnp.float64))
        gradients = [np.asarray(g) for g in gradients]
    np.testing.assert_allclose(ours, theirs, atol=5e-6)
    for actual, expected in zip(pull(weights), gradients, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_small_spread_around_a_large_mean():
    # The mean of squares less the squared mean would lose all digits.
    x = 1000.0 + jnp.asarray([[-1.0, 1.0, -1.0, 1.0]]) / 64
    y = layer_norm(x, jnp.ones(4), jnp.zeros(4), 1e-12)
    np.testing.assert_allclose(y, [[-1, 1, -1, 1]], rtol=1e-5)


def test_constant_vectors_and_bfloat16():
    ones, zeros = jnp.ones(4), jnp.zeros(4)
    gradient = jax.grad(lambda x: jnp.sum(layer_norm(x, ones, zeros, 1e-6) ** 2))
    assert np.isfinite(gradient(jnp.full((2, 4), 3.0))).all()
    rough = jnp.ones((2, 4), jnp.bfloat16)
    assert layer_norm(rough, ones, zeros, 1e-6).dtype == jnp.float32
    assert gradient(rough).dtype == jnp.bfloat16
