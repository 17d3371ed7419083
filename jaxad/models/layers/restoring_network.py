"""The U-Net of :mod:`jaxad.models.restore`: what is wrong in an image, and how it would be right.

O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015, made small: blocks of pixels become
channels first (space to depth; W. Shi et al., "Real-Time Single Image and Video Super-Resolution
Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016, the other way round), two
convolutions a level, group normalisation (Y. Wu, K. He, ECCV 2018), means over 2 x 2 on the way
down and repetition on the way up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.layers.basic import Conv
from jaxad.models.layers.whitened_patches import averaged
from jaxad.ops.patches import patchify, unpatchify

GROUP = 8
"""Channels that are normalised together."""

Maps = Float[Array, "b _ _ _"]


def space_to_depth(images: Maps, cell: int) -> Maps:
    """Blocks of ``cell`` x ``cell`` pixels as channels: rows, columns, channels."""
    b, h, w, _ = images.shape
    return patchify(images, patch=cell).reshape(b, h // cell, w // cell, -1)


def depth_to_space(maps: Maps, cell: int) -> Maps:
    """The inverse of :func:`space_to_depth`."""
    b, i, j, d = maps.shape
    return unpatchify(maps.reshape(b, i * j, d), patch=cell, grid=(i, j))


def doubled(maps: Maps) -> Maps:
    """Every position 2 x 2 times."""
    return jnp.repeat(jnp.repeat(maps, 2, axis=1), 2, axis=2)


class Block(nn.Module):
    """Two convolutions of 3 x 3, each with group normalisation and ReLU.

    Attributes:
      features: channels.
      dtype: of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        """Maps of the same size."""
        for _ in range(2):
            x = Conv(self.features, (3, 3), use_bias=False, dtype=self.dtype)(x)
            groups = max(1, self.features // GROUP)
            x = nn.relu(nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype)(x))
        return x


class RestoringNetwork(nn.Module):
    """Images and their linear reconstruction to a restored image and a map of logits.

    Attributes:
      widths: channels of each level, from the finest.
      cell: side of the blocks of pixels that become channels.
      dtype: of the computation; parameters and results are float32.
    """

    widths: Sequence[int]
    cell: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], linear: Float[Array, "b i j c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w"]]:
        """Restores.

        Args:
          images: in [0, 1].
          linear: their linear reconstruction, over blocks of ``cell`` x ``cell``.

        Returns:
          The restored images, which may leave [0, 1] a little, and the logits of the probability
          that a pixel is defective.
        """
        c = images.shape[-1]
        pixels = space_to_depth(images, self.cell)
        mean = jnp.mean(pixels.reshape(*pixels.shape[:3], -1, c), axis=3)
        x = jnp.concatenate([pixels, linear, mean - linear, jnp.abs(mean - linear)], axis=-1)
        x = x.astype(self.dtype)
        kept = []
        for level, width in enumerate(self.widths):
            x = Block(width, self.dtype, name=f"down{level}")(averaged(x, 2) if level else x)
            kept.append(x)
        for level in reversed(range(len(self.widths) - 1)):
            x = jnp.concatenate([kept[level], doubled(x)], axis=-1)
            x = Block(self.widths[level], self.dtype, name=f"up{level}")(x)
        # It starts as "nothing is wrong": no change, and a probability of 1 in 50.
        x = Conv(
            self.cell**2 * (c + 1), (1, 1), kernel_init=nn.initializers.zeros, dtype=self.dtype,
            name="output",
        )(x)  # fmt: skip
        x = depth_to_space(x, self.cell).astype(jnp.float32)
        return images + x[..., :c], x[..., c] - 4.0
