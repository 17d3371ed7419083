"""AnoViT: a vision transformer as encoder, transposed convolutions as decoder, squared error.

Source: Y. Lee, P. Kang, "AnoViT: Unsupervised Anomaly Detection and Localization with Vision
Transformer-based Encoder-Decoder", IEEE Access 2022, and two public code drops of its authors'
circle that disagree: one of 2022 and a lecture's notebook of 2024.

Encoder: ViT-B/16 at 384 x 384 with class token and final layer normalisation; the 24 x 24 tokens
without the class token are the features. Decoder: blocks of a 3x3 transposed convolution, instance
normalisation without parameters, and ReLU; the first three have stride 1 and no padding, the
others stride 2::

    2022   256 128 64 | 64 32 16 3   six blocks, the last on the image itself;
           sides 24 26 28 30 59 117 233, bilinear (align corners) to 384, tanh
    2024   256 128 64 | 32 16        five blocks; sides ... 117, bilinear (align corners) to 384,
           3x3 convolution to the colours, sigmoid

    (channel counts 256, 128, 64, 32, 16 and, in 2022, 3)

Loss: mean squared error. Map: ``l2``, the channel mean of the squared error. Scores: ``l2_max``,
the maximum of the squared error over pixels *and channels* before any smoothing (the code of
2024); ``l2_mean``, its mean, which is the loss.

How the two differ otherwise, and the options:

* Input: 2022 standardises by mean and standard deviation of the category's training images
  (``normalise="train"``, measured before the first step). 2024 shows images in [0, 1] as they are
  (``"none"``), to weights that were trained on images in [-1, 1] (``"symmetric"``).
* The output of 2022 lies in [0, 1) because of its last ReLU, while its target is standardised and
  half of it negative; instance normalisation also removes mean and contrast from the output. That
  decoder cannot reproduce its target, and is here as published.
* 2024 fine-tunes the encoder and freezes only the unused classifier. Encoder parameters carry the
  label ``encoder`` (``train.learning_rate_multipliers.encoder=0`` freezes them).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    Variables,
    apply,
    label_encoder,
    to_unit_float,
)
from jaxad.models.layers.basic import (
    BatchNorm,
    Conv,
    ConvTranspose,
    InstanceNorm,
    pytorch_conv_init,
)
from jaxad.models.layers.token_grid import ViTOptions, token_grid
from jaxad.models.layers.vit import VisionTransformer
from jaxad.ops.arrays import AnyArray
from jaxad.ops.resize import bilinear_resize_align_corners
from jaxad.run.options import option

DECODERS = ("2022", "2024")
NORMALISATIONS = ("none", "symmetric", "train")
CHANNELS = (256, 128, 64, 32, 16)


class Decoder(nn.Module):
    """A grid of features to an image.

    Attributes:
      image_shape: ``(h, w, c)`` of the output.
      kind: ``"2022"`` or ``"2024"``: see the head of this file; ``"tanh"``: as 2022 without the
        last normalisation and ReLU, so that the whole range of the tanh can be reached.
      width: factor on the channel counts of the blocks.
      norm: ``"instance"`` as published, or ``"batch"``.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation.
    """

    image_shape: tuple[int, int, int]
    kind: str = "2024"
    width: float = 1.0
    norm: str = "instance"
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[AnyArray, "b i j d"], *, train: bool) -> Float[Array, "b h w c"]:
        """Values in (0, 1) (2024), [0, 1) (2022) or (-1, 1) (tanh), float32."""
        x = jnp.asarray(x)
        h, w, c = self.image_shape
        features = [max(1, round(f * self.width)) for f in CHANNELS]
        for i, f in enumerate(features if self.kind == "2024" else [*features, c]):
            strides, padding = (1, 2) if i < 3 else (2, 1)  # PyTorch's paddings 0 and 1
            x = ConvTranspose(
                f, (3, 3), strides=strides, padding=padding, dtype=self.dtype, name=f"up_{i}",
                **pytorch_conv_init(f, (3, 3)),
            )(x)  # fmt: skip
            if self.kind == "tanh" and i == len(features):
                break
            if self.norm == "batch":
                x = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f"norm_{i}")(
                    x, train=train
                )
            else:
                x = InstanceNorm()(x)
            x = nn.relu(x)
        x = bilinear_resize_align_corners(x, (h, w))
        if self.kind != "2024":
            return nn.tanh(x.astype(jnp.float32))
        options = {"dtype": self.dtype, **pytorch_conv_init(features[-1], (3, 3))}
        return nn.sigmoid(Conv(c, (3, 3), name="to_image", **options)(x).astype(jnp.float32))


class AnoViT(nn.Module):
    """Encoder and decoder.

    Attributes:
      encoder: a vision transformer with a class token.
      decoder: the decoder.
    """

    encoder: VisionTransformer
    decoder: Decoder

    def __call__(
        self, images: Float[AnyArray, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Reconstructs images, both as the network sees them."""
        return self.decoder(token_grid(self.encoder, jnp.asarray(images)), train=train)


def training_pixels(variables: Variables) -> tuple[Float[Array, "1 1 1 c"], ...]:
    """Mean and standard deviation of the training images (``normalise="train"``)."""
    return tuple(variables["pixels"][name][None, None, None] for name in ("mean", "std"))


def target_and_output(
    module: AnoViT, variables: Variables, images: Float[AnyArray, "b h w c"], *, normalise: str
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """What the network is to reproduce of images in [0, 1], and what it makes of them."""
    images = jnp.asarray(images)
    if normalise == "train":
        mean, std = training_pixels(variables)
        images = (images - mean) / std
    seen = 2.0 * images - 1.0 if normalise == "symmetric" else images
    return images, apply(module, {"params": variables["params"]}, seen)


def loss(
    module: AnoViT,
    variables: Variables,
    batch: Batch,
    keys: Key[Array, " b"],
    train: bool,
    *,
    normalise: str,
) -> LossOutput:
    """Mean squared error."""
    del keys, train  # nothing is drawn
    images = to_unit_float(batch.image)
    target, output = target_and_output(module, variables, images, normalise=normalise)
    l2 = jnp.mean(jnp.square(target - output), axis=(1, 2, 3))
    return LossOutput(l2, {"l2": l2}, {}, {}, {})


def detect(
    module: AnoViT, variables: Variables, images: Shaped[AnyArray, "b h w c"], *, normalise: str
) -> Detection:
    """The map and the scores of the head of this file."""
    images = to_unit_float(images)
    target, output = target_and_output(module, variables, images, normalise=normalise)
    squared = jnp.square(target - output)
    scores = {
        "l2_max": jnp.max(squared, axis=(1, 2, 3)),
        "l2_mean": jnp.mean(squared, axis=(1, 2, 3)),
    }
    if normalise == "train":
        mean, std = training_pixels(variables)
        output = output * std + mean
    maps = {"l2": jnp.mean(squared, axis=-1)}
    return Detection(maps, scores, jnp.clip(output, 0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class AnoViTOptions(ViTOptions):
    """Options of ``anovit``."""

    decoder: str = option("2024", "of the paper's year", choices=DECODERS)
    width: float = option(1.0, "factor on the decoder's channel counts", above=0)
    normalise: str = option(
        "none",
        "what the network sees: [0, 1]; the encoder [-1, 1]; standardised by the training images",
        choices=NORMALISATIONS,
    )


def build(
    image_shape: tuple[int, int, int], options: AnoViTOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``anovit``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      options: of the model.
      axis_name: unused, nothing is reduced over devices inside the model.

    Raises:
      ValueError: options that do not fit together, or the images.
    """
    del axis_name
    h, w, c = image_shape
    encoder = options.encoder(image_shape)
    module = AnoViT(
        encoder, Decoder(image_shape, options.decoder, options.width, dtype=encoder.dtype)
    )
    normalise = options.normalise

    def init(key: Key[Array, ""]) -> Variables:
        variables = module.init(key, jnp.zeros((1, h, w, c)))
        if normalise == "train":
            pixels = {"mean": jnp.zeros(c), "std": jnp.ones(c)}
            variables = {**variables, "pixels": pixels}
        return variables

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=functools.partial(loss, module, normalise=normalise),
        detect=functools.partial(detect, module, normalise=normalise),
        param_labels=label_encoder,
        initialise=measure_pixels if normalise == "train" else None,
    )


def measure_pixels(variables: Variables, batches: Iterable[Batch]) -> Variables:
    """The variables with mean and standard deviation of the training images, per channel."""
    count, sums, squares = 0, 0.0, 0.0
    for batch in batches:
        valid = np.asarray(to_unit_float(batch.image), np.float64)[np.asarray(batch.valid)]
        count += valid[..., 0].size
        sums = sums + valid.sum(axis=(0, 1, 2))
        squares = squares + np.square(valid).sum(axis=(0, 1, 2))
    mean = sums / count
    # Flat images have no contrast to divide by: a grey level at the least.
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 1.0 / 255**2))
    return {**variables, "pixels": {"mean": jnp.float32(mean), "std": jnp.float32(std)}}
