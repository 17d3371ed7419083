"""Models that see images in the illumination of good images: ``data.illumination``.

What is fitted is a :class:`~jaxad.ops.illumination.Reference`.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import Model, to_unit_float
from jaxad.models.wrapping import Change, Own, changed
from jaxad.ops.illumination import MATCH, Reference, level_of, standardise

COLLECTION = "illumination"


def normalised(model: Model, kind: str) -> Model:
    """The model on images that are brought to the illumination of the training images.

    Args:
      model: any; its reconstructions are in that illumination too.
      kind: of :data:`jaxad.ops.illumination.MATCH`.
    """
    height, width, _ = model.image_shape
    blank = Reference(jnp.float32(0.5), jnp.float32(0.25), jnp.full((height, width), 0.5))

    def see(own: Own, images: Shaped[Array, "b h w c"]) -> Array:
        return jnp.clip(MATCH[kind](to_unit_float(images), Reference(**own)), 0.0, 1.0)

    fit = lambda batches: fit_reference(batches)._asdict()
    return changed(model, Change(COLLECTION, blank._asdict(), fit, see))


def fit_reference(batches: Iterable[Batch]) -> Reference:
    """The illumination of good images: averages over all of them."""
    count = 0
    means: Float[Array, ""] | float = 0.0
    deviations: Float[Array, ""] | float = 0.0
    shapes: Float[Array, "h w"] | float = 0.0
    for batch in batches:
        valid = jnp.asarray(batch.valid)
        mean, deviation, shape = _measure(batch.image)
        count += int(valid.sum())
        means += jnp.sum(mean * valid)
        deviations += jnp.sum(deviation * valid)
        shapes += jnp.einsum("bhw,b->hw", shape, valid.astype(jnp.float32))
    mean, deviation = jnp.float32(means / count), jnp.float32(deviations / count)
    return Reference(mean, deviation, shapes / count * deviation + mean)


@jax.jit
def _measure(images: Shaped[Array, "b h w c"]) -> tuple[Array, Array, Array]:
    unit = to_unit_float(images)
    return *level_of(unit), jnp.mean(standardise(unit), axis=-1)
