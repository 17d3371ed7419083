"""Cutting images into square patches and putting them together again.

A patch is flattened by row, column, channel, the channel changing fastest: the layout of a
convolution kernel ``(p, p, c)`` and of the predictions of masked autoencoders (He et al. 2022).
Patches follow each other row by row.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from jaxad.ops.arrays import AnyArray


def patch_grid(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Numbers of patches in a column and in a row of an image.

    Args:
      size: ``(h, w)`` of the image in pixels.
      patch: side of a patch in pixels.

    Raises:
      ValueError: if a side of the image is not a whole number of patches.
    """
    h, w = size
    if patch < 1 or h < 1 or w < 1 or h % patch or w % patch:
        raise ValueError(
            f"An image of {h} x {w} pixels cannot be cut into patches of {patch} x {patch}: choose "
            "an image size that is a multiple of the patch's side."
        )
    return h // patch, w // patch


def patchify(images: Shaped[AnyArray, "b h w c"], *, patch: int) -> Shaped[Array, "b n d"]:
    """Cuts images into non-overlapping patches.

    Args:
      images: of any dtype, sides divisible by ``patch``.
      patch: side of a patch in pixels.

    Returns:
      ``n = (h / patch) (w / patch)`` vectors of ``d = patch patch c`` values.

    Raises:
      ValueError: if a side of the images is not a whole number of patches.
    """
    if images.ndim != 4:
        raise ValueError(f"Images have the shape (b, h, w, c), not {images.shape}.")
    b, h, w, c = images.shape
    rows, columns = patch_grid((h, w), patch)
    x = jnp.asarray(images).reshape(b, rows, patch, columns, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, rows * columns, patch * patch * c)


def unpatchify(
    patches: Shaped[Array, "b n d"], *, patch: int, grid: tuple[int, int]
) -> Shaped[Array, "b h w c"]:
    """Puts the patches of :func:`patchify` together again.

    Args:
      patches: flattened patches, row by row.
      patch: side of a patch in pixels.
      grid: numbers of patches in a column and in a row.

    Raises:
      ValueError: if number or length of the patches do not fit.
    """
    rows, columns = grid
    if patches.ndim != 3 or patches.shape[1] != rows * columns:
        raise ValueError(
            f"A grid of {rows} x {columns} patches has the shape (b, {rows * columns}, d), not "
            f"{patches.shape}."
        )
    b, _, d = patches.shape
    if d % (patch * patch):
        raise ValueError(
            f"Patches of {d} values are no whole number of channels of {patch} x {patch} pixels."
        )
    c = d // (patch * patch)
    x = patches.reshape(b, rows, columns, patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, rows * patch, columns * patch, c)
