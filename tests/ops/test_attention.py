"""Attention against the plain formula and its automatic gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops import attention as module
from jaxad.ops.attention import attention


def plain(query, key, value, scale):
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * scale
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)


def draw(b=6, n=5, h=2, d=3):
    return [jax.random.normal(k, (b, n, h, d)) for k in jax.random.split(jax.random.key(0), 4)]


@pytest.mark.parametrize("limit", [0, 500, 2**20])  # one image, two images, all at a time
@pytest.mark.parametrize("scale", [None, 0.3])
def test_value_and_gradients_in_any_number_of_parts(monkeypatch, limit, scale):
    monkeypatch.setattr(module, "SCORE_BYTES", limit)
    assert module._parts(6, 4 * 2 * 5 * 5) == {0: 6, 500: 3, 2**20: 1}[limit]
    *arrays, weights = draw()
    ours, pull = jax.vjp(lambda *a: attention(*a, scale=scale), *arrays)
    theirs, pull_theirs = jax.vjp(lambda *a: plain(*a, scale or 3**-0.5), *arrays)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    for actual, expected in zip(pull(weights), pull_theirs(weights), strict=True):
        np.testing.assert_allclose(actual, expected, atol=5e-6)


def test_large_scores_do_not_overflow():
    *arrays, weights = draw()
    arrays = [1e4 * arrays[0], 1e4 * arrays[1], arrays[2]]
    ours, pull = jax.vjp(attention, *arrays)
    # Each token copies the value of its best partner.
    best = jnp.argmax(jnp.einsum("bqhd,bkhd->bqhk", *arrays[:2]), axis=-1)
    copied = jnp.take_along_axis(arrays[2], best[..., None], axis=1)
    np.testing.assert_allclose(ours, copied, atol=1e-6)
    assert all(np.isfinite(g).all() for g in pull(weights))


def test_bfloat16_sums_in_float32():
    *arrays, weights = draw(n=64)
    rough = [a.astype(jnp.bfloat16) for a in arrays]
    ours, pull = jax.vjp(attention, *rough)
    assert ours.dtype == jnp.bfloat16
    # Weights are rounded to 8 bits before they meet the values.
    np.testing.assert_allclose(np.float32(ours), plain(*map(np.float32, rough), 3**-0.5), atol=0.02)
    assert all(g.dtype == jnp.bfloat16 for g in pull(weights.astype(jnp.bfloat16)))


def test_free_batch_sizes_can_be_exported():
    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, 5, 2, 3), jnp.float32)
    exported = jax.export.export(jax.jit(attention))(shape, shape, shape)
    arrays = draw()[:3]
    np.testing.assert_allclose(exported.call(*arrays), attention(*arrays), atol=1e-6)
