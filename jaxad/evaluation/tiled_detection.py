"""Detection on photographs by tiles: one map, one score and one small picture of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jaxad.data.crop import Box
from jaxad.data.photographs import Photograph
from jaxad.data.region_mask import RegionMask
from jaxad.data.tiled import Photographs
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.stitching import MapStitcher, Overview

Detect = Callable[..., Iterator[DetectorOutput]]
"""Runs a model on tiles: ``inside`` is what is judged of each, ``places`` says where it lies."""


def map_factor(size: tuple[int, int], *, maps: int, limit_mb: int) -> int:
    """By which whole factor the maps of a photograph are kept smaller than it is; 1 for most.

    Args:
      size: (height, width) of what is seen of it.
      maps: how many a model has.
      limit_mb: ``evaluate.memory_limit_mb``, of which an eighth is theirs.
    """
    needed = size[0] * size[1] * 4 * maps / (max(limit_mb, 8) * 2**20 / 8)
    return max(1, math.ceil(math.sqrt(needed)))


def judge(
    detect: Detect,
    photographs: Photographs,
    photograph: Photograph,
    *,
    batch_size: int,
    limit_mb: int,
    region: RegionMask | None = None,
) -> DetectorOutput:
    """Runs a model over all tiles of one photograph.

    Args:
      detect: of the model; smoothed maps of tiles.
      photographs: says how tiles are cut.
      photograph: one of them.
      batch_size: tiles in one call.
      limit_mb: see :func:`map_factor`.
      region: what of the photograph is judged; None: all.

    Returns:
      The output for one image. Its maps have the size of what is seen of the photograph (or that
      by :func:`map_factor`), ``max``, ``mean`` and ``top1`` are of the whole map, ``top1`` the mean
      of as many of its highest pixels as 1 % of a tile has, and a score that is no reduction of a
      map is the highest of all tiles.
    """
    tiling, size = photographs.tiling, photograph.size
    stitchers: dict[str, MapStitcher] = {}
    own: dict[str, float] = {}
    place = 0
    shown, rebuilt = (Overview(size, photographs.reading.channels) for _ in range(2))

    def take(batch: list[tuple[Box, UInt8[np.ndarray, "h w c"]]]) -> None:
        nonlocal place
        places, inside = np.arange(place, place + len(batch)), None
        place += len(batch)
        if region is not None:
            each = [judged_of_tile(region, box, size, tile.shape[:2]) for box, tile in batch]
            inside = np.stack(each)
        (output,) = detect(np.stack([tile for _, tile in batch]), inside=inside, places=places)
        if not stitchers:
            factor = map_factor(size, maps=len(output.maps), limit_mb=limit_mb)
            for name in output.maps:
                stitchers[name] = MapStitcher(size, tiling, factor=factor, region=region)
        for name, values in output.maps.items():
            for tile_map in values:
                stitchers[name].add(tile_map)
        for name, scores in output.scores.items():
            if name.rpartition(":")[0] not in output.maps:
                own[name] = max(own.get(name, -np.inf), float(scores.max()))
        for (box, tile), reconstruction in zip(batch, output.reconstruction, strict=True):
            shown.add(tile, box)
            rebuilt.add(reconstruction, box)

    tiles = photographs.tiles(photograph)
    while batch := list(islice(tiles, batch_size)):
        take(batch)
    scores = own | {
        f"{name}:{reduction}": value
        for name, stitcher in stitchers.items()
        for reduction, value in stitcher.reductions.items()
    }
    return DetectorOutput(
        {name: stitcher.map[None] for name, stitcher in stitchers.items()},
        {name: np.array([value], np.float32) for name, value in scores.items()},
        rebuilt.picture[None],
        shown.picture[None],
    )


def judged_of_tile(
    region: RegionMask, box: Box, whole: tuple[int, int], size: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """What is judged of a tile, at the size that the model sees; all of one without any.

    Of a tile that nothing is judged of the map is not taken either.

    Args:
      region: what is judged of the photograph.
      box: of the tile; may end beyond the photograph.
      whole: (height, width) of what is seen of the photograph.
      size: ``(h, w)`` that the model sees of a tile.
    """
    bottom, right = min(box.bottom, whole[0]), min(box.right, whole[1])
    inside = np.zeros(box.size, bool)
    rows = region.rows(whole, box.top, bottom)
    inside[: bottom - box.top, : right - box.left] = rows[:, box.left : right]
    picture = Image.fromarray(np.where(inside, np.uint8(255), np.uint8(0)))
    small = np.asarray(picture.resize(size[::-1], Image.Resampling.BOX)) > 0
    return small if small.any() else np.ones(size, bool)
