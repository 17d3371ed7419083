"""What a probabilistic PCA shows of itself: samples, and its mean, axes and variances."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxad.models.base import Variables

MATMUL_PRECISION = "highest"
"""An accelerator's default rounds to 10 bits: residuals and small variances would be lost."""

AXES_SHOWN = 16
"""Principal axes among the diagnostics."""


def sample(
    variables: Variables, key: Array, n: int, pictures_of: Callable[[Array], Array]
) -> Array:
    """Draws ``x ~ N(mu, V L V' + s2 (I - V V'))``, clipped to [0, 1]; patches are drawn singly."""
    p = variables["params"]
    noise = jnp.exp(0.5 * p["log_noise"])
    # One standard normal per value: scaled by s, and stretched along the axes to their deviation.
    white = jax.random.normal(key, (n, p["mean"].shape[0]))
    with jax.default_matmul_precision(MATMUL_PRECISION):
        codes = (white @ p["axes"].T) * (jnp.exp(0.5 * p["log_variances"]) - noise)[None]
        x = p["mean"][None] + noise * white + codes @ p["axes"]
    return pictures_of(jnp.clip(x, 0.0, 1.0))


def describe(variables: Variables, pictures_of: Callable[[Array], Array]) -> dict[str, Array]:
    """What was fitted: the mean, the leading axes, and how much of the variance each explains.

    Axes are shown around mid-gray, their largest value (of either sign) at white or black. The
    variances do not depend on images: they are those of the training images.
    """
    p = variables["params"]
    k, d = p["axes"].shape
    variances = jnp.exp(p["log_variances"])
    total = jnp.sum(variances) + (d - k) * jnp.exp(p["log_noise"])
    axes = p["axes"][:AXES_SHOWN]
    largest = jnp.maximum(jnp.max(jnp.abs(axes), axis=1, keepdims=True), 1e-12)
    return {
        "variance_explained_by_all_axes": jnp.sum(variances) / total,
        "standard_deviation_of_the_noise": jnp.exp(0.5 * p["log_noise"]),
        "share_of_variance_per_axis": variances / total,
        "mean": pictures_of(jnp.clip(p["mean"], 0.0, 1.0)[None]),
        "first_axes": pictures_of(0.5 + 0.5 * axes / largest),
    }
