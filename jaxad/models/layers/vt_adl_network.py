"""The network of VT-ADL: encoder, reconstruction vector, decoder and density.

Source: P. Mishra et al., "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and
Localization", ISIE 2021, and its authors' public code.

Encoder: patches of 64 of a 512 x 512 image, 6 pre-norm blocks of 512 features, 8 heads, MLPs of
1024, no bias on query, key and value, no final normalisation; the class token is dropped.
Reconstruction vector: in the code a capsule layer of *one* output capsule. Its routing is a
softmax over that one capsule, which is always 1. So it computes a linear map without bias of all
tokens together to 512 numbers, then ``s |s| / (1 + |s|^2)``, which is what is done here.
Decoder: the vector as 8 x 8 x 8, transposed convolutions with batch normalisation and ReLU in
between, tanh at the end; six in the code (``kind="published"``, sides 8 15 49 245 497 502 512),
five in the paper. For other sizes there is ``"doubling"`` (not published): 4x4 and stride 2.
Density: :mod:`jaxad.models.layers.mixture_head`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Key

from jaxad.models.layers.basic import BatchNorm, ConvTranspose, pytorch_conv_init
from jaxad.models.layers.mixture_head import Mixture, MixtureHead
from jaxad.models.layers.token_grid import token_grid
from jaxad.models.layers.vit import VisionTransformer

CODE_CHANNELS = 8
PUBLISHED_SIZE = 512
PUBLISHED_LAYERS = ((16, 3, 2, 1), (32, 9, 3, 1), (32, 7, 5, 1), (16, 9, 2, 0), (8, 6, 1, 0))
"""Output channels, kernel, stride and padding (PyTorch's) of all but the last, 11 1 0."""
DOUBLING_CHANNELS = (32, 32, 16, 8)


class Decoder(nn.Module):
    """A vector to an image in (-1, 1).

    Attributes:
      image_shape: ``(h, w, c)``.
      kind: ``"published"`` or ``"doubling"``.
      width: factor on the channels of ``"doubling"``.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation.
    """

    image_shape: tuple[int, int, int]
    kind: str
    width: float = 1.0
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, codes: Float[Array, "b z"], *, train: bool) -> Float[Array, "b h w c"]:
        """Decodes; the vector's numbers run over channels, rows and columns in this order."""
        h, w, c = self.image_shape
        halvings = halvings_of(self.image_shape)
        layers: tuple[tuple[int, int, int, int], ...]
        if self.kind == "published":
            grid, layers = (8, 8), (*PUBLISHED_LAYERS, (c, 11, 1, 0))
        else:
            grid = (h >> halvings, w >> halvings)
            channels = [max(1, round(f * self.width)) for f in DOUBLING_CHANNELS]
            channels += channels[-1:] * halvings
            layers = tuple((f, 4, 2, 1) for f in [*channels[: halvings - 1], c])
        x = jnp.moveaxis(codes.reshape(-1, CODE_CHANNELS, *grid), 1, -1)
        for i, (features, kernel, stride, padding) in enumerate(layers):
            # PyTorch's padding p cuts p from the edges: here the dilated input is padded.
            x = ConvTranspose(
                features, (kernel, kernel), strides=stride, padding=kernel - 1 - padding,
                dtype=self.dtype, name=f"up_{i}", **pytorch_conv_init(features, (kernel, kernel)),
            )(x)  # fmt: skip
            if i < len(layers) - 1:
                norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f"norm_{i}")
                x = nn.relu(norm(x, train=train))
        return nn.tanh(x.astype(jnp.float32))


class Pass(NamedTuple):
    """What one pass through the network gives.

    Attributes:
      output: the reconstruction, in (-1, 1).
      mixture: the density of the embeddings.
      tokens: the embeddings of the patches, without noise.
    """

    output: Float[Array, "b h w c"]
    mixture: Mixture
    tokens: Float[Array, "b n d"]


class VTADL(nn.Module):
    """Encoder, reconstruction vector, decoder and mixture density.

    Attributes:
      encoder: a vision transformer.
      decoder: to images.
      density: the mixture density network.
      code_features: length of the reconstruction vector.
      noise: standard deviation of the noise on embeddings in training: on the density's condition,
        and where the density is the published one also on its target and on what is decoded.
      stop_gradient: on the density's target.
    """

    encoder: VisionTransformer
    decoder: Decoder
    density: MixtureHead
    code_features: int
    noise: float = 0.0
    stop_gradient: bool = False

    def setup(self):
        """Declares the projection to the reconstruction vector."""
        self.capsule = nn.Dense(
            self.code_features,
            use_bias=False,
            kernel_init=nn.initializers.normal(0.01),
            dtype=self.encoder.dtype,
        )

    def embed(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """Embeddings of the patches, row by row, float32."""
        grid = token_grid(self.encoder, images).astype(jnp.float32)
        return grid.reshape(grid.shape[0], -1, grid.shape[-1])

    def decode(self, tokens: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b h w c"]:
        """The image of all embeddings together."""
        flat = tokens.reshape(tokens.shape[0], -1)
        return self.decoder(squash(self.capsule(flat).astype(jnp.float32)), train=train)

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        keys: Key[Array, " b"] | None = None,
        *,
        train: bool = False,
    ) -> Pass:
        """Reconstruction and density of images in [0, 1].

        Args:
          images: as they are.
          keys: one for each image, for the noise; only training needs them.
          train: with noise, and by the statistics of the batch.
        """
        tokens = self.embed(images)
        condition, decoded, target = tokens, tokens, tokens
        if train and self.noise > 0:
            draw = lambda key: jax.random.normal(key, tokens.shape[1:])
            condition = tokens + self.noise * jax.vmap(draw)(keys)
            if self.density.published:
                decoded = target = condition
        if self.stop_gradient:
            target = jax.lax.stop_gradient(target)
        return Pass(self.decode(decoded, train=train), self.density(condition, target), tokens)


def squash(x: Float[Array, "*b z"]) -> Float[Array, "*b z"]:
    """``x |x| / (1 + |x|^2)``: of length below 1; zero stays zero, with a finite gradient."""
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * (jnp.sqrt(jnp.maximum(squared, 1e-24)) / (1.0 + squared))


def published_start(encoder: Any, key: Array) -> Any:
    """The encoder's start as in the code: linear layers Kaiming normal, class token N(0, 1)."""
    flat = flatten_dict(encoder)
    for number, (path, leaf) in enumerate(sorted(flat.items())):
        if path[-1] in ("kernel", "class_token"):
            fan_in = math.prod(leaf.shape[:-1])
            scale = math.sqrt(2.0 / fan_in) if path[-1] == "kernel" else 1.0
            own = jax.random.fold_in(key, number)
            flat[path] = scale * jax.random.normal(own, leaf.shape, leaf.dtype)
    return unflatten_dict(flat)


def halvings_of(image_shape: tuple[int, int, int]) -> int:
    """Doublings from about 8 x 8 to the image."""
    return max(1, round(math.log2(max(2.0, min(image_shape[:2]) / 8))))


def code_features_of(decoder: str, image_shape: tuple[int, int, int]) -> int:
    """Length of the reconstruction vector.

    Raises:
      ValueError: the decoder does not make images of this size.
    """
    h, w, _ = image_shape
    if decoder == "published":
        if (h, w) != (PUBLISHED_SIZE, PUBLISHED_SIZE):
            raise ValueError(
                f"model.decoder=published makes images of {PUBLISHED_SIZE} x {PUBLISHED_SIZE}, "
                f"not of {h} x {w}; set model.decoder=doubling or data.image_size"
            )
        return CODE_CHANNELS * 8 * 8
    step = 2 ** halvings_of(image_shape)
    if h % step or w % step:
        raise ValueError(
            f"sides of {h} x {w} must be divisible by {step} for model.decoder=doubling; change "
            "data.image_size"
        )
    return CODE_CHANNELS * (h // step) * (w // step)
