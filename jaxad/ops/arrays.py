"""What the functions of this folder take as arrays, and in which dtype they compute."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

AnyArray = Array | np.ndarray
"""An array of JAX, traced or not, or of NumPy; what comes out is always one of JAX."""


def at_least_float32(x: AnyArray) -> Array:
    """The array in its own dtype, or in float32 where that is wider."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def in_common_dtype(*arrays: AnyArray) -> tuple[Array, ...]:
    """The arrays in the dtype that holds all of them, float32 at least."""
    dtype = jnp.result_type(jnp.float32, *arrays)
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def pad_axis(x: AnyArray, axis: int, width: tuple[int, int], **how: Any) -> Array:
    """The array with ``width`` values more before and after one axis, as ``jnp.pad`` makes them."""
    return jnp.pad(x, [width if i == axis else (0, 0) for i in range(x.ndim)], **how)
