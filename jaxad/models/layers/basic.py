"""Layers that the architectures share.

:class:`Conv` and :class:`ConvTranspose` have the names, parameter shapes, initialisers and values
of ``flax.linen.Conv`` and ``flax.linen.ConvTranspose``, so a checkpoint of one loads into the
other; the arithmetic is :mod:`jaxad.ops.convolution`, whose CPU gradients run at matrix speed.
:class:`BatchNorm` is linen's with PyTorch's constants. The initialisers are PyTorch's defaults,
for architectures whose published code relies on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.nn import initializers
from jaxtyping import Array, Float

from jaxad.ops import convolution

Initializer = Callable[..., Array]
Pair = tuple[int, int]
Padding = str | int | Sequence[int | Pair]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet's images in [0, 1], by which most public networks have them."""


class Convolution(nn.Module):
    """What :class:`Conv` and :class:`ConvTranspose` have in common.

    Attributes:
      features: number of output channels.
      kernel_size: ``(kh, kw)``.
      strides: one number or ``(sh, sw)``: the step of a convolution, the magnification of a
        transposed one.
      padding: ``"SAME"``, ``"VALID"``, one number for all sides, or per axis a number or
        ``(before, after)``. Numbers of a transposed convolution pad its dilated input, so
        PyTorch's ``p`` is ``k - 1 - p`` there.
      use_bias: whether to add a bias.
      dtype: dtype of the computation; None takes that of input and parameters. Parameters are
        float32.
      kernel_init: initialiser of ``kernel``, ``(kh, kw, ci, features)``.
      bias_init: initialiser of ``bias``, ``(features,)``.
    """

    features: int
    kernel_size: Pair
    strides: int | Pair = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer = initializers.lecun_normal()
    bias_init: Initializer = initializers.zeros

    def convolve(
        self, function: Callable[..., Array], x: Float[Array, "b h w ci"]
    ) -> Float[Array, "b h2 w2 co"]:
        """The function of input and kernel in the dtype of the computation, plus the bias."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = function(x, kernel, stride=self.strides, padding=_pads(self.padding))
        return y if bias is None else y + bias[None, None, None, :]


class Conv(Convolution):
    """A 2-D convolution; a drop-in for ``nn.Conv`` on ``(b, h, w, c)``."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w ci"]) -> Float[Array, "b h2 w2 co"]:
        """Convolves."""
        return self.convolve(convolution.conv, x)


class ConvTranspose(Convolution):
    """A 2-D transposed convolution; a drop-in for ``nn.ConvTranspose`` on ``(b, h, w, c)``."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w ci"]) -> Float[Array, "b h2 w2 co"]:
        """Convolves over the dilated input."""
        return self.convolve(convolution.conv_transpose, x)


class BatchNorm(nn.BatchNorm):
    """Batch normalisation with PyTorch's constants, in float32, over all devices of ``axis_name``.

    The running variance is the biased one, where PyTorch keeps the unbiased: n / (n - 1) apart,
    with n the values of a channel in a batch.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    # Linen says `use_running_average`; the layers here all say `train`.
    def __call__(  # type: ignore[override]
        self, x: Float[Array, "*b d"], *, train: bool
    ) -> Float[Array, "*b d"]:
        """Normalises by the batch (training) or by the running statistics."""
        return super().__call__(x, use_running_average=not train)


class InstanceNorm(nn.Module):
    """Brings every channel of every image to mean 0 and variance 1, without parameters.

    PyTorch's ``InstanceNorm2d`` with its defaults. What the mean of a channel told is lost.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        """Normalises in float32 at least, and returns the dtype of ``x``."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - jnp.mean(wide, axis=(1, 2), keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True)
        return (centred * lax.rsqrt(variance + self.epsilon)).astype(x.dtype)


class ConvInit(TypedDict):
    """How a convolution starts, as its keyword arguments."""

    kernel_init: Initializer
    bias_init: Initializer


def uniform_within(bound: float) -> Initializer:
    """Uniform in [-bound, bound]."""

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def pytorch_conv_init(in_features: int, kernel_size: Pair) -> ConvInit:
    """PyTorch's default start of a convolution: uniform within 1 / sqrt(fan-in), bias too.

    Args:
      in_features: input channels; of a transposed convolution the *output* channels, which is
        what PyTorch counts there.
      kernel_size: ``(kh, kw)``.

    Returns:
      ``kernel_init`` and ``bias_init`` for :class:`Conv` and :class:`ConvTranspose`.
    """
    draw = uniform_within(1.0 / math.sqrt(in_features * math.prod(kernel_size)))
    return {"kernel_init": draw, "bias_init": draw}


def _pads(padding: Padding) -> str | tuple[Pair, ...]:
    """Linen's spellings of a padding as a name or two pairs."""
    if isinstance(padding, str):
        return padding
    per_axis = (padding, padding) if isinstance(padding, int) else padding
    return tuple((p, p) if isinstance(p, int) else p for p in per_axis)
