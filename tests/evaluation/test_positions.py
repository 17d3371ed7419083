"""Photographs of aligned parts, where each place of a tile has a model of its own."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import onnxruntime
import pytest
import tiny_backbone
from jax import export as jax_export
from PIL import Image
from tiny_features import network

import jaxad
from jaxad import models
from jaxad.data.photographs import Photograph, Reading
from jaxad.data.tiled import Photographs, tiles_of_file
from jaxad.data.tiles import Grid, Tiling
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.export import export
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.stitching import MapStitcher
from jaxad.export import onnx_file
from jaxad.models.positions import at_position, fit_positions
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.training import preparation, train as training
from jaxad.training.backbones import BackboneWeights

SIZE, SIDE = (64, 90), 32
TILING = Tiling(SIDE, 8)
COLUMNS, PLACES = 4, 12
HOLES = [(16, 16), (45, 70)]
"""Middles of the holes that every part has; the defect is another one."""
EXTRA, RADIUS = (45, 20), 5
OPTIONS = {"patch": 4, "stride": 2, "components": 6}
HOW = {"tiling": TILING, "image_size": (SIDE, SIDE), "reading": Reading(3)}
KEYS = {
    "data.tiles": (SIDE, 8),
    "data.tile_models": "per_position",
    "data.image_size": (SIDE, SIDE),
    "data.folds": 2,
    **{f"model.{name}": value for name, value in OPTIONS.items()},
    "evaluate.smoothing": 0.0,
    "evaluate.primary_map": "nll",
    "evaluate.primary_score": "nll:top1",
    "evaluate.batch_size": 5,
    "evaluate.report_images": 2,
    "train.devices": 1,
}


def part(seed, *, holes=HOLES, size=SIZE):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    gray = 150 + 20 * np.sin(x / 6)
    for row, column in holes:
        gray[np.hypot(y - row, x - column) <= RADIUS] = 40
    return np.clip(gray[..., None] + rng.normal(0, 3, (*size, 3)), 0, 255).astype(np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Parts with two holes, and such with a third one; one was trained on by mistake."""
    folder = tmp_path_factory.mktemp("parts")
    for i in range(6):
        write(folder / f"train/good/{i}.png", part(i))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = np.hypot(y - EXTRA[0], x - EXTRA[1]) <= RADIUS
    for i in range(2):
        write(folder / f"test/good/{i}.png", part(100 + i))
        write(folder / f"test/hole/{i}.png", part(200 + i, holes=[*HOLES, EXTRA]))
        write(
            folder / f"ground_truth/hole/{i}_mask.png", np.where(mask, np.uint8(255), np.uint8(0))
        )
    shutil.copyfile(folder / "train/good/0.png", folder / "test/good/9.png")
    return folder


def train(root, workdir, **overrides):
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    return jaxad.train(
        jaxad.load_config("pca", {**KEYS, "data.root": str(root), **changed}), workdir
    )


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    return train(root, tmp_path_factory.mktemp("positions") / "run")


@pytest.fixture(scope="module")
def result(run):
    return jaxad.evaluate(run.path)


@pytest.fixture(scope="module")
def predictor(run, result):
    return load_detector(run.path)


def at_holes(predicted):
    """Mean of the map over the extra hole, and over those that belong there."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    near = lambda hole: np.hypot(y - hole[0], x - hole[1]) <= RADIUS + 2
    return [predicted.map[near(hole)].mean() for hole in (EXTRA, *HOLES)]


def test_a_hole_where_none_belongs_is_found_and_by_a_shared_model_is_not(
    root, run, result, predictor, tmp_path
):
    assert (result["tiles"], result["tile_models"]) == ([SIDE, 8], "per_position")
    assert result["image_auroc"] == 1.0 and result["aupro"] > 0.9
    assert result["decisions"]["defective_rejected"] == 2
    assert result["counts"]["test_images_seen_in_training"] == 1
    calibration = json.loads(run.calibration.read_text())
    assert (calibration["method"], calibration["held_out"]) == ("cross_fitted", 6)
    assert json.loads(run.data.read_text())["photograph"] == list(SIZE)
    assert "tiles of good test images" in run.report.read_text()
    held = {"data__calibration": "held_out", "data__holdout": 0.2}
    shared = train(root, tmp_path / "run", data__tile_models="shared", **held)
    path = root / "test/hole/0.png"
    (own,), (common,) = predictor.predict(path), load_detector(shared.path).predict(path)
    extra, *others = at_holes(own)
    assert extra > 5 * max(others)
    extra, *others = at_holes(common)  # one hole is as good as another
    assert extra < 1.5 * max(others)


def assert_exported_alike(run, predictor, paths, tmp_path, *, tolerance=1e-5):
    """StableHLO and ONNX give the map, the score and the decision of predictions.

    Sums of float32 come in another order there; the tolerance is in units of the largest value.
    """
    predictions = predictor.predict(paths)
    photographs = np.stack([one.photograph(channels=3) for one in predictions])
    record = export(run.path, tmp_path / "file")
    assert record["input"]["shape"] == ["batch", *SIZE, 3]
    stable = jax_export.deserialize(bytearray((tmp_path / "file").read_bytes()))
    record = onnx_file.export(run.path, tmp_path / "file.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "file.onnx")
    results = session.run([*record["outputs"]], {"image": photographs})
    for found in (stable.call(photographs), dict(zip(record["outputs"], results, strict=True))):
        for i, one in enumerate(predictions):
            atol = tolerance * np.abs(one.model_map).max()
            np.testing.assert_allclose(found["map"][i], one.model_map, rtol=0, atol=atol)
            np.testing.assert_allclose(found["score"][i], one.score, rtol=0, atol=atol)
            assert found["decision"][i] == one.decision


def test_an_exported_file_holds_the_models_of_all_places(root, run, predictor, tmp_path):
    paths = [root / "test/good/0.png", root / "test/hole/0.png"]
    assert_exported_alike(run, predictor, paths, tmp_path)


def test_learned_features_of_each_place_are_trained_judged_and_exported(root, tmp_path):
    """``own_features``, whose filters are learned from the tiles of all places."""
    own = ("model.", "evaluate.primary")
    keys = {key: value for key, value in KEYS.items() if not key.startswith(own)}
    keys |= {"data.root": str(root), "model.components": 3}
    run = jaxad.train(jaxad.load_config("own_features:pooled", keys), tmp_path / "run")
    assert jaxad.evaluate(run.path)["image_auroc"] == 1.0
    predictor = load_detector(run.path)
    assert predictor.detector.variables["params"]["axes"].shape[:2] == (PLACES, 3)
    extra, *others = at_holes(predictor.predict(root / "test/hole/0.png")[0])
    assert extra > 3 * max(others)
    paths = [root / "test/good/0.png", root / "test/hole/0.png"]
    # Filters of faint axes enlarge the rounding of float32, whose products are in another order.
    assert_exported_alike(run, predictor, paths, tmp_path, tolerance=1e-3)


def test_models_of_folds_that_use_fewer_axes_are_compiled_once(root, tmp_path):
    """One model for all tiles; of fewer photographs there are fewer axes than of all."""
    own = ("model.", "evaluate.primary")
    keys = {key: value for key, value in KEYS.items() if not key.startswith(own)}
    keys |= {"data.root": str(root), "data.tile_models": "shared", "data.folds": 3}
    run = jaxad.train(jaxad.load_config("own_features:pooled", keys), tmp_path / "run")
    detector = Detector.load(run.path)
    folds = [detector.of_fold(RunFolder(run.path), number) for number in range(3)]
    axes = [len(one._placed["params"]["axes"]) for one in (detector, *folds)]
    assert axes[0] > axes[1] == axes[2] == axes[3]
    assert folds[0]._detect is folds[1]._detect is folds[2]._detect is not detector._detect
    tiles = np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE, 3), np.uint8)
    for fold in folds:
        expected = jax.jit(detector.model.detect)(fold.variables, tiles).maps["residual"]
        np.testing.assert_allclose(fold(tiles).maps["residual"], expected, rtol=1e-3)


def test_features_of_each_place_are_trained_judged_and_exported(root, tmp_path, monkeypatch):
    """``feature_pca``, whose network all places have in common."""
    weights = BackboneWeights(network(), {"family": "tiny", "source": "drawn"})
    for module in (preparation, training):
        monkeypatch.setattr(module, "load_backbone", lambda *_: weights)
    own = ("model.", "evaluate.primary")
    keys = {key: value for key, value in KEYS.items() if not key.startswith(own)}
    keys |= {"data.root": str(root), "model.backbone": tiny_backbone.NAME, "model.components": 3}
    config = jaxad.load_config("feature_pca", {**keys, "model.covariance": "pooled"})
    run = jaxad.train(config, tmp_path / "run")
    assert jaxad.evaluate(run.path)["image_auroc"] == 1.0
    predictor = load_detector(run.path)
    assert predictor.calibration["method"] == "cross_fitted"
    params = predictor.detector.variables["params"]
    assert params["axes"].shape[:2] == (PLACES, 3)
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], network()["params"])
    extra, *others = at_holes(predictor.predict(root / "test/hole/0.png")[0])
    assert extra > 5 * max(others)
    paths = [root / "test/good/0.png", root / "test/hole/0.png"]
    # Where parts are smooth, the tiny network's features, about 1, have deviations of 5e-4: their
    # rounding is 1e-4 of these, which the whitening and the square enlarge.
    assert_exported_alike(run, predictor, paths, tmp_path, tolerance=1e-3)


def test_whole_tiles_of_a_place_also_know_what_is_missing(root, tmp_path):
    """Patches do not: those around a missing hole are such as its place has elsewhere."""
    keys = {"data__calibration": "held_out", "data__holdout": 0.2, "model__patch": 0}
    keys |= {"model__components": 2, "evaluate__primary_map": "l1", "model__ssim_window": 3}
    run = train(root, tmp_path / "run", evaluate__primary_score="l1:max", **keys)
    images = [part(400), part(401), part(402, holes=HOLES[:1]), part(403, holes=[*HOLES, EXTRA])]
    *good, missing, extra = load_detector(run.path).predict(images)
    assert min(missing.score, extra.score) > 3 * max(one.score for one in good)
    for one, hole in ((missing, HOLES[1]), (extra, EXTRA)):
        assert np.hypot(one.maximum.y - hole[0], one.maximum.x - hole[1]) <= RADIUS


def test_the_extra_hole_is_found_where_it_is(root, predictor):
    path = root / "test/hole/0.png"
    file, pixels = predictor.predict([path, Photograph(path, Reading(3)).rows(0, SIZE[0])])
    assert file.score == pixels.score and file.decision is True
    np.testing.assert_array_equal(file.map, pixels.map)
    first = file.regions[0]
    middle = (first.y + first.height / 2, first.x + first.width / 2)
    assert np.hypot(middle[0] - EXTRA[0], middle[1] - EXTRA[1]) < 2
    assert np.hypot(file.maximum.y - EXTRA[0], file.maximum.x - EXTRA[1]) <= RADIUS + 4


def test_detection_is_that_of_each_place_by_hand_and_blended(root, predictor):
    detector = predictor.detector
    assert detector.grid == Grid(TILING, SIZE) and detector.grid.places == PLACES
    path = str(root / "test/hole/1.png")
    photographs = Photographs([path], grid=detector.grid, **HOW)
    (output,) = detector.batches(photographs)
    alone = jax.jit(models.build("pca", (SIDE, SIDE, 3), **OPTIONS).detect)
    stitcher = MapStitcher(SIZE, TILING, factor=1)
    scores = []
    for place, tile in enumerate(tiles_of_file(path, **HOW)):
        found = alone(at_position(detector.variables, place), tile[None])
        stitcher.add(np.asarray(found.maps["nll"][0]))
        scores.append(float(found.scores["nll"][0]))
    # Values of some hundred from products of float32 in another order.
    np.testing.assert_allclose(output.maps["nll"][0], stitcher.map, rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(output.scores["nll"], [max(scores)], rtol=2e-4)
    middle = detector.in_the_middle()
    assert middle.grid is None and detector.grid.middle == 1 * COLUMNS + 2
    expected = at_position(detector.variables, 6)
    jax.tree.map(np.testing.assert_array_equal, middle.variables, expected)


def test_a_finished_run_goes_on_as_it_is(root, run, result, capsys):
    capsys.readouterr()
    train(root, run.path)
    assert "already fitted" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"data.tile_models is 'per_position' there and 'shared'"):
        train(root, run.path, data__tile_models="shared")


def test_a_stream_of_images_with_some_held_out_fits_the_tiles_cut_by_hand(root, tmp_path):
    held = {"data__calibration": "held_out", "data__holdout": 0.34}
    streamed = train(root, tmp_path / "run", data__stream=True, **held)
    record = json.loads(streamed.data.read_text())
    assert len(record["training"]) == 4 and record["pixels"].keys() == record["sha256"].keys() | {
        *record["training"]
    }
    rows = np.concatenate([tiles_of_file(str(root / name), **HOW) for name in record["training"]])
    expected = fit_positions(models.build("pca", (SIDE, SIDE, 3), **OPTIONS), rows, PLACES)
    predictor = load_detector(streamed.path)
    jax.tree.map(np.testing.assert_array_equal, predictor.detector.variables, expected)
    assert (predictor.calibration["method"], predictor.calibration["held_out"]) == ("held_out", 2)


def test_what_places_cannot_be_ends_in_one_sentence(root, run, predictor, tmp_path):
    odd = shutil.copytree(root, tmp_path / "odd")
    write(odd / "train/good/3.png", part(3, size=(64, 89)))
    none = tmp_path / "none"
    with pytest.raises(UserError, match=r"one size, but of .*3\.png 64 x 89 .* most 64 x 90; crop"):
        train(odd, none)
    shutil.copyfile(root / "train/good/3.png", odd / "train/good/3.png")
    write(odd / "test/good/1.png", part(3, size=(60, 90)))
    with pytest.raises(
        UserError, match=r"of .*test/good/1\.png 60 x 90 pixels .* of 64 x 90; crop"
    ):
        jaxad.evaluate(run.path, data_root=str(odd))
    (predicted,) = predictor.predict(odd / "test/good/1.png")
    assert predicted.score is None and "of 64 x 90; crop or resize it" in predicted.error
    (predicted,) = predictor.predict(part(0, size=(64, 91)))
    assert "of the image 64 x 91 pixels are seen" in predicted.error
    with pytest.raises(UserError, match=r"photograph-size=60,90 60 x 90 .* one place of"):
        export(run.path, tmp_path / "model.bin", photograph_size=(60, 90))
    with pytest.raises(UserError, match=r"per_position is of tiles; set data.tiles"):
        train(root, none, data__tiles=(0, 0))
    with pytest.raises(UserError, match=r"data.illumination is fitted to the tiles of all places"):
        train(root, none, data__illumination="level")
    with pytest.raises(
        UserError, match=r"12 places .* more than data.memory_limit_mb=0; take a sm"
    ):
        train(root, none, data__memory_limit_mb=0)
    cae = {**KEYS, "data.root": str(root)}
    cae = {key: value for key, value in cae.items() if not key.startswith(("model.", "evaluate.p"))}
    with pytest.raises(
        UserError, match=r"one compiled program \(pca.*\), and 'cae' as it is set is not; take one"
    ):
        jaxad.train(jaxad.load_config("cae", cae), none)
    assert not none.exists() or not (none / "checkpoints/0").exists()
    bare = shutil.copytree(run.path, tmp_path / "bare")
    record = json.loads((bare / "data.json").read_text())
    del record["photograph"]
    (bare / "data.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"data\.json"):
        Detector.load(bare)
