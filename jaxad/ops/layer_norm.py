"""Layer normalisation with a backward pass of its own.

The variance is that of the centred values, exact for tokens with a large mean too. By the chain
rule that costs a quarter of a small transformer's training step on a CPU; with the gradient
written down it costs no more than the mean of squares less the squared mean, which loses digits.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxad.ops.arrays import at_least_float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "*b d"], scale: Float[Array, " d"], bias: Float[Array, " d"], epsilon: float
) -> Float[Array, "*b d"]:
    """Each vector less its mean, by its standard deviation, times ``scale``, plus ``bias``.

    Computed in float32 with the two-pass variance (that of large numbers with a small spread is
    right); first-order reverse mode only.

    Args:
      x: vectors of any number.
      scale: per feature.
      bias: per feature.
      epsilon: added to the (biased) variance.

    Returns:
      float32, or float64 for float64.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    rows = at_least_float32(x.reshape(-1, x.shape[-1]))
    centred = rows - jnp.mean(rows, axis=1, keepdims=True)
    inverse = lax.rsqrt(jnp.mean(centred * centred, axis=1, keepdims=True) + epsilon)
    normed = centred * inverse
    y = normed * scale[None, :] + bias[None, :]
    # An empty array, for the dtype of x.
    return y.reshape(x.shape), (normed, inverse, scale, jnp.zeros(0, x.dtype))


def _backward(epsilon, residuals, gradient):
    normed, inverse, scale, like = residuals
    rows = gradient.reshape(normed.shape).astype(normed.dtype)
    scaled = rows * scale[None, :]
    along = jnp.mean(scaled * normed, axis=1, keepdims=True)
    of_x = inverse * (scaled - jnp.mean(scaled, axis=1, keepdims=True) - normed * along)
    of_scale = jnp.sum(rows * normed, axis=0).astype(scale.dtype)
    return (
        of_x.reshape(gradient.shape).astype(like.dtype),
        of_scale,
        jnp.sum(rows, axis=0).astype(scale.dtype),
    )


layer_norm.defvjp(_forward, _backward)
