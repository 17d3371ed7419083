"""The pixels that are outlined, computed inside an exported program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxad.evaluation.thresholds import SHOWN_SHARE
from jaxad.ops.morphology import connected_to
from jaxad.ops.ranking import limit_of_highest

LARGE = 2**18
"""Pixels of a map from which on sorting it is slow."""


def outlined_in_each(
    values: Float[Array, "b h w"],
    decisions: Bool[Array, " b"] | None,
    threshold: float,
    region: float | None = None,
    inside: Bool[np.ndarray, "h w"] | None = None,
) -> Bool[Array, "b h w"]:
    """:func:`outlined` of several maps, with the same arguments."""

    def of_one(heat: Array, decision: Array | None) -> Array:
        return outlined(heat, decision, threshold, region, inside)

    if region is None and values[0].size < LARGE:
        return jax.vmap(of_one)(values, decisions)
    # What takes as many rounds as a map needs goes from one to the next.
    return jax.lax.map(lambda each: of_one(*each), (values, decisions))


def outlined(
    values: Float[Array, "h w"],
    decision: Bool[Array, ""] | None,
    threshold: float,
    region: float | None = None,
    inside: Bool[np.ndarray, "h w"] | None = None,
) -> Bool[Array, "h w"]:
    """:func:`jaxad.evaluation.thresholds.predicted_pixels` of a map.

    Args:
      values: the map.
      decision: whether the image is rejected; None without an image threshold.
      threshold: of pixels.
      region: that the highest pixel of a region must exceed; None: every pixel over the threshold
        counts.
      inside: the pixels that are judged; None: all.
    """
    count = values.size
    if inside is not None:
        values, count = jnp.where(inside, values, -jnp.inf), int(np.count_nonzero(inside))
    over = found = values > jnp.float32(threshold)
    if region is not None:
        found = _with_peak(over, values, decision, region)
    if decision is None:
        return found
    some, count = jnp.any(over), max(1, int(SHOWN_SHARE * count))
    pixels = values.reshape(-1)
    if pixels.size < LARGE:
        limit = jax.lax.top_k(pixels, count)[0][-1]
    else:
        limit = limit_of_highest(pixels, count, wanted=decision & ~some)
    return jnp.where(some, found, values >= limit) & decision


def _with_peak(
    over: Bool[Array, "h w"],
    values: Float[Array, "h w"],
    decision: Bool[Array, ""] | None,
    region: float,
) -> Bool[Array, "h w"]:
    """The regions with a peak; of a rejected image without any that of its highest pixel."""
    peaks = over & (values > jnp.float32(region))
    if decision is not None:
        highest = values >= jnp.max(values)
        peaks = jnp.where(jnp.any(peaks), peaks, highest) & decision
    return connected_to(peaks, over)
