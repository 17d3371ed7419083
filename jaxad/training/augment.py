"""Augmentation on the device, keyed per image: the same on any pipeline, batch or device count."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxad.run.settings import Augment as AugmentOptions

Augment = Callable[[Float[Array, "b h w c"], Key[Array, " b"]], Float[Array, "b h w c"]]


def no_augment(images: Float[Array, "b h w c"], keys: Key[Array, " b"]) -> Float[Array, "b h w c"]:
    """The images as they are."""
    del keys
    return images


def make_augment(options: AugmentOptions) -> Augment:
    """Builds the augmentation of ``config.augment``; parts that are off cost nothing."""

    def augment_one(image: Float[Array, "h w c"], key: Key[Array, ""]) -> Float[Array, "h w c"]:
        flip_x, flip_y, angle, shift, bright = jax.random.split(key, 5)
        if options.flip_left_right:
            image = jnp.where(jax.random.bernoulli(flip_x), image[:, ::-1], image)
        if options.flip_up_down:
            image = jnp.where(jax.random.bernoulli(flip_y), image[::-1], image)
        if options.rotate_degrees or options.shift:
            radians = jnp.deg2rad(options.rotate_degrees) * _uniform(angle, ())
            image = _rotate_and_shift(image, radians, options.shift * _uniform(shift, (2,)))
        if options.brightness:
            image = jnp.clip(image + options.brightness * _uniform(bright, ()), 0.0, 1.0)
        return image

    def augment(images, keys):
        return jax.vmap(augment_one)(images, keys)

    return augment


def _uniform(key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _rotate_and_shift(
    image: Float[Array, "h w c"], radians: Float[Array, ""], shift: Float[Array, " 2"]
) -> Float[Array, "h w c"]:
    """Rotates about the centre, then shifts by a share of each side; bilinear, edges repeated."""
    h, w, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(h) - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2, indexing="ij")
    y, x = y - shift[0] * h, x - shift[1] * w
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    source = jnp.stack([cos * y - sin * x + (h - 1) / 2, sin * y + cos * x + (w - 1) / 2])
    sample = lambda channel: jax.scipy.ndimage.map_coordinates(
        channel, list(source), order=1, mode="nearest"
    )
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)
