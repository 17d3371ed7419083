"""The network of masked autoencoders, and how it reconstructs an image in passes.

The result of both transformers does not depend on the order of their tokens. So visible tokens
stay in front and gaps behind, each with its position; tokens are not put back in order, and only
the masked patches are predicted. The gradient of a training step has no gather and no scatter.

The parameters::

    encoder    as jaxad.models.layers.vit lists them, without positions: these are a fixed table
    decoder/embed/kernel    (d, e)       decoder/embed/bias (e,)
    decoder/mask_token      (1, 1, e)
    decoder/block_i/...     decoder/norm/...
    decoder/predict/kernel  (e, p p c)   decoder/predict/bias (p p c,)
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Shaped

from jaxad.models.base import Variables
from jaxad.models.layers.basic import IMAGENET_MEAN, IMAGENET_STD
from jaxad.models.layers.vit import Transformer, VisionTransformer, linear_init
from jaxad.ops.mask_schedules import MaskSchedule, assemble
from jaxad.ops.patches import patchify, unpatchify
from jaxad.ops.positions import sincos_positions

NORM_PIX_EPSILON = 1e-6


class Decoder(Transformer):
    """Predicts masked patches: ``embed``, ``mask_token``, ``block_i``, ``norm``, ``predict``.

    Attributes:
      grid: numbers of rows and columns of patches.
      outputs: values of a patch.
    """

    grid: tuple[int, int] = (14, 14)
    outputs: int = 768

    def setup(self):
        """Declares the layers."""
        super().setup()
        dense = lambda features: nn.Dense(features, kernel_init=linear_init, dtype=self.dtype)
        self.embed, self.predict = dense(self.features), dense(self.outputs)
        self.mask_token = self.param(
            "mask_token", nn.initializers.normal(0.02), (1, 1, self.features)
        )
        self.position_table = sincos_positions(self.grid, self.features)

    def predict_masked(
        self, latents: Float[Array, "b v d"], places: Int[Array, "b n"], masked: int
    ) -> Float[Array, "b m o"]:
        """Predictions of the last ``masked`` places, float32.

        Args:
          latents: the class token and one token for each of the first places.
          places: numbers of all patches; those without a token are gaps.
          masked: how many are predicted.
        """
        x = self.embed(latents).astype(jnp.float32)
        gaps = places.shape[1] + 1 - x.shape[1]
        gap = jnp.broadcast_to(self.mask_token, (x.shape[0], gaps, self.features))
        tokens = jnp.concatenate([x[:, 1:], gap], axis=1) + self.position_table[places]
        tokens = self.transform(jnp.concatenate([x[:, :1], tokens], axis=1))
        return self.predict(tokens[:, -masked:]).astype(jnp.float32)


class MaskedAutoencoder(nn.Module):
    """Encoder of the visible patches, decoder of all.

    Attributes:
      encoder: a vision transformer with a class token and the fixed table of positions.
      decoder: of the same grid of patches.
    """

    encoder: VisionTransformer
    decoder: Decoder

    def embed(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """Tokens of all patches with their positions."""
        return self.encoder.embed(images)

    def fill_in(
        self, tokens: Float[Array, "b v d"], places: Int[Array, "b n"], masked: int
    ) -> Float[Array, "b m o"]:
        """Predictions of the last ``masked`` places from the tokens of the first ones."""
        latents = self.encoder.transform(self.encoder.prepend_class_token(tokens))
        return self.decoder.predict_masked(latents, places, masked)

    def __call__(
        self, patches: Float[Array, "b v o"], places: Int[Array, "b n"]
    ) -> Float[Array, "b m o"]:
        """Predictions of the places without a patch, from the patches at the first ones."""
        visible = patches.shape[1]
        # As an image of one row, so that only visible patches are embedded.
        row = unpatchify(patches, patch=self.encoder.patch, grid=(1, visible))
        position = self.encoder.position_table[0, 1:][places[:, :visible]]
        tokens = self.encoder.patch_embedding(row) + position
        return self.fill_in(tokens, places, places.shape[1] - visible)


def standardise(images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Images in [0, 1] less ImageNet's mean, over its deviation; gray ones by the colours' mean."""
    mean, std = _statistics(images.shape[-1])
    return (images - mean) / std


def to_pixels(standardised: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The inverse of :func:`standardise`, limited to [0, 1]."""
    mean, std = _statistics(standardised.shape[-1])
    return jnp.clip(standardised * std + mean, 0.0, 1.0)


def _statistics(channels: int) -> tuple[Float[Array, "1 1 1 c"], Float[Array, "1 1 1 c"]]:
    mean, std = np.array([IMAGENET_MEAN, IMAGENET_STD], np.float32)[:, None, None, None, :]
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    return jnp.asarray(mean), jnp.asarray(std)


def normalise_patches(patches: Float[Array, "b n o"]) -> Float[Array, "b n o"]:
    """Each patch less its mean, over its (unbiased) deviation: the target of ``norm_pix``."""
    mean, variance = _moments(patches)
    return (patches - mean) / jnp.sqrt(variance + NORM_PIX_EPSILON)


def restore_patches(
    predictions: Float[Array, "b m o"],
    seen: Float[Array, "b v o"],
    places: Int[Array, "b n"],
    *,
    columns: int,
) -> Float[Array, "b m o"]:
    """Brings predictions of ``norm_pix`` back to the scale of the image.

    Mean and variance of a masked patch are interpolated from those of the visible ones, by
    Shepard's method with the inverse fourth power of the distance between patches: the neighbours
    decide, and what lies inside the mask has no say.

    Args:
      predictions: of the patches at the last m places.
      seen: the visible patches, at the first v places.
      places: numbers of the patches.
      columns: of the grid.
    """
    place = jnp.stack([places // columns, places % columns], axis=-1).astype(jnp.float32)
    visible = seen.shape[1]
    apart = place[:, visible:, None] - place[:, None, :visible]
    weight = jnp.sum(jnp.square(apart), axis=-1) ** -2.0
    weight = weight / jnp.sum(weight, axis=-1, keepdims=True)
    mean, variance = (weight @ values for values in _moments(seen))
    return predictions * jnp.sqrt(variance + NORM_PIX_EPSILON) + mean


def _moments(patches: Float[Array, "b n o"]) -> tuple[Float[Array, "b n 1"], Float[Array, "b n 1"]]:
    """Mean and unbiased variance of the values of each patch."""
    mean = jnp.mean(patches, axis=-1, keepdims=True)
    return mean, jnp.var(patches, axis=-1, ddof=1, keepdims=True)


def make_reconstruct(
    module: MaskedAutoencoder,
    schedule: MaskSchedule,
    *,
    norm_pix: bool,
    fill: str,
    passes_at_once: int,
) -> Callable[[Variables, Float[Array, "b h w c"]], Float[Array, "b h w c"]]:
    """Builds ``(variables, standardised images) -> what the passes predict``, standardised.

    Args:
      module: the network.
      schedule: which patches each pass masks.
      norm_pix: whether the network predicts patches of mean 0 and variance 1.
      fill: ``"drop"`` or ``"gray"``.
      passes_at_once: passes that are computed side by side, at most; the largest divisor of their
        number up to it is taken.
    """
    passes, masked = schedule.masked.shape
    visible = schedule.visible.shape[1]
    size = max(k for k in range(1, min(passes_at_once, passes) + 1) if passes % k == 0)
    places = np.concatenate([schedule.visible, schedule.masked], axis=1)
    groups = jnp.asarray(places.reshape(passes // size, size, visible + masked))
    patch, grid = module.encoder.patch, module.encoder.grid

    def reconstruct(variables: Variables, images: Array) -> Array:
        network = module.bind(variables)
        b = images.shape[0]
        patches = patchify(images, patch=patch)
        tokens = network.embed(images)
        gray = network.embed(jnp.zeros_like(images[:1]))

        def predict(places: Array) -> Array:
            """Predictions ``(b, size, masked, o)`` of a group of passes."""
            seen = _of_passes(tokens, places[:, :visible])
            if fill == "gray":
                hidden = _for_each(images, _of_passes(gray, places[:, visible:]))
                seen = jnp.concatenate([seen, hidden], axis=1)
            order = _for_each(images, places)
            predictions = network.fill_in(seen, order, masked)
            if norm_pix:
                own = _of_passes(patches, places[:, :visible])
                predictions = restore_patches(predictions, own, order, columns=grid[1])
            return predictions.reshape(b, size, masked, predictions.shape[-1])

        if len(groups) == 1:
            predictions = predict(groups[0])
        else:
            predictions = jnp.moveaxis(jax.lax.map(predict, groups), 0, 1)
            predictions = predictions.reshape(b, passes, masked, predictions.shape[-1])
        return unpatchify(assemble(predictions, schedule), patch=patch, grid=grid)

    return reconstruct


def _of_passes(values: Float[Array, "b n d"], places: Int[Array, "g v"]) -> Float[Array, "bg v d"]:
    """The values at the places of each pass; the passes of an image follow each other."""
    b, _, d = values.shape
    return jnp.take(values, places.reshape(-1), axis=1).reshape(b * len(places), -1, d)


def _for_each(
    images: Float[Array, "b h w c"], of_passes: Shaped[Array, "g ..."]
) -> Shaped[Array, "bg ..."]:
    """What is the same for all images, once for each of them."""
    b = images.shape[0]
    repeated = jnp.broadcast_to(of_passes[None], (b, *of_passes.shape))
    return repeated.reshape(b * len(of_passes), *of_passes.shape[1:])
