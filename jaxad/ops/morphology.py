"""Grey-scale morphology with flat square footprints: local maxima and minima of anomaly maps.

Soille 2003, "Morphological image analysis", chapters 3 and 4. The conventions are those of
``scipy.ndimage.grey_*`` with ``size=(size, size)`` and ``mode="reflect"`` (the edge pixel is
repeated). A footprint of even size has no centre: erosion reaches one pixel further up and left,
dilation one pixel further down and right, so that opening and closing do not shift a map.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxad.ops.arrays import AnyArray, pad_axis


def grey_dilation(maps: Float[AnyArray, "*b h w"], *, size: int) -> Float[Array, "*b h w"]:
    """Returns the maximum around every pixel: bright regions grow, dark specks vanish.

    Args:
      maps: maps of any range.
      size: side of the square in pixels, 1 or more; 1 returns the maps as they are.

    Returns:
      Maps of the same shape and dtype. Gradients go to one pixel that attains the maximum.

    Raises:
      ValueError: if the size is below 1 or the maps lack two axes.
    """
    return _extremum(maps, size, lax.max, -jnp.inf, before=(size - 1) // 2)


def grey_erosion(maps: Float[AnyArray, "*b h w"], *, size: int) -> Float[Array, "*b h w"]:
    """Returns the minimum around every pixel: bright regions shrink, bright specks vanish.

    Arguments, returned value and errors are those of `grey_dilation`.
    """
    return _extremum(maps, size, lax.min, jnp.inf, before=size // 2)


def grey_opening(maps: Float[AnyArray, "*b h w"], *, size: int) -> Float[Array, "*b h w"]:
    """Returns the dilation of the erosion: removes bright specks smaller than the square.

    Arguments, returned value and errors are those of `grey_dilation`.
    """
    return grey_dilation(grey_erosion(maps, size=size), size=size)


def grey_closing(maps: Float[AnyArray, "*b h w"], *, size: int) -> Float[Array, "*b h w"]:
    """Returns the erosion of the dilation: fills dark specks smaller than the square.

    Arguments, returned value and errors are those of `grey_dilation`.
    """
    return grey_erosion(grey_dilation(maps, size=size), size=size)


def connected_to(seeds: Bool[AnyArray, "h w"], within: Bool[AnyArray, "h w"]) -> Bool[Array, "h w"]:
    """The connected components, of eight neighbours, that hold a seed.

    Morphological reconstruction by dilation (L. Vincent, "Morphological grayscale reconstruction in
    image analysis", IEEE Transactions on Image Processing 2, 1993): sweeps down, up, right and left
    carry seeds on, until nothing changes. A component that winds takes as many rounds as it turns.

    Args:
      seeds: pixels to begin with; those outside ``within`` do not count.
      within: all pixels of the components.
    """
    within = jnp.asarray(within)

    def sweep(found: Array, axis: int, backwards: bool) -> Array:
        lines = jnp.moveaxis(found, axis, 0), jnp.moveaxis(within, axis, 0)

        def step(before: Array, line: tuple[Array, Array]) -> tuple[Array, Array]:
            wide = jnp.pad(before, 1)
            reached = line[0] | wide[:-2] | before | wide[2:]
            return (reached & line[1],) * 2

        nothing = jnp.zeros(lines[0].shape[1], bool)
        return jnp.moveaxis(lax.scan(step, nothing, lines, reverse=backwards)[1], 0, axis)

    def spread(state: tuple[Array, Array]) -> tuple[Array, Array]:
        found = state[0]
        for axis in (0, 1):
            for backwards in (False, True):
                found = sweep(found, axis, backwards)
        return found, jnp.any(found != state[0])

    found = jnp.asarray(seeds) & within
    return lax.while_loop(lambda state: state[1], spread, (found, jnp.any(found)))[0]


def _extremum(maps: AnyArray, size: int, choose, neutral: float, *, before: int) -> Array:
    """Slides a square over the maps, `before` pixels of it above and left of each pixel."""
    if size < 1:
        raise ValueError(f"The side of a footprint is 1 pixel or more, not {size}.")
    if maps.ndim < 2:
        raise ValueError(f"Morphology takes maps of shape (..., h, w), not {maps.shape}.")
    result = jnp.asarray(maps)
    for axis in (maps.ndim - 2, maps.ndim - 1):
        # The extremum over a square is that over rows of those over columns.
        window = [1] * maps.ndim
        window[axis] = size
        result = lax.reduce_window(
            pad_axis(result, axis, (before, size - 1 - before), mode="symmetric"),
            jnp.asarray(neutral, result.dtype),
            choose,
            window,
            [1] * maps.ndim,
            "VALID",
        )
    return result
