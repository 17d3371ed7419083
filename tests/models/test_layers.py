"""The convolution layers against linen's: same parameters, same outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxad.models.layers import basic as layers

PADDINGS = ["SAME", "VALID", 1, ((1, 2), (0, 1)), (1, 0)]


def both(kind, **options):
    return getattr(layers, kind)(**options), getattr(nn, kind)(**options)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_parameters_and_outputs_equal_linen(kind, padding, dtype):
    ours, linen = both(
        kind,
        features=18,
        kernel_size=(4, 3),
        strides=(2, 2),
        padding=padding,
        dtype=dtype,
        bias_init=nn.initializers.normal(),
    )
    x = jax.random.normal(jax.random.key(1), (2, 6, 7, 3))
    variables = ours.init(jax.random.key(0), x)
    expected = linen.init(jax.random.key(0), x)
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    y, y_linen = ours.apply(variables, x), linen.apply(variables, x)
    assert y.dtype == y_linen.dtype
    # Another order of 36 products; in bfloat16 the last of its 8 bits may differ.
    tolerance = 1e-5 if dtype is None else 2**-6
    np.testing.assert_allclose(
        y.astype(jnp.float32), y_linen.astype(jnp.float32), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_default_initialiser_no_bias_and_strides_of_one(kind):
    ours, linen = both(kind, features=5, kernel_size=(3, 3), use_bias=False)
    x = jax.random.normal(jax.random.key(1), (1, 5, 5, 2))
    variables = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, linen.init(jax.random.key(0), x))
    assert set(variables["params"]) == {"kernel"}
    np.testing.assert_allclose(
        ours.apply(variables, x), linen.apply(variables, x), rtol=1e-5, atol=1e-5
    )


def test_automatic_names_equal_linen():
    class Net(nn.Module):
        library: object

        @nn.compact
        def __call__(self, x):
            x = self.library.Conv(4, (3, 3))(x)
            return self.library.ConvTranspose(3, (4, 4), strides=(2, 2))(x)

    x = jnp.ones((1, 4, 4, 3))
    ours = Net(layers).init(jax.random.key(0), x)
    linen = Net(nn).init(jax.random.key(0), x)
    assert set(ours["params"]) == {"Conv_0", "ConvTranspose_0"}
    jax.tree.map(np.testing.assert_array_equal, ours, linen)


def test_bfloat16_compute_keeps_float32_gradients():
    layer = layers.ConvTranspose(16, (4, 4), strides=2, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
    variables = layer.init(jax.random.key(0), x)
    gradients = jax.grad(lambda v: layer.apply(v, x).astype(jnp.float32).sum())(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
