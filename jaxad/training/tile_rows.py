"""How photographs become rows of tiles (``data.tiles``), and the places of those (``Grid``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.data.photographs import Reading
from jaxad.data.table import Sample
from jaxad.data.tiled import UNREADABLE, check_large_enough, sizes_of
from jaxad.data.tiles import Grid, Tiling, tiling_of
from jaxad.run.errors import UserError
from jaxad.run.settings import Data

PER_POSITION = "per_position"


def training_tiling(data: Data) -> Tiling | None:
    """The tiles that training takes; None where whole images are seen.

    They do not overlap, unless each place has its own model: then they are those of detection.

    Raises:
      UserError: ``data.tiles`` is wrong.
    """
    tiling = tiling_of(data.tiles, data.image_size)
    if tiling is None or data.tile_models == PER_POSITION:
        return tiling
    return tiling._replace(overlap=0)


def rows_each(good: Sequence[Sample], data: Data) -> tuple[list[int], Grid | None]:
    """How many rows each image is, its tiles or 1, and the places that all images share.

    Returns:
      The rows, and the grid; None where one model is of all places.

    Raises:
      UserError: no image is as large as a tile, ``data.tiles`` is wrong, or images differ in size
        where each place has its own model.
    """
    tiling = training_tiling(data)
    if tiling is None:
        return [1] * len(good), None
    sizes = sizes_of(good, Reading(data.channels, crop=tuple(data.region)))
    check_large_enough(sizes, tiling)
    rows = [tiling.count(size) for size in sizes]
    if data.tile_models != PER_POSITION:
        return rows, None
    # Whoever decodes what cannot be read says why.
    readable = [size for size in sizes if size != UNREADABLE]
    common = Counter(readable).most_common(1)[0][0]
    for sample, size in zip(good, sizes, strict=True):
        if size not in (common, UNREADABLE):
            raise UserError(
                f"data.tile_models=per_position takes photographs of one size, but of "
                f"{sample.path} {size[0]} x {size[1]} pixels are seen (height x width) and of "
                f"most {common[0]} x {common[1]}; crop it, or align it to the others, leave it "
                "out (data.exclude), or set data.tile_models=shared"
            )
    return rows, Grid(tiling, common)


def grid_of(data: Data, record: Mapping[str, Any]) -> Grid | None:
    """The places of a run's tiles; None where one model is of all places.

    Args:
      data: of its config.
      record: its data.json.

    Raises:
      UserError: the record lacks the size of the photographs.
    """
    tiling = training_tiling(data)
    if tiling is None or data.tile_models != PER_POSITION:
        return None
    if "photograph" not in record:
        raise UserError(
            'data.json lacks the size of the photographs ("photograph"), which data.tile_models='
            "per_position needs; restore it from a copy, or train into a new workdir"
        )
    height, width = record["photograph"]
    return Grid(tiling, (height, width))
