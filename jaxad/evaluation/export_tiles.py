"""The exported program of a run with tiles: a photograph goes in, its map and score come out.

What :mod:`jaxad.evaluation.tiled_detection` does on the host, photograph by photograph, stands here
as one function of JAX, for photographs of one size. Tiles lie at places that are known then; a loop
over rows of tiles and one over the tiles of a row hold a few tiles at a time, beside the photograph
and its map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxad.data.region_mask import RegionMask
from jaxad.evaluation.export_coarse import CoarseModel
from jaxad.evaluation.export_view import Decisions, View
from jaxad.evaluation.postprocess import REDUCTIONS, make_detect
from jaxad.evaluation.tiled_detection import judged_of_tile
from jaxad.models.base import Model, Variables
from jaxad.ops.antialias import resize_maps, resize_pictures, to_luma
from jaxad.ops.ranking import mean_of_highest

_AT_ONCE = 4
"""Tiles in one call of the model."""


def make_tiled_program(
    model: Model,
    variables: Variables,
    view: View,
    decisions: Decisions,
    *,
    smoothing: float,
    region: RegionMask | None = None,
    per_position: bool = False,
    coarse: CoarseModel | None = None,
) -> Callable[[UInt8[Array, "b h w c"]], dict[str, Array]]:
    """Builds the function that is exported.

    Args:
      model: that sees tiles.
      variables: its parameters, which become part of the function.
      view: what it sees of photographs.
      decisions: map, score and thresholds.
      smoothing: sigma in pixels of the gaussian over every map of a tile; 0 for none.
      region: what is judged of photographs; None: all.
      per_position: whether the model takes the places of tiles.
      coarse: a model of whole photographs that is joined to the tiles, whose map and score decide
        then; None: there is none.

    Returns:
      ``photographs -> {"score": (b,), "map": (b, i, j), "decision": (b,) bool, "mask": (b, i, j)
      bool}``, the map at the size of the part that is seen. Photographs are judged one after the
      other.
    """
    detect = make_detect(model, smoothing=smoothing)
    sweep = _Sweep(detect, view, decisions, region, per_position=per_position)
    inside = None if region is None else region.at(view.box.size)

    def of_photograph(known: Any, photograph: UInt8[Array, "h w c"]) -> dict[str, Array]:
        maps, own = sweep(known[0], photograph)
        score = own if own is not None else _score(maps, decisions.primary_score, view, inside)
        values = maps[decisions.primary_map]
        if coarse is not None:
            values, score = coarse.join(known[1], photograph[view.box.slices], values, score)
        if inside is not None:
            values = jnp.where(inside, values, jnp.min(jnp.where(inside, values, jnp.inf)))
        return {"score": score, "map": values} | decisions.of(score, values, inside)

    def program(photographs: UInt8[Array, "b h w c"]) -> dict[str, Array]:
        # As of whole images: behind a barrier no parameter has a value that XLA knows.
        both = dict(variables), {} if coarse is None else dict(coarse.variables)
        known = lax.optimization_barrier(jax.tree.map(jnp.asarray, both))
        return lax.map(lambda photograph: of_photograph(known, photograph), photographs)

    return program


class _Sweep:
    """Runs a model over the tiles of a photograph: two loops, over rows and along each."""

    def __init__(
        self,
        detect: Callable[..., Any],
        view: View,
        decisions: Decisions,
        region: RegionMask | None,
        *,
        per_position: bool,
    ):
        self._detect, self._view, self._per_position = detect, view, per_position
        of_score = decisions.primary_score.rpartition(":")
        self._is_own = of_score[2] not in REDUCTIONS or not of_score[0]
        self._own_name = decisions.primary_score
        maps = [decisions.primary_map] if self._is_own else [decisions.primary_map, of_score[0]]
        self._maps = tuple(dict.fromkeys(maps))
        height, width = view.box.size
        self._tops = np.asarray(view.tiling.starts(height))
        self._row_shares = np.stack(view.tiling.weights(height))
        lefts, shares = view.tiling.starts(width), np.stack(view.tiling.weights(width))
        groups = _grouped(len(lefts))
        self._lefts = np.asarray(lefts)[groups]
        # Numbers of tiles, row by row.
        self._places = np.arange(len(self._tops))[:, None, None] * len(lefts) + groups
        self._column_shares = shares[groups]
        # A tile that only fills a group up is laid onto its double without a share.
        self._column_shares.reshape(-1, view.tiling.side)[len(lefts) :] = 0.0
        self._judged, self._which = _judged_of_tiles(view, region)

    def __call__(
        self, known: Any, photograph: UInt8[Array, "h w c"]
    ) -> tuple[dict[str, Float[Array, "i j"]], Float[Array, ""] | None]:
        """The maps that are needed, and the model's own score where that decides."""
        height, width = self._view.box.size
        side = self._view.tiling.side
        seen = _mirrored(photograph[self._view.box.slices], side)
        empty = {name: jnp.zeros(seen.shape[:2], jnp.float32) for name in self._maps}

        def add_row(canvases: dict[str, Array], row: tuple[Array, ...]) -> tuple[Any, Array]:
            top, shares, *of_tiles = row
            band = lax.dynamic_slice_in_dim(seen, top, side, axis=0)
            strips, own = self._along_row(known, band, *of_tiles)
            return {
                name: _added(canvas, strips[name] * shares[:, None], top, axis=0)
                for name, canvas in canvases.items()
            }, own

        rows = self._tops, self._row_shares, self._which[self._places], self._places
        canvases, own = lax.scan(add_row, empty, jax.tree.map(jnp.asarray, rows))
        maps = {name: canvas[:height, :width] for name, canvas in canvases.items()}
        return maps, jnp.max(own) if self._is_own else None

    def _along_row(
        self,
        known: Any,
        band: UInt8[Array, "s w c"],
        which: Int[Array, "k g"],
        places: Int[Array, "k g"],
    ) -> tuple[dict[str, Float[Array, "s w"]], Float[Array, " k"]]:
        """The strips that a row of tiles makes, and the highest own score of each group."""
        side = self._view.tiling.side
        empty = {name: jnp.zeros(band.shape[:2], jnp.float32) for name in self._maps}

        def add_group(strips: dict[str, Array], group: tuple[Array, ...]) -> tuple[Any, Array]:
            lefts, shares, picks, numbers = group
            begins = [lefts[i] for i in range(len(lefts))]
            own_place = [numbers] if self._per_position else []
            tiles, inside = self._tiles(band, begins), self._inside(picks)
            output = self._detect(known, tiles, inside, *own_place)
            for name in self._maps:
                values = resize_maps(output.maps[name], (side, side))
                for i, left in enumerate(begins):
                    strips[name] = _added(strips[name], values[i] * shares[i][None], left, axis=1)
            own = jnp.max(output.scores[self._own_name]) if self._is_own else jnp.float32(0)
            return strips, own

        groups = jnp.asarray(self._lefts), jnp.asarray(self._column_shares), which, places
        return lax.scan(add_group, empty, groups)

    def _tiles(
        self, band: UInt8[Array, "s w c"], lefts: Sequence[Array]
    ) -> UInt8[Array, "g i j d"]:
        """Tiles of a row as the model sees them."""
        side = self._view.tiling.side
        tiles = jnp.stack([lax.dynamic_slice_in_dim(band, x, side, axis=1) for x in lefts])
        if tiles.shape[-1] != self._view.channels:
            tiles = to_luma(tiles)
        return resize_pictures(tiles, self._view.image_size)

    def _inside(self, picks: Int[Array, " g"]) -> Bool[Array, "g h w"] | None:
        """What is judged of tiles, at the size that the model sees."""
        if self._judged is None:
            return None
        return jnp.asarray(self._judged).at[picks].get(mode="promise_in_bounds")


def _grouped(count: int) -> Int[np.ndarray, "k g"]:
    """Tiles of a row in groups of one size; the last ones are repeated where they do not come out.

    Of as few tiles more as so many groups allow.
    """
    groups = -(-count // _AT_ONCE)
    size = -(-count // groups)
    return np.minimum(np.arange(groups * size), count - 1).reshape(groups, size)


def _judged_of_tiles(
    view: View, region: RegionMask | None
) -> tuple[Bool[np.ndarray, "u h w"] | None, Int[np.ndarray, " n"]]:
    """What is judged of tiles: the masks that differ, and which of them each tile has."""
    boxes = view.tiling.boxes(view.box.size)
    if region is None:
        return None, np.zeros(len(boxes), np.int32)
    known: dict[bytes, int] = {}
    masks: list[Bool[np.ndarray, "h w"]] = []
    which: list[int] = []
    for box in boxes:
        mask = judged_of_tile(region, box, view.box.size, view.image_size)
        number = known.setdefault(np.packbits(mask).tobytes(), len(known))
        if number == len(masks):
            masks.append(mask)
        which.append(number)
    return np.stack(masks), np.asarray(which, np.int32)


def _mirrored(seen: UInt8[Array, "h w c"], side: int) -> UInt8[Array, "i j c"]:
    """The same at least as large as a tile, going on as its mirror image."""
    for axis, length in enumerate(seen.shape[:2]):
        if length < side:
            places = np.pad(np.arange(length), (0, side - length), mode="symmetric")
            seen = jnp.take(seen, places, axis=axis)
    return seen


def _added(canvas: Array, part: Array, start: Array, *, axis: int) -> Array:
    """The canvas with a part added where it starts."""
    old = lax.dynamic_slice_in_dim(canvas, start, part.shape[axis], axis=axis)
    return lax.dynamic_update_slice_in_dim(canvas, old + part, start, axis=axis)


def _score(
    maps: dict[str, Float[Array, "i j"]],
    name: str,
    view: View,
    inside: Bool[np.ndarray, "i j"] | None,
) -> Float[Array, ""]:
    """A reduction of a map as :class:`~jaxad.evaluation.stitching.MapStitcher` has it."""
    map_name, _, reduction = name.rpartition(":")
    values = maps[map_name]
    count = values.size if inside is None else int(np.count_nonzero(inside))
    if reduction == "mean":
        # Row by row: float32 adds millions of numbers up to some digits less.
        judged = values if inside is None else jnp.where(inside, values, 0.0)
        return jnp.sum(jnp.sum(judged, axis=1)) / count
    judged = values if inside is None else jnp.where(inside, values, -jnp.inf)
    if reduction == "max":
        return jnp.max(judged)
    side = view.tiling.side
    top = max(1, min(side, values.shape[0]) * min(side, values.shape[1]) // 100)
    return mean_of_highest(judged.reshape(-1), min(top, count))
