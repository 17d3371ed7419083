"""Convolutional autoencoders of Bergmann et al.: AE-L2 and AE-SSIM.

Source: P. Bergmann, S. Loewe, M. Fauser, D. Sattlegger, C. Steger, "Improving Unsupervised Defect
Segmentation by Applying Structural Similarity to Autoencoders", VISAPP 2019 (table 1: the
layers), with the extra stride-2 layer for 256-pixel images of "MVTec AD", CVPR 2019.

Layers for ``n = log2(side / 8)`` halvings. ``4x4 s2 32`` is a 4 x 4 kernel, stride 2, 32 channels;
LeakyReLU 0.2 follows every layer but the code and the output::

    encoder  (n - 2) x [4x4 s2 32]  3x3 32  4x4 s2 64  3x3 64  4x4 s2 128  3x3 64  3x3 32
    code     8x8 valid -> 1 x 1 x latent, linear
    decoder  8x8 transposed 32  3x3 64  3x3 128  4x4 s2 64  3x3 64  4x4 s2 32  3x3 32
             (n - 3) x [4x4 s2 32]  4x4 s2 c

Where the sources disagree or are silent, and what is done here:

* Output: a widespread third-party implementation ends in a sigmoid; the paper's text names no
  non-linearity. ``output="sigmoid"`` is the default, ``"linear"`` the option.
* SSIM as a loss has a gaussian window of 11 with sigma 1.5 and valid windows only; as a map it has
  a uniform window of 11 with the sample covariance, at full size. Both are means over channels.
* Objects are seen whole. Textures (``tile > 0``) are trained on random crops and tested on
  overlapping tiles, whose reconstructions are averaged before the maps are computed.

Maps: ``l2`` (channel mean of the squared error), ``ssim`` (1 - SSIM), ``l2*ssim``. The paper
defines no image score; the config's choice is this library's.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    ModelOptions,
    Variables,
    apply,
    dtype_option,
    label_all_trainable,
    ssim_backend_option,
    ssim_window_option,
    to_unit_float,
)
from jaxad.models.layers.basic import Conv, ConvTranspose
from jaxad.ops.arrays import AnyArray
from jaxad.ops.ssim import mean_ssim, ssim_map
from jaxad.ops.tiles import average_tiles, extract_tiles, random_crops
from jaxad.run.options import option

LOSSES = ("l2", "ssim", "l2+ssim")


class ConvolutionalAutoencoder(nn.Module):
    """Encoder, code and decoder of table 1.

    Attributes:
      image_shape: ``(h, w, c)`` of what goes through the network (a tile, for textures).
      halvings: number n of stride-2 layers on each side, at least 3.
      latent: size of the code.
      width: factor on every channel count but the code's and the image's.
      output: ``"sigmoid"`` or ``"linear"``.
      dtype: of the computation; parameters stay float32.
    """

    image_shape: tuple[int, int, int]
    halvings: int
    latent: int
    width: float = 1.0
    output: str = "sigmoid"
    dtype: Any = jnp.float32

    def setup(self):
        """Declares the layers."""
        h, w, c = self.image_shape
        code = (h >> self.halvings, w >> self.halvings)
        wide = lambda features: max(1, round(features * self.width))
        options = {"dtype": self.dtype, "kernel_init": nn.initializers.glorot_uniform()}
        same = lambda f: Conv(wide(f), (3, 3), **options)
        down = lambda f: Conv(wide(f), (4, 4), strides=2, **options)
        up = lambda f: ConvTranspose(wide(f), (4, 4), strides=2, **options)
        first = [down(32) for _ in range(self.halvings - 2)]
        self.encoder = [*first, same(32), down(64), same(64), down(128), same(64), same(32)]
        self.code = Conv(self.latent, code, padding="VALID", **options)
        self.expand = ConvTranspose(wide(32), code, padding="VALID", **options)
        last = [up(32) for _ in range(self.halvings - 3)]
        self.decoder = [same(64), same(128), up(64), same(64), up(32), same(32), *last]
        self.to_image = ConvTranspose(c, (4, 4), strides=2, **options)

    def encode(self, images: Float[AnyArray, "b h w c"]) -> Float[Array, "b z"]:
        """The code of images in [0, 1]."""
        x = jnp.asarray(images)
        for layer in self.encoder:
            x = nn.leaky_relu(layer(x), 0.2)
        return self.code(x)[:, 0, 0, :]

    def decode(self, codes: Float[Array, "b z"]) -> Float[Array, "b h w c"]:
        """The image of a code, float32."""
        x = nn.leaky_relu(self.expand(codes[:, None, None, :]), 0.2)
        for layer in self.decoder:
            x = nn.leaky_relu(layer(x), 0.2)
        x = self.to_image(x).astype(jnp.float32)
        return nn.sigmoid(x) if self.output == "sigmoid" else x

    def __call__(self, images: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w c"]:
        """Reconstructs images in [0, 1]."""
        return self.decode(self.encode(images))


def training_loss(
    module: ConvolutionalAutoencoder,
    variables: Variables,
    batch: Batch,
    keys: Key[Array, " b"],
    train: bool,
    *,
    kind: str,
    tile: int,
    ssim_window: int,
    ssim_backend: str,
) -> LossOutput:
    """The ``kind`` of loss of whole images or, of textures, of one crop each.

    Crops are drawn in training and are the middle of the image otherwise.
    """
    images = to_unit_float(batch.image)
    if tile and train:
        images = random_crops(images, keys, size=tile)
    elif tile:
        h, w = images.shape[1:3]
        images = images[:, (h - tile) // 2 :, (w - tile) // 2 :][:, :tile, :tile]
    reconstruction = apply(module, variables, images)
    terms = {"l2": jnp.mean(jnp.square(images - reconstruction), axis=(1, 2, 3))}
    if kind != "l2":
        similarity = mean_ssim(
            images, reconstruction, window_size=ssim_window, backend=ssim_backend
        )
        terms["ssim"] = 1.0 - similarity
    per_example = functools.reduce(jnp.add, [terms[name] for name in kind.split("+")])
    return LossOutput(per_example, terms, {}, {}, {})


def reconstruct(
    module: ConvolutionalAutoencoder,
    variables: Variables,
    images: Float[AnyArray, "b h w c"],
    *,
    tile: int,
    tile_stride: int,
) -> Float[Array, "b h w c"]:
    """Images seen whole, or as the average of overlapping tiles."""
    if not tile:
        return apply(module, variables, images)

    h, w = images.shape[1:3]

    def one(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        # One image's tiles at a time: memory does not grow with batch times tiles.
        tiles = extract_tiles(image[None], tile=tile, stride=tile_stride)[0]
        tiles = apply(module, variables, tiles)
        return average_tiles(tiles[None], (h, w), stride=tile_stride)[0]

    return jax.lax.map(one, images)


def detect(
    module: ConvolutionalAutoencoder,
    variables: Variables,
    images: Shaped[AnyArray, "b h w c"],
    *,
    tile: int,
    tile_stride: int,
    ssim_window: int,
) -> Detection:
    """The maps of the head of this file."""
    images = to_unit_float(images)
    shown = reconstruct(module, variables, images, tile=tile, tile_stride=tile_stride)
    shown = jnp.clip(shown, 0.0, 1.0)
    l2 = jnp.mean(jnp.square(images - shown), axis=-1)
    ssim = 1.0 - jnp.mean(ssim_map(images, shown, window_size=ssim_window), axis=-1)
    return Detection({"l2": l2, "ssim": ssim, "l2*ssim": l2 * ssim}, {}, shown)


@dataclasses.dataclass(frozen=True)
class CAEOptions(ModelOptions):
    """Options of ``cae``."""

    loss: str = option("ssim", "squared error, 1 - mean SSIM, or their sum", choices=LOSSES)
    latent: int = option(
        500, "size of the code; 100 for regular textures, 500 for objects", at_least=1
    )
    width: float = option(1.0, "factor on the channel counts", above=0)
    output: str = option("sigmoid", "last activation", choices=("sigmoid", "linear"))
    tile: int = option(
        0, "side in pixels of crops and tiles (textures); 0: the whole image", at_least=0
    )
    tile_stride: int = option(32, "pixels between tiles in detection; 30 in the paper", at_least=1)
    ssim_window: int = ssim_window_option()
    ssim_backend: str = ssim_backend_option()
    dtype: str = dtype_option()


def build(
    image_shape: tuple[int, int, int], options: CAEOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``cae``.

    Args:
      image_shape: ``(h, w, c)``.
      options: of the model.
      axis_name: unused, nothing is reduced over devices inside the model.

    Raises:
      ValueError: options that do not fit together, or the images.
    """
    del axis_name
    h, w, c = image_shape
    tile, stride = options.tile, options.tile_stride
    if tile and not (tile <= min(h, w) and stride <= tile):
        raise ValueError(
            f"model.tile {tile} with model.tile_stride {stride} does not fit images of "
            f"{h} x {w}; the tile may be at most as large as the image, the stride as the tile"
        )
    seen = (tile, tile) if tile else (h, w)
    module = ConvolutionalAutoencoder(
        (*seen, c),
        _halvings(*seen),
        options.latent,
        options.width,
        options.output,
        jnp.dtype(options.dtype),
    )
    task: dict[str, Any] = {"tile": tile, "ssim_window": options.ssim_window}

    def init(key: Key[Array, ""]) -> Variables:
        return module.init(key, jnp.zeros((1, *seen, c)))

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=functools.partial(
            training_loss, module, kind=options.loss, ssim_backend=options.ssim_backend, **task
        ),
        detect=functools.partial(detect, module, tile_stride=stride, **task),
        param_labels=label_all_trainable,
    )


def _halvings(h: int, w: int) -> int:
    """How often the sides are halved: to about 8 x 8, as in the paper.

    Raises:
      ValueError: too small, or not divisible.
    """
    halvings = max(3, round(math.log2(min(h, w) / 8)))
    if h % 2**halvings or w % 2**halvings:
        step = 2**halvings
        raise ValueError(
            f"sides of {h} x {w} must be divisible by {step}; set data.image_size (or model.tile) "
            f"to {max(1, round(h / step)) * step},{max(1, round(w / step)) * step}"
        )
    return halvings
