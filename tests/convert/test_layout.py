"""Layout rules against closed forms and their inverses."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxad.convert import layout
from jaxad.convert.layout import Rule

RULES = {name: rule for name, rule in vars(layout).items() if isinstance(rule, Rule)}
SHAPES = {
    "CONV": [(5, 3, 4, 2)],
    "LINEAR": [(5, 3)],
    "SPLIT_QKV": [(6, 4)] * 3,
    "SPLIT_QKV_BIAS": [(6,)] * 3,
    "VECTOR": [(7,)],
    "TOKENS": [(1, 5, 4)],
}


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_undone_by_its_inverse(name, to_torch):
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape) for shape in SHAPES[name]]
    back = to_torch(RULES[name], RULES[name].to_flax(*arrays))
    assert len(back) == len(arrays)
    for array, again in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(again, array)
        assert array.ndim == RULES[name].rank


def test_a_linear_layer_multiplies_from_the_left():
    weight, x = random(5, 3), random(2, 3)
    np.testing.assert_allclose(x @ layout.linear_to_flax(weight), np.einsum("oi,bi->bo", weight, x))


def test_a_convolution_is_pytorchs_sum():
    """out[o, y, x] = sum_ihw weight[o, i, h, w] image[i, s y + h, s x + w], written out."""
    weight, image, stride = random(4, 3, 3, 2), random(3, 8, 7), 2
    expected = np.zeros((3, 3, 4))
    for y in range(3):
        for x in range(3):
            window = image[:, stride * y : stride * y + 3, stride * x : stride * x + 2]
            expected[y, x] = np.einsum("oihw,ihw->o", weight, window)
    layer = nn.Conv(4, (3, 2), strides=stride, padding="VALID", use_bias=False)
    kernel = jnp.asarray(layout.conv_to_flax(weight))
    found = layer.apply({"params": {"kernel": kernel}}, image.transpose(1, 2, 0)[None])
    # float32 sums of 18 products
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_joined_projections_are_the_three_side_by_side():
    x, (q, k, v) = random(2, 4), (random(6, 4) + i for i in range(3))
    joined = x @ layout.qkv_weights_to_flax(q, k, v)
    np.testing.assert_allclose(
        joined, np.concatenate([x @ q.T, x @ k.T, x @ v.T], axis=1), rtol=1e-5
    )
