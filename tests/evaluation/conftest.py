"""Tiny runs that the tests of the evaluation share: pca on images of stripes, fitted in a second."""

import pathlib
import shutil
import types

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.predict import load_detector

SIZE = (32, 32)


def stripes(seed, *, size=(48, 64), defect=False, channels=3):
    """Waves with noise; a defect is a bright box at rows 12-20, columns 20-32 of 48 x 64."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = 120 + 50 * np.sin(x * 64 / size[1] / 6 + rng.normal() * 0.2) + 20 * np.cos(y / 5)
    picture = np.stack([wave, 0.8 * wave, 0.6 * wave], -1) + rng.normal(0, 4, (*size, 3))
    if defect:
        h, w = size
        picture[12 * h // 48 : 20 * h // 48, 20 * w // 64 : 32 * w // 64] = 250
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    return picture if channels == 3 else picture[..., 0]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write_data(root, *, train=20, channels=3, size=(48, 64), masks=True, deep=False):
    """A data set in the MVTec layout; ``deep`` makes it 16-bit gray with values up to 4095."""

    def picture(seed, **options):
        array = stripes(seed, size=size, channels=1 if deep else channels, **options)
        return array.astype(np.uint16) * 16 if deep else array

    for i in range(train):
        save(root / "train" / "good" / f"{i:03}.png", picture(i))
    for i in range(4):
        save(root / "test" / "good" / f"{i:03}.png", picture(100 + i))
        save(root / "test" / "box" / f"{i:03}.png", picture(200 + i, defect=True))
        if masks:
            mask = np.zeros(size, np.uint8)
            h, w = size
            mask[12 * h // 48 : 20 * h // 48, 20 * w // 64 : 32 * w // 64] = 255
            save(root / "ground_truth" / "box" / f"{i:03}_mask.png", mask)
    return root


def fit(root, workdir, **overrides):
    """Trains pca on a data set."""
    keys = {
        "data.root": str(root),
        "data.image_size": SIZE,
        "data.holdout": 0.25,
        "train.devices": 1,
        "model.components": 8,
        "evaluate.batch_size": 4,
    }
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    jaxad.train(jaxad.load_config("pca", keys | overrides), workdir)
    return pathlib.Path(workdir)


@pytest.fixture(scope="session")
def tiny():
    """The helpers above."""
    return types.SimpleNamespace(stripes=stripes, save=save, write_data=write_data, fit=fit)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(run, data) as training leaves them: not to be changed."""
    folder = tmp_path_factory.mktemp("pca")
    data = write_data(folder / "data")
    return fit(data, folder / "run"), data


@pytest.fixture(scope="module")
def own_trained(trained, tmp_path_factory):
    """The same as a copy that the tests of one file may change (a calibration, say)."""
    run = shutil.copytree(trained[0], tmp_path_factory.mktemp("own") / "run")
    return run, trained[1]


@pytest.fixture
def run(trained, tmp_path):
    """A fresh copy of the run."""
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture(scope="session")
def data(trained):
    return trained[1]


@pytest.fixture(scope="session")
def calibrated(trained, tmp_path_factory):
    """An evaluated copy of the run: not to be changed."""
    run = shutil.copytree(trained[0], tmp_path_factory.mktemp("calibrated") / "run")
    evaluate(run)
    return run


@pytest.fixture(scope="session")
def predictor(calibrated):
    return load_detector(calibrated)
