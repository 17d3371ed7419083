"""Seconds and memory of `jaxad predict` on one TIFF file of 20,000 x 20,000 pixels.

    python tools/studies/large_tiff.py --run=RUN --photograph=FILE --work=DIR \
        --output=docs/results/large_tiff_cpu.json

RUN judges photographs by tiles (`data.tiles`); FILE is a good photograph of its kind, which is
repeated until the file is full. A black square of 12 pixels is planted, and the regions that are
found are held against it. The file is written strip by strip, and takes 1.2 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import tifffile
from PIL import Image

SIDE, STRIP = 20_000, 200
SQUARE = (13_579, 4_321, 12)
"""Row, column and side of what is planted."""


def main() -> None:
    """Reads the command line, writes the file and predicts on it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=pathlib.Path)
    parser.add_argument("--photograph", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    large = arguments.work / "large.tif"
    shape = (SIDE, SIDE, 3)
    tifffile.imwrite(
        large,
        strips(np.asarray(Image.open(arguments.photograph))),
        shape=shape,
        dtype=np.uint8,
        photometric="rgb",
        rowsperstrip=STRIP,
    )
    predicted = arguments.work / "predicted"
    command = [sys.executable, "-m", "jaxad", "predict", f"--workdir={arguments.run}"]
    command += ["--input", str(large), "--output", str(predicted), "--tiff"]
    command += ["--config.data.limit_megapixels=500"]
    begun = time.perf_counter()
    started = subprocess.Popen(command)
    _, status, used = os.wait4(started.pid, 0)
    if status:
        raise SystemExit("predict failed")
    (one,) = json.loads((predicted / "predictions.json").read_text())["images"]
    row, column, side = SQUARE
    near = [
        region
        for region in one["regions"]
        if abs(region["y"] + region["height"] / 2 - row - side / 2) <= side
        and abs(region["x"] + region["width"] / 2 - column - side / 2) <= side
    ]
    result = {
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        "pixels": [SIDE, SIDE],
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / 1024,
        "reduced": one.get("reduced", 1),
        "decision": one["decision"],
        "regions": len(one["regions"]),
        "planted": {"row": row, "column": column, "side": side},
        "found": near[:1],
    }
    print(json.dumps(result))
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def strips(photograph: np.ndarray) -> Iterator[np.ndarray]:
    """The large picture, some rows at a time."""
    row, column, side = SQUARE
    columns = np.arange(SIDE) % photograph.shape[1]
    for top in range(0, SIDE, STRIP):
        rows = np.arange(top, top + STRIP)
        strip = photograph[np.ix_(rows % photograph.shape[0], columns)]
        strip[(rows >= row) & (rows < row + side), column : column + side] = 10
        yield strip


if __name__ == "__main__":
    main()
