"""What the variational autoencoders share: latents, prior, objective and anomaly maps.

Source: the paper and the public code of "VAE, VAE-GRF, ViT-VAE" (arXiv 2408.13561, derived from
the code of the VAE-GRF paper, Gangloff et al. 2022-2024).

Objective of one image, divided by the number of pixel values h w c (a constant that does not
affect Adam, so that histories of different sizes can be compared)::

    -log p(x | z) + kl_weight KL( q(z | x) || p(z) )          z ~ q(z | x) = N(mean, variance)

with the continuous Bernoulli likelihood, and **both sums over all their dimensions**: weight 1 is
the evidence lower bound. The published runs average one of the sums or both, which changes the
weight by orders of magnitude; :data:`KL_UNITS` names them.

Maps: ``mad``, the mean absolute deviation of the posterior mean across its channels (per image),
repeated to image size; ``ssim``, the *product* over colour channels of 1 - SSIM (uniform window of
11, sample covariance, mirrored border); ``mad*ssim``, their product. The paper scales each map of
each image to [0, 1] by its own smallest and largest value, before and after the product. That
belongs to its protocol (``evaluate.protocol=vae_compare``); the maps here are raw. The paper
defines no image score; the configs' choice is this library's. With ``bound_maps`` come those of
:mod:`jaxad.models.layers.bound_maps`: ``l2``, ``kl`` and ``gradient``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    ModelOptions,
    Variables,
    apply_for_loss,
    dtype_option,
    label_all_trainable,
    ssim_window_option,
    to_unit_float,
)
from jaxad.models.layers.bound_maps import bound_maps
from jaxad.ops import continuous_bernoulli
from jaxad.ops.arrays import AnyArray
from jaxad.ops.resize import repeat_upsample
from jaxad.ops.ssim import ssim_map
from jaxad.run.options import option

KL_UNITS = ("elbo", "vae_compare", "vae_compare_grf", "vae_grf_2024")
"""Ways of averaging the two parts of the objective (:func:`kl_unit`)."""


def kl_unit_option(default: str) -> Any:
    """The option ``kl_unit``."""
    return option(
        default,
        "unit of kl_weight: the evidence lower bound, or how a published code averages it",
        choices=KL_UNITS,
    )


@dataclasses.dataclass(frozen=True)
class VariationalOptions(ModelOptions):
    """Options of every variational autoencoder."""

    kl_weight: float = option(1.0, "weight of the KL divergence, in kl_unit", at_least=0)
    kl_unit: str = kl_unit_option("vae_compare")
    mean_clip: float = option(
        0.0, "limit of lambda in reconstructions; 0: none; the public code: 1e-5", at_least=0
    )
    ssim_window: int = ssim_window_option(detection_only=True)
    bound_maps: bool = option(
        False,
        "also give the maps l2, kl and gradient, parts of the lower bound (one step backwards)",
        detection_only=True,
    )
    dtype: str = dtype_option()


class Posterior(NamedTuple):
    """Independent normal distributions, one per latent."""

    mean: Float[Array, "b i j d"]
    log_variance: Float[Array, "b i j d"]


class Prior(Protocol):
    """What a Flax module must offer to be the prior of latents ``(i, j, d)``."""

    def kl_divergence(self, posterior: Posterior) -> Float[Array, "b d"]:
        """KL(posterior || prior) of every channel in nats, summed over positions."""

    def kl_shares(self, posterior: Posterior) -> Float[Array, "b i j"]:
        """What each position contributes to the divergence, summed over channels."""

    def image_loss(self, images: Float[Array, "b h w c"]) -> Float[Array, " b"] | None:
        """A term of the objective that depends on the image alone, or None."""

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, int, int, int]
    ) -> Float[Array, "n i j d"]:
        """Latents drawn from the prior."""

    def scalars(self) -> dict[str, Float[Array, ""]]:
        """What it has learned, for the history."""

    def diagnostics(self) -> dict[str, Array]:
        """The same, and what else a report should show (:class:`jaxad.models.base.Model`)."""


class StandardNormal(nn.Module):
    """The usual prior: every latent N(0, 1), independent of all others."""

    def kl_divergence(self, posterior: Posterior) -> Float[Array, "b d"]:
        """KL(posterior || prior) of every channel in nats, summed over positions."""
        return jnp.sum(self._of_latents(posterior), axis=(1, 2))

    def kl_shares(self, posterior: Posterior) -> Float[Array, "b i j"]:
        """What each position contributes to the divergence, summed over channels."""
        return jnp.sum(self._of_latents(posterior), axis=-1)

    def _of_latents(self, posterior: Posterior) -> Float[Array, "b i j d"]:
        mean, log_variance = posterior
        return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1.0)

    def image_loss(self, images: Float[Array, "b h w c"]) -> None:
        """None: nothing is learned."""

    def sample(
        self, key: Key[Array, ""], shape: tuple[int, int, int, int]
    ) -> Float[Array, "n i j d"]:
        """Independent standard normal latents."""
        return jax.random.normal(key, shape)

    def scalars(self) -> dict[str, Float[Array, ""]]:
        """Nothing is learned."""
        return {}

    def diagnostics(self) -> dict[str, Array]:
        """Nothing to show."""
        return {}


def draw(posterior: Posterior, keys: Key[Array, " b"]) -> Float[Array, "b i j d"]:
    """One latent per image, reparametrised; each image has its own key."""
    shape = posterior.mean.shape[1:]
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


def mean_absolute_deviation(latents: Float[Array, "b i j d"]) -> Float[Array, "b i j"]:
    """MAD across channels, ``mean_d |z_d - mean_d' z_d'|``, at every position of every image."""
    centre = jnp.mean(latents, axis=-1, keepdims=True)
    return jnp.mean(jnp.abs(latents - centre), axis=-1)


def structural_dissimilarity(
    images: Float[AnyArray, "b h w c"], reconstruction: Float[AnyArray, "b h w c"], *, window: int
) -> Float[Array, "b h w"]:
    """Product over channels of 1 - SSIM, in [0, 2 ** c]."""
    return jnp.prod(1.0 - ssim_map(images, reconstruction, window_size=window), axis=-1)


def kl_unit(
    name: str, image_shape: tuple[int, int, int], latent_shape: tuple[int, int, int]
) -> float:
    """The KL weight, relative to the evidence lower bound, of a published way of averaging.

    Args:
      name: ``"elbo"``, sums on both sides: 1; ``"vae_compare"`` (VAE and ViT-VAE of the paper's
        code), likelihood summed, KL averaged over positions: 1 / (i j), which is 1/1024 and
        1/196; ``"vae_compare_grf"`` (its VAE-GRF), both averaged: h w c / (i j d), which is 0.75;
        ``"vae_grf_2024"`` (the VAE-GRF authors' later code), likelihood averaged over positions:
        h w / (i j d), which is 1/4.
      image_shape: ``(h, w, c)``.
      latent_shape: ``(i, j, d)``.

    Raises:
      KeyError: an unknown name.
    """
    h, w, c = image_shape
    i, j, d = latent_shape
    units = {
        "elbo": 1.0,
        "vae_compare": 1.0 / (i * j),
        "vae_compare_grf": h * w * c / (i * j * d),
        "vae_grf_2024": h * w / (i * j * d),
    }
    return units[name]


# Of a module that `nn.apply` or `nn.init` has bound to its variables.


def use_every_part(module: Any, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Calls all that has parameters once, so that :func:`init` makes them."""
    posterior = module.encode(images, train=False)
    module.prior.kl_divergence(posterior)
    return module.decode(posterior.mean, train=False)


def forward(
    module: Any, images: Float[Array, "b h w c"], keys: Key[Array, " b"], train: bool
) -> tuple[
    Float[Array, "b h w c"], Float[Array, "b d"], Float[Array, " b"] | None, dict[str, Array]
]:
    """What the objective needs, for one latent drawn per image.

    Returns:
      Logits, KL divergence of every channel, the prior's image loss and its scalars.
    """
    posterior = module.encode(images, train=train)
    logits = module.decode(draw(posterior, keys), train=train)
    prior = module.prior
    return logits, prior.kl_divergence(posterior), prior.image_loss(images), prior.scalars()


def mean_image(
    module: Any, latents: Float[Array, "b i j d"], mean_clip: float
) -> Float[Array, "b h w c"]:
    """The images in [0, 1] that latents stand for."""
    logits = module.decode(latents, train=False)
    return continuous_bernoulli.mean(logits, clip=mean_clip or None)


# Of a module and its variables: what the model is made of.


def init(module: Any, key: Key[Array, ""], *, image_shape: tuple[int, int, int]) -> Variables:
    """All parameters, of network and prior."""
    return nn.init(use_every_part, module)(key, jnp.zeros((1, *image_shape)))


def loss(
    module: Any,
    variables: Variables,
    batch: Batch,
    keys: Key[Array, " b"],
    train: bool,
    *,
    image_shape: tuple[int, int, int],
    kl_weight: float,
) -> LossOutput:
    """The objective of the head of this file, and what the prior learns from the image alone."""
    images = to_unit_float(batch.image)
    values = math.prod(image_shape)
    (logits, kl, image_loss, scalars), collections = apply_for_loss(
        forward, module, variables, images, keys, train=train
    )
    log_likelihood = continuous_bernoulli.log_likelihood(images, logits)
    terms = {
        "nll": -jnp.sum(log_likelihood, axis=(1, 2, 3)) / values,
        "kl": jnp.sum(kl, axis=1) / values,
    }
    per_example = terms["nll"] + kl_weight * terms["kl"]
    if image_loss is not None:
        terms["image_nll"] = image_loss
        per_example = per_example + image_loss
    return LossOutput(per_example, terms, collections, {}, scalars)


def detect(
    module: Any,
    variables: Variables,
    images: Shaped[Array, "b h w c"],
    *,
    cell: int,
    kl_weight: float,
    options: VariationalOptions,
) -> Detection:
    """The maps of the head of this file, and, where the options ask for them, of the bound.

    Args:
      module: of the model.
      variables: of the module.
      images: uint8, or float in [0, 1].
      cell: side of a latent's cell in pixels.
      kl_weight: of the objective, relative to the evidence lower bound.
      options: of the model.
    """
    images = to_unit_float(images)
    network = module.bind(variables)
    latents = network.encode(images, train=False).mean
    reconstruction = mean_image(network, latents, options.mean_clip)
    mad = repeat_upsample(mean_absolute_deviation(latents), cell)
    ssim = structural_dissimilarity(images, reconstruction, window=options.ssim_window)
    maps = {"mad": mad, "ssim": ssim, "mad*ssim": mad * ssim}
    if options.bound_maps:
        where: dict[str, Any] = {"cell": cell, "kl_weight": kl_weight}
        maps |= bound_maps(module, variables, images, reconstruction, **where)
    return Detection(maps, {}, reconstruction)


def diagnostics(
    module: Any, variables: Variables, images: Shaped[Array, "b h w c"]
) -> dict[str, Array]:
    """KL of each channel in nats per image, variance of its means, and the prior's own."""
    network = module.bind(variables)
    posterior = network.encode(to_unit_float(images), train=False)
    return {
        "kl_per_channel": jnp.mean(network.prior.kl_divergence(posterior), axis=0),
        "channel_activity": jnp.var(posterior.mean, axis=(0, 1, 2)),
        **network.prior.diagnostics(),
    }


def sample(
    module: Any,
    variables: Variables,
    key: Key[Array, ""],
    n: int,
    *,
    latent_shape: tuple[int, int, int],
    mean_clip: float,
) -> Float[Array, "n h w c"]:
    """Images whose latents are drawn from the prior."""
    network = module.bind(variables)
    return mean_image(network, network.prior.sample(key, (n, *latent_shape)), mean_clip)


def make_model(
    module: Any,
    image_shape: tuple[int, int, int],
    latent_shape: tuple[int, int, int],
    options: VariationalOptions,
    *,
    param_labels: Callable[[Any], Any] = label_all_trainable,
) -> Model:
    """The pure functions of a variational autoencoder.

    Args:
      module: has ``encode(images, train) -> Posterior``, ``decode(latents, train) -> logits`` and
        a submodule ``prior`` (:class:`Prior`).
      image_shape: ``(h, w, c)``.
      latent_shape: ``(i, j, d)``, with h / i = w / j, a whole number.
      options: of the model.
      param_labels: as in :class:`jaxad.models.base.Model`.
    """
    weight = options.kl_weight * kl_unit(options.kl_unit, image_shape, latent_shape)
    return Model(
        module=module,
        image_shape=image_shape,
        init=functools.partial(init, module, image_shape=image_shape),
        loss=functools.partial(loss, module, image_shape=image_shape, kl_weight=weight),
        detect=functools.partial(
            detect,
            module,
            cell=image_shape[0] // latent_shape[0],
            kl_weight=weight,
            options=options,
        ),
        param_labels=param_labels,
        diagnostics=functools.partial(diagnostics, module),
        sample=functools.partial(
            sample, module, latent_shape=latent_shape, mean_clip=options.mean_clip
        ),
    )
