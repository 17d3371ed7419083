"""The first layers of ResNet18 (He et al., CVPR 2016), the encoder of the convolutional VAEs.

Names and values are torchvision's, so that its weights can be carried over (``jaxad convert``);
only the number of input channels is free.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxad.models.layers.basic import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BatchNorm,
    Conv,
    pytorch_conv_init,
)
from jaxad.ops.arrays import pad_axis

STAGES = 4
"""Stages of a ResNet18: the stem divides the side by 4, and every stage but the first by 2."""

# torchvision draws its convolutions so (He et al. 2015, by the fan-out).
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_SAME_3 = ((1, 1), (1, 1))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation and a shortcut.

    Attributes:
      features: output channels.
      stride: of the first convolution; above 1, or with other input channels, the shortcut is a
        strided 1 x 1 convolution.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation.
    """

    features: int
    stride: int = 1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"], *, train: bool) -> Float[Array, "b h2 w2 e"]:
        """Adds the block's correction to the shortcut."""
        # Padding in numbers: "SAME" would pad a strided 3 x 3 window on the other side only.
        convolve = lambda kernel, stride, padding, name: Conv(
            self.features,
            (kernel, kernel),
            strides=stride,
            padding=padding,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_he_normal,
            name=name,
        )
        normalise = lambda name: BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)
        y = convolve(3, self.stride, _SAME_3, "conv1")(x)
        y = nn.relu(normalise("norm1")(y, train=train))
        y = normalise("norm2")(convolve(3, 1, _SAME_3, "conv2")(y), train=train)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = convolve(1, self.stride, "VALID", "shortcut_conv")(x)
            x = normalise("shortcut_norm")(x, train=train)
        return nn.relu(x + y)


class ResNetTrunk(nn.Module):
    """Stem and first stages of a ResNet18.

    Attributes:
      stages: how many of layer1 ... layer4 are kept; 2 divide the side by 8.
      width: channels of the stem; a stage has twice the channels of the one before.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation; parameters and normalisation are float32.
    """

    stages: int = 2
    width: int = 64
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b i j d"]:
        """Features of images, at 1 / (2 * 2 ** stages) of their side."""
        return self.of_stages(images, train=train)[-1]

    @nn.compact
    def of_stages(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> list[Float[Array, "b _ _ _"]]:
        """What the stem and every stage make of images."""
        x = Conv(
            self.width,
            (7, 7),
            strides=2,
            padding=((3, 3), (3, 3)),
            use_bias=False,
            dtype=self.dtype,
            # The published VAEs replace torchvision's stem by a layer of PyTorch's own start.
            kernel_init=pytorch_conv_init(images.shape[-1], (7, 7))["kernel_init"],
            name="stem_conv",
        )(images)
        norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name="stem_norm")
        x = max_pool_3_2(nn.relu(norm(x, train=train)))
        found = [x]
        for stage in range(self.stages):
            for block in range(2):
                x = BasicBlock(
                    self.width * 2**stage,
                    stride=2 if stage and not block else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train=train)
            found.append(x)
        return found


class ResNetFeatures(ResNetTrunk):
    """A trunk with trained weights, whose stages' feature maps are taken."""

    # It has no state to train, so it says nothing of training.
    def __call__(  # type: ignore[override]
        self, images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        """The map of every stage, of images in [0, 1]."""
        mean, deviation = np.array([IMAGENET_MEAN, IMAGENET_STD], np.float32)[:, None, None, None]
        _, *stages = self.of_stages((images - mean) / deviation, train=False)
        return tuple(stage.astype(jnp.float32) for stage in stages)


def max_pool_3_2(x: Float[Array, "b h w d"]) -> Float[Array, "b h2 w2 d"]:
    """Maximum over 3 x 3 windows at stride 2, padded by 1, as PyTorch's MaxPool2d(3, 2, 1).

    One axis after the other, by shifted slices: a CPU takes ten times as long for the gradient of
    a windowed maximum. Where values of a window are equal they share the gradient, while PyTorch
    gives it to the first; behind a ReLU that makes no difference.
    """
    for axis in (1, 2):
        out = (x.shape[axis] + 1) // 2
        padded = pad_axis(x, axis, (1, 1), constant_values=-jnp.inf)
        shifted = lambda start, axis=axis, out=out, padded=padded: jax.lax.slice_in_dim(
            padded, start, start + 2 * out - 1, stride=2, axis=axis
        )
        x = jnp.maximum(jnp.maximum(shifted(0), shifted(1)), shifted(2))
    return x
