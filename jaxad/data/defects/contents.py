"""What is seen inside of a drawn defect: a whole image, of which the shape shows a part."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxad.data.defects.ranges import Ranges, draw_from
from jaxad.ops.blur import gaussian_blur
from jaxad.ops.membrane import clone_seamlessly, fill_by_membrane

Image = Float[Array, "h w c"]


class Place(NamedTuple):
    """Where a defect goes.

    Attributes:
      image: the good image, in [0, 1].
      other: another good image of the same shape, or the same one.
      foreground: of the other image: where parts may be taken from.
      mask: the defect's shape, 1 inside.
      centre: its row and column, in pixels.
      size: about its diameter, in pixels.
    """

    image: Image
    other: Image
    foreground: Bool[Array, "h w"]
    mask: Float[Array, "h w"]
    centre: Float[Array, " 2"]
    size: Float[Array, ""]


def moved(key: Key[Array, ""], place: Place, ranges: Ranges) -> Image:
    """Another place of the object, as it is (CutPaste; Li et al., CVPR 2021)."""
    del ranges
    return _sampled(place.other, place.centre, random_pixel(key, place.foreground), jnp.eye(2))


def turned(key: Key[Array, ""], place: Place, ranges: Ranges) -> Image:
    """Another place of the object, turned and scaled."""
    of_place, of_angle, of_scale = jax.random.split(key, 3)
    angle = jax.random.uniform(of_angle, maxval=2 * jnp.pi)
    scale = draw_from(of_scale, ranges.scale, logarithmic=True)
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    start = random_pixel(of_place, place.foreground)
    return _sampled(place.other, place.centre, start, turn / scale)


def grown_in(key: Key[Array, ""], place: Place, ranges: Ranges) -> Image:
    """Another place, turned and scaled, its border blended by Poisson editing.

    The field calls these natural synthetic anomalies (NSA; Schlueter et al., ECCV 2022).
    """
    return clone_seamlessly(place.image, turned(key, place, ranges), place.mask > 0.5)


def tinted(key: Key[Array, ""], place: Place, ranges: Ranges) -> Image:
    """Another colour: brighter, darker or of another hue, through which the surface shows."""
    of_colour, of_amount, of_gray = jax.random.split(key, 3)
    channels = place.image.shape[-1]
    # Gray images stay gray: there a hue would be found by any model.
    spread = jnp.max(place.image, axis=-1) - jnp.min(place.image, axis=-1)
    is_gray = (jnp.max(spread) < 0.02) | jax.random.bernoulli(of_gray)
    hue = jax.random.normal(of_colour, (channels,))
    direction = jnp.where(is_gray, jnp.broadcast_to(hue[:1], (channels,)), hue)
    direction = direction / jnp.max(jnp.abs(direction))
    amount = draw_from(of_amount, ranges.contrast)
    # Away from black or white where there is no room for more of it.
    inside = place.mask[..., None]
    level = jnp.sum(place.image * inside, axis=(0, 1)) / jnp.maximum(jnp.sum(inside), 1e-6)
    new = level + amount * direction
    change = amount * direction * jnp.where((new > 1) | (new < 0), -1.0, 1.0)
    return place.image + change[None, None]


def emptied(key: Key[Array, ""], place: Place, ranges: Ranges) -> Image:
    """A missing part: the surroundings spread over the shape."""
    del key, ranges
    return fill_by_membrane(place.image, place.mask > 0.01)


def warped(key: Key[Array, ""], place: Place, ranges: Ranges) -> Image:
    """A bent part: pixels displaced, most in the middle and not at all at the edge."""
    of_angle, of_length = jax.random.split(key)
    angle = jax.random.uniform(of_angle, maxval=2 * jnp.pi)
    length = place.size * draw_from(of_length, ranges.displacement)
    y, x = _pixels(place.image)
    distance = jnp.hypot(y - place.centre[0], x - place.centre[1]) / (place.size / 2)
    # Its slope is at most 3.1 times the displacement as a share of the size: below 1 nothing
    # folds over.
    bump = jnp.square(jnp.maximum(1 - distance**2, 0)) * length
    source = jnp.stack([y - bump * jnp.sin(angle), x - bump * jnp.cos(angle)])
    return _at(place.image, source)


def blurred(key: Key[Array, ""], place: Place, ranges: Ranges) -> Image:
    """A part out of focus: a gaussian of an eightieth to a thirtieth of the shorter side."""
    del ranges
    side = min(place.image.shape[:2])
    planes = jnp.moveaxis(place.image, -1, 0)
    weak, strong = (gaussian_blur(planes, sigma=side * share) for share in (1 / 80, 1 / 30))
    return jnp.moveaxis(weak + jax.random.uniform(key) * (strong - weak), 0, -1)


def random_pixel(key: Key[Array, ""], region: Bool[Array, "h w"]) -> Float[Array, " 2"]:
    """A pixel of a region, each with the same probability."""
    flat = jax.random.categorical(key, jnp.where(region.ravel(), 0.0, -jnp.inf))
    return jnp.stack(jnp.divmod(flat, region.shape[1])).astype(jnp.float32)


def _sampled(
    image: Image,
    centre: Float[Array, " 2"],
    source: Float[Array, " 2"],
    matrix: Float[Array, "2 2"],
) -> Image:
    """The image that has at ``centre`` what the given one has at ``source``, turned by a matrix."""
    away = jnp.stack(_pixels(image)) - centre[:, None, None]
    return _at(image, jnp.einsum("ij,jhw->ihw", matrix, away) + source[:, None, None])


def _at(image: Image, source: Float[Array, "2 h w"]) -> Image:
    """Bilinear samples; beyond the edge the image is mirrored, so that no plain stripe appears."""
    sample = lambda channel: jax.scipy.ndimage.map_coordinates(
        channel, list(source), order=1, mode="mirror"
    )
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def _pixels(image: Image) -> tuple[Array, Array]:
    """Rows and columns of all pixels."""
    h, w, _ = image.shape
    y, x = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in (h, w)), indexing="ij")
    return y, x
