"""Illumination of images: its level and gradient brought to those of a reference.

Matching means and standard deviations undoes any change ``a x + b`` of the values (E. Reinhard et
al., "Color Transfer between Images", IEEE CG&A 2001, here of all channels together, so that hues
stay). A gradient of light multiplies the image by a plane; dividing by it is shading correction
with a polynomial of first order, here fitted against the mean of good images.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

_LEAST = 1e-3
"""Of deviations and gains, below which nothing is divided."""


class Reference(NamedTuple):
    """The illumination of good images.

    Attributes:
      mean: of all values of an image, averaged over images.
      deviation: the standard deviation of an image's values, likewise.
      luminance: ``(h, w)``, the mean over channels and images, each image at this mean and
        deviation.
    """

    mean: Float[Array, ""]
    deviation: Float[Array, ""]
    luminance: Float[Array, "h w"]


def level_of(
    images: Float[Array, "b h w c"],
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Mean and standard deviation over all values of each image."""
    return jnp.mean(images, axis=(1, 2, 3)), jnp.std(images, axis=(1, 2, 3))


def standardise(images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Images of mean 0 and standard deviation 1; flat ones become 0."""
    mean, deviation = (one[:, None, None, None] for one in level_of(images))
    return (images - mean) / jnp.maximum(deviation, _LEAST)


def match_level(images: Float[Array, "b h w c"], reference: Reference) -> Float[Array, "b h w c"]:
    """Images of the reference's mean and standard deviation; flat ones keep their deviation."""
    return standardise(images) * reference.deviation + reference.mean


def gain_planes(
    images: Float[Array, "b h w c"], luminance: Float[Array, "h w"]
) -> Float[Array, "b h w"]:
    """The planes by which a luminance is multiplied to come closest to each image's own.

    Least squares over the pixels: of all ``p + q u + r v`` with ``u`` and ``v`` from -1 to 1 over
    the width and the height, the one with the smallest sum of ``(x - (p + q u + r v) m)^2``. There
    is no intercept, so the fit holds for parts that lie anywhere too, whose mean is nearly flat.
    """
    height, width = luminance.shape
    v, u = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
    basis = jnp.stack([jnp.ones_like(u), u, v])
    terms = (basis * luminance[None]).reshape(3, -1)
    own = jnp.mean(images, axis=-1).reshape(images.shape[0], -1)
    gram = terms @ terms.T + 1e-6 * jnp.eye(3) * height * width
    planes = jnp.linalg.solve(gram, terms @ own.T)
    return jnp.einsum("kb,khw->bhw", planes, basis)


def match_gradient(
    images: Float[Array, "b h w c"], reference: Reference
) -> Float[Array, "b h w c"]:
    """Images whose gradient of light is the reference's, at its level.

    Gains are kept between a quarter and four, so that a defect that covers half of an image
    cannot turn the other half black.
    """
    level = match_level(images, reference)
    gain = jnp.clip(gain_planes(level, reference.luminance), 0.25, 4.0)
    return match_level(level / gain[..., None], reference)


MATCH = {"level": match_level, "gradient": match_gradient}
"""By the value of ``data.illumination``."""
