"""Whether the map of a photograph shows where its tiles meet: variances along their borders.

    python tools/studies/tile_seams.py --run=RUN --photograph=FILE \
        --output=docs/results/tile_seams_cpu.json

RUN judges photographs by tiles (`data.tiles`), FILE is a good photograph. Its map is made with the
overlap of the run and without any. Along the borders of the tiles (8 pixels to either side of their
first and last rows and columns, but for those at the border of the photograph) and elsewhere: the
variance of the map, and the mean square of the step from a pixel to the next across the border.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

from jaxad.data.photographs import Reading
from jaxad.data.tiled import Photographs
from jaxad.data.tiles import Tiling
from jaxad.evaluation.detector import Detector

REACH = 8


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=pathlib.Path)
    parser.add_argument("--photograph", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    detector = Detector.load(arguments.run)
    data = detector.config.data
    rows = []
    for overlap in (data.tiles[1], 0):
        tiling = Tiling(data.tiles[0], overlap)
        photographs = Photographs(
            [arguments.photograph],
            tiling=tiling,
            image_size=data.image_size,
            reading=Reading(data.channels, crop=data.region),
        )
        (output,) = detector.batches(photographs)
        rows.append({"overlap": overlap, **seams(output.maps[detector.primary_map][0], tiling)})
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        "model": detector.config.model.name,
        "side": data.tiles[0],
        "photograph": arguments.photograph.name,
        "maps": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def seams(values: np.ndarray, tiling: Tiling) -> dict[str, Any]:
    """Variances and mean square steps along the borders of tiles, as shares of those elsewhere."""
    near = [_near(length, tiling) for length in values.shape]
    on = near[0][:, None] | near[1][None]
    across = [np.square(np.diff(values, axis=axis)) for axis in (0, 1)]
    lines = [_lines(length, tiling) for length in values.shape]
    steps = [np.moveaxis(across[axis], axis, 0) for axis in (0, 1)]
    at = np.concatenate([step[line].ravel() for step, line in zip(steps, lines, strict=True)])
    away = np.concatenate([step[~line].ravel() for step, line in zip(steps, lines, strict=True)])
    return {
        "variance_at_borders": float(values[on].var()),
        "variance_elsewhere": float(values[~on].var()),
        "variance_ratio": float(values[on].var() / values[~on].var()),
        "step_ratio": float(at.mean() / away.mean()),
    }


def _borders(length: int, tiling: Tiling) -> list[int]:
    """First pixels of tiles, and the pixels after their last, but those of the photograph."""
    starts = tiling.starts(length)
    return sorted({*starts[1:], *(start + tiling.side for start in starts[:-1])})


def _near(length: int, tiling: Tiling) -> np.ndarray:
    near = np.zeros(length, bool)
    for border in _borders(length, tiling):
        near[max(0, border - REACH) : border + REACH] = True
    return near


def _lines(length: int, tiling: Tiling) -> np.ndarray:
    lines = np.zeros(length - 1, bool)
    lines[[border - 1 for border in _borders(length, tiling)]] = True
    return lines


if __name__ == "__main__":
    main()
