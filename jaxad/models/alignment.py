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
from jaxtyping import Array, Bool, Float, Shaped

from jaxad.data.batch import Batch
from jaxad.data.defects.foreground import otsu_threshold
from jaxad.models.base import Detection, Model, Unseen, to_unit_float
from jaxad.models.wrapping import Change, Own, changed
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

    def back(own: Own, images: Shaped[Array, "b h w c"], found: Detection) -> Detection:
        way, unit = Alignment(**own), to_unit_float(images)
        pose = _pose(way, unit)
        maps = {name: from_pose(values, pose, way.frame) for name, values in found.maps.items()}
        picture = pictures_from_pose(found.reconstruction, unit, pose, way.frame)
        return Detection(maps, found.scores, picture)

    def back_left_out(own: Own, batches: Iterable[Batch]) -> Callable[[Unseen], Unseen]:
        way = Alignment(**own)
        pose_step, map_step = jax.jit(lambda x: _pose(way, to_unit_float(x))), jax.jit(from_pose)
        each = []
        for batch in batches:
            rows = np.flatnonzero(batch.valid)
            each.append([values[rows] for values in pose_step(batch.image)])
        poses = [jnp.concatenate(values) for values in zip(*each, strict=True)]

        def turned_back(unseen: Unseen) -> Unseen:
            pose = Pose(*(values[unseen.places] for values in poses))
            maps = {
                name: np.asarray(map_step(jnp.asarray(values), pose, way.frame))
                for name, values in unseen.maps.items()
            }
            return unseen._replace(maps=maps)

        return turned_back

    blank = _alignment(0.5)._asdict()
    fit = lambda batches: fit_alignment(batches, kind)._asdict()
    return changed(model, Change(COLLECTION, blank, fit, _see, back, back_left_out))


def as_they_lie(model: Model) -> Model:
    """A model for variables of which :func:`aligned` has found that parts are left as they lie.

    It does without the turning and moving by nothing, for which ONNX has no operation.

    Args:
      model: the same without alignment.
    """
    nothing: Own = {}
    return changed(model, Change(COLLECTION, nothing, lambda batches: nothing, lambda _, x: x))


def moves_parts(variables: Mapping[str, Any]) -> bool:
    """Whether a model turns or moves its images."""
    if COLLECTION not in variables:
        return False
    found = Alignment(**variables[COLLECTION])
    return bool(float(found.turn) or float(found.shift))


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
    step = jax.jit(lambda part: _reduced(_see(way._asdict(), part)))
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


def _pose(way: Alignment, images: Float[Array, "b h w c"]) -> Pose:
    """What is corrected of the places and angles of objects."""
    return _used(way, pose_of(difference(images) > way.threshold))


def _see(own: Own, images: Shaped[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Images in the pose of the model."""
    way, unit = Alignment(**own), to_unit_float(images)
    return to_pose(unit, _pose(way, unit), way.frame)
