"""A run of pca on images of waves, for all files of exports: fitted in a second."""

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.evaluation.predict import load_detector

SIZE = (32, 24)
TILED_SIZE = (75, 110)
"""Of the photographs of which tiles are seen."""


def waves(seed, size=(48, 64), *, defect=False):
    """Rows of waves with noise, ``(*size, 3)`` uint8; a defect is a bright box."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = 120 + 50 * np.sin(x * 64 / size[1] / 6 + rng.normal() * 0.2) + 20 * np.cos(y / 5)
    picture = np.stack([wave, 0.8 * wave, 0.6 * wave], -1) + rng.normal(0, 4, (*size, 3))
    if defect:
        picture[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = 250
    return np.clip(picture, 0, 255).astype(np.uint8)


def fit(folder, *, size=(48, 64), **keys):
    """Trains pca on waves; returns the run folder."""
    for i in range(16):
        file = folder / "data" / "train" / "good" / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(waves(i, size)).save(file)
    own = {
        "data.root": str(folder / "data"),
        "data.image_size": SIZE,
        "data.holdout": 0.25,
        "train.devices": 1,
        "model.components": 6,
    }
    keys = {key.replace("__", "."): value for key, value in keys.items()}
    jaxad.train(jaxad.load_config("pca", own | keys), folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run folder, calibrated."""
    folder = fit(tmp_path_factory.mktemp("export"))
    load_detector(folder)
    return folder


TILES = {
    "data__tiles": (40, 12),
    "data__image_size": (32, 32),
    "model__patch": 8,
    "model__stride": 4,
    "evaluate__smoothing": 1.0,
    "evaluate__primary_map": "l1",
    "evaluate__primary_score": "l1:top1",
}


@pytest.fixture(scope="session")
def tiled_run(tmp_path_factory):
    """Gray inside, a part of a photograph is seen and a part of that judged."""
    folder = tmp_path_factory.mktemp("tiles")
    drawn = np.zeros(SIZE, np.uint8)
    drawn[12:70, 9:100] = 255
    Image.fromarray(drawn).save(folder / "drawn.png")
    keys = {
        "data__channels": 1,
        "data__region": (0.1, 0.05, 1.0, 0.95),
        "evaluate__region_mask": str(folder / "drawn.png"),
        # One that some of the photographs exceed.
        "evaluate__image_threshold": "0.1",
    }
    return fit(folder, size=TILED_SIZE, **TILES, **keys)
