"""Vector quantisation against brute force in float64 and the paper's update rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops.vector_quantisation import (
    code_counts_and_sums,
    ema_update,
    init_averages,
    nearest_code,
    perplexity,
    quantise,
)


@pytest.fixture
def z():
    return jnp.float32(np.random.default_rng(0).standard_normal((2, 5, 6, 8)))


@pytest.fixture
def codebook():
    return jnp.float32(np.random.default_rng(1).standard_normal((11, 8)))


def brute_force(z, codebook):
    difference = np.float64(z)[..., None, :] - np.float64(codebook)
    distance = np.sum(difference**2, axis=-1)
    return distance.argmin(-1), distance.min(-1)


def test_nearest_code_and_distance_equal_brute_force(z, codebook):
    indices, distance = brute_force(z, codebook)
    result = jax.jit(quantise)(z, codebook)
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.quantised, codebook[indices])
    for values in (result.squared_distance, result.codebook_loss, result.commitment_loss):
        np.testing.assert_allclose(values, distance, rtol=1e-6)


def test_distance_does_not_cancel_far_from_the_origin(codebook):
    """|z|^2 is 8e6 here, so that its expansion would be wrong by about 1 in float32."""
    far = codebook + np.float32(1000.0)
    z = far[None, None, ::-1]
    np.testing.assert_array_equal(quantise(z, far).squared_distance, 0.0)
    near = z + np.float32(0.125)
    np.testing.assert_array_equal(quantise(near, far).squared_distance, 8 * 0.125**2)


def test_the_first_of_equal_codes_is_taken():
    codes = jnp.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    indices = nearest_code(jnp.array([[[0.0, 3.0], [2.0, 0.0]]]), codes)
    np.testing.assert_array_equal(indices, [[0, 0]])


def test_gradients_go_where_the_paper_sends_them(z, codebook):
    weights = np.random.default_rng(2).standard_normal(z.shape).astype(np.float32)
    indices, _ = brute_force(z, codebook)
    difference = z - codebook[indices]
    grads = jax.grad(lambda z, c, f: f(quantise(z, c)), argnums=(0, 1))

    straight_z, straight_c = grads(z, codebook, lambda q: jnp.sum(q.quantised * weights))
    np.testing.assert_array_equal(straight_z, weights)
    np.testing.assert_array_equal(straight_c, 0.0)

    commit_z, commit_c = grads(z, codebook, lambda q: jnp.sum(q.commitment_loss))
    np.testing.assert_allclose(commit_z, 2 * difference, rtol=1e-6)
    np.testing.assert_array_equal(commit_c, 0.0)

    code_z, code_c = grads(z, codebook, lambda q: jnp.sum(q.codebook_loss))
    expected = np.zeros_like(codebook)
    np.add.at(expected, indices, -2 * difference)
    np.testing.assert_array_equal(code_z, 0.0)
    # Sums of a dozen float32 terms in another order.
    np.testing.assert_allclose(code_c, expected, rtol=1e-5, atol=1e-5)


def test_counts_and_sums_equal_a_loop_and_pass_no_gradient(z):
    indices = jnp.asarray(np.random.default_rng(3).integers(0, 10, z.shape[:-1]))
    counts, sums = code_counts_and_sums(z, indices, 11)
    np.testing.assert_array_equal(counts, np.bincount(np.ravel(indices), minlength=11))
    expected = np.stack([z[indices == code].sum(0) for code in range(11)])
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda z: jnp.sum(code_counts_and_sums(z, indices, 11)[1]))(z)
    np.testing.assert_array_equal(gradient, 0.0)


def test_averages_of_a_codebook_give_it_back(codebook):
    state = init_averages(codebook)
    _, unchanged = ema_update(state, state.counts, state.sums)
    np.testing.assert_allclose(unchanged, codebook, rtol=1e-5)


def test_ema_update_is_the_papers_rule(z, codebook):
    state, rng = init_averages(codebook), np.random.default_rng(4)
    n, m = np.ones(11), np.float64(codebook)
    for _ in range(3):
        counts = jnp.float32(rng.integers(0, 9, 11))
        sums = jnp.float32(rng.standard_normal((11, 8)))
        state, codes = ema_update(state, counts, sums, decay=0.8, epsilon=1e-3)
        n, m = 0.8 * n + 0.2 * counts, 0.8 * m + 0.2 * sums
    smoothed = (n + 1e-3) / (n.sum() + 11 * 1e-3) * n.sum()
    np.testing.assert_allclose(state.counts, n, rtol=1e-6)
    np.testing.assert_allclose(codes, m / smoothed[:, None], rtol=1e-5, atol=1e-6)


def test_the_codebook_converges_to_the_means_of_its_vectors(z):
    indices = jnp.arange(60).reshape(2, 5, 6) % 4
    counts, sums = code_counts_and_sums(z, indices, 4)
    state = init_averages(jnp.full((4, 8), 7.0))
    for _ in range(40):
        state, codes = ema_update(state, counts, sums, decay=0.5)
    means = np.stack([z[indices == code].mean(0) for code in range(4)])
    np.testing.assert_allclose(codes, means, atol=1e-5)


def test_a_code_never_chosen_stays_finite(codebook):
    state = init_averages(codebook)
    counts = jnp.zeros(11).at[0].set(60)
    sums = jnp.zeros((11, 8)).at[0].set(60 * codebook[0])
    for _ in range(30):
        state, codes = ema_update(state, counts, sums, decay=0.0)
    assert np.all(np.isfinite(codes))
    np.testing.assert_allclose(codes[0], codebook[0], rtol=1e-5)


def test_perplexity_at_its_ends_and_between():
    np.testing.assert_allclose(perplexity(jnp.array([5.0, 0.0, 0.0])), 1.0)
    np.testing.assert_allclose(perplexity(jnp.full(16, 3.0)), 16.0, rtol=1e-6)
    np.testing.assert_allclose(
        perplexity(jnp.array([3.0, 1.0])),
        np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(perplexity(jnp.zeros(4)), 1.0)


def test_bfloat16_vectors_keep_float32_distances(z, codebook):
    half = jnp.bfloat16(z)
    result, exact = quantise(half, codebook), quantise(jnp.float32(half), codebook)
    assert result.quantised.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result.indices, exact.indices)
    np.testing.assert_array_equal(result.squared_distance, exact.squared_distance)


def test_vmap_equals_the_batch(z, codebook):
    whole = quantise(z, codebook)
    mapped = jax.vmap(quantise, in_axes=(0, None))(z, codebook)
    np.testing.assert_array_equal(mapped.indices, whole.indices)
    np.testing.assert_allclose(mapped.squared_distance, whole.squared_distance, rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_unequal_lengths_are_named(z, codebook):
    with pytest.raises(ValueError, match="codebook of shape"):
        quantise(z, codebook[:, :5])
