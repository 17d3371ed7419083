"""The memory of normal patterns: formulas in float64, MemAE's published module, its singularities."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops import memory

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "vit_memory.npz"


def draw(*shape, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- against MemAE's memory_module and entropy_loss -------------------------------------------


@pytest.fixture(scope="module")
def memae():
    with np.load(GOLDEN) as file:
        return {k.removeprefix("memory/"): file[k] for k in file.files if k.startswith("memory/")}


@pytest.mark.parametrize("case", ["kept", "shrunk"])
def test_reading_equals_the_published_module(memae, case):
    """Dot products, softmax, shrinkage at 0 or at 1.5 / n, normalisation, weighted sum."""
    values = {k.removeprefix(f"{case}/"): v for k, v in memae.items() if k.startswith(f"{case}/")}
    options = {"similarity": "dot", "threshold": float(values["threshold"])}

    def loss(queries, items):
        reading = memory.read(queries, items, **options)
        entropy = memory.entropy(reading.weights)
        return jnp.sum(reading.output * values["cotangent"]) + jnp.mean(entropy), (reading, entropy)

    gradients, (reading, entropy) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        values["queries"], values["items"]
    )
    # Both are float32 sums of some ten terms.
    np.testing.assert_allclose(reading.weights, values["weights"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(reading.output, values["output"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.mean(entropy), values["entropy"], rtol=1e-5)
    np.testing.assert_allclose(gradients[0], values["gradient_queries"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients[1], values["gradient_items"], rtol=1e-4, atol=1e-5)
    if case == "shrunk":
        assert 0.2 < np.mean(values["weights"] == 0) < 0.9, "the threshold must matter"


# --- formulas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_cosine_addressing_equals_its_formula(temperature):
    queries, items = draw(2, 3, 4, 8), draw(7, 8, seed=1)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    expected = softmax(unit(np.float64(queries)) @ unit(np.float64(items)).T / temperature)
    weights = memory.address(queries, items, temperature=temperature)
    np.testing.assert_allclose(weights, expected, rtol=2e-5)
    scaled = memory.address(5 * queries, 3 * items, temperature=temperature)
    np.testing.assert_allclose(scaled, expected, rtol=2e-5)


def test_cosine_weights_at_temperature_one_are_nearly_equal():
    """Why a temperature is an option: e^2 is the most that two weights may differ by."""
    weights = memory.address(draw(50, 8), draw(20, 8, seed=1))
    ratio = jnp.max(weights, -1) / jnp.min(weights, -1)
    assert float(ratio.max()) < np.exp(2)


def test_shrinkage_keeps_what_is_above_and_drops_what_is_below():
    weights = jnp.array([0.05, 0.1, 0.100001, 0.5, 0.25])
    shrunk = memory.hard_shrink(weights, threshold=0.1)
    np.testing.assert_allclose(shrunk, [0, 0, 0.100001, 0.5, 0.25], rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(memory.normalise(shrunk)), 1.0, rtol=1e-6)


def test_entropy_is_that_of_a_distribution_and_the_printed_sign_would_spread_the_weights():
    """Equation 14 as printed, without a minus sign, falls where the weights grow equal."""
    one, alike = jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.full(4, 0.25)
    assert float(memory.entropy(one)) == pytest.approx(0.0, abs=1e-6)
    assert float(memory.entropy(alike)) == pytest.approx(np.log(4), rel=1e-6)

    def descend(sign):
        logits = jnp.array([1.0, 0.5, 0.0, -0.5])
        step = jax.jit(jax.grad(lambda x: sign * memory.entropy(jax.nn.softmax(x))))
        for _ in range(300):
            logits = logits - 0.5 * step(logits)
        return np.asarray(jax.nn.softmax(logits))

    assert descend(+1).max() > 0.95, "what the text wants: one item"
    assert descend(-1).max() < 0.26, "what is printed: all items alike"


def test_hits_count_the_strongest_item_of_each_query_and_reads_all():
    weights = jnp.array([[[0.2, 0.8, 0.0], [0.6, 0.4, 0.0]], [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(memory.hits(weights), [1, 2, 0])
    np.testing.assert_array_equal(memory.reads(weights), [2, 3, 0])


# --- where gradients could break --------------------------------------------------------------


def gradients(queries, items, **options):
    def loss(q, m):
        reading = memory.read(q, m, **options)
        return jnp.sum(jnp.square(reading.output)) + jnp.sum(memory.entropy(reading.weights))

    return jax.grad(loss, argnums=(0, 1))(queries, items)


@pytest.mark.parametrize("similarity", memory.SIMILARITIES)
def test_nothing_passes_the_threshold(similarity):
    """Equal items share the weight equally: 1 / n each, at the threshold, and all are dropped."""
    items = jnp.broadcast_to(draw(1, 4), (8, 4))
    options = {"similarity": similarity, "threshold": 1 / 8}
    reading = memory.read(draw(5, 4, seed=1), items, **options)
    np.testing.assert_array_equal(reading.weights, 0)
    np.testing.assert_array_equal(reading.output, 0)
    for gradient in gradients(draw(5, 4, seed=1), items, **options):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("similarity", memory.SIMILARITIES)
def test_zero_queries_and_items_have_finite_gradients(similarity):
    for gradient in gradients(jnp.zeros((3, 4)), jnp.zeros((8, 4)), similarity=similarity):
        assert np.all(np.isfinite(gradient))


def test_the_slope_of_shrinkage_is_zero_or_one_at_its_kink():
    """The formula's own slope within an epsilon above the threshold is w / epsilon: 1e11."""
    threshold = np.float32(0.1)
    around = jnp.array([threshold, np.nextafter(threshold, np.float32(1)), 0.1 + 1e-6, 0.1 - 1e-6])
    slope = jax.vmap(jax.grad(lambda w: memory.hard_shrink(w, threshold=0.1)))(around)
    assert np.all((np.asarray(slope) >= 0) & (np.asarray(slope) <= 1))
    np.testing.assert_allclose(slope[2:], [1, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("queries", "items", "options", "sentence"),
    [
        ((3, 4), (8, 5), {}, "cannot address items of shape"),
        ((3, 4), (8, 4), {"similarity": "l2"}, "'cosine' or 'dot', not 'l2'"),
        ((3, 4), (8, 4), {"temperature": 0.0}, "temperature of a memory is above 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_has_no_meaning_is_refused(queries, items, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        memory.read(jnp.zeros(queries), jnp.zeros(items), **options)
