"""Thresholds from images that a model leaves out itself: one model in the run folder, no second."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny_backbone
from PIL import Image
from tiny_features import images_of, network

import jaxad
from jaxad.data.pipeline import BatchLoader
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.thresholds import conformal_threshold
from jaxad.ops.blur import gaussian_blur
from jaxad.training import preparation, train as training
from jaxad.training.backbones import BackboneWeights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Fitted to twelve images and evaluated on five."""
    place = tmp_path_factory.mktemp("left_out")
    for part, count in (("train/good", 12), ("test/good", 3), ("test/spot", 2)):
        (place / "data" / part).mkdir(parents=True)
        for i, image in enumerate(images_of(count, seed=len(part))):
            if part == "test/spot":
                image[20:28, 4:12] = (200, 30, 200)
            Image.fromarray(image).save(place / "data" / part / f"{i:03}.png")
    keys = {
        "data.root": str(place / "data"),
        "data.image_size": (32, 48),
        "data.folds": 4,
        "data.pipeline": "memory",
        "evaluate.smoothing": 1.0,
        "model.backbone": tiny_backbone.NAME,
        "model.components": 5,
        "train.devices": 1,
    }
    weights = BackboneWeights(network(), {"family": "tiny", "source": "drawn"})
    with pytest.MonkeyPatch.context() as patch:
        for module in (preparation, training):
            patch.setattr(module, "load_backbone", lambda *_: weights)
        folder = jaxad.train(jaxad.load_config("feature_pca", keys), place / "run")
    jaxad.evaluate(folder.path)
    return folder


def left_out(run):
    """Every image's score, and its map."""
    detector = Detector.load(run.path)
    record = json.loads(run.data.read_text())
    images = images_of(12, seed=len("train/good"))
    scores, maps = np.empty(12), np.empty((12, 32, 48))
    for unseen in detector.left_out(images, np.array(record["folds"])):
        scores[unseen.places] = unseen.scores[detector.primary_score]
        maps[unseen.places] = unseen.maps[detector.primary_map]
    return detector, images, scores, maps


def test_the_threshold_is_that_of_the_images_left_out(run):
    calibration = json.loads(run.calibration.read_text())
    _, _, scores, maps = left_out(run)
    assert (calibration["method"], calibration["held_out"]) == ("cross_fitted", 12)
    assert calibration["image_threshold"] == pytest.approx(
        conformal_threshold(scores, 0.05).value, rel=1e-5
    )
    highest = np.sort(maps.reshape(12, -1), axis=1)[:, -15:].mean(axis=1)
    np.testing.assert_allclose(scores, highest, rtol=1e-5)
    assert not run.folds.exists()


def test_maps_are_smoothed_as_those_of_detection(run):
    detector, images, _, maps = left_out(run)
    folds = np.array(json.loads(run.data.read_text())["folds"])
    parts = list(detector.model.left_out(detector.variables, BatchLoader(images), folds))
    raw = np.concatenate([np.asarray(part.maps["residual"]) for part in parts])
    places = np.concatenate([part.places for part in parts])
    np.testing.assert_allclose(maps[places], gaussian_blur(raw, sigma=1.0), rtol=1e-4, atol=1e-6)


def test_folds_that_an_earlier_version_fitted_are_used(run, tmp_path):
    """Here each of them is the whole model, so the scores are those of images it knows."""
    old = shutil.copytree(run.path, tmp_path / "old")
    for number in range(4):
        shutil.copytree(run.path, old / "folds" / str(number))
    (old / "calibration.json").unlink()
    jaxad.evaluate(old)
    detector, images, _, _ = left_out(run)
    known = detector(images).scores[detector.primary_score]
    found = json.loads((old / "calibration.json").read_text())["image_threshold"]
    assert found == pytest.approx(conformal_threshold(known, 0.05).value, rel=1e-5)
    assert found < json.loads(run.calibration.read_text())["image_threshold"]
