"""What the transformer autoencoders share: patch tokens in their places."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxad.models.base import ModelOptions, dtype_option
from jaxad.models.layers.vit import VisionTransformer
from jaxad.run.options import option


@dataclasses.dataclass(frozen=True)
class ViTOptions(ModelOptions):
    """Options of models whose encoder is a vision transformer."""

    patch: int = option(16, "side of a patch in pixels", at_least=1)
    features: int = option(768, "length of a token, divisible by heads", at_least=1)
    depth: int = option(12, "transformer blocks of the encoder", at_least=0)
    heads: int = option(12, "attention heads of the encoder", at_least=1)
    remat: bool = option(False, "recompute blocks in the backward pass, to save memory")
    dtype: str = dtype_option()

    def encoder(self, image_shape: tuple[int, int, int], **more: Any) -> VisionTransformer:
        """The encoder for images ``(h, w, c)``, with other attributes where given.

        Raises:
          ValueError: the image does not divide into patches, or the features into heads.
        """
        check_grid(image_shape, patch=self.patch, features=self.features, heads=self.heads)
        return VisionTransformer(
            self.features,
            self.depth,
            self.heads,
            image_size=image_shape[:2],
            patch=self.patch,
            remat=self.remat,
            dtype=jnp.dtype(self.dtype),
            **more,
        )


def token_grid(
    encoder: VisionTransformer, images: Float[Array, "b h w c"]
) -> Float[Array, "b i j d"]:
    """Tokens of the patches after the encoder's end, in their places."""
    tokens = encoder(images)[:, int(encoder.class_token) :]
    return tokens.reshape(-1, *encoder.grid, encoder.features)


def check_grid(image_shape: tuple[int, int, int], *, patch: int, features: int, heads: int) -> None:
    """Refuses images that do not divide into patches, features that heads cannot share.

    Raises:
      ValueError: says which key to change, and to what.
    """
    h, w, _ = image_shape
    if h % patch or w % patch:
        raise ValueError(
            f"images of {h} x {w} do not divide into patches of {patch}; set data.image_size to "
            f"multiples of model.patch"
        )
    if features % heads:
        raise ValueError(
            f"model.features {features} cannot be shared by model.heads {heads}; give multiples"
        )
