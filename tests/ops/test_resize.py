"""Upsampling by repetition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops.resize import repeat_upsample


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 1, 3, 2)])
@pytest.mark.parametrize("factor", [1, 2, np.int64(8)])
def test_equals_a_kronecker_product(shape, factor):
    maps = np.random.default_rng(0).random(shape).astype(np.float32)
    actual = jax.jit(repeat_upsample, static_argnums=1)(maps, factor)
    block = np.ones((1,) * (len(shape) - 2) + (factor, factor), np.float32)
    np.testing.assert_array_equal(actual, np.kron(maps, block))


def test_dtype_is_kept_and_gradients_count_the_copies():
    assert repeat_upsample(jnp.ones((2, 2), bool), 3).dtype == bool
    gradient = jax.grad(lambda x: jnp.sum(repeat_upsample(x, 4)))(jnp.ones((2, 3)))
    np.testing.assert_array_equal(gradient, 16.0)


@pytest.mark.parametrize("factor", [0, -2, 2.0, 1.5, None])
def test_factors_are_whole_numbers(factor):
    with pytest.raises(ValueError, match="whole number"):
        repeat_upsample(jnp.ones((2, 2)), factor)


def test_maps_have_two_axes():
    with pytest.raises(ValueError, match="h, w"):
        repeat_upsample(jnp.ones(3), 2)
