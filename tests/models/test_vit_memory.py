"""Memory and coordinate attention in the model: switches, terms, and how the memory is used."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models.base import parameter_key
from jaxad.run.config import load_config
from jaxad.run.errors import UserError

SMALL = {"patch": 4, "features": 16, "depth": 1, "heads": 2, "memory_items": 9, "width": 0.1}


def images(count=3, seed=0):
    return np.random.default_rng(seed).random((count, 16, 16, 3), np.float32)


def batch_of(pictures):
    return Batch(pictures, np.arange(len(pictures), dtype=np.int32), np.ones(len(pictures), bool))


def apply(model, variables, pictures, *, train=False):
    """Reconstruction and weights, compiled."""

    @jax.jit
    def run(variables, pictures):
        return model.module.apply(variables, pictures, train=train, mutable=["batch_stats"])[0]

    return run(variables, pictures)


def loss_of(model, variables, pictures):
    return jax.jit(lambda v: model.loss(v, batch_of(pictures), keys(), False))(variables)


def keys(count=3):
    return jax.random.split(jax.random.key(0), count)


@pytest.fixture(scope="module")
def full():
    model = models.build("vit_memory", (16, 16, 3), **SMALL, temperature=0.2)
    variables = dict(jax.jit(model.init)(parameter_key(0)))
    return model, variables


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "memory", "attention"),
    [
        ("base", False, False),
        ("base_m", True, False),
        ("base_ca", False, True),
        ("base_m_ca", True, True),
    ],
)
@pytest.mark.parametrize("size", ["", "small"])
def test_the_ablation_is_four_variants_of_one_config(variant, memory, attention, size):
    """Table 6; in any order with small."""
    for order in (f"{variant},{size}", f"{size},{variant}"):
        config = load_config(f"vit_memory:{order.strip(',')}")
        options = config.model.to_dict()
        options.pop("name")
        model = models.build("vit_memory", (*config.data.image_size, 3), **options)
        params = jax.eval_shape(model.init, parameter_key(0))["params"]
        assert ("items" in params) == memory
        assert ("coordinate_attention" in params) == attention
        if memory:
            items = 200 if size else 2000
            assert params["items"].shape == (items, config.model.features)


def test_the_default_has_the_sizes_of_the_paper():
    config = load_config("vit_memory:paper")
    assert tuple(config.data.image_size) == (384, 384)
    assert (config.model.patch, config.model.features, config.model.heads) == (16, 768, 8)
    assert (config.train.learning_rate, config.train.batch_size) == (2e-4, 8)
    assert (config.train.epochs, config.train.optimizer) == (200, "adam")


def test_attention_stands_before_or_after_the_memory():
    """After: the decoder sees gated items. Before: the memory is asked by gated tokens."""
    outputs = {}
    for place in ("before", "after", "none"):
        model = models.build("vit_memory", (16, 16, 3), **SMALL, attention=place, temperature=0.2)
        variables = dict(jax.jit(model.init)(parameter_key(0)))
        if place == "before":
            params = variables["params"]
        variables["params"] = {k: v for k, v in params.items() if k in variables["params"]}
        # In training: statistics of an untrained network would leave its ReLUs without input.
        outputs[place] = apply(model, variables, images(), train=True)
    # The weights are those of the ungated tokens in both other cases.
    np.testing.assert_array_equal(outputs["after"][1], outputs["none"][1])
    assert not np.allclose(outputs["before"][1], outputs["none"][1], rtol=1e-4)
    assert not np.allclose(outputs["after"][0], outputs["none"][0], rtol=1e-2)


def test_terms_maps_and_scores_are_those_of_the_paper(full):
    """Eqs. 11 to 15; SSIM by scikit-image, entropy with the sign of an entropy."""
    model, variables = full
    pictures = images()
    reconstruction, weights = apply(model, variables, pictures)
    output = loss_of(model, variables, pictures)
    l2 = np.square(pictures - reconstruction).sum(-1).mean((1, 2))
    similarity = [
        structural_similarity(a, b, win_size=11, data_range=1.0, channel_axis=-1, full=True)[1]
        for a, b in zip(pictures, np.asarray(reconstruction), strict=True)
    ]
    ssim = 1 - np.stack(similarity).mean((1, 2, 3))
    wide = np.float64(weights)
    entropy = -np.sum(wide * np.log(wide + 1e-12), -1).mean((1, 2))
    # SSIM's moments are differences of float32 sums.
    np.testing.assert_allclose(output.terms["l2"], l2, rtol=1e-5)
    np.testing.assert_allclose(output.terms["ssim"], ssim, rtol=1e-3)
    np.testing.assert_allclose(output.terms["entropy"], entropy, rtol=1e-5)
    assert entropy.min() > 0
    total = l2 + ssim + 0.001 * entropy
    np.testing.assert_allclose(output.per_example, total, rtol=1e-3)
    found = jax.jit(model.detect)(variables, pictures)
    np.testing.assert_allclose(found.scores["loss"], total, rtol=1e-3)
    summed = found.maps["l2"] + found.maps["ssim"] + 0.001 * found.maps["entropy"]
    np.testing.assert_allclose(found.maps["anomaly"], summed, rtol=1e-5)


def test_the_map_takes_the_chosen_terms(full):
    _, variables = full
    chosen = models.build("vit_memory", (16, 16, 3), **SMALL, temperature=0.2, score_terms="ssim")
    found = jax.jit(chosen.detect)(variables, images())
    np.testing.assert_array_equal(found.maps["anomaly"], found.maps["ssim"])


def test_the_history_and_the_report_know_how_the_memory_is_used(full):
    model, variables = full
    output = loss_of(model, variables, images())
    hits, reads = (np.asarray(output.sums[f"memory_{name}"]) for name in ("hits", "reads"))
    assert hits.shape == (9,) and hits.sum() == 3 * 16
    _, weights = apply(model, variables, images())
    np.testing.assert_array_equal(reads, (np.asarray(weights) > 0).sum((0, 1, 2)))
    told = jax.jit(model.diagnostics)(variables, images())
    np.testing.assert_array_equal(told["memory_hits_counts"], hits)
    np.testing.assert_array_equal(told["memory_reads_counts"], reads)
    assert told["memory_entropy"].shape == (3, 4, 4)
    assert 1 <= float(told["memory_items_kept_per_position"]) < 9


def test_bfloat16_is_for_the_network_alone(full):
    """Memory, SSIM and loss stay float32; eight bits of the features' mantissa move them little."""
    model, variables = full
    half = models.build("vit_memory", (16, 16, 3), **SMALL, temperature=0.2, dtype="bfloat16")
    ours, exact = (loss_of(m, variables, images()) for m in (half, model))
    assert ours.per_example.dtype == ours.sums["memory_hits"].dtype == jnp.float32
    np.testing.assert_allclose(ours.per_example, exact.per_example, rtol=2e-2)
    assert np.all(ours.per_example != exact.per_example)


def test_without_a_memory_nothing_speaks_of_it():
    model = models.build("vit_memory", (16, 16, 3), **{**SMALL, "memory_items": 0})
    variables = jax.jit(model.init)(parameter_key(0))
    output = loss_of(model, variables, images())
    assert set(output.terms) == {"l2", "ssim"} and output.sums == {}
    found = jax.jit(model.detect)(variables, images())
    assert set(found.maps) == {"l2", "ssim", "anomaly"} and model.diagnostics is None


def test_the_items_carry_their_own_label(full):
    model, variables = full
    labels = model.param_labels(variables["params"])
    assert labels["items"] == "memory"
    assert set(jax.tree.leaves(labels)) == {"encoder", "memory", "default"}
    jax.tree.map(lambda *_: None, labels, variables["params"])  # one structure


def test_every_item_that_is_read_gets_a_gradient(full):
    model, variables = full

    def loss(params):
        output = model.loss({**variables, "params": params}, batch_of(images()), keys(), True)
        return jnp.mean(output.per_example)

    _, weights = apply(model, variables, images(), train=True)
    gradient = np.asarray(jax.jit(jax.grad(loss))(variables["params"])["items"])
    read = np.asarray(weights).max((0, 1, 2)) > 0
    assert read.any()
    np.testing.assert_array_equal(np.abs(gradient).max(1) > 0, read)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"attention": "between"},
            "'model.attention' must be one of none, before, after, not 'between'",
        ),
        ({"similarity": "l1"}, "'model.similarity' must be one of .*, not 'l1'"),
        ({"score_terms": "l2+l1"}, "model.score_terms has 'l1'; join some of l2, ssim, entropy by"),
        ({"temperature": 0.0}, "model.temperature"),
        ({"memory_items": 0, "score_terms": "entropy"}, "needs a memory"),
    ],
)
def test_impossible_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build("vit_memory", (16, 16, 3), **{**SMALL, **options})
