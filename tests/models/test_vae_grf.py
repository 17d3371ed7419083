"""The field prior: its range and deviation, how they are learned, what it samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models import vae_grf
from jaxad.models.base import parameter_key
from jaxad.models.layers.variational import Posterior
from jaxad.ops import grf
from jaxad.run.errors import UserError


def batch_of(images):
    return Batch(images, np.arange(len(images), dtype=np.int32), np.ones(len(images), bool))


def random_posterior(seed=0, shape=(2, 8, 8, 3)):
    rng = np.random.default_rng(seed)
    return Posterior(*(jnp.asarray(np.float32(rng.normal(size=shape))) for _ in range(2)))


def test_the_range_of_the_latents_is_that_of_the_image_over_the_cell():
    field = vae_grf.GaussianField((64, 96), 8, "matern52", "elbo", start_range=12.0)
    variables = field.init(
        jax.random.key(0), random_posterior(shape=(1, 8, 12, 1)), method="kl_divergence"
    )
    base = field.apply(variables, method="latent_base")
    np.testing.assert_allclose(
        base, grf.covariance_base((8, 12), "matern52", 1.5, 1.0, wrap="sum"), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("learn", "by_kl", "by_image"), [("image", 0, 1), ("elbo", 1, 0), ("no", 0, 0)]
)
def test_who_teaches_range_and_deviation(learn, by_kl, by_image):
    field = vae_grf.GaussianField((32, 32), 4, "matern32", learn, start_range=6.0)
    posterior = random_posterior()
    variables = field.init(jax.random.key(0), posterior, method="kl_divergence")
    images = jnp.asarray(np.float32(np.random.default_rng(0).random((2, 32, 32, 3))))

    def divergence(v):
        return jnp.sum(field.apply(v, posterior, method="kl_divergence"))

    def likelihood(v):
        loss = field.apply(v, images, method="image_loss")
        return 0.0 if loss is None else jnp.sum(loss)

    for function, taught in ((divergence, by_kl), (likelihood, by_image)):
        for gradient in jax.tree.leaves(jax.jit(jax.grad(function))(variables)):
            assert bool(gradient != 0) == bool(taught)


def test_a_field_that_is_no_covariance_stays_finite_and_says_so():
    """Matern 3/2 at a latent range of 4 on 32 x 32: the smallest eigenvalue is -0.46."""
    field = vae_grf.GaussianField((256, 256), 8, "matern32", "elbo", 32.0, 1.0, "nearest")
    posterior = random_posterior(shape=(1, 32, 32, 2))
    variables = field.init(jax.random.key(0), posterior, method="kl_divergence")
    assert float(field.apply(variables, method="scalars")["smallest_eigenvalue"]) < -0.4
    divergence = lambda v: jnp.sum(field.apply(v, posterior, method="kl_divergence"))
    value, gradient = jax.jit(jax.value_and_grad(divergence))(variables)
    assert np.isfinite(value) and all(np.isfinite(g) for g in jax.tree.leaves(gradient))


def test_range_and_deviation_are_labelled():
    model = models.build("vae_grf", (16, 16, 3), latent=3, width=4, downsampling=2)
    params = jax.eval_shape(model.init, parameter_key(0))["params"]
    labels = model.param_labels(params)
    assert set(jax.tree.leaves(labels["prior"])) == {"prior"}
    assert set(jax.tree.leaves({k: v for k, v in labels.items() if k != "prior"})) == {"default"}


@pytest.mark.parametrize("learn", ["no", "elbo"])
def test_samples_are_images_that_depend_on_the_key(learn):
    model = models.build("vae_grf", (16, 24, 3), latent=3, width=4, downsampling=2, learn=learn)
    variables = jax.jit(model.init)(parameter_key(0))
    sample = jax.jit(model.sample, static_argnums=2)
    one, other = (sample(variables, jax.random.key(k), 3) for k in (0, 1))
    assert one.shape == (3, 16, 24, 3) and float(one.min()) > 0 and float(one.max()) < 1
    assert float(jnp.abs(one - other).max()) > 1e-3


def test_the_matched_range_is_that_of_the_images():
    """Fields of a known range as images; 256 of them, the mean takes about 2 % at this size."""
    eigenvalues = grf.eigenvalues(grf.covariance_base((64, 64), "matern32", 2.0, wrap="sum"))
    fields = grf.sample(jax.random.key(0), (96, 64, 64, 1), eigenvalues)
    pictures = np.uint8(np.clip(127 + 40 * np.asarray(fields), 0, 255))
    model = models.build("vae_grf", (64, 64, 1), latent=2, width=4, learn="no", start_range=0.0)
    variables = jax.jit(model.init)(parameter_key(0))
    batches = [batch_of(part) for part in np.split(pictures, 3)]
    started = model.initialise(variables, batches)
    found = float(jnp.exp(started["params"]["prior"]["log_range"]))
    assert found == pytest.approx(2.0, rel=0.08)
    rest = lambda v: {k: x for k, x in v["params"].items() if k != "prior"}
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, rest(variables), rest(started)))
    with pytest.raises(UserError, match=r"model\.start_range"):
        model.initialise(variables, [batch_of(np.full((2, 64, 64, 1), 7, np.uint8))])
