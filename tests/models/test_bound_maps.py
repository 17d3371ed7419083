"""Maps of the parts of the lower bound: of a linear autoencoder in closed form, and of the models."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxad import models
from jaxad.models.base import parameter_key
from jaxad.models.layers.bound_maps import bound_maps
from jaxad.models.layers.variational import Posterior, StandardNormal

CELL, WEIGHT = 2, 0.3


class Linear(nn.Module):
    """Each cell of 2 x 2 pixels is coded and drawn by a matrix, for itself."""

    def setup(self):
        self.prior = StandardNormal()
        self.code = self.param("code", nn.initializers.normal(1.0), (CELL * CELL, 3))
        self.draw = self.param("draw", nn.initializers.normal(1.0), (3, CELL * CELL))

    def encode(self, images, *, train):
        b, h, w, _ = images.shape
        cells = images.reshape(b, h // CELL, CELL, w // CELL, CELL).transpose(0, 1, 3, 2, 4)
        mean = cells.reshape(b, h // CELL, w // CELL, -1) @ self.code
        return Posterior(mean, jnp.full_like(mean, -1.0))

    def decode(self, latents, *, train):
        b, i, j, _ = latents.shape
        pixels = (latents @ self.draw).reshape(b, i, j, CELL, CELL).transpose(0, 1, 3, 2, 4)
        return pixels.reshape(b, i * CELL, j * CELL, 1)

    def __call__(self, images):
        return self.decode(self.encode(images, train=False).mean, train=False)


def test_the_maps_of_a_linear_network_are_those_on_paper():
    images = jnp.asarray(np.random.default_rng(0).random((2, 4, 6, 1), np.float32))
    module = Linear()
    variables = module.init(jax.random.key(1), images)
    reconstruction = jnp.clip(images + 0.25, 0, 1)
    found = jax.jit(
        lambda x: bound_maps(
            module, variables, x, reconstruction, cell=CELL, kl_weight=WEIGHT
        )
    )(images)  # fmt: skip

    # By cells, in float64: x -> m = x A, l = m B; log p = x l + log C(l), whose derivative by l
    # is x - mu(l), mu the mean of the continuous Bernoulli; KL = (m^2 + v - log v - 1) / 2.
    a, b = (np.asarray(variables["params"][k], np.float64) for k in ("code", "draw"))
    x = np.float64(images).reshape(2, 2, 2, 3, 2).transpose(0, 1, 3, 2, 4).reshape(2, 2, 3, 4)
    m, v = x @ a, np.exp(-1.0)
    logits = m @ b
    mean = 1 / (1 - np.exp(-logits)) - 1 / logits
    gradient = WEIGHT * m @ a.T - (logits + (x - mean) @ b.T @ a.T)
    kl = 0.5 * np.sum(m**2 + v + 1.0 - 1.0, axis=-1)
    back = lambda y: y.reshape(2, 2, 3, 2, 2).transpose(0, 1, 3, 2, 4).reshape(2, 4, 6)
    np.testing.assert_allclose(found["gradient"], np.abs(back(gradient)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["kl"], back(kl[..., None].repeat(4, -1)), rtol=1e-5)
    squared = np.square(images - reconstruction)[..., 0]
    np.testing.assert_allclose(found["l2"], squared, rtol=1e-6)


@pytest.mark.parametrize("name", ["vae", "vae_grf", "vit_vae"])
def test_the_models_give_them_where_they_are_asked_for(name):
    sizes = {"patch": 4, "features": 16, "depth": 1, "heads": 2}
    if name != "vit_vae":
        sizes = {"latent": 3, "width": 4, "downsampling": 2}
    plain, asked = (models.build(name, (16, 16, 3), bound_maps=b, **sizes) for b in (False, True))
    variables = jax.jit(plain.init)(parameter_key(0))
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
    without, given = jax.jit(lambda v, x: (plain.detect(v, x), asked.detect(v, x)))(
        variables, images
    )
    assert given.maps.keys() - without.maps.keys() == {"l2", "kl", "gradient"}
    for name_of_map, values in without.maps.items():
        np.testing.assert_allclose(given.maps[name_of_map], values, rtol=1e-5)
    assert all(float(jnp.min(given.maps[k])) >= 0 for k in ("l2", "gradient"))
    # A map of cells of 4 x 4 pixels, whose values add up to the divergence of the history.
    divergence = lambda v, x: plain.module.apply(
        v,
        plain.module.apply(v, x, train=False, method="encode"),
        method=lambda m, p: m.prior.kl_divergence(p),
    )
    total = jax.jit(divergence)(variables, images / np.float32(255)).sum(axis=-1)
    np.testing.assert_allclose(given.maps["kl"][:, ::4, ::4].sum(axis=(1, 2)), total, rtol=1e-4)
