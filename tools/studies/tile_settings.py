"""Which settings let a model see defects of 10 pixels in tiles, from a sample of tiles.

    python tools/studies/tile_settings.py --work=DIR --output=docs/results/tile_settings_cpu.json

Judging whole photographs takes minutes for each setting. Here every setting is fitted to tiles at
random places of six good photographs of a scene, and the highest pixel of its map is compared
between tiles of six other good photographs and tiles around the defects of six defective ones. The
photographs are others than those of `photographs.py`, so a setting chosen here is not chosen on the
photographs that judge it there. What is already in the output is not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxad import metrics, models
from jaxad.data.batch import Batch
from jaxad.data.images import resize
from jaxad.data.synthetic.photographs import SCENES, write_photographs
from jaxad.evaluation.postprocess import make_detect
from jaxad.training.backbones import load_backbone

SEED, SIDE, BATCH = 1, 256, 8
COUNTS = {"train": 6, "test_good": 6, "test_defective": 6}
DEFECT = (10.0, 10.0)
TILES_OF_TRAINING, TILES_OF_TEST, TILES_OF_DEFECT = 48, 40, 4
KEPT_AWAY = 16
"""Pixels that a defect is away from the border of its tile."""


class Setting(NamedTuple):
    """A model, the map that is judged, and how the photograph is seen.

    Attributes:
      model: its name.
      options: of it.
      map: of it.
      smoothing: of the map, in pixels of the model.
      scale: pixels of the model for one of the photograph.
    """

    model: str
    options: dict[str, Any]
    map: str
    smoothing: float = 2.0
    scale: float = 1.0


def features(**options: Any) -> Setting:
    """One of ``feature_pca`` without axes."""
    return Setting("feature_pca", {"components": 0, **options}, "residual")


def patches(components: int, scale: float = 1.0) -> Setting:
    """One of ``pca`` on patches of 8 pixels."""
    return Setting("pca", {"patch": 8, "components": components}, "nll", scale=scale)


SETTINGS = {
    "feature_pca:anywhere": features(covariance="shared"),
    "feature_pca, pooled": features(covariance="pooled"),
    "feature_pca:fine": features(covariance="pooled", stages=2),
    "feature_pca:fine, shared": features(covariance="shared", stages=2),
    "pca:patch, 16 components": patches(16),
    "pca:patch, 64 components": patches(64),
    "pca:patch, 64 components, half the scale": patches(64, scale=0.5),
}


def main() -> None:
    """Reads the command line and runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--categories", nargs="*", default=list(SCENES))
    arguments = parser.parse_args()
    rows = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    for name in arguments.settings:
        for category in arguments.categories:
            if any((row["setting"], row["category"]) == (name, category) for row in rows):
                continue
            if not (arguments.work / category / "test").is_dir():
                write_photographs(arguments.work, category, seed=SEED, sides=DEFECT, **COUNTS)
            row = {"setting": name, "category": category}
            rows.append(row | judge(SETTINGS[name], arguments.work / category))
            print(json.dumps(rows[-1]), flush=True)
            write(arguments.output, rows)


def write(output: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes what there is so far."""
    head = {
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        "jax": jax.__version__,
        "side": SIDE,
        "defect_pixels": DEFECT[0],
        "tiles_of_a_good_photograph": {"training": TILES_OF_TRAINING, "test": TILES_OF_TEST},
        "tiles_of_a_defect": TILES_OF_DEFECT,
        **COUNTS,
    }
    output.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")


def judge(setting: Setting, folder: pathlib.Path) -> dict[str, Any]:
    """Fits a setting to tiles of a scene; the highest pixels of good and of defective ones."""
    begun = time.perf_counter()
    side, rng = round(SIDE / setting.scale), np.random.default_rng(0)
    train, good = (
        np.concatenate([some_tiles(file, side, count, rng) for file in files(folder / part)])
        for part, count in (("train/good", TILES_OF_TRAINING), ("test/good", TILES_OF_TEST))
    )
    masks = files(folder / "ground_truth")
    model = models.build(setting.model, (SIDE, SIDE, 3), **setting.options)
    network = {}
    if model.backbone:
        network["backbone"] = load_backbone(model.backbone, "").variables
    assert model.fit is not None
    variables = model.fit(batches(train), **network)
    detect = jax.jit(make_detect(model, smoothing=setting.smoothing))

    def peaks(tiles: UInt8[np.ndarray, "n h w c"]) -> np.ndarray:
        found = [detect(variables, batch.image).maps[setting.map] for batch in batches(tiles)]
        return np.concatenate([np.asarray(x).max(axis=(1, 2)) for x in found])

    of_good = peaks(good)
    of_kind: dict[str, list[float]] = {}
    for mask in masks:
        tiles = tiles_around(mask, folder, side, rng)
        of_kind.setdefault(mask.parent.name, []).extend(peaks(tiles).tolist())
    bad = np.concatenate(list(of_kind.values()))
    labels = np.arange(len(of_good) + len(bad)) >= len(of_good)
    return {
        "auroc_of_tiles": metrics.image_metrics(labels, np.concatenate([of_good, bad]))[0][
            "image_auroc"
        ],
        "above_all_good_tiles": {
            kind: float(np.mean(np.array(values) > of_good.max()))
            for kind, values in sorted(of_kind.items())
        },
        "good_tiles": len(of_good),
        "seconds": time.perf_counter() - begun,
    }


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The pictures below a folder."""
    return sorted(folder.rglob("*.png"))


def batches(tiles: UInt8[np.ndarray, "n h w c"]) -> list[Batch]:
    """Whole batches, which all counts here divide into or are smaller than."""
    parts = [tiles[begin : begin + BATCH] for begin in range(0, len(tiles), BATCH)]
    return [Batch(part, np.arange(len(part)), np.ones(len(part), bool)) for part in parts]


def some_tiles(
    file: pathlib.Path, side: int, count: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "n h w c"]:
    """Tiles at random places of a photograph."""
    picture = np.asarray(Image.open(file))
    places = [(rng.integers(h - side + 1) for h in picture.shape[:2]) for _ in range(count)]
    return np.stack([cut(picture, int(top), int(left), side) for top, left in places])


def tiles_around(
    mask: pathlib.Path, folder: pathlib.Path, side: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "n h w c"]:
    """Tiles that show the defect of a mask, at random places in them."""
    kind, name = mask.parent.name, mask.stem.removesuffix("_mask")
    picture = np.asarray(Image.open(folder / "test" / kind / f"{name}.png"))
    box = Image.open(mask).getbbox()
    assert box is not None
    found = []
    for _ in range(TILES_OF_DEFECT):
        away = rng.integers(KEPT_AWAY, side - KEPT_AWAY - round(DEFECT[1]), 2)
        starts = (box[1] - away[0], box[0] - away[1])
        top, left = (
            int(np.clip(start, 0, length - side))
            for start, length in zip(starts, picture.shape[:2], strict=True)
        )
        found.append(cut(picture, top, left, side))
    return np.stack(found)


def cut(
    picture: UInt8[np.ndarray, "h w c"], top: int, left: int, side: int
) -> UInt8[np.ndarray, "i j c"]:
    """One tile as the model sees it."""
    tile = picture[top : top + side, left : left + side]
    return resize(np.ascontiguousarray(tile), (SIDE, SIDE))


if __name__ == "__main__":
    main()
