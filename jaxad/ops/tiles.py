"""Square pieces of images: overlapping tiles for detection, random crops for training.

Texture models are trained on crops smaller than the image (Bergmann et al. 2018, "Improving
unsupervised defect segmentation by applying structural similarity to autoencoders") and applied
to overlapping tiles, whose results are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, Shaped

from jaxad.ops.arrays import AnyArray, at_least_float32


def tile_positions(h: int, w: int, tile: int, stride: int) -> tuple[tuple[int, int], ...]:
    """Returns the (row, column) of the top left pixel of every tile, row by row.

    Tiles start every `stride` pixels; the last one of a row or column is moved back to end at
    the border, so that every pixel lies in a tile.

    Args:
      h: height of the image.
      w: width of the image.
      tile: side of a tile in pixels.
      stride: distance of neighbouring tiles in pixels, at most ``tile``.

    Raises:
      ValueError: if a tile exceeds the image, or the stride is not in [1, tile].
    """
    if not 1 <= stride <= tile:
        raise ValueError(
            f"The stride of tiles is between 1 and their side {tile}, not {stride}: a larger one "
            "would leave gaps."
        )
    if tile > min(h, w):
        raise ValueError(f"Tiles of {tile}x{tile} pixels do not fit into an image of {h}x{w}.")
    rows, columns = _starts(h, tile, stride), _starts(w, tile, stride)
    return tuple((row, column) for row in rows for column in columns)


def extract_tiles(
    images: Shaped[AnyArray, "b h w c"], tile: int, stride: int
) -> Shaped[Array, "b n {tile} {tile} c"]:
    """Cuts images into overlapping square tiles, in the order of `tile_positions`.

    Args:
      images: images of any dtype.
      tile: side of a tile in pixels.
      stride: distance of neighbouring tiles in pixels.

    Raises:
      ValueError: if a tile exceeds the image, or the stride is not in [1, tile].
    """
    b, h, w, c = images.shape
    positions = np.asarray(tile_positions(h, w, tile, stride))
    cut = lambda start: lax.dynamic_slice(images, (0, start[0], start[1], 0), (b, tile, tile, c))
    return jax.vmap(cut, out_axes=1)(positions)


def bands(
    images: Shaped[np.ndarray, "b h w c"], tile: int, stride: int, *, values: int
) -> Iterator[Shaped[np.ndarray, "b i w c"]]:
    """Parts of images that have all tiles between them, each tile once and in order.

    Overlapping tiles hold a pixel many times; those of a part are few enough to be held at once.

    Args:
      images: images of any dtype.
      tile: side of a tile in pixels.
      stride: distance of neighbouring tiles in pixels.
      values: that the tiles of a part hold at most, unless one row of tiles holds more.

    Yields:
      All images where they fit, else bands of rows of one image after the other.

    Raises:
      ValueError: as of `tile_positions`.
    """
    b, h, w, c = images.shape
    positions = tile_positions(h, w, tile, stride)
    tops = sorted({top for top, _ in positions})
    a_row = len(positions) // len(tops) * tile * tile * c
    if b * len(tops) * a_row <= values:
        yield images
        return
    rows = max(1, values // a_row)
    for image in images:
        for first in range(0, len(tops), rows):
            some = tops[first : first + rows]
            yield image[None, some[0] : some[-1] + tile]


def average_tiles(
    tiles: Float[AnyArray, "b n t t c"], image_shape: tuple[int, int], stride: int
) -> Float[Array, "b h w c"]:
    """Puts tiles back into images and averages them where they overlap.

    The inverse of `extract_tiles` for tiles that agree.

    Args:
      tiles: tiles in the order of `tile_positions`.
      image_shape: (h, w) of the images.
      stride: the distance with which they were cut.

    Returns:
      Images in the dtype of the tiles; sums are taken in at least float32.

    Raises:
      ValueError: if this is not the number of tiles of such an image, or they are not square.
    """
    b, n, tile, tile_width, c = tiles.shape
    h, w = image_shape
    if tile != tile_width:
        raise ValueError(f"Tiles are square, not {tile}x{tile_width}.")
    expected = len(tile_positions(h, w, tile, stride))
    if n != expected:
        raise ValueError(
            f"An image of {h}x{w} has {expected} tiles of side {tile} at stride {stride}, not {n}."
        )
    rows, columns = _starts(h, tile, stride), _starts(w, tile, stride)
    grid = at_least_float32(tiles).reshape(b, len(rows), len(columns), tile, tile, c)
    # Positions are a grid: first each row of tiles becomes a strip, then the strips an image.
    strips = _overlap_add(jnp.moveaxis(grid, 2, 0), columns, w, axis=3)
    total = _overlap_add(jnp.moveaxis(strips, 1, 0), rows, h, axis=1)
    covers = np.outer(*(_coverage(starts, tile) for starts in (rows, columns)))
    return (total / jnp.asarray(covers, grid.dtype)[None, :, :, None]).astype(tiles.dtype)


def random_crops(
    images: Shaped[AnyArray, "b h w c"], keys: Key[Array, " b"], size: int
) -> Shaped[Array, "b {size} {size} c"]:
    """Cuts one square at a uniformly random place out of every image.

    Args:
      images: images of any dtype.
      keys: one key per image: a crop does not depend on the rest of the batch.
      size: side of the square in pixels.

    Raises:
      ValueError: if the square exceeds the image.
    """
    h, w, c = images.shape[1:]
    if not 1 <= size <= min(h, w):
        raise ValueError(f"A crop of {size}x{size} pixels does not fit into an image of {h}x{w}.")

    def crop(image: Array, key: Array) -> Array:
        last = jnp.array([h - size, w - size])
        row, column = jax.random.randint(key, (2,), 0, last + 1)
        return lax.dynamic_slice(image, (row, column, 0), (size, size, c))

    return jax.vmap(crop)(jnp.asarray(images), keys)


def _starts(length: int, tile: int, stride: int) -> list[int]:
    """Returns where tiles start along one axis."""
    return [*range(0, length - tile, stride), length - tile]


def _coverage(starts: list[int], tile: int) -> np.ndarray:
    """Returns how many tiles cover each pixel of one axis."""
    return np.bincount(np.add.outer(starts, np.arange(tile)).ravel())


def _overlap_add(pieces: Array, starts: list[int], length: int, *, axis: int) -> Array:
    """Adds pieces[i] into zeros of this length at starts[i] along an axis of the pieces."""
    shape = list(pieces.shape[1:])
    size, shape[axis] = shape[axis], length

    # Piece after piece: the order of the additions, and so the result, is always the same.
    def add(canvas: Array, piece_and_start: tuple[Array, Array]) -> tuple[Array, None]:
        piece, start = piece_and_start
        old = lax.dynamic_slice_in_dim(canvas, start, size, axis=axis)
        return lax.dynamic_update_slice_in_dim(canvas, old + piece, start, axis=axis), None

    canvas, _ = lax.scan(add, jnp.zeros(shape, pieces.dtype), (pieces, jnp.asarray(starts)))
    return canvas
