"""VAE with a vision transformer as encoder.

Source: the column "ViT-VAE" of arXiv 2408.13561 and its public code. Encoder: ViT-B/16 at
224 x 224. The 14 x 14 tokens after the last layer normalisation, without the class token, are the
parameters of the latents: the first 384 channels the mean, the last 384 the log-variance. Decoder:
four 4x4 transposed convolutions of stride 2, 384 -> 192 -> 96 -> 48 -> colours, each but the last
with batch normalisation and ReLU. Objective, likelihood and maps:
:mod:`jaxad.models.layers.variational`.

Where paper and code disagree or are silent, and what is done here:

* The paper speaks of an intermediate layer of the ViT; the code takes the last. So the
  log-variance is the output of a layer normalisation, with no projection after it.
* The code averages the KL over the 196 positions and sums the likelihood
  (``kl_unit=vae_compare``), and limits lambda (``mean_clip``), as its VAE does.
* The code starts from weights that were trained on images in [-1, 1] and shows the network images
  in [0, 1]; ``symmetric_input`` brings them to [-1, 1].
* All parameters are trained. A label for the encoder lets a config freeze it
  (``train.learning_rate_multipliers.encoder=0``), as some of the published logs did.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.base import Model, label_encoder
from jaxad.models.layers.basic import BatchNorm, ConvTranspose, pytorch_conv_init
from jaxad.models.layers.token_grid import token_grid
from jaxad.models.layers.variational import (
    Posterior,
    StandardNormal,
    VariationalOptions,
    make_model,
)
from jaxad.models.layers.vit import VisionTransformer
from jaxad.ops.arrays import AnyArray
from jaxad.run.options import option


class ViTVAE(nn.Module):
    """ViT encoder, latents with a prior, transposed-convolution decoder.

    Attributes:
      channels: of the images.
      encoder: a vision transformer with a class token and patches whose side is a power of 2; half
        of the length of a token are the latents.
      prior: a :class:`jaxad.models.layers.variational.Prior`.
      symmetric_input: show the encoder images in [-1, 1] instead of [0, 1].
      axis_name: mapped axis for batch statistics.
      dtype: of the computation; parameters, normalisation, latents and logits are float32.
    """

    channels: int
    encoder: VisionTransformer
    prior: nn.Module
    symmetric_input: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self):
        """Declares the layers."""
        halvings = self.encoder.patch.bit_length() - 1
        outputs = [self.encoder.features >> k for k in range(2, halvings + 1)] + [self.channels]
        self.up = [
            ConvTranspose(f, (4, 4), strides=2, dtype=self.dtype, **pytorch_conv_init(f, (4, 4)))
            for f in outputs
        ]
        self.up_norm = [BatchNorm(axis_name=self.axis_name, dtype=self.dtype) for _ in outputs[:-1]]

    def encode(self, images: Float[AnyArray, "b h w c"], *, train: bool) -> Posterior:
        """The posterior of the latents of images in [0, 1], float32."""
        del train  # nothing in the encoder depends on it
        images = jnp.asarray(images)
        x = 2.0 * images - 1.0 if self.symmetric_input else images
        grid = token_grid(self.encoder, x).astype(jnp.float32)
        half = self.encoder.features // 2
        return Posterior(grid[..., :half], grid[..., half:])

    def decode(self, latents: Float[Array, "b i j d"], *, train: bool) -> Float[Array, "b h w c"]:
        """Logits of the continuous Bernoulli, float32."""
        x = latents
        for layer, norm in zip(self.up[:-1], self.up_norm, strict=True):
            x = nn.relu(norm(layer(x), train=train))
        return self.up[-1](x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class ViTVAEOptions(VariationalOptions):
    """Options of ``vit_vae``."""

    patch: int = option(16, "side of a patch in pixels, a power of 2", at_least=2)
    features: int = option(768, "length of a token; half of it are the latents", at_least=2)
    depth: int = option(12, "transformer blocks", at_least=0)
    heads: int = option(12, "attention heads", at_least=1)
    symmetric_input: bool = option(
        False, "show the encoder images in [-1, 1], as public ViT weights expect"
    )


def build(
    image_shape: tuple[int, int, int], options: ViTVAEOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``vit_vae``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      options: of the model.
      axis_name: the mapped axis over which batch statistics are reduced.

    Raises:
      ValueError: options that do not fit together, or the images.
    """
    h, w, c = image_shape
    patch, features = options.patch, options.features
    if patch & (patch - 1):
        raise ValueError(f"model.patch is {patch}; the decoder doubles, so give a power of 2")
    if h % patch or w % patch:
        raise ValueError(
            f"images of {h} x {w} do not divide into patches of {patch}; set data.image_size to "
            f"multiples of {patch}"
        )
    if features % 2 or features % options.heads or features < 2 * patch:
        raise ValueError(
            f"model.features is {features}; it must be divisible by 2 and by model.heads "
            f"{options.heads}, and at least {2 * patch} for the decoder's halvings"
        )
    dtype = jnp.dtype(options.dtype)
    encoder = VisionTransformer(
        features,
        options.depth,
        options.heads,
        image_size=(h, w),
        patch=patch,
        epsilon=1e-12,
        dtype=dtype,
    )
    module = ViTVAE(c, encoder, StandardNormal(), options.symmetric_input, axis_name, dtype)
    latent_shape = (*encoder.grid, features // 2)
    return make_model(module, (h, w, c), latent_shape, options, param_labels=label_encoder)
