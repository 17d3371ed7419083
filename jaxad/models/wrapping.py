"""Models that see images changed by what was fitted to good images, and know nothing of it.

What is fitted is a collection of the variables of its own. So each fold that is fitted anew has its
own, a checkpoint holds it, and an exported program applies it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import Detection, LossOutput, Model, Unseen, Variables

Own = Mapping[str, Array]
"""What is fitted."""


class Change(NamedTuple):
    """What is done to images before a model, and to what it says of them.

    Attributes:
      collection: of the variables, in which stands what is fitted.
      blank: what stands there before.
      fit: batches of good images -> what is fitted.
      see: ``(own, (b, h, w, c)) -> (b, h, w, c)`` float32, what the model sees of images.
      back: ``(own, images, detection) -> detection`` of the images as they were; None: as it is.
      back_left_out: likewise of images left out: ``(own, batches) -> (unseen -> unseen)``.
    """

    collection: str
    blank: Own
    fit: Callable[[Iterable[Batch]], Own]
    see: Callable[[Own, Shaped[Array, "b h w c"]], Array]
    back: Callable[[Own, Array, Detection], Detection] | None = None
    back_left_out: Callable[[Own, Iterable[Batch]], Callable[[Unseen], Unseen]] | None = None


def changed(model: Model, change: Change) -> Model:
    """The model on changed images.

    Args:
      model: any.
      change: of its images.
    """
    name = change.collection

    def inner(variables: Variables) -> dict[str, Any]:
        return {key: value for key, value in variables.items() if key != name}

    def init(key: Key[Array, ""]) -> Variables:
        return {**model.init(key), name: change.blank}

    def loss(variables: Variables, batch: Batch, keys: Key[Array, " b"], train: bool) -> LossOutput:
        images = change.see(variables[name], batch.image)
        return model.loss(inner(variables), batch._replace(image=images), keys, train)

    def detecting(alone: Callable[..., Detection]) -> Callable[..., Detection]:
        def detect(variables: Variables, images: Shaped[Array, "b h w c"]) -> Detection:
            own = variables[name]
            found = alone(inner(variables), change.see(own, images))
            return found if change.back is None else change.back(own, images, found)

        return detect

    def trimmed(variables: Variables, compact: bool) -> tuple[Callable[..., Detection], Variables]:
        assert model.trimmed is not None
        alone, kept = model.trimmed(inner(variables), compact)
        return detecting(alone), {**kept, name: variables[name]}

    def initialise(variables: Variables, batches: Iterable[Batch], **backbone: Any) -> Variables:
        own = change.fit(batches)
        found: Variables = inner(variables)
        if model.initialise is not None:
            found = model.initialise(found, _Seen(batches, own, change), **backbone)
        return {**found, name: own}

    def fit(batches: Iterable[Batch], **backbone: Any) -> Variables:
        assert model.fit is not None
        own = change.fit(batches)
        return {**model.fit(_Seen(batches, own, change), **backbone), name: own}

    def left_out(
        variables: Variables, batches: Iterable[Batch], folds: Int[np.ndarray, " n"]
    ) -> Iterable[Unseen]:
        assert model.left_out is not None
        # What is fitted is that of all images, of which one moves it little.
        own = variables[name]
        found = model.left_out(inner(variables), _Seen(batches, own, change), folds)
        if change.back_left_out is None:
            return found
        return map(change.back_left_out(own, batches), found)

    def diagnostics(variables: Variables, images: Array) -> dict[str, Array]:
        assert model.diagnostics is not None
        return model.diagnostics(inner(variables), change.see(variables[name], images))

    def sample(variables: Variables, key: Array, count: int) -> Array:
        assert model.sample is not None
        return model.sample(inner(variables), key, count)

    return model._replace(
        init=init,
        loss=loss,
        detect=detecting(model.detect),
        trimmed=trimmed if model.trimmed is not None else None,
        initialise=None if model.fit is not None else initialise,
        fit=fit if model.fit is not None else None,
        solve=None,
        fit_to_others=None,  # what is fitted before the model is each fold's own too
        left_out=left_out if model.left_out is not None else None,
        diagnostics=diagnostics if model.diagnostics is not None else None,
        sample=sample if model.sample is not None else None,
    )


class _Seen:
    """Batches as the model sees them, as often as it is iterated."""

    def __init__(self, batches: Iterable[Batch], own: Own, change: Change):
        self._batches, self._own = batches, own
        self._see = jax.jit(change.see)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield batch._replace(image=self._see(self._own, batch.image))
