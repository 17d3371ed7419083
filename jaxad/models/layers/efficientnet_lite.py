"""EfficientNet-Lite: the first blocks, as a network whose feature maps are taken.

Source: M. Tan and Q. Le, "EfficientNet", ICML 2019, in the "Lite" form of tensorflow/tpu
(models/official/efficientnet/lite, 2020): inverted bottlenecks without squeeze-excitation, ReLU6
in place of swish, a stem that no coefficient widens. Padding is TensorFlow's "SAME", which at
stride 2 pads an image of even sides after its last row and column only.

The parameters::

    stem_conv/kernel             (3, 3, 3, 32)      stem_norm/...
    block_i/expand_conv/kernel   (1, 1, c, e)       block_i/expand_norm/...   not in block 0
    block_i/depthwise_conv/kernel (k, k, 1, e)      block_i/depthwise_norm/...
    block_i/project_conv/kernel  (1, 1, e, d)       block_i/project_norm/...

A normalisation holds ``scale`` and ``bias``, and ``mean`` and ``var`` in ``batch_stats``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Array, Float

from jaxad.models.base import apply
from jaxad.models.layers.basic import BatchNorm, Conv
from jaxad.ops.convolution import depthwise_conv

STEM = 32
EPSILON = 1e-3
"""Of batch normalisation."""

MEAN, DEVIATION = 127.0 / 255.0, 128.0 / 255.0
"""Of the images that it was trained on: bytes less 127, over 128."""


class Stage(NamedTuple):
    """A row of the table of EfficientNet-Lite0: blocks of one width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
)
"""Those up to the last tap; two more (192 and 320 features) follow in the published network."""

COEFFICIENTS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
"""Lite0, Lite1, Lite2 -> factors of the width and of the depth."""


class BlockShape(NamedTuple):
    """One block of a scaled network, and whether a tap stands behind it."""

    kernel: int
    stride: int
    expansion: int
    features: int
    tapped: bool


def block_shapes(variant: int) -> Iterator[BlockShape]:
    """The blocks of Lite0, Lite1 or Lite2 in order; a tap ends every stage but the first."""
    width, depth = COEFFICIENTS[variant]
    for number, stage in enumerate(STAGES):
        # The first stage is not repeated, as the stem is not widened.
        repeats = math.ceil(depth * stage.repeats) if number else stage.repeats
        for i in range(repeats):
            yield BlockShape(
                stage.kernel,
                1 if i else stage.stride,
                stage.expansion,
                _multiple_of_8(width * stage.features),
                tapped=number > 0 and i == repeats - 1,
            )


def _multiple_of_8(features: float) -> int:
    """The nearest multiple of 8, or the next where that is less than nine tenths."""
    nearest = max(8, int(features + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * features else nearest + 8


class DepthwiseConv(nn.Module):
    """A convolution of every channel with a kernel of its own, without bias.

    Attributes:
      kernel_size: side of the kernel.
      stride: step between outputs.
      dtype: of the computation.
    """

    kernel_size: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Convolves."""
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param(
            "kernel", nn.initializers.variance_scaling(2.0, "fan_in", "normal"), shape
        )
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        return depthwise_conv(x, kernel, stride=self.stride)


class InvertedBottleneck(nn.Module):
    """Widen, convolve every channel by itself, narrow; a shortcut where shapes allow it.

    Attributes:
      shape: of the block.
      dtype: of the computation.
    """

    shape: BlockShape
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Transforms a feature map."""
        shape, c = self.shape, x.shape[-1]
        y = x
        if shape.expansion > 1:
            y = _convolution(shape.expansion * c, 1, 1, self.dtype, "expand_conv")(y)
            y = nn.relu6(_normalisation(self.dtype, "expand_norm")(y, train=False))
        y = DepthwiseConv(shape.kernel, shape.stride, self.dtype, name="depthwise_conv")(y)
        y = nn.relu6(_normalisation(self.dtype, "depthwise_norm")(y, train=False))
        y = _convolution(shape.features, 1, 1, self.dtype, "project_conv")(y)
        y = _normalisation(self.dtype, "project_norm")(y, train=False)
        return x + y if shape.stride == 1 and c == shape.features else y


def _convolution(features: int, kernel: int, stride: int, dtype: Any, name: str) -> Conv:
    start = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return Conv(
        features,
        (kernel, kernel),
        stride,
        use_bias=False,
        dtype=dtype,
        kernel_init=start,
        name=name,
    )


def _normalisation(dtype: Any, name: str) -> BatchNorm:
    return BatchNorm(epsilon=EPSILON, dtype=dtype, name=name)


class EfficientNetLite(nn.Module):
    """Stem and blocks up to the last tap.

    Attributes:
      variant: 0, 1 or 2.
      dtype: of the computation.
    """

    variant: int = 0
    dtype: Any = jnp.float32

    def __call__(self, images: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Feature maps of images in [0, 1] at the ends of stages, at strides 4, 8, 16 and 16.

        On a CPU image by image: what a block makes of several does not fit into the cache, and
        they take twice as long.
        """
        # An export is traced with a free number of images, of which len() makes an error.
        if self.is_initializing() or images.shape[0] == 1:
            return self.together(images)
        variables, alone = self.variables, self.clone(parent=None)
        together = lambda images: apply(alone, variables, images, method="together")
        one_by_one = lambda images: lax.map(
            lambda image: tuple(tap[0] for tap in together(image[None])), images
        )
        return lax.platform_dependent(images, cpu=one_by_one, default=together)

    @nn.compact
    def together(self, images: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """The same, of all images at once."""
        x = _convolution(STEM, 3, 2, self.dtype, "stem_conv")((images - MEAN) / DEVIATION)
        x = nn.relu6(_normalisation(self.dtype, "stem_norm")(x, train=False))
        taps = []
        for i, shape in enumerate(block_shapes(self.variant)):
            x = InvertedBottleneck(shape, self.dtype, name=f"block_{i}")(x)
            if shape.tapped:
                taps.append(x.astype(jnp.float32))
        return tuple(taps)
