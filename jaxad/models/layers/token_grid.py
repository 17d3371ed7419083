"""What the transformer autoencoders share: patch tokens in their places."""

from __future__ import annotations

from jaxtyping import Array, Float

from jaxad.models.layers.vit import VisionTransformer


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
    if patch < 1 or h % patch or w % patch:
        raise ValueError(
            f"images of {h} x {w} do not divide into patches of {patch}; set data.image_size to "
            f"multiples of model.patch"
        )
    if heads < 1 or features % heads:
        raise ValueError(
            f"model.features {features} cannot be shared by model.heads {heads}; give multiples"
        )
