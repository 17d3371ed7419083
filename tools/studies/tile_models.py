"""One model for all tiles against a model for each place (``data.tile_models``).

    python tools/studies/tile_models.py --work=DIR --data=SHARED --output=OUT.json

``fit``: CPU seconds to fit the models of all places in one program mapped over places, by the
same program one place at a time, and by the fit of a single model place after place.
``plate``: generated photographs with defects of 10 pixels, as ``tools/studies/photographs.py``
draws them, of 1408 x 1024 pixels unless ``--size`` says otherwise. ``parts``: images of real parts
of 256 x 256 pixels. Every command of the latter two is a process of its own. What is already in DIR
is not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from typing import Any

import jax
import numpy as np
from photographs import COUNTS, DEFECT, process

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.data.synthetic.photographs import write_photographs
from jaxad.models.positions import fit_positions
from jaxad.run.environment import processor_name

FITS = {
    "tiles of 32, 19 axes": (32, 20, 100, {"components": 19}),
    "tiles of 64, 30 axes": (64, 40, 100, {"components": 30}),
    "tiles of 128, 30 axes": (128, 40, 16, {"components": 30}),
    "tiles of 64, patches of 8": (64, 10, 16, {"patch": 8, "stride": 4, "components": 30}),
}
"""Name -> pixels of a tile's side, photographs, places, options of ``pca``."""

PATCHES = {"model.patch": "8", "model.stride": "8", "model.components": "64"}
PLATE = {
    **PATCHES,
    "data.tiles": "256,32",
    "data.image_size": "256,256",
    "data.calibration": "held_out",
    "data.holdout": "0.5",
    "evaluate.primary_score": "nll:max",
}
PARTS = {
    "whole": ("pca", {"data.image_size": "256,256"}),
    "tiles": ("pca", {"data.tiles": "64,16", "data.image_size": "64,64"}),
    "tiles, patches": (
        "pca:patch",
        {"data.tiles": "64,16", "data.image_size": "64,64", "model.patch": "8"},
    ),
    "features, whole": ("feature_pca", {"data.image_size": "256,256"}),
    "features, whole, pooled": (
        "feature_pca",
        {
            "data.image_size": "256,256",
            "model.covariance": "pooled",
            "model.components": "100",
        },
    ),
    "features, tiles": (
        "feature_pca",
        {
            "data.tiles": "128,32",
            "data.image_size": "256,256",
            "model.covariance": "pooled",
            "model.components": "100",
            "data.folds": "5",
        },
    ),
    "own features, whole": ("own_features:pooled", {"data.image_size": "256,256"}),
    "own features, tiles": (
        "own_features:pooled",
        {"data.tiles": "128,32", "data.image_size": "128,128", "data.folds": "5"},
    ),
}
"""Name -> config and keys."""
KINDS = ("shared", "per_position")


def main() -> None:
    """Reads the command line and runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True, type=pathlib.Path, help="holds mvtec_ad")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--size", nargs=2, type=int, default=(1024, 1408), help="of the plate")
    parser.add_argument("--parts", nargs="*", default=["fit", "plate", "parts"])
    parser.add_argument("--categories", nargs="*", default=["bottle", "transistor"])
    parser.add_argument("--names", nargs="*", default=list(PARTS), help="of the parts")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "device": f"{processor_name()}, {len(os.sched_getaffinity(0))} cores",
        "jax": jax.__version__,
    }
    if arguments.output.exists():
        found |= json.loads(arguments.output.read_text())

    def keep(part: str, rows: list[dict[str, Any]]) -> None:
        found[part] = rows
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")

    if "fit" in arguments.parts:
        keep("fit", [fits(arguments.work, name) for name in FITS])
    if "plate" in arguments.parts:
        keep("plate", [plate(arguments.work, kind, tuple(arguments.size)) for kind in KINDS])
    if "parts" in arguments.parts:
        rows = found.get("parts", [])
        for category in arguments.categories:
            for name in arguments.names:
                for kind in KINDS[: 1 if "tiles" not in name else 2]:
                    row = part(arguments.work, arguments.data, category, name, kind)
                    what = lambda one: (one["category"], one["config"], one["keys"])
                    rows = [one for one in rows if what(one) != what(row)] + [row]
                    keep("parts", rows)


def fits(work: pathlib.Path, name: str) -> dict[str, Any]:
    """What the ways to fit all places take; compiling the first program is told apart."""
    done = work / f"fit-{name.replace(', ', '-').replace(' ', '-')}.json"
    if done.exists():
        return json.loads(done.read_text())
    side, photographs, places, options = FITS[name]
    model = models.build("pca", (side, side, 3), **options)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (photographs * places, side, side, 3), dtype=np.uint8)
    first = seconds(lambda: fit_positions(model, rows, places))
    mapped = min(seconds(lambda: fit_positions(model, rows, places)) for _ in range(3))
    tiles = rows.reshape(photographs, places, side, side, 3)
    each = [np.ascontiguousarray(tiles[:, place]) for place in range(places)]
    program = jax.jit(model.solve)
    jax.block_until_ready(program(each[0]))
    alone = min(seconds(lambda: [jax.device_get(program(one)) for one in each]) for _ in range(3))
    valid = Batch(each[0], np.arange(photographs, dtype=np.int32), np.ones(photographs, bool))
    few = each[:8]
    by_passes = seconds(lambda: [model.fit([valid._replace(image=one)]) for one in few])
    row = {
        "what": name,
        "side": side,
        "photographs": photographs,
        "places": places,
        "options": options,
        "one_program_first_cpu_s": first,
        "one_program_cpu_s": mapped,
        "same_program_place_by_place_cpu_s": alone,
        "fit_of_a_single_model_place_by_place_cpu_s": by_passes / len(few) * places,
    }
    print(json.dumps(row), flush=True)
    done.write_text(json.dumps(row))
    return row


def seconds(function: Any) -> float:
    """Of processors, all threads together, that a call takes: other work beside counts for less."""
    begun = time.process_time()
    jax.block_until_ready(function())
    return time.process_time() - begun


def plate(work: pathlib.Path, kind: str, size: tuple[int, int]) -> dict[str, Any]:
    """Trains and evaluates on generated photographs."""
    if not (work / "plate" / "test").is_dir():
        write_photographs(work, "plate", size=size, sides=DEFECT, **COUNTS)
    row = run(work / f"run-plate-{kind}", "pca:patch", work / "plate", PLATE, kind)
    return row | {"size": size}


def part(work: pathlib.Path, data: pathlib.Path, category: str, name: str, kind: str) -> dict:
    """Trains, cross-fitted, and evaluates on images of parts."""
    config, keys = PARTS[name]
    folder = work / f"run-{category}-{name.replace(', ', '-')}-{kind}"
    return run(folder, config, data / "mvtec_ad" / category, keys, kind)


def run(
    folder: pathlib.Path, config: str, root: pathlib.Path, keys: dict[str, str], kind: str
) -> dict[str, Any]:
    """Trains and evaluates; the row of the table."""
    done = folder / "study.json"
    if done.exists():
        return json.loads(done.read_text())
    options = [f"--config.{key}={value}" for key, value in keys.items()]
    options += [f"--config.data.root={root}", f"--config.data.tile_models={kind}"]
    train = process("train", f"--config={config}", f"--workdir={folder}", *options)
    evaluate = process("evaluate", f"--workdir={folder}")
    metrics = json.loads((folder / "metrics.json").read_text())
    size = sum(file.stat().st_size for file in (folder / "checkpoints").rglob("*"))
    row = {
        "category": root.name,
        "config": config,
        "keys": keys | {"data.tile_models": kind},
        **{key: metrics[key] for key in ("image_auroc", "pixel_auroc", "aupro", "decisions")},
        "checkpoint_mb": size / 2**20,
        "train": train._asdict(),
        "evaluate": evaluate._asdict(),
    }
    done.write_text(json.dumps(row))
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
