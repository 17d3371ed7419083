"""The highest values of an array of millions, without sorting it.

XLA takes a minute for ``top_k`` of a map of 12 megapixels on a CPU. A bisection counts the values
over a limit instead, some thirty times.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxad.ops.arrays import AnyArray

State = tuple[Array, Array, Array, Array]
"""Of a bisection: a limit that enough values reach, one that too few do, the next to be tried, and
whether to go on."""

_TINY = 1e-30


def limit_of_highest(
    values: Float[AnyArray, " n"], count: int, wanted: Bool[AnyArray, ""] | bool = True
) -> Float[Array, ""]:
    """A limit that the highest values reach, and no others.

    Args:
      values: finite, or -inf for those that do not count.
      count: how many are to reach it, at least 1 and at most as many as are finite; more do where
        the lowest of them is there several times.
      wanted: whether anybody asks; otherwise it is the lowest finite value, at once.
    """
    values = jnp.asarray(values)
    high = jnp.max(values)
    low = jnp.min(jnp.where(values > -jnp.inf, values, high))

    def bisect(state: State) -> State:
        low, high, middle, _ = state
        reached = jnp.sum(values >= middle)
        low, high = (
            jnp.where(reached >= count, middle, low),
            jnp.where(reached < count, middle, high),
        )
        return low, high, *next_of(low, high, reached)

    def next_of(low: Array, high: Array, reached: Array | int) -> tuple[Array, Array]:
        middle = low + (high - low) * 0.5
        # No number of float32 lies between, or no value does.
        done = (middle <= low) | (middle >= high) | (reached == count)
        return middle, ~done

    high = high + jnp.maximum(jnp.abs(high), _TINY) * 1e-6
    middle, more = next_of(low, high, 0)
    start: State = (low, high, middle, more & wanted)
    return lax.while_loop(lambda state: state[3], bisect, start)[0]


def mean_of_highest(values: Float[AnyArray, " n"], count: int) -> Float[Array, ""]:
    """The mean of so many of the highest values.

    Args:
      values: finite, or -inf for those that do not count.
      count: at least 1 and at most as many as are finite.
    """

    def by_bisection(values: Array) -> Array:
        reach = values >= limit_of_highest(values, count)
        # Of values that are equal some may be too many: they are the lowest of them.
        lowest = jnp.min(jnp.where(reach, values, jnp.inf))
        return lowest + jnp.sum(jnp.where(reach, values - lowest, 0.0)) / count

    def by_order(values: Array) -> Array:
        return jnp.mean(lax.top_k(values, count)[0])

    # onnxruntime, which is neither, finds the highest at once.
    return lax.platform_dependent(
        jnp.asarray(values), cpu=by_bisection, cuda=by_bisection, default=by_order
    )
