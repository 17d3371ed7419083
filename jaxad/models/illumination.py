"""Models that see images in the illumination of good images: ``data.illumination``.

What is fitted, a :class:`~jaxad.ops.illumination.Reference`, is a collection of the variables. So
each fold that is fitted anew has its own, a checkpoint holds it, an exported program applies it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import Detection, LossOutput, Model, Unseen, Variables, to_unit_float
from jaxad.ops.illumination import MATCH, Reference, level_of, standardise

COLLECTION = "illumination"


def normalised(model: Model, kind: str) -> Model:
    """The model on images that are brought to the illumination of the training images.

    Args:
      model: any; its reconstructions are in that illumination too.
      kind: of :data:`jaxad.ops.illumination.MATCH`.
    """
    height, width, _ = model.image_shape

    def init(key: Key[Array, ""]) -> Variables:
        blank = Reference(jnp.float32(0.5), jnp.float32(0.25), jnp.full((height, width), 0.5))
        return {**model.init(key), COLLECTION: blank._asdict()}

    def corrected(variables: Variables, images: Shaped[Array, "b h w c"]) -> Array:
        reference = Reference(**variables[COLLECTION])
        return jnp.clip(MATCH[kind](to_unit_float(images), reference), 0.0, 1.0)

    def loss(variables: Variables, batch: Batch, keys: Key[Array, " b"], train: bool) -> LossOutput:
        images = corrected(variables, batch.image)
        return model.loss(_inner(variables), batch._replace(image=images), keys, train)

    def detect(variables: Variables, images: Shaped[Array, "b h w c"]) -> Detection:
        return model.detect(_inner(variables), corrected(variables, images))

    def initialise(variables: Variables, batches: Iterable[Batch]) -> Variables:
        own = {COLLECTION: fit_reference(batches)._asdict()}
        inner: Variables = _inner(variables)
        if model.initialise is not None:
            inner = model.initialise(inner, _Corrected(batches, own, corrected))
        return {**inner, **own}

    def fit(batches: Iterable[Batch], **backbone: Any) -> Variables:
        assert model.fit is not None
        own = {COLLECTION: fit_reference(batches)._asdict()}
        return {**model.fit(_Corrected(batches, own, corrected), **backbone), **own}

    def left_out(
        variables: Variables, batches: Iterable[Batch], folds: Int[np.ndarray, " n"]
    ) -> Iterable[Unseen]:
        assert model.left_out is not None
        # The illumination is that of all images, of which one moves it little.
        own = {COLLECTION: variables[COLLECTION]}
        return model.left_out(_inner(variables), _Corrected(batches, own, corrected), folds)

    def diagnostics(variables: Variables, images: Array) -> dict[str, Array]:
        assert model.diagnostics is not None
        return model.diagnostics(_inner(variables), corrected(variables, images))

    def sample(variables: Variables, key: Array, count: int) -> Array:
        assert model.sample is not None
        return model.sample(_inner(variables), key, count)

    return model._replace(
        init=init,
        loss=loss,
        detect=detect,
        initialise=None if model.fit is not None else initialise,
        fit=fit if model.fit is not None else None,
        left_out=left_out if model.left_out is not None else None,
        diagnostics=diagnostics if model.diagnostics is not None else None,
        sample=sample if model.sample is not None else None,
    )


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


def _inner(variables: Variables) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if name != COLLECTION}


class _Corrected:
    """Batches with their images corrected, as often as it is iterated."""

    def __init__(self, batches: Iterable[Batch], own: Variables, corrected: Callable[..., Array]):
        self._batches, self._own = batches, own
        self._corrected = jax.jit(corrected)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield batch._replace(image=self._corrected(self._own, batch.image))
