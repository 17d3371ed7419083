"""Anomaly maps from the parts of a variational autoencoder's lower bound.

The inner metrics of VAEs that H. Gangloff et al. (ICPR 2022, section I.B) name, and claim that
those of a VQ-VAE are better: the residual, the KL divergence, and the derivative of the bound with
respect to the image (D. Zimmerer et al., MICCAI 2019). All are taken at the posterior's mean, so
nothing is drawn:

* ``l2``: the squared error of the reconstruction, a mean over channels;
* ``kl``: what each position contributes to KL(posterior || prior), in nats, repeated to image size;
* ``gradient``: ``|d loss / d x|``, a mean over channels, with ``loss = -log p(x | z) + w KL``, the
  objective with the weight that the network was trained with, in nats.

Zimmerer et al. average the gradient over draws of noise (SmoothGrad) and smooth it; smoothing is
``evaluate.smoothing`` here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.base import Variables
from jaxad.ops import continuous_bernoulli
from jaxad.ops.resize import repeat_upsample


def bound_maps(
    module: Any,
    variables: Variables,
    images: Float[Array, "b h w c"],
    reconstruction: Float[Array, "b h w c"],
    *,
    cell: int,
    kl_weight: float,
) -> dict[str, Float[Array, "b h w"]]:
    """The maps of the head of this file.

    Args:
      module: as :func:`jaxad.models.layers.variational.make_model` takes it.
      variables: of the module.
      images: in [0, 1].
      reconstruction: of these images, in [0, 1].
      cell: side of a latent's cell in pixels.
      kl_weight: relative to the evidence lower bound.
    """

    def objective(images: Float[Array, "b h w c"]) -> Float[Array, ""]:
        # Images do not meet: the gradient of the sum is each image's own.
        return nn.apply(negative_bound, module)(variables, images, kl_weight)

    shares = nn.apply(kl_shares, module)(variables, images)
    return {
        "l2": jnp.mean(jnp.square(images - reconstruction), axis=-1),
        "kl": repeat_upsample(shares, cell),
        "gradient": jnp.mean(jnp.abs(jax.grad(objective)(images)), axis=-1),
    }


# Of a module that `nn.apply` has bound to its variables.


def kl_shares(module: Any, images: Float[Array, "b h w c"]) -> Float[Array, "b i j"]:
    """What each position contributes to the KL divergence, in nats."""
    return module.prior.kl_shares(module.encode(images, train=False))


def negative_bound(
    module: Any, images: Float[Array, "b h w c"], kl_weight: float
) -> Float[Array, ""]:
    """``-log p(x | z) + w KL`` at the posterior's mean, in nats, summed over images."""
    posterior = module.encode(images, train=False)
    logits = module.decode(posterior.mean, train=False)
    log_likelihood = jnp.sum(continuous_bernoulli.log_likelihood(images, logits))
    return kl_weight * jnp.sum(module.prior.kl_divergence(posterior)) - log_likelihood
