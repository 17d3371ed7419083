"""VAE with the first layers of a ResNet18 as encoder and latents on a grid.

Source: the column "VAE" of arXiv 2408.13561 and its public code, which descends from that of the
VAE-GRF paper. Encoder: stem, layer1 and layer2 of ResNet18, then a 1x1 convolution to mean and
log-variance; 256 x 256 images have 32 x 32 x 256 latents. Decoder: a 1x1 convolution, then one 4x4
transposed convolution of stride 2 per halving, each but the last with batch normalisation and
ReLU, half the channels each time. Objective, likelihood and maps:
:mod:`jaxad.models.layers.variational`.

Where paper and code disagree or are silent, and what is done here:

* The paper says ResNet18; the code keeps two of its four stages and does not pretrain them.
  ``train.weights`` starts them from converted torchvision weights.
* The paper gives the KL weight as 1; the code averages the KL over the 1024 positions and sums
  the likelihood, so its weight is 1/1024 of the evidence lower bound (``kl_unit=vae_compare``).
* The paper does not name the likelihood; the code's is the continuous Bernoulli. The code limits
  lambda to [1e-5, 1 - 1e-5] before it takes the mean, so reconstructions stay within
  [0.087, 0.913]. Here this is the option ``mean_clip``, off by default.
* The code replaces lambda near 1/2 by 0.49, adds 1e-6 inside its logarithms and goes through
  lambda instead of logits. Here the likelihood is exact; they differ by less than 1e-3 nats per
  value.
* A transposed 1x1 convolution is a 1x1 convolution, and is written as one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.base import Model, label_all_trainable
from jaxad.models.layers.basic import BatchNorm, Conv, ConvTranspose, pytorch_conv_init
from jaxad.models.layers.resnet import STAGES, ResNetTrunk
from jaxad.models.layers.variational import (
    Posterior,
    StandardNormal,
    VariationalOptions,
    make_model,
)
from jaxad.ops.arrays import AnyArray
from jaxad.run.options import option


class ConvolutionalVAE(nn.Module):
    """ResNet encoder, latents with a prior, transposed-convolution decoder.

    Attributes:
      channels: of the images.
      prior: a :class:`jaxad.models.layers.variational.Prior`.
      downsampling: halvings of the side, 2 to 5.
      latent: channels of the latents.
      width: channels of the encoder's stem.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation; parameters, normalisation, latents and logits are float32.
    """

    channels: int
    prior: nn.Module
    downsampling: int = 3
    latent: int = 256
    width: int = 64
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self):
        """Declares the layers."""
        stages = self.downsampling - 1
        deepest = self.width * 2 ** (stages - 1)
        shared = {"axis_name": self.axis_name, "dtype": self.dtype}
        self.encoder = ResNetTrunk(stages, self.width, **shared)
        pointwise = lambda features, fan: Conv(
            features, (1, 1), dtype=self.dtype, **pytorch_conv_init(fan, (1, 1))
        )
        self.to_latent = pointwise(2 * self.latent, deepest)
        self.from_latent = pointwise(deepest, deepest)
        self.from_latent_norm = BatchNorm(**shared)
        outputs = [deepest >> k for k in range(1, self.downsampling)] + [self.channels]
        self.up = [
            ConvTranspose(f, (4, 4), strides=2, dtype=self.dtype, **pytorch_conv_init(f, (4, 4)))
            for f in outputs
        ]
        self.up_norm = [BatchNorm(**shared) for _ in outputs[:-1]]

    def encode(self, images: Float[AnyArray, "b h w c"], *, train: bool) -> Posterior:
        """The posterior of the latents of images in [0, 1], float32."""
        x = self.to_latent(self.encoder(jnp.asarray(images), train=train)).astype(jnp.float32)
        return Posterior(x[..., : self.latent], x[..., self.latent :])

    def decode(self, latents: Float[Array, "b i j d"], *, train: bool) -> Float[Array, "b h w c"]:
        """Logits of the continuous Bernoulli, float32."""
        x = nn.relu(self.from_latent_norm(self.from_latent(latents), train=train))
        for layer, norm in zip(self.up[:-1], self.up_norm, strict=True):
            x = nn.relu(norm(layer(x), train=train))
        return self.up[-1](x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class VAEOptions(VariationalOptions):
    """Options of ``vae``."""

    downsampling: int = option(
        3, "halvings: 32 x 32 latents of 256 x 256 images", at_least=2, at_most=STAGES + 1
    )
    latent: int = option(256, "channels of the latents", at_least=1)
    width: int = option(64, "channels of the encoder's stem; converted weights need 64", at_least=1)


def build(
    image_shape: tuple[int, int, int], options: VAEOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``vae``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``2 ** downsampling``.
      options: of the model.
      axis_name: the mapped axis over which batch statistics are reduced.

    Raises:
      ValueError: images that cannot be halved so often.
    """
    return build_convolutional(image_shape, StandardNormal(), options, axis_name=axis_name)


def build_convolutional(
    image_shape: tuple[int, int, int],
    prior: nn.Module,
    options: VAEOptions,
    *,
    axis_name: str | None,
    param_labels: Callable[[Any], Any] = label_all_trainable,
) -> Model:
    """A convolutional VAE with any prior; the other arguments are those of :func:`build`.

    Raises:
      ValueError: images that cannot be halved so often.
    """
    h, w, c = image_shape
    latent_shape = latent_grid(image_shape, options)
    module = ConvolutionalVAE(
        c,
        prior,
        options.downsampling,
        options.latent,
        options.width,
        axis_name,
        jnp.dtype(options.dtype),
    )
    return make_model(module, (h, w, c), latent_shape, options, param_labels=param_labels)


def latent_grid(image_shape: tuple[int, int, int], options: VAEOptions) -> tuple[int, int, int]:
    """The shape of the latents of one image.

    Raises:
      ValueError: the image cannot be halved so often.
    """
    h, w, _ = image_shape
    cell = 2**options.downsampling
    if h % cell or w % cell:
        raise ValueError(
            f"images of {h} x {w} cannot be halved {options.downsampling} times; set "
            f"data.image_size to multiples of {cell}"
        )
    return h // cell, w // cell, options.latent
