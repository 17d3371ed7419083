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
        if options.crop:
            # A key beside those of the others, which draw as they did before there were crops.
            image = _crop_and_enlarge(image, jax.random.fold_in(key, 5), options.crop)
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

    return jax.vmap(augment_one)


def _uniform(key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _crop_and_enlarge(
    image: Float[Array, "h w c"], key: Key[Array, ""], least: float
) -> Float[Array, "h w c"]:
    """A random part of the image at the image's size, by bicubic interpolation.

    As torchvision's RandomResizedCrop: an area uniform in [least, 1] of the image's, a ratio of the
    sides log-uniform in [3/4, 4/3], any place. A side that would be too long is cut to the image's,
    where torchvision draws again.
    """
    h, w, _ = image.shape
    of_area, of_ratio, of_place = jax.random.split(key, 3)
    area = jax.random.uniform(of_area, minval=least, maxval=1.0) * h * w
    ratio = jnp.exp(jnp.log(4 / 3) * _uniform(of_ratio, ()))
    full = jnp.array([h, w], jnp.float32)
    sides = jnp.minimum(jnp.sqrt(area * jnp.stack([1 / ratio, ratio])), full)
    corner = (full - sides) * jax.random.uniform(of_place, (2,))
    scale = full / sides
    enlarged = jax.image.scale_and_translate(
        image, image.shape, (0, 1), scale, -corner * scale, "cubic"
    )
    return jnp.clip(enlarged, 0.0, 1.0)


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
