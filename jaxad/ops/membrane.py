"""Smooth filling of holes: the membrane over a region, and seamless cloning by it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxad.ops.arrays import AnyArray, at_least_float32


def fill_by_membrane(
    values: Float[AnyArray, "h w c"],
    hole: Bool[AnyArray, "h w"],
    *,
    tolerance: float = 1e-4,
    most_steps: int = 400,
) -> Float[Array, "h w c"]:
    """Fills a hole with the membrane that is held by the pixels around it.

    Inside the hole each value becomes the mean of its four neighbours (Laplace's equation, with
    the values outside as its border; at the edge of the image the gradient across is zero). The
    result has no extremum inside the hole, and a linear ramp is filled by itself. Solved by
    conjugate gradients.

    Args:
      values: of any range.
      hole: the pixels to fill; what ``values`` has there is not read. With no pixel outside the
        result is the values themselves.
      tolerance: of the residual, relative to that of the mean as a first guess.
      most_steps: of conjugate gradients.

    Returns:
      The values with the hole filled.
    """
    wide = at_least_float32(values)
    inside = jnp.asarray(hole)[..., None]
    known = ~inside
    count = jnp.sum(known)
    total = jnp.sum(jnp.where(known, wide, 0), axis=(0, 1), keepdims=True)
    level = total / jnp.maximum(count, 1)
    centred = jnp.where(known, wide - level, 0)

    def laplacian(unknown: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        return jnp.where(inside, _differences(jnp.where(inside, unknown, 0)), 0)

    border = -jnp.where(inside, _differences(centred), 0)
    solved, _ = jax.scipy.sparse.linalg.cg(laplacian, border, tol=tolerance, maxiter=most_steps)
    filled = jnp.where(inside, solved + level, wide)
    return jnp.where(count == 0, wide, filled)


def clone_seamlessly(
    target: Float[AnyArray, "h w c"],
    source: Float[AnyArray, "h w c"],
    region: Bool[AnyArray, "h w"],
) -> Float[Array, "h w c"]:
    """Puts the source's gradients into a region of the target, without a seam.

    Poisson image editing (Perez, Gangnet and Blake, SIGGRAPH 2003, equation 7): inside the region
    the source plus a membrane that takes up the difference at the region's border.

    Args:
      target: image outside of the region.
      source: image of the same shape; also read one pixel beyond the region.
      region: where the source goes.

    Returns:
      An image, which may leave the range of both.
    """
    difference = at_least_float32(target) - at_least_float32(source)
    membrane = fill_by_membrane(difference, region)
    return jnp.where(jnp.asarray(region)[..., None], source + membrane, target)


def _differences(values: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Of each pixel to its four neighbours, summed; neighbours beyond the image are left out."""
    down = jnp.diff(values, axis=0)
    right = jnp.diff(values, axis=1)
    zero = ((0, 0), (0, 0))
    return (
        jnp.pad(down, ((1, 0), *zero))
        - jnp.pad(down, ((0, 1), *zero))
        + jnp.pad(right, (zero[0], (1, 0), zero[1]))
        - jnp.pad(right, (zero[0], (0, 1), zero[1]))
    )
