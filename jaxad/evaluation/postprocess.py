"""From a model's maps to those that are judged: smoothing, image scores, what is not judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from jaxad.models.base import Model, Variables
from jaxad.ops.blur import gaussian_blur

REDUCTIONS = ("max", "mean", "top1")
"""How a map becomes an image score: its maximum, its mean, the mean of its highest 1 % pixels."""

_REACH = 1e-3
"""Weight of judged pixels in a smoothed one from which it is known what they would make of it."""

_TINY = 1e-12

Maps = dict[str, Float[Array, "b h w"]]
Scores = dict[str, Float[Array, " b"]]


class DeviceOutput(NamedTuple):
    """What :func:`make_detect` computes of a batch, on the device.

    See :class:`~jaxad.evaluation.detector_output.DetectorOutput`.
    """

    maps: Maps
    scores: Scores
    reconstruction: UInt8[Array, "b h w c"]


def make_detect(model: Model, *, smoothing: float) -> Callable[..., DeviceOutput]:
    """Builds the pure ``(variables, images, inside=None) -> DeviceOutput``: model and post-process.

    ``inside`` is ``(b, h, w)`` bool, as of :func:`finish`. What comes after it is the model's own
    (``places`` of :func:`jaxad.models.positions.per_position`).

    Args:
      model: whose maps are taken.
      smoothing: sigma in pixels of the gaussian over every map; 0 for none.
    """

    def detect(
        variables: Variables,
        images: UInt8[Array, "b h w c"],
        inside: Bool[Array, "b h w"] | None = None,
        *own: Array,
    ) -> DeviceOutput:
        detection = model.detect(variables, images, *own)
        maps, scores = finish(detection.maps, detection.scores, inside, smoothing=smoothing)
        picture = jnp.round(jnp.clip(detection.reconstruction, 0.0, 1.0) * 255.0)
        return DeviceOutput(maps, scores, picture.astype(jnp.uint8))

    return detect


def finish(
    maps: Mapping[str, Float[Array, "b h w"]],
    scores: Mapping[str, Float[Array, " b"]],
    inside: Bool[Array, "b h w"] | None = None,
    *,
    smoothing: float,
) -> tuple[Maps, Scores]:
    """Smooths maps, and adds their reductions to the scores.

    Args:
      maps: of a model.
      scores: of a model, of whole images.
      inside: the pixels that are judged, some of every image; None: all. Nothing of what lies
        elsewhere reaches them, through smoothing neither: of the gaussian the part inside counts,
        normalised (H. Knutsson and C.-F. Westin, "Normalized and differential convolution", CVPR
        1993). The model's own scores, which are of whole images, are left out.
      smoothing: sigma in pixels of the gaussian over every map; 0 for none.

    Returns:
      Maps and scores. Pixels that are not judged have what the judged ones near them have and, far
      from them, the smallest value of those.
    """
    if inside is None:
        smoothed = {
            name: gaussian_blur(values, sigma=smoothing) if smoothing else values
            for name, values in maps.items()
        }
        found = dict(scores)
    else:
        smoothed = {name: _smoothed_inside(v, inside, smoothing) for name, v in maps.items()}
        found = {}
    for name, values in smoothed.items():
        reduced = _reductions(values) if inside is None else _reductions_inside(values, inside)
        found |= {f"{name}:{reduction}": value for reduction, value in reduced.items()}
    return smoothed, found


def _smoothed_inside(
    values: Float[Array, "b h w"], inside: Bool[Array, "b h w"], smoothing: float
) -> Float[Array, "b h w"]:
    weight = inside.astype(values.dtype)
    # Without smoothing too, pixels around get the values of their neighbours inside, for maps
    # are made larger by interpolation.
    sigma = smoothing or 1.0
    reach = gaussian_blur(weight, sigma=sigma)
    # Zero, not the value times zero: an infinity outside would be NaN.
    near = gaussian_blur(jnp.where(inside, values, 0.0), sigma=sigma) / jnp.maximum(reach, _TINY)
    judged = near if smoothing else values
    lowest = jnp.min(jnp.where(inside, judged, jnp.inf), axis=(1, 2), keepdims=True)
    return jnp.where(inside, judged, jnp.where(reach > _REACH, near, lowest))


def _reductions(values: Float[Array, "b h w"]) -> Scores:
    pixels = values.reshape(values.shape[0], -1)
    highest = jax.lax.top_k(pixels, max(1, pixels.shape[1] // 100))[0]
    return {
        "max": jnp.max(pixels, axis=1),
        "mean": jnp.mean(pixels, axis=1),
        "top1": jnp.mean(highest, axis=1),
    }


def _reductions_inside(values: Float[Array, "b h w"], inside: Bool[Array, "b h w"]) -> Scores:
    """:func:`_reductions` of the pixels inside, as if there were no others."""
    pixels, counted = (x.reshape(x.shape[0], -1) for x in (values, inside))
    count = jnp.sum(counted, axis=1)
    ordered = jax.lax.top_k(jnp.where(counted, pixels, -jnp.inf), max(1, pixels.shape[1] // 100))[0]
    top_count = jnp.maximum(1, count // 100)
    first = jnp.arange(ordered.shape[1])[None] < top_count[:, None]
    return {
        "max": ordered[:, 0],
        "mean": jnp.sum(jnp.where(counted, pixels, 0.0), axis=1) / count,
        "top1": jnp.sum(jnp.where(first, ordered, 0.0), axis=1) / top_count,
    }
