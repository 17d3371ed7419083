"""Evaluation of anybody's anomaly maps against a data set: `jaxad score`.

The maps lie as in MVTec's submissions, ``anomaly_maps/CATEGORY/test/KIND/NAME.tiff``, one for
every test image and under its name (`jaxad predict --tiff` writes them so). They are compared
with the masks at the resolution of the images, as MVTec's evaluation does: a map must have the
size of its image. At ``"map"`` resolution masks are brought to the size of the maps instead, by
nearest neighbour that loses no component. The score of an image is the maximum of its map. One
image at a time is in memory beyond the pixels that `jaxad.metrics.Accumulator` keeps.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxad import metrics
from jaxad.data.datasets import read_table
from jaxad.data.files import natural_key
from jaxad.data.images import image_dimensions
from jaxad.data.layouts import is_mvtec, subfolders
from jaxad.data.masks import MASK_RULE, read_truth
from jaxad.data.table import Sample, SampleTable
from jaxad.evaluation.float_tiff import read_float_tiff
from jaxad.evaluation.saturated import SaturatedFigures
from jaxad.run.errors import UserError
from jaxad.run.files import write_json
from jaxad.run.progress import Progress

RESOLUTIONS = ("image", "map")
SCHEMA = 1
"""Version of the file that is written."""

_MAPS = "anomaly_maps"
_EXTENSIONS = (".tiff", ".tif")
_SHOWN = 5
_BYTES_PER_PIXEL = 12
"""Of the pixels that are kept: float32, its copy while sorting, and what selects it."""


def score_maps(
    maps: str | os.PathLike,
    root: str | os.PathLike,
    *,
    category: str = "",
    resolution: str = "image",
    aupro_limit: float = 0.3,
    memory_limit_mb: float = 2048.0,
    output: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Evaluates a folder of float TIFF maps against the test images of a data set.

    Args:
      maps: folder with ``anomaly_maps``, or that folder itself.
      root: folder of a data set, or of one of its categories.
      category: the only one to evaluate; by default all that the data set has.
      resolution: ``"image"`` (maps must have the size of their image) or ``"map"``.
      aupro_limit: false-positive rate up to which AUPRO integrates, in (0, 1].
      memory_limit_mb: 2**20 bytes for pixels; categories with more are streamed, and their
        figures come with bounds.
      output: JSON file for the result; None writes none.

    Returns:
      ``maps``, ``root``, ``resolution``, ``mask_rule``, ``image_score``, ``aupro_limit``;
      ``categories``: name -> the figures of `jaxad.metrics.evaluate_maps` and ``intervals`` (of 95
      %, stratified bootstrap over images, for the image-level figures), with saturation thresholds
      also `SaturatedFigures`; ``mean``: the mean over
      categories of every figure that all of them have.

    Raises:
      UserError: a folder, category or map is missing, a map has no image, cannot be read or has
        the wrong size, or an option is wrong.
    """
    if resolution not in RESOLUTIONS:
        raise UserError(f"--resolution is {resolution!r}; it must be image or map")
    if not 0 < aupro_limit <= 1:
        raise UserError(f"--aupro-limit is {aupro_limit}; it must be in (0, 1]")
    if memory_limit_mb < 0:
        raise UserError(f"--memory-limit-mb is {memory_limit_mb}; it must be 0 or more")
    base = pathlib.Path(maps)
    if not base.is_dir():
        raise UserError(f"--maps {maps} is not a folder")
    base = base / _MAPS if (base / _MAPS).is_dir() else base
    found = {}
    tables = _tables(root, category)
    # All files are looked for before the first is read.
    for table in tables:
        folder = _folder_of(base, table, alone=len(tables) == 1)
        found[_name(table)] = table, _match(table, folder)
    kept = int(memory_limit_mb * 2**20 / _BYTES_PER_PIXEL)
    rows = {
        name: _score(table, files, resolution, aupro_limit, kept)
        for name, (table, files) in found.items()
    }
    result = {
        "schema": SCHEMA,
        "maps": os.fspath(maps),
        "root": os.fspath(root),
        "resolution": resolution,
        "mask_rule": MASK_RULE,
        "image_score": "maximum of the map",
        "aupro_limit": aupro_limit,
        "categories": rows,
        "mean": _mean(list(rows.values())),
    }
    if output is not None:
        write_json(output, result)
    return result


def _tables(root: str | os.PathLike, category: str) -> list[SampleTable]:
    """The data set's categories with test images."""
    root = pathlib.Path(root)
    names = [category]
    if not category and root.is_dir() and not is_mvtec(root):
        names = [folder.name for folder in subfolders(root) if is_mvtec(folder)] or [""]
    tables = [read_table(root, category=name) for name in names]
    for table in tables:
        if not table.test():
            raise UserError(f"{table.root} holds no test images, so there is nothing to score")
    return tables


def _name(table: SampleTable) -> str:
    return table.category or pathlib.Path(table.root).resolve().name


def _folder_of(base: pathlib.Path, table: SampleTable, *, alone: bool) -> pathlib.Path:
    """Folder that stands for the category's own."""
    folder = base / _name(table)
    if folder.is_dir():
        return folder
    if alone and (base / "test").is_dir():
        return base
    raise UserError(
        f"{base} has no maps of {_name(table)}: {folder / 'test'} does not exist"
        + ("" if alone else "; --category=NAME scores one category alone")
    )


def _match(table: SampleTable, folder: pathlib.Path) -> dict[Sample, pathlib.Path]:
    """The map of every test image.

    Raises:
      UserError: images without a map, or maps without an image.
    """
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix.lower() in _EXTENSIONS and path.is_file()
    }
    matched, missing = {}, []
    for sample in table.test():
        relative = table.relative(sample)
        relative = relative if relative.startswith("test/") else f"test/{relative}"
        stem = relative.removesuffix(pathlib.PurePosixPath(relative).suffix)
        # The full name serves images that differ in their extension only.
        names = [name + end for name in (relative, stem) for end in _EXTENSIONS]
        name = next((name for name in names if name in there), None)
        if name is None:
            missing.append(stem + _EXTENSIONS[0])
        else:
            matched[sample] = there.pop(name)
    if missing:
        raise UserError(f"{folder} lacks {_listed(missing, 'map')} of {len(table.test())}")
    if there:
        names = sorted(there, key=natural_key)
        raise UserError(
            f"{folder} holds {_listed(names, 'map')} without a test image in {table.root}; "
            "remove them, or check --root and --category"
        )
    return matched


def _listed(names: Sequence[str], what: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({shown})"


def _score(
    table: SampleTable,
    files: Mapping[Sample, pathlib.Path],
    resolution: str,
    limit: float,
    kept_pixels: int,
) -> dict[str, Any]:
    accumulator = metrics.Accumulator(kept_pixels=kept_pixels)
    saturated = SaturatedFigures(table, pixels=_pixels(table, files, resolution))
    labels, scores = [], []
    with Progress("map", len(files)) as progress:
        for done, (sample, file) in enumerate(files.items(), start=1):
            values = read_float_tiff(file)
            mask = _mask_for(sample, values, file, resolution)
            saturated.update([sample], [values])
            labels.append(sample.label)
            scores.append(values.max())
            try:
                accumulator.update([values], [mask], labels=[sample.label], defects=[sample.defect])
            except ValueError as error:
                raise UserError(f"{file}: {error}") from None
            progress.update(done)
    result = accumulator.compute(limit=limit)
    intervals = {}
    if 0 < sum(labels) < len(labels):
        estimates = metrics.bootstrap_image_metrics(labels, np.array(scores, np.float64))
        intervals = {name: [e.low, e.high] for name, e in estimates.items()}
    return saturated.added_to(result) | {"intervals": intervals}


def _pixels(table: SampleTable, files: Mapping[Sample, pathlib.Path], resolution: str) -> int:
    """Of all maps, as far as they are needed."""
    if not table.saturations:
        return 0
    paths = files.values() if resolution == "map" else [sample.path for sample in files]
    return sum(math.prod(image_dimensions(path)) for path in paths)


def _mask_for(
    sample: Sample, values: Shaped[np.ndarray, "h w"], file: pathlib.Path, resolution: str
) -> np.ndarray | None:
    """The mask at the size of the map; None for a defective image without one."""
    size = image_dimensions(sample.path)
    if resolution == "image" and values.shape != size:
        raise UserError(
            f"{file} is {values.shape[0]} x {values.shape[1]} (height x width) but its image "
            f"{sample.path} is {size[0]} x {size[1]}; resize the map to its image, or compare at "
            "the resolution of the maps with --resolution=map"
        )
    return read_truth(sample, image_size=values.shape)


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of every figure that is a number in all rows."""
    names = [name for name, value in rows[0].items() if isinstance(value, float)]
    return {
        name: float(np.mean([row[name] for row in rows]))
        for name in names
        if all(isinstance(row[name], float) for row in rows)
    }
