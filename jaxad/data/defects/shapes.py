"""Shapes of drawn defects: soft masks of one image, from a key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

ImageSize = tuple[int, int]
Mask = Float[Array, "h w"]
"""1 inside, 0 outside, between them on an edge about a pixel wide."""

_WAVES = 5
"""Of a blob's outline: it has at most this many bulges."""
_SEGMENTS = 24
"""Straight pieces of a scratch."""


def blob(
    key: Key[Array, ""], centre: Float[Array, " 2"], size: Float[Array, ""], shape: ImageSize
) -> Mask:
    """A round shape with bulges: its radius varies with the angle by a few random waves.

    Args:
      key: of the outline.
      centre: row and column, in pixels.
      size: diameter in pixels, on average over the angle.
      shape: height and width of the image.
    """
    y, x = _from(centre, shape)
    angle = jnp.arctan2(y, x)
    of_height, of_phase = jax.random.split(key)
    heights = jax.random.uniform(of_height, (_WAVES,), minval=-0.35, maxval=0.35)
    phases = jax.random.uniform(of_phase, (_WAVES,), maxval=2 * jnp.pi)
    bulges = sum(heights[i] / (i + 1) * jnp.cos((i + 1) * angle + phases[i]) for i in range(_WAVES))
    return _soft(size / 2 * (1 + bulges) - jnp.hypot(y, x))


def rectangle(
    key: Key[Array, ""], centre: Float[Array, " 2"], size: Float[Array, ""], shape: ImageSize
) -> Mask:
    """An upright rectangle, its sides' ratio log-uniform in [1/3, 3].

    Args:
      key: of the ratio.
      centre: row and column, in pixels.
      size: root of the area in pixels.
      shape: height and width of the image.
    """
    stretch = 3 ** jax.random.uniform(key, minval=-0.5, maxval=0.5)
    y, x = _from(centre, shape)
    return _soft(jnp.minimum(size / 2 * stretch - jnp.abs(y), size / 2 / stretch - jnp.abs(x)))


def cloud(
    key: Key[Array, ""], centre: Float[Array, " 2"], size: Float[Array, ""], shape: ImageSize
) -> Mask:
    """Smooth noise above a level that rises with the distance from the centre: ragged, with holes.

    Args:
      key: of the noise.
      centre: row and column, in pixels.
      size: diameter in pixels beyond which hardly anything remains.
      shape: height and width of the image.
    """
    y, x = _from(centre, shape)
    noise = jnp.zeros(shape)
    for octave, one in enumerate(jax.random.split(key, 3)):
        cells = 2 ** (octave + 2)
        coarse = jax.random.normal(one, (cells, cells))
        # The noise scales with the defect: its cells cover one and a half diameters.
        place = [(axis / (1.5 * size) + 0.5) * (cells - 1) for axis in (y, x)]
        smooth = jax.scipy.ndimage.map_coordinates(coarse, place, order=1, mode="nearest")
        noise = noise + smooth / 2**octave
    distance = jnp.hypot(y, x) / (size / 2)
    return _soft((noise + 0.8 - 1.6 * distance**2) * size / 8)


def scratch(
    key: Key[Array, ""], centre: Float[Array, " 2"], size: Float[Array, ""], shape: ImageSize
) -> Mask:
    """A thin bent line that narrows towards its ends: a quadratic Bezier curve.

    Args:
      key: of direction, bend and width.
      centre: row and column of its middle, in pixels.
      size: length in pixels, before it is bent.
      shape: height and width of the image.
    """
    of_angle, of_bend, of_width = jax.random.split(key, 3)
    angle = jax.random.uniform(of_angle, maxval=2 * jnp.pi)
    along = jnp.stack([jnp.sin(angle), jnp.cos(angle)]) * size / 2
    across = jnp.stack([along[1], -along[0]])
    bend = across * jax.random.uniform(of_bend, minval=-0.8, maxval=0.8)
    place = jnp.linspace(-1, 1, _SEGMENTS + 1)[None]
    points = centre[:, None] + along[:, None] * place + bend[:, None] * (1 - place**2)
    taper = 1 - jnp.linspace(-1, 1, _SEGMENTS) ** 4
    least = max(1.0, min(shape) / 128)
    width = least * jax.random.uniform(of_width, minval=1.0, maxval=2.5)

    def inwards(start: Array, end: Array, taper: Array) -> Float[Array, "h w"]:
        """The distance to the edge of one straight piece."""
        y, x = _from(start, shape)
        step_y, step_x = end - start
        share = jnp.clip((y * step_y + x * step_x) / (step_y**2 + step_x**2), 0, 1)
        return width / 2 * taper - jnp.hypot(y - share * step_y, x - share * step_x)

    pieces = jax.vmap(inwards)(points.T[:-1], points.T[1:], taper)
    return _soft(jnp.max(pieces, axis=0) + 0.5)


def _from(centre: Float[Array, " 2"], shape: ImageSize) -> tuple[Array, Array]:
    """Rows and columns of all pixels, counted from a centre."""
    y, x = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in shape), indexing="ij")
    return y - centre[0], x - centre[1]


def _soft(inwards: Float[Array, "h w"]) -> Mask:
    """A mask from the distance to its edge in pixels, positive inside."""
    return jnp.clip(inwards + 0.5, 0.0, 1.0)
