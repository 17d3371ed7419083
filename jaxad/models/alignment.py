"""Models that see parts in one pose, wherever and however they lie: ``data.align``.

Images are turned and moved before the model, its maps and reconstructions back behind it, so that
everything else knows original images alone. What is fitted to good images, a collection of the
variables, is what counts as the object, whether places and angles are corrected at all, and the
frame in which the objects are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.data.defects.foreground import otsu_threshold
from jaxad.models.base import Detection, LossOutput, Model, Unseen, Variables, to_unit_float
from jaxad.ops.alignment import (
    Frame,
    Pose,
    difference,
    extents,
    from_pose,
    pictures_from_pose,
    pose_of,
    to_pose,
)

COLLECTION = "alignment"

KINDS = ("none", "shift", "turn", "auto")
"""Of ``data.align``: nothing, places, places and angles, or what good images show to help."""

LOOKED_AT = 256
"""Images, at most, that what is fitted comes from."""
HELPS = 0.75
"""Of the residual without alignment: what ``auto`` takes leaves at most so much."""
COMPONENTS = 30
_SIDE = 96
_ROOM = 0.96
"""Of the frame that the objects fill at most."""
_ROUND = 1.15
"""Ratio of an object's axes from which it has a direction."""


class Alignment(NamedTuple):
    """What is fitted.

    Attributes:
      threshold: difference from the rim's colour from which a pixel is of the object.
      shift: 1 where places are corrected, else 0.
      turn: likewise angles.
      scale: of the :class:`~jaxad.ops.alignment.Frame`, as the next two.
      row: see there.
      column: see there.
    """

    threshold: Float[Array, ""]
    shift: Float[Array, ""]
    turn: Float[Array, ""]
    scale: Float[Array, ""]
    row: Float[Array, ""]
    column: Float[Array, ""]

    @property
    def frame(self) -> Frame:
        """In which objects are seen."""
        return Frame(self.scale, self.row, self.column)


def aligned(model: Model, kind: str) -> Model:
    """The model on images whose objects lie in one pose.

    Args:
      model: any; its maps and reconstructions are turned back.
      kind: of :data:`KINDS`, but for none.
    """

    def init(key: Key[Array, ""]) -> Variables:
        return {**model.init(key), COLLECTION: _alignment(0.5)._asdict()}

    def loss(variables: Variables, batch: Batch, keys: Key[Array, " b"], train: bool) -> LossOutput:
        images, _ = _turned(variables, batch.image)
        return model.loss(_inner(variables), batch._replace(image=images), keys, train)

    def detect(variables: Variables, images: Shaped[Array, "b h w c"]) -> Detection:
        turned, pose = _turned(variables, images)
        found = model.detect(_inner(variables), turned)
        frame = Alignment(**variables[COLLECTION]).frame
        maps = {name: from_pose(values, pose, frame) for name, values in found.maps.items()}
        back = pictures_from_pose(found.reconstruction, to_unit_float(images), pose, frame)
        return Detection(maps, found.scores, back)

    def initialise(variables: Variables, batches: Iterable[Batch]) -> Variables:
        own = {COLLECTION: fit_alignment(batches, kind)._asdict()}
        inner: Variables = _inner(variables)
        if model.initialise is not None:
            inner = model.initialise(inner, _Turned(batches, own))
        return {**inner, **own}

    def fit(batches: Iterable[Batch], **backbone: Any) -> Variables:
        assert model.fit is not None
        own = {COLLECTION: fit_alignment(batches, kind)._asdict()}
        return {**model.fit(_Turned(batches, own), **backbone), **own}

    def left_out(
        variables: Variables, batches: Iterable[Batch], folds: Int[np.ndarray, " n"]
    ) -> Iterator[Unseen]:
        assert model.left_out is not None
        # The frame is that of all images, of which one moves it little.
        own = {COLLECTION: variables[COLLECTION]}
        turned = _Turned(batches, own)
        for _ in turned:  # for the poses of all
            pass
        frame = Alignment(**own[COLLECTION]).frame
        back = jax.jit(from_pose)
        for places, maps, scores in model.left_out(_inner(variables), turned, folds):
            pose = Pose(*(values[places] for values in turned.poses))
            named = {
                name: np.asarray(back(jnp.asarray(m), pose, frame)) for name, m in maps.items()
            }
            yield Unseen(places, named, scores)

    def diagnostics(variables: Variables, images: Array) -> dict[str, Array]:
        assert model.diagnostics is not None
        return model.diagnostics(_inner(variables), _turned(variables, images)[0])

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


def alignment_in_words(variables: Mapping[str, Any]) -> str | None:
    """What a model does to its images; None where that is nothing that was asked for."""
    if COLLECTION not in variables:
        return None
    found = Alignment(**variables[COLLECTION])
    if float(found.turn):
        return "parts are turned and moved to one pose before the model sees them (data.align)"
    if float(found.shift):
        return "parts are moved to one place before the model sees them (data.align)"
    return "parts are left as they lie: turning or moving them would not help (data.align=auto)"


def fit_alignment(batches: Iterable[Batch], kind: str) -> Alignment:
    """What counts as the object, and how it is seen, from good images.

    Args:
      batches: of good images; up to :data:`LOOKED_AT` are looked at.
      kind: of :data:`KINDS`, but for none. With ``auto`` half of the images are rebuilt by the
        principal axes of the others, as they lie, moved, and turned; the way that leaves the
        smallest residual is taken if it leaves less than :data:`HELPS` of that without.

    Raises:
      ValueError: parts are to be turned that have no direction.
    """
    images = _some(batches)
    each = [jax.jit(difference)(part) for part in _parted(images)]
    apart = np.concatenate([np.asarray(values) for values in each])
    chosen = apart[:: max(1, len(apart) // 32)]
    threshold = float(np.median([otsu_threshold(values) for values in chosen]))
    inside = jnp.asarray(apart > threshold)
    pose = jax.jit(pose_of)(inside)
    if kind == "turn" and _elongation(inside, pose) < _ROUND:
        raise ValueError(
            "data.align=turn needs parts that are longer than wide, and these have no direction; "
            "take shift, or auto, which decides by itself"
        )
    ways = {name: _framed(threshold, name, inside, pose) for name in ("shift", "turn")}
    if kind != "auto":
        return ways[kind]
    residuals = {name: _residual(images, way) for name, way in ways.items()}
    best = min(residuals, key=lambda name: residuals[name])
    # As they lie, but interpolated and made smaller likewise: both take some of the noise away.
    still = _alignment(threshold)._replace(
        scale=ways[best].scale, row=jnp.float32(0.5), column=jnp.float32(0.5)
    )
    helps = residuals[best] < HELPS * _residual(images, still)
    return ways[best] if helps else _alignment(threshold)


def _alignment(threshold: float, *, shift: bool = False, turn: bool = False) -> Alignment:
    values = (threshold, shift, turn, 1.0, 0.0, 0.0)
    return Alignment(*(jnp.float32(value) for value in values))


def _framed(threshold: float, kind: str, inside: Bool[Array, "n h w"], pose: Pose) -> Alignment:
    """An alignment whose frame holds all objects but the largest hundredth."""
    way = _alignment(threshold, shift=True, turn=kind == "turn")
    found = np.asarray(jax.jit(extents)(inside, _used(way, pose)))
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found):
        return way
    first, last = np.percentile(found, 1, axis=0)[::2], np.percentile(found, 99, axis=0)[1::2]
    sides = np.array(inside.shape[1:], np.float64)
    scale = min(1.0, float((_ROOM * sides / (last - first)).min()))
    row, column = (first + last) / 2
    return way._replace(scale=jnp.float32(scale), row=jnp.float32(row), column=jnp.float32(column))


def _elongation(inside: Bool[Array, "n h w"], pose: Pose) -> float:
    """Median ratio of the objects' extents along and across their axis."""
    found = np.asarray(jax.jit(extents)(inside, pose))
    found = found[np.isfinite(found).all(axis=1)]
    across, along = found[:, 1] - found[:, 0] + 1, found[:, 3] - found[:, 2] + 1
    return float(np.median(along / across)) if len(found) else 1.0


def _residual(images: Float[np.ndarray, "n h w c"], way: Alignment) -> float:
    """What the principal axes of half of the images leave of the others, as a median over these.

    Of each image the mean of the highest hundredth of its pixels, for that is what scores are of.
    """
    step = jax.jit(lambda part: _reduced(_turned({COLLECTION: way._asdict()}, part)[0]))
    small = np.concatenate([np.asarray(step(part)) for part in _parted(images)])
    seen, unseen = small[::2], small[1::2]
    mean = seen.mean(axis=0)
    centred = seen - mean
    _, vectors = np.linalg.eigh(centred @ centred.T)
    count = min(COMPONENTS, len(seen) // 2)
    axes, _ = np.linalg.qr(centred.T @ vectors[:, ::-1][:, :count])
    rest = unseen - mean
    rest = np.sort(np.abs(rest - (rest @ axes) @ axes.T), axis=1)
    return float(np.median(rest[:, -max(1, rest.shape[1] // 100) :].mean(axis=1)))


def _reduced(images: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
    """Gray, at most :data:`_SIDE` pixels a side, as rows."""
    gray = jnp.mean(images, axis=-1)
    sides = (min(side, _SIDE) for side in gray.shape[1:])
    small = jax.image.resize(gray, (len(gray), *sides), "linear", antialias=True)
    return small.reshape(len(gray), -1)


def _some(batches: Iterable[Batch]) -> Float[np.ndarray, "n h w c"]:
    found: list[np.ndarray] = []
    count = 0
    for batch in batches:
        images = np.asarray(to_unit_float(batch.image))[np.asarray(batch.valid)]
        found.append(images)
        count += len(images)
        if count >= LOOKED_AT:
            break
    return np.concatenate(found)[:LOOKED_AT]


def _parted(images: Float[np.ndarray, "n h w c"]) -> Iterator[Float[Array, "b h w c"]]:
    for start in range(0, len(images), 32):
        yield jnp.asarray(images[start : start + 32])


def _used(way: Alignment, pose: Pose) -> Pose:
    """Of a pose what is corrected."""
    row, column = pose.row * way.shift, pose.column * way.shift
    return Pose(row, column, pose.cosine * way.turn + (1.0 - way.turn), pose.sine * way.turn)


def _turned(
    variables: Mapping[str, Any], images: Shaped[Array, "b h w c"]
) -> tuple[Float[Array, "b h w c"], Pose]:
    """Images in the pose of the model, and where their objects lay."""
    way, unit = Alignment(**variables[COLLECTION]), to_unit_float(images)
    pose = _used(way, pose_of(difference(unit) > way.threshold))
    return to_pose(unit, pose, way.frame), pose


def _inner(variables: Variables) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if name != COLLECTION}


class _Turned:
    """Batches with their images turned, as often as it is iterated.

    Attributes:
      poses: of all images, once it has been iterated to its end.
    """

    def __init__(self, batches: Iterable[Batch], own: Variables):
        self._batches, self._own = batches, own
        self._step: Callable[..., tuple[Array, Pose]] = jax.jit(_turned)
        self.poses = Pose(*(jnp.zeros(0) for _ in Pose._fields))

    def __iter__(self) -> Iterator[Batch]:
        poses: list[Pose] = []
        for batch in self._batches:
            images, pose = self._step(self._own, batch.image)
            rows = np.flatnonzero(batch.valid)
            poses.append(Pose(*(values[rows] for values in pose)))
            yield batch._replace(image=images)
        self.poses = jax.tree.map(lambda *values: jnp.concatenate(values), *poses)
