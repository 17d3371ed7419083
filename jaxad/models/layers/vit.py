"""Vision transformer: the layers that several architectures share.

Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, in the form of timm and
of K. He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022: pre-norm blocks,
exact GELU, one projection for query, key and value.

The parameters of :class:`VisionTransformer`, which every architecture names ``encoder``::

    patch_embedding/kernel   (p, p, c, d)     patch_embedding/bias   (d,)
    class_token              (1, 1, d)        where there is one
    positions                (1, n, d)        where they are learned; the class token's come first
    block_i/norm1/scale      (d,)             block_i/norm1/bias     (d,)
    block_i/attention/qkv/kernel (d, 3 d)     columns query, key, value; within each, head by head
    block_i/attention/qkv/bias   (3 d,)       unless qkv_bias=False
    block_i/attention/out/kernel (d, d)       block_i/attention/out/bias (d,)
    block_i/norm2/...
    block_i/mlp/fc1/kernel   (d, m)           block_i/mlp/fc1/bias   (m,)
    block_i/mlp/fc2/kernel   (m, d)           block_i/mlp/fc2/bias   (d,)
    norm/scale, norm/bias    (d,)             unless final_norm=False

Arithmetic: with ``dtype`` bfloat16, matrix products and the GELU are bfloat16; layer normalisation,
softmax and the sum that runs through the blocks are float32, and so are the tokens at the end. The
attention keeps no large arrays of scores (:mod:`jaxad.ops.attention`), so that memory does not grow
with the square of the tokens. Forward mode and second derivatives are not defined.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from jaxad.ops.attention import attention
from jaxad.ops.layer_norm import layer_norm
from jaxad.ops.patches import patch_grid, patchify
from jaxad.ops.positions import sincos_positions

linear_init = nn.initializers.xavier_uniform()
"""Of all linear layers and the patches' kernel, as in He et al.; biases are zero. (PyTorch's timm
draws from a normal distribution of 0.02, about as wide at 768 features but makes the
blocks of small models start nearly as identities.)"""


class PatchEmbedding(nn.Module):
    """A convolution of stride ``patch`` as one matrix product.

    Attributes:
      features: length of a token.
      patch: side of a patch in pixels.
      dtype: of the computation.
    """

    features: int
    patch: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """One token per patch, row by row."""
        c, p = images.shape[-1], self.patch
        kernel = self.param("kernel", _flattened_init, (p, p, c, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = patchify(images.astype(self.dtype), patch=p)
        kernel = kernel.reshape(p * p * c, self.features).astype(self.dtype)
        return x @ kernel + bias.astype(self.dtype)[None, None, :]


def _flattened_init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """The initialiser of linear layers, for a patch's kernel as a matrix."""
    return linear_init(key, (shape[0] * shape[1] * shape[2], shape[3]), dtype).reshape(shape)


class LayerNorm(nn.Module):
    """Layer normalisation over the features, computed in float32.

    Attributes:
      epsilon: added to the variance.
      dtype: of the result.
    """

    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Normalises each token."""
        d = tokens.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (d,))
        bias = self.param("bias", nn.initializers.zeros, (d,))
        return layer_norm(tokens, scale, bias, self.epsilon).astype(self.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Attributes:
      heads: number of heads; divides the features.
      qkv_bias: whether query, key and value have a bias.
      scale: factor of the scores before the softmax; None is ``(d / heads) ** -0.5``.
      dtype: of the computation; the softmax is float32.
    """

    heads: int
    qkv_bias: bool = True
    scale: float | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Mixes the tokens."""
        b, n, d = tokens.shape
        if d % self.heads:
            raise ValueError(
                f"{d} features cannot be shared by {self.heads} heads: choose a number of heads "
                "that divides the features."
            )
        qkv = nn.Dense(
            3 * d,
            use_bias=self.qkv_bias,
            kernel_init=linear_init,
            dtype=self.dtype,
            name="qkv",
        )(tokens)
        query, key, value = jnp.moveaxis(qkv.reshape(b, n, 3, self.heads, d // self.heads), 2, 0)
        mixed = attention(query, key, value, scale=self.scale)
        out = nn.Dense(d, kernel_init=linear_init, dtype=self.dtype, name="out")
        return out(mixed.reshape(b, n, d))


def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The exact GELU, ``x P(X <= x)`` for a standard normal X, as PyTorch computes it.

    By the error function: its complement, as in ``jax.nn.gelu``, keeps more digits where the
    result is below 1e-6 and takes three times as long on a CPU.
    """
    return 0.5 * x * (1.0 + lax.erf(x * 0.5**0.5))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them.

    Attributes:
      hidden: features between the layers.
      dtype: of the computation.
    """

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Transforms each token."""
        dense = lambda features, name: nn.Dense(
            features, kernel_init=linear_init, dtype=self.dtype, name=name
        )
        x = gelu(dense(self.hidden, "fc1")(tokens))
        return dense(tokens.shape[-1], "fc2")(x)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``, scaled where there is a layer scale.

    Attributes:
      heads: number of heads.
      mlp_features: hidden features of the MLP.
      epsilon: of the layer normalisations.
      qkv_bias: whether query, key and value have a bias.
      attention_scale: see :class:`SelfAttention`.
      dtype: of the computation; layer normalisation and softmax are float32.
      layer_scale: length of a token where what attention and MLP add is multiplied by learned
        factors (H. Touvron et al., "Going deeper with image transformers", ICCV 2021); else 0.
    """

    heads: int
    mlp_features: int
    epsilon: float = 1e-6
    qkv_bias: bool = True
    attention_scale: float | None = None
    dtype: Any = jnp.float32
    layer_scale: int = 0

    def setup(self):
        """Declares the layers."""
        self.norm1 = LayerNorm(self.epsilon, self.dtype)
        self.attention = SelfAttention(
            self.heads, self.qkv_bias, scale=self.attention_scale, dtype=self.dtype
        )
        self.norm2 = LayerNorm(self.epsilon, self.dtype)
        self.mlp = Mlp(self.mlp_features, self.dtype)
        if self.layer_scale:
            ones = nn.initializers.ones
            self.scale1 = self.param("scale1", ones, (self.layer_scale,))
            self.scale2 = self.param("scale2", ones, (self.layer_scale,))

    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Transforms the tokens; their sum is float32."""
        tokens = tokens.astype(jnp.float32)
        mixed = self.attention(self.norm1(tokens))
        x = tokens + (mixed * self.scale1[None, None] if self.layer_scale else mixed)
        transformed = self.mlp(self.norm2(x))
        return x + (transformed * self.scale2[None, None] if self.layer_scale else transformed)


class Transformer(nn.Module):
    """A stack of blocks, ``block_0`` ..., and a normalisation at its end, ``norm``.

    Attributes:
      features: length of a token.
      depth: number of blocks.
      heads: number of heads, dividing the features.
      mlp_features: hidden features of the MLPs; None is four times the features.
      final_norm: whether there is a ``norm`` after the last block.
      epsilon: of the layer normalisations: 1e-6 in timm and MAE, 1e-5 in PyTorch, 1e-12 in HF.
      qkv_bias: whether query, key and value have a bias.
      attention_scale: see :class:`SelfAttention`.
      remat: recompute the blocks in the backward pass: less memory, a third more arithmetic.
      dtype: of the computation; parameters, layer normalisation and softmax are float32.
      layer_scale: whether blocks have one, see :class:`Block`.
    """

    features: int
    depth: int
    heads: int
    mlp_features: int | None = None
    final_norm: bool = True
    epsilon: float = 1e-6
    qkv_bias: bool = True
    attention_scale: float | None = None
    remat: bool = False
    dtype: Any = jnp.float32
    layer_scale: bool = False

    def setup(self):
        """Declares the blocks."""
        block = nn.remat(Block) if self.remat else Block
        self.block = [
            block(
                self.heads,
                self.mlp_features or 4 * self.features,
                self.epsilon,
                self.qkv_bias,
                self.attention_scale,
                self.dtype,
                self.features if self.layer_scale else 0,
            )
            for _ in range(self.depth)
        ]
        if self.final_norm:
            self.norm = LayerNorm(self.epsilon)

    def transform(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Blocks and normalisation, for tokens in any number and order."""
        for block in self.block:
            tokens = block(tokens)
        return self.norm(tokens) if self.final_norm else tokens

    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """As :meth:`transform`."""
        return self.transform(tokens)


class VisionTransformer(Transformer):
    """Images to tokens; a masked autoencoder takes its parts one by one.

    Attributes:
      image_size: ``(h, w)`` in pixels, divisible by the patch's side.
      patch: side of a patch in pixels.
      class_token: whether a learned token stands before those of the patches.
      position: ``"learned"``, or ``"sincos"``: a constant table, zero for the class token.
      position_std: standard deviation of the start of learned positions.
    """

    image_size: tuple[int, int] = (224, 224)
    patch: int = 16
    class_token: bool = True
    position: str = "learned"
    position_std: float = 0.02

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of patches in a column and in a row."""
        return patch_grid(self.image_size, self.patch)

    def setup(self):
        """Declares the embedding and the blocks."""
        super().setup()
        rows, columns = self.grid
        n, d = rows * columns, self.features
        first = int(self.class_token)
        self.patch_embedding = PatchEmbedding(d, self.patch, self.dtype)
        if self.class_token:
            self.class_vector = self.param("class_token", nn.initializers.normal(0.02), (1, 1, d))
        if self.position == "learned":
            self.position_table = self.param(
                "positions", nn.initializers.normal(self.position_std), (1, first + n, d)
            )
        elif self.position == "sincos":
            table = sincos_positions(self.grid, d)
            self.position_table = jnp.pad(table, ((first, 0), (0, 0)))[None]
        else:
            raise ValueError(f"position is {self.position!r}; give learned or sincos")

    def embed(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """Tokens of the patches with their positions, without the class token.

        Raises:
          ValueError: for images of another size.
        """
        if tuple(images.shape[1:3]) != tuple(self.image_size):
            raise ValueError(
                f"This vision transformer takes images of {self.image_size[0]} x "
                f"{self.image_size[1]} pixels, not {images.shape[1]} x {images.shape[2]}."
            )
        tokens = self.patch_embedding(images)
        return tokens + self.position_table[:, int(self.class_token) :]

    def prepend_class_token(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b m d"]:
        """The tokens behind the class token with its position, where there is one."""
        if not self.class_token:
            return tokens
        first = self.class_vector + self.position_table[:, :1]
        first = jnp.broadcast_to(first, (tokens.shape[0], 1, self.features))
        return jnp.concatenate([first, tokens], axis=1)

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b m d"]:
        """All tokens after the last block and normalisation, the class token's first."""
        return self.transform(self.prepend_class_token(self.embed(images)))
