"""How far the pixels of images correlate: their mean autocorrelation, and its length."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxad.ops.arrays import AnyArray


def radial_autocorrelation(images: Float[AnyArray, "b h w"]) -> Float[Array, " k"]:
    """Returns the autocorrelation of images at distances of 0, 1, ..., min(h, w) / 2 pixels.

    Each image less its own mean; covariances at an offset are divided by the number of pairs of
    pixels that have it, averaged over images, then over all offsets whose length rounds to the
    same number of pixels. Removing the mean takes a little from every distance: about the
    correlation's area over the image's.

    Args:
      images: of any scale.

    Returns:
      Correlations, 1 at distance 0; all NaN if no image varies.
    """
    h, w = images.shape[1:]
    rows, columns = (np.minimum(np.arange(2 * n), 2 * n - np.arange(2 * n)) for n in (h, w))
    # Twice the size keeps the ends of an image apart: pairs, not pairs across the border.
    pairs = np.maximum(h - rows, 0)[:, None] * np.maximum(w - columns, 0)[None, :]
    distance = np.rint(np.hypot(rows[:, None], columns[None, :])).astype(int)
    count = min(h, w) // 2 + 1
    near = (distance < count) & (pairs > 0)
    weight = np.where(near, 1.0 / np.maximum(pairs, 1), 0.0)
    members = np.bincount(distance[near], minlength=count)

    centred = images - jnp.mean(images, axis=(1, 2), keepdims=True)
    transform = jnp.fft.rfft2(centred, (2 * h, 2 * w), axes=(1, 2))
    power = jnp.mean(jnp.square(transform.real) + jnp.square(transform.imag), axis=0)
    covariance = jnp.fft.irfft2(power, (2 * h, 2 * w)) * weight
    bins = np.where(near, distance, count).ravel()
    radial = jnp.zeros(count + 1).at[bins].add(covariance.ravel())[:count] / members
    return radial / radial[0]


def correlation_length(correlation: Float[AnyArray, " k"]) -> float:
    """Returns the distance in pixels at which a correlation first falls to 1/e.

    Args:
      correlation: at distances 0, 1, ...; interpolated between them.

    Returns:
      The distance; NaN if it never falls so low.
    """
    values = np.asarray(correlation, np.float64)
    below = np.flatnonzero(values < math.exp(-1))
    if not below.size or not below[0]:
        return float("nan")
    k = int(below[0])
    high, low = values[k - 1], values[k]
    return float(k - 1 + (high - math.exp(-1)) / (high - low))
