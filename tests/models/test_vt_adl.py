"""VT-ADL: loss, maps and scores, sizes and options."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models.base import parameter_key
from jaxad.models.vt_adl import padded_ssim
from jaxad.run.config import load_config
from jaxad.run.errors import UserError

SMALL = {
    "patch": 8,
    "features": 8,
    "depth": 1,
    "heads": 2,
    "mlp_features": 16,
    "decoder": "doubling",
    "components": 3,
}


def images(shape=(3, 16, 16, 3), seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def batch_of(pictures):
    return Batch(pictures, np.arange(len(pictures), dtype=np.int32), np.ones(len(pictures), bool))


def keys(count=3):
    return jax.random.split(jax.random.key(0), count)


def loss_of(model, variables, train):
    """Of three random images, compiled."""
    return jax.jit(lambda v: model.loss(v, batch_of(images()), keys(), train))(variables)


@pytest.fixture(scope="module")
def small():
    model = models.build("vt_adl", (16, 16, 3), **SMALL)
    return model, jax.jit(model.init)(parameter_key(0))


# --- loss, maps and scores --------------------------------------------------------------------


def test_the_loss_adds_up_with_the_right_sign_of_similarity(small):
    model, variables = small
    output = loss_of(model, variables, False)
    terms = output.terms
    total = 5 * terms["mse"] + 0.5 * terms["ssim"] + terms["nll"]
    np.testing.assert_allclose(output.per_example, total, rtol=1e-5)
    shown = jax.jit(model.module.apply)(variables, images())[0]
    np.testing.assert_allclose(terms["ssim"], 1 - padded_ssim(images(), shown), rtol=1e-5)
    # As printed, eq. 9 adds the similarity: an equal image would cost the most.
    assert float(padded_ssim(images(), images()).min()) == pytest.approx(1.0, abs=1e-5)
    assert np.all(np.isfinite(terms["log_variance"])) and np.all(terms["embedding_norm"] > 0)


def test_similarity_equals_the_published_one_with_zeros_beyond_the_border(golden_values):
    values = golden_values("vt_adl", "ssim")
    ours = jax.jit(padded_ssim)(values["a"], values["b"])
    # theirs are differences of float32 moments.
    np.testing.assert_allclose(ours, values["ssim"], rtol=2e-5)


def test_noise_is_for_training_and_on_the_condition_alone(small):
    model, variables = small
    quiet = models.build("vt_adl", (16, 16, 3), **SMALL, noise=0.0)
    output = {
        (name, train): loss_of(m, variables, train).terms
        for name, m in (("noisy", model), ("quiet", quiet))
        for train in (True, False)
    }
    np.testing.assert_allclose(
        output["noisy", False]["nll"], output["quiet", False]["nll"], rtol=1e-6
    )
    assert np.all(output["noisy", True]["nll"] != output["quiet", True]["nll"])
    np.testing.assert_allclose(
        output["noisy", True]["mse"], output["quiet", True]["mse"], rtol=1e-6
    )
    published = {
        noise: loss_of(
            models.build("vt_adl", (16, 16, 3), **SMALL, density="published", noise=noise),
            variables,
            True,
        ).terms["mse"]
        for noise in (0.0, 0.2)
    }
    assert np.all(published[0.0] != published[0.2]), "the code decodes noisy embeddings"


def test_stop_gradient_keeps_the_likelihood_from_moving_its_target(small):
    _, variables = small

    def gradient(**options):
        model = models.build(
            "vt_adl", (16, 16, 3), **SMALL, mse_weight=0.0, ssim_weight=0.0, noise=0.0, **options
        )
        loss = lambda p: jnp.mean(
            model.loss({**variables, "params": p}, batch_of(images()), keys(), False).per_example
        )
        return jax.jit(jax.grad(loss))(variables["params"])["encoder"]["positions"]

    assert not np.allclose(gradient(stop_gradient=True), gradient(), rtol=1e-2)
    # Through the condition a gradient still flows.
    assert float(jnp.abs(gradient(stop_gradient=True)).max()) > 0


@pytest.mark.parametrize("density", ["likelihood", "published"])
def test_maps_and_scores_follow_the_patches(density):
    model = models.build("vt_adl", (16, 32, 3), **SMALL, density=density)
    variables = jax.jit(model.init)(parameter_key(0))
    pictures = images((2, 16, 32, 3))
    found = jax.jit(model.detect)(variables, pictures)
    told = jax.jit(model.diagnostics)(variables, pictures)
    assert told["patch_loss"].shape == (2, 2, 4)
    # Align corners: the corner patches' values stand in the corners.
    corners = found.maps["nll"][:, ::15, ::31]
    np.testing.assert_allclose(corners, told["patch_loss"][:, :, ::3], rtol=1e-5)
    shown = jax.jit(model.module.apply)(variables, pictures)[0]
    mse, similarity = np.square(pictures - shown).mean((1, 2, 3)), padded_ssim(pictures, shown)
    worst = told["patch_loss"].max((1, 2))
    expected = {"reconstruction": mse + 1 - similarity}
    expected["reconstruction+nll"] = expected["reconstruction"] + worst
    if density == "published":
        expected["published"] = mse + similarity + worst
    assert set(found.scores) == set(expected)
    for name, score in expected.items():
        np.testing.assert_allclose(found.scores[name], score, rtol=1e-4, err_msg=name)
    assert float(told["component_counts"].sum()) == 2 * 8


def test_full_covariances_have_finite_gradients_and_another_likelihood(small):
    model = models.build("vt_adl", (16, 16, 3), **{**SMALL, "features": 4}, covariance="full")
    variables = jax.jit(model.init)(parameter_key(0))
    assert variables["params"]["density"]["covariances"]["kernel"].shape == (4, 3, 10)
    flat = np.full((3, 16, 16, 3), 0.5, np.float32)
    for pictures in (images(), flat):
        loss = lambda p, x=pictures: jnp.mean(
            model.loss({**variables, "params": p}, batch_of(x), keys(), True).per_example
        )
        gradient = jax.jit(jax.grad(loss))(variables["params"])
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


# --- sizes, labels and refusals ---------------------------------------------------------------


def test_the_paper_variant_has_the_sizes_of_the_paper():
    config = load_config("vt_adl:paper")
    options = config.model.to_dict()
    options.pop("name")
    assert (config.train.learning_rate, config.train.weight_decay) == (1e-4, 1e-4)
    assert (config.train.batch_size, config.train.epochs) == (8, 400)
    model = models.build("vt_adl", (*config.data.image_size, 3), **options)
    shapes = jax.eval_shape(model.init, parameter_key(0))["params"]
    assert shapes["encoder"]["positions"].shape == (1, 65, 512)
    assert "norm" not in shapes["encoder"] and "block_5" in shapes["encoder"]
    assert shapes["capsule"]["kernel"].shape == (32768, 512)
    head = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["density"]))
    assert head == 512 * 150 + 2 * 512 * 512 * 150


def test_parts_carry_their_labels(small):
    model, variables = small
    labels = model.param_labels(variables["params"])
    assert set(jax.tree.leaves(labels["density"])) == {"density"}
    assert set(jax.tree.leaves(labels["encoder"])) == {"encoder"}
    assert set(jax.tree.leaves(labels["capsule"])) == {"default"}


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((16, 16, 3), {"decoder": "published"}, "makes images of 512 x 512, not of 16 x 16"),
        (
            (24, 40, 3),
            {"patch": 4, "decoder": "mirror"},
            "'model.decoder' must be one of .*, not 'mirror'",
        ),
        ((34, 64, 3), {"patch": 2}, "sides of 34 x 64 must be divisible by 4"),
        ((16, 16, 3), {"covariance": "tied"}, "'model.covariance' must be one of .*, not 'tied'"),
        ((16, 16, 3), {"components": 0}, "'model.components' must be at least 1, not 0"),
        ((16, 16, 3), {"density": "published", "covariance": "full"}, "diagonal covariances only"),
        (
            (512, 512, 3),
            {"features": 512, "components": 150, "covariance": "full"},
            "takes 10,085,990,400 parameters",
        ),
    ],
)
def test_impossible_options_are_refused(shape, options, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build("vt_adl", shape, **{**SMALL, **options})
