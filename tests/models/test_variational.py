"""What the variational autoencoders share: weights, latents, the standard normal prior, options."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models import vae_grf
from jaxad.models.base import parameter_key
from jaxad.models.layers import variational
from jaxad.models.layers.variational import Posterior, StandardNormal, kl_unit
from jaxad.run.errors import UserError


def batch_of(images):
    return Batch(images, np.arange(len(images), dtype=np.int32), np.ones(len(images), bool))


def keys_of(count):
    return jax.random.split(jax.random.key(0), count)


# --- weights, sizes, labels -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image", "latent", "weight"),
    [
        ("elbo", (256, 256, 3), (32, 32, 256), 1.0),
        ("vae_compare", (256, 256, 3), (32, 32, 256), 1 / 1024),
        ("vae_compare", (224, 224, 3), (14, 14, 384), 1 / 196),
        ("vae_compare_grf", (256, 256, 3), (32, 32, 256), 0.75),
        ("vae_grf_2024", (256, 256, 3), (32, 32, 256), 0.25),
    ],
)
def test_published_weights_in_units_of_the_lower_bound(name, image, latent, weight):
    assert kl_unit(name, image, latent) == pytest.approx(weight, rel=1e-12)


def test_the_weight_multiplies_the_divergence():
    images = batch_of(np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8))
    sizes = {"latent": 3, "width": 4, "downsampling": 2, "kl_unit": "elbo"}
    one, other = (models.build("vae", (16, 16, 3), kl_weight=w, **sizes) for w in (0.0, 2.0))
    variables = jax.jit(one.init)(parameter_key(0))
    both = jax.jit(lambda v: [m.loss(v, images, keys_of(2), False) for m in (one, other)])
    without, double = both(variables)
    np.testing.assert_allclose(without.per_example, without.terms["nll"], rtol=1e-6)
    expected = double.terms["nll"] + 2.0 * double.terms["kl"]
    np.testing.assert_allclose(double.per_example, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "side", "latent"), [("vae", 256, (32, 32, 256)), ("vit_vae", 224, (14, 14, 384))]
)
def test_the_defaults_have_the_sizes_of_the_paper(name, side, latent):
    model = models.build(name, (side, side, 3))
    variables = jax.eval_shape(model.init, parameter_key(0))
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    encode = lambda v, x: model.module.apply(v, x, train=False, method="encode")
    posterior = jax.eval_shape(encode, variables, images)
    assert posterior.mean.shape == posterior.log_variance.shape == (1, *latent)
    kernels = [
        variables["params"][f"up_{k}"]["kernel"].shape for k in range(side // latent[0] // 4)
    ]
    assert all(shape[:2] == (4, 4) and 2 * shape[3] == shape[2] for shape in kernels[:-1])


def test_the_encoder_of_the_vit_vae_is_labelled():
    model = models.build("vit_vae", (16, 16, 3), features=32, depth=1, heads=1)
    params = jax.eval_shape(model.init, parameter_key(0))["params"]
    labels = model.param_labels(params)
    assert set(jax.tree.leaves(labels["encoder"])) == {"encoder"}
    rest = {name: label for name, label in labels.items() if name != "encoder"}
    assert set(jax.tree.leaves(rest)) == {"default"}


# --- latents, prior, maps ---------------------------------------------------------------------


def test_the_standard_normal_divergence_is_the_closed_form_and_the_identity_fields():
    draw = np.random.default_rng(0).normal
    mean, log_variance = (jnp.asarray(np.float32(draw(size=(2, 8, 8, 3)))) for _ in range(2))
    ours = StandardNormal().apply({}, Posterior(mean, log_variance), method="kl_divergence")
    variance = np.exp(np.float64(log_variance))
    expected = 0.5 * (np.float64(mean) ** 2 + variance - np.log(variance) - 1).sum(axis=(1, 2))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    field = vae_grf.GaussianField((64, 64), 8, "identity", "no")
    # Far from the identity, if they were used.
    logs = {"log_range": jnp.float32(3.0), "log_deviation": jnp.float32(2.0)}
    same = field.apply({"params": logs}, Posterior(mean, log_variance), method="kl_divergence")
    np.testing.assert_allclose(same, expected, rtol=1e-5)


def test_validation_draws_the_same_latents_again():
    model = models.build("vae", (16, 16, 3), latent=3, width=4, downsampling=2)
    variables = jax.jit(model.init)(parameter_key(0))
    images = batch_of(np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8))
    loss = jax.jit(model.loss, static_argnums=3)
    first, again, other = (
        loss(variables, images, jax.random.split(jax.random.key(k), 2), False).per_example
        for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 0


def test_the_deviation_is_across_channels_of_each_image():
    latents = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    expected = np.abs(latents - latents.mean(axis=-1, keepdims=True)).mean(axis=-1)
    np.testing.assert_allclose(
        variational.mean_absolute_deviation(jnp.float32(latents)), expected, rtol=1e-5
    )


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "names"),
    [
        ("vae", {"downsampling": 6}, "model.downsampling"),
        ("vae", {"kl_unit": "elbow"}, "model.kl_unit"),
        ("vae", {"downsampling": 5}, "data.image_size"),
        ("vae_grf", {"family": "matern"}, "model.family"),
        ("vae_grf", {"learn": "yes"}, "model.learn"),
        ("vae_grf", {"family": "identity", "learn": "elbo"}, "model.learn"),
        ("vae_grf", {"wrap": "far"}, "model.wrap"),
        ("vae_grf", {"start_range": -1.0}, "model.start_range"),
        ("vit_vae", {"patch": 12}, "model.patch"),
        ("vit_vae", {"features": 100, "heads": 3}, "model.features"),
        ("vit_vae", {"patch": 32}, "data.image_size"),
    ],
)
def test_options_that_do_not_fit_are_named(name, options, names):
    with pytest.raises(UserError, match=names):
        models.build(name, (48, 48, 3), **options)
