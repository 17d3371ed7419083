"""Parts at any place and angle, brought to one pose by the moments of what is not background.

The object is what differs from the colour of the image's rim. Its centroid and the axis of its
second moments give its pose up to half a turn, which the sign of the third moment along that axis
decides (M.-K. Hu, "Visual pattern recognition by moment invariants", IRE Transactions on
Information Theory 8, 1962, section IV: principal axes). All in pixels of the grid, so that an image
that was stretched to another aspect ratio is not turned rigidly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float

from jaxad.ops.blur import gaussian_blur

SMOOTHING = 1.5
"""Sigma in pixels of the gaussian over differences from the background: specks are no object."""


_TINY = 1e-12


class Frame(NamedTuple):
    """Where turned images show the object.

    Attributes:
      scale: pixels of a turned image per pixel of an image; below 1 more is seen.
      row: of the middle of a turned image from the centroid, in pixels of the image.
      column: likewise, along the axis.
    """

    scale: Float[Array, ""] | float = 1.0
    row: Float[Array, ""] | float = 0.0
    column: Float[Array, ""] | float = 0.0


MIDDLE = Frame()


class Pose(NamedTuple):
    """Where objects lie.

    Attributes:
      row: of the centroid, in pixels from the middle of the image.
      column: likewise.
      cosine: of the angle of the long axis, from the direction of higher columns towards that of
        higher rows; the end that lies farther from the centroid is the one it points to.
      sine: of that angle.
    """

    row: Float[Array, " b"]
    column: Float[Array, " b"]
    cosine: Float[Array, " b"]
    sine: Float[Array, " b"]


def rim_colour(images: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """The median colour of the pixels at the edge of each image."""
    edge = [images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]]
    pixels = jnp.swapaxes(jnp.concatenate(edge, axis=1), 1, 2)
    # The median by the upper half, which exported files can compute where they cannot sort.
    upper = jax.lax.top_k(pixels, pixels.shape[2] // 2 + 1)[0]
    return upper[..., -1] if pixels.shape[2] % 2 else (upper[..., -1] + upper[..., -2]) / 2


def difference(images: Float[Array, "b h w c"]) -> Float[Array, "b h w"]:
    """How far pixels are from the colour of the rim: the largest channel, smoothed."""
    apart = jnp.abs(images - rim_colour(images)[:, None, None, :])
    return gaussian_blur(jnp.max(apart, axis=-1), sigma=SMOOTHING)


def pose_of(inside: Bool[Array, "b h w"]) -> Pose:
    """The pose of the object in each image.

    Args:
      inside: its pixels. Where there are none the pose is that of an object in the middle that
        lies along the rows.
    """
    y, x = _grid(inside.shape[1], inside.shape[2])
    weight = inside.astype(jnp.float32)
    mass = jnp.maximum(jnp.sum(weight, axis=(1, 2)), 1.0)

    mean = lambda values: jnp.sum(weight * values, axis=(1, 2)) / mass
    row, column = mean(y[None]), mean(x[None])
    dy, dx = y[None] - _per_image(row), x[None] - _per_image(column)
    cross, apart = 2 * mean(dx * dy), mean(dx * dx) - mean(dy * dy)
    # The axis is at half the angle of (apart, cross); where both are zero there is none.
    length = jnp.sqrt(jnp.square(cross) + jnp.square(apart))
    double = jnp.where(length > 0, apart / jnp.maximum(length, _TINY), 1.0)
    cosine = jnp.sqrt(jnp.maximum(0.5 * (1.0 + double), 0.0))
    sine = jnp.where(cross < 0, -1.0, 1.0) * jnp.sqrt(jnp.maximum(0.5 * (1.0 - double), 0.0))
    along = dx * _per_image(cosine) + dy * _per_image(sine)
    end = jnp.where(mean(along**3) < 0, -1.0, 1.0)
    return Pose(row, column, end * cosine, end * sine)


def to_pose(
    images: Float[Array, "b h w c"], pose: Pose, frame: Frame = MIDDLE
) -> Float[Array, "b h w c"]:
    """Images turned and moved so that the object lies along the rows, at one place.

    Args:
      images: any.
      pose: of their objects.
      frame: of the result.

    Returns:
      Images of the same size, bilinearly; what was not in the picture has the colour of its rim.
    """
    y, x = _grid(images.shape[1], images.shape[2])
    rim = rim_colour(images)
    sampled = _sampled(images - rim[:, None, None, :], *_forward(y, x, pose, frame))
    return sampled + rim[:, None, None, :]


def from_pose(
    maps: Float[Array, "b h w"], pose: Pose, frame: Frame = MIDDLE
) -> Float[Array, "b h w"]:
    """Maps of turned images brought back to the images; the inverse of :func:`to_pose`.

    Returns:
      Maps of the same size, bilinearly; what was not seen has the smallest value of its map.
    """
    y, x = _grid(maps.shape[1], maps.shape[2])
    lowest = jnp.min(maps, axis=(1, 2))[:, None, None]
    sampled = _sampled((maps - lowest)[..., None], *_backward(y, x, pose, frame))
    return sampled[..., 0] + lowest


def pictures_from_pose(
    pictures: Float[Array, "b h w c"],
    images: Float[Array, "b h w c"],
    pose: Pose,
    frame: Frame = MIDDLE,
) -> Float[Array, "b h w c"]:
    """Turned pictures brought back; what was not seen is that of ``images``."""
    y, x = _grid(images.shape[1], images.shape[2])
    places = _backward(y, x, pose, frame)
    seen = _sampled(jnp.ones_like(pictures[..., :1]), *places)
    return _sampled(pictures, *places) + (1.0 - seen) * images


def _grid(height: int, width: int) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Rows and columns of all pixels, from the middle."""
    y = jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2
    return jnp.broadcast_to(y[:, None], (height, width)), jnp.broadcast_to(
        x[None, :], (height, width)
    )


def _per_image(values: Float[Array, " b"]) -> Float[Array, "b 1 1"]:
    return values[:, None, None]


def _forward(
    y: Float[Array, "h w"], x: Float[Array, "h w"], pose: Pose, frame: Frame
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w"]]:
    """Places in the images of pixels of turned ones."""
    c, s = _per_image(pose.cosine), _per_image(pose.sine)
    y, x = (y / frame.scale + frame.row)[None], (x / frame.scale + frame.column)[None]
    return _per_image(pose.row) + s * x + c * y, _per_image(pose.column) + c * x - s * y


def _backward(
    y: Float[Array, "h w"], x: Float[Array, "h w"], pose: Pose, frame: Frame
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w"]]:
    """Places in turned images of pixels of the images."""
    across, along = along_axes(y, x, pose)
    return frame.scale * (across - frame.row), frame.scale * (along - frame.column)


def along_axes(
    y: Float[Array, "h w"], x: Float[Array, "h w"], pose: Pose
) -> tuple[Float[Array, "b h w"], Float[Array, "b h w"]]:
    """Pixels across and along the axis of each object, from its centroid."""
    c, s = _per_image(pose.cosine), _per_image(pose.sine)
    dy, dx = y[None] - _per_image(pose.row), x[None] - _per_image(pose.column)
    return c * dy - s * dx, s * dy + c * dx


def extents(inside: Bool[Array, "b h w"], pose: Pose) -> Float[Array, "b 4"]:
    """First and last pixel of each object across, and along, its axis, from the centroid."""
    found = []
    for values in along_axes(*_grid(inside.shape[1], inside.shape[2]), pose):
        found.append(jnp.min(jnp.where(inside, values, jnp.inf), axis=(1, 2)))
        found.append(jnp.max(jnp.where(inside, values, -jnp.inf), axis=(1, 2)))
    return jnp.stack(found, axis=1)


def _sampled(
    images: Float[Array, "b h w c"], rows: Float[Array, "b h w"], columns: Float[Array, "b h w"]
) -> Float[Array, "b h w c"]:
    """Bilinear samples at places from the middle; zero beyond the edge."""
    height, width = images.shape[1:3]
    rows, columns = rows + (height - 1) / 2, columns + (width - 1) / 2

    def one(
        image: Float[Array, "h w c"], row: Float[Array, "h w"], column: Float[Array, "h w"]
    ) -> Float[Array, "h w c"]:
        take = lambda channel: map_coordinates(channel, [row, column], order=1, cval=0.0)
        return jax.vmap(take, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(one)(images, rows, columns)
