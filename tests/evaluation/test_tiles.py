"""Photographs judged by tiles: one map without seams, one score, regions where they lie."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import jaxad
from jaxad import models
from jaxad.cli import main as cli
from jaxad.data.datasets import read_table
from jaxad.data.images import image_dimensions
from jaxad.data.photographs import Photograph, Reading
from jaxad.data.shards import find_shards
from jaxad.data.tiled import Photographs
from jaxad.data.tiles import Tiling
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.export import export
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.predict_files import predict_files
from jaxad.evaluation.tiled_detection import judge, map_factor
from jaxad.metrics import evaluate_maps
from jaxad.run.errors import UserError


def by_brightness(tiles, inside=None, places=None):
    """A model whose map is the brightness of a pixel, and whose reconstruction is the tile."""
    values = tiles.mean(axis=-1).astype(np.float32)
    brightest = values.max(axis=(1, 2))
    yield DetectorOutput({"map": values}, {"map:max": brightest, "own": brightest}, tiles)


def judged(image, tiling, *, limit_mb=2048, **options):
    size = (tiling.side, tiling.side)
    photographs = Photographs([image], tiling=tiling, image_size=size, reading=Reading(3))
    (photograph,) = photographs
    return judge(by_brightness, photographs, photograph, batch_size=5, limit_mb=limit_mb, **options)


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (20, 150), (15, 17), (33, 32), (200, 31)])
@pytest.mark.parametrize("overlap", [0, 5, 16])
def test_the_map_of_a_photograph_is_that_of_its_pixels(size, overlap):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    output = judged(image, Tiling(32, overlap))
    values = image.mean(axis=-1)
    np.testing.assert_allclose(output.maps["map"][0], values, rtol=1e-6)  # shares in float32
    count = max(1, min(32, size[0]) * min(32, size[1]) // 100)
    expected = {
        "map:max": values.max(),
        "map:mean": values.mean(),
        "map:top1": np.sort(values.ravel())[-count:].mean(),
        "own": values.max(),
    }
    assert output.scores.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(output.scores[name], [value], rtol=1e-5)
    # Neither is larger than an overview may be.
    np.testing.assert_array_equal(output.overview[0], image)
    np.testing.assert_array_equal(output.reconstruction[0], image)


def test_a_map_that_would_be_too_large_keeps_the_highest_of_every_block():
    image = np.random.default_rng(2).integers(0, 256, (1030, 1501, 3), dtype=np.uint8)
    # An eighth of 8 MiB (the least) is 2**18 pixels, of which the photograph has 5.9 times as many.
    assert map_factor((1030, 1501), maps=1, limit_mb=8) == 3
    output = judged(image, Tiling(100, 10), limit_mb=8)
    values = image.mean(axis=-1)
    blocks = np.pad(values, [(0, 2), (0, 2)], constant_values=0).reshape(344, 3, 501, 3)
    np.testing.assert_allclose(output.maps["map"][0], blocks.max(axis=(1, 3)), rtol=1e-6)
    np.testing.assert_allclose(output.scores["map:mean"], [values.mean()], rtol=1e-5)
    assert output.overview.shape == (1, 344, 501, 3)  # a third of the sides: at most 512


@pytest.mark.slow
def test_tiles_of_a_convolution_give_its_map_of_the_whole_away_from_borders():
    """A patch model of 8 pixels: 7 pixels beside an edge see it, an overlap of 32 leaves out 8."""
    options = {"patch": 8, "stride": 4, "components": 5}
    image = np.random.default_rng(3).integers(0, 256, (92, 120, 3), dtype=np.uint8)
    small = models.build("pca", (64, 64, 3), **options)
    large = models.build("pca", (92, 120, 3), **options)
    variables = small.init(jax.random.key(0))
    whole = np.asarray(large.detect(variables, image[None]).maps["l1"][0])

    def detect(tiles, inside=None, places=None):
        maps = {"l1": np.asarray(small.detect(variables, tiles).maps["l1"])}
        yield DetectorOutput(maps, {}, tiles)

    how = {"image_size": (64, 64), "reading": Reading(3)}
    photographs = Photographs([image], tiling=Tiling(64, 36), **how)
    (photograph,) = photographs
    output = judge(detect, photographs, photograph, batch_size=4, limit_mb=2048)
    tiled = output.maps["l1"][0]
    # To the rounding of float32 products in another order, at the borders too: they are the same.
    np.testing.assert_allclose(tiled, whole, atol=2e-6)
    rough = Photographs([image], tiling=Tiling(64, 0), **how)
    (unblended,) = judge(detect, rough, photograph, batch_size=4, limit_mb=2048).maps["l1"]
    assert np.abs(unblended - whole).max() > 1e-3  # what the overlap is for


# --- a run ----------------------------------------------------------------------------------------

TILES = {
    "data.tiles": (48, 16),
    "data.image_size": (48, 48),
    "data.holdout": 0.0,
    "data.region": (0.1, 0.1, 1.0, 1.0),
    "data.folds": 2,
    "model.patch": 2,
    "model.stride": 2,
    "model.components": 3,
    "evaluate.smoothing": 0.0,
    "evaluate.primary_map": "nll",
    "evaluate.primary_score": "nll:top1",
    "evaluate.batch_size": 4,
    "evaluate.report_images": 4,
    "train.devices": 1,
}
SIZES = [(101, 131), (90, 160), (133, 100)]
SQUARE = (61, 83, 6)
"""Row, column and side of a planted square, in the upright photograph."""


def surface(seed, size):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = 120 + 40 * np.sin(x / 4) * np.cos(y / 5)
    noisy = wave[..., None] + rng.normal(0, 3, (*size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def write(path, image, *, turned=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if turned:
        exif[274] = 6
        image = np.rot90(image, 1)
    Image.fromarray(np.ascontiguousarray(image)).save(path, exif=exif)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Photographs of three sizes, some of them turned by EXIF; the defective ones have a square."""
    root = tmp_path_factory.mktemp("photographs")
    row, column, side = SQUARE
    for i, size in enumerate(SIZES * 2):
        write(root / f"train/good/{i}.png", surface(i, size), turned=i == 1)
        image, turned = surface(100 + i, size), i % 2 == 1
        if i < 3:
            write(root / f"test/good/{i}.png", image, turned=turned)
            continue
        image[row : row + side, column : column + side] = 250
        mask = np.zeros((*size, 3), np.uint8)
        mask[row : row + side, column : column + side] = 255
        write(root / f"test/dot/{i}.png", image, turned=turned)
        write(root / f"ground_truth/dot/{i}_mask.png", mask, turned=turned)
    return root


def train(root, workdir, **overrides):
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    config = jaxad.load_config("pca", {**TILES, "data.root": str(root), **changed})
    return jaxad.train(config, workdir)


@pytest.fixture(scope="module")
def run(photographs, tmp_path_factory):
    return train(photographs, tmp_path_factory.mktemp("tiles") / "run")


@pytest.fixture(scope="module")
def result(run):
    return jaxad.evaluate(run.path)


def test_evaluation_is_of_photographs_at_their_own_size(run, result):
    assert result["tiles"] == [48, 16] and result["resolution"] == "original"
    assert result["image_auroc"] == 1.0 and result["aupro"] > 0.95
    assert result["counts"]["images"] == 6
    calibration = json.loads(run.calibration.read_text())
    assert (calibration["method"], calibration["held_out"]) == ("cross_fitted", 6)
    assert len(json.loads(run.data.read_text())["folds"]) == 6
    page = run.report.read_text()
    assert "tiles of good test images" in page


def test_a_planted_square_is_found_to_a_pixel(photographs, run, result, tmp_path):
    found = predict_files(run.path, [photographs / "test"], tmp_path, tiff=True)
    row, column, side = SQUARE
    for one in found["images"]:
        assert one["decision"] is ("dot" in one["path"])
        if not one["decision"]:
            assert one["regions"] == []
            continue
        first = one["regions"][0]
        near = (first["x"], first["y"], first["x"] + first["width"], first["y"] + first["height"])
        truth = (column, row, column + side, row + side)
        assert max(abs(a - b) for a, b in zip(near, truth, strict=True)) <= 1
        # Patches are of 2 pixels.
        assert row - 1 <= one["maximum"]["y"] <= row + side
        assert column - 1 <= one["maximum"]["x"] <= column + side
        size = (one["height"], one["width"])
        for file in one["files"].values():
            with Image.open(tmp_path / file) as picture:
                assert picture.size[::-1] == size


def test_arrays_and_files_are_judged_alike_and_bad_files_have_a_row(
    photographs, run, result, tmp_path
):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    path = photographs / "test/dot/4.png"
    reading = Photograph(path, Reading(3))
    array = reading.rows(0, reading.size[0])
    file, pixels, broken = load_detector(run.path).predict([path, array, bad])
    assert file.score == pixels.score and file.regions == pixels.regions
    np.testing.assert_array_equal(file.map, pixels.map)
    assert broken.score is None and "bad.png" in broken.error


def test_a_reduced_map_gives_regions_in_pixels_of_the_photograph(
    photographs, run, result, tmp_path, monkeypatch
):
    monkeypatch.setattr("jaxad.evaluation.tiled_detection.map_factor", lambda *_, **__: 2)
    found = predict_files(run.path, [photographs / "test/dot"], tmp_path, tiff=True)
    row, column, side = SQUARE
    for one in found["images"]:
        assert one["reduced"] == 2
        first = one["regions"][0]
        assert abs(first["x"] - column) <= 2 and abs(first["y"] - row) <= 2
        assert abs(first["width"] - side) <= 4 and abs(first["height"] - side) <= 4
        with Image.open(tmp_path / one["files"]["map"]) as values:
            assert values.size[::-1] == tuple(-(-one["box"][k] // 2) for k in ("height", "width"))
        # In Python the same picture, the verdict on it.
        (predicted,) = load_detector(run.path).predict(one["path"])
        with Image.open(tmp_path / one["files"]["overlay"]) as written:
            np.testing.assert_array_equal(np.asarray(predicted.overlay()), np.asarray(written))


def test_regions_of_large_maps_have_a_threshold_of_their_own(
    photographs, run, result, tmp_path, monkeypatch
):
    again = shutil.copytree(run.path, tmp_path / "run")
    (again / "calibration.json").unlink()
    small = load_detector(run.path)
    assert small.region_threshold is None
    monkeypatch.setattr("jaxad.evaluation.calibration.LARGE_MAP", 1)
    large = load_detector(again)
    assert large.region_threshold > large.pixel_threshold == small.pixel_threshold
    for path in sorted((photographs / "test").rglob("*.png")):
        (one,), (other,) = small.predict(path), large.predict(path)
        peaks = [region for region in one.regions if region.peak > large.region_threshold]
        assert list(other.regions) == peaks and len(peaks) == one.decision
        assert len(one.regions) >= len(peaks)


def test_streamed_tiles_train_the_same_model(photographs, run, tmp_path):
    again = train(photographs, tmp_path / "run", data__stream=True)
    one, other = (Detector.load(each.path).variables for each in (run, again))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    pixels = [json.loads(each.data.read_text())["pixels"] for each in (run, again)]
    assert pixels[0] == pixels[1] and len(set(pixels[0].values())) == 6


def test_tiles_of_shards_train_and_judge_alike(photographs, run, result, shards, tmp_path):
    again = train(shards, tmp_path / "run", data__stream=True)
    one, other = (Detector.load(each.path).variables for each in (run, again))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    pixels = [json.loads(each.data.read_text())["pixels"] for each in (run, again)]
    assert pixels[0] == pixels[1] and len(set(pixels[0].values())) == 6
    found = jaxad.evaluate(again.path)
    assert found["maps"] == result["maps"] and found["counts"] == result["counts"]
    files, records = (
        load_detector(again.path).predict(place)
        for place in (photographs / "test/dot", f"{shards}::/test/dot/3.png")
    )
    assert records[0].score == files[0].score and records[0].size == SIZES[0]


@pytest.fixture(scope="module")
def shards(photographs, tmp_path_factory):
    """Of the photographs, by the command."""
    pytest.importorskip("tensorflow_datasets")
    place = tmp_path_factory.mktemp("shards")
    words = [f"--config.data.root={photographs}", "--config.data.tiles=48,16"]
    command = ["data", "prepare", "--config=pca", *words, f"--shards={place}"]
    assert cli.main(command) == 0
    (folder,) = find_shards(place)
    table = read_table(folder)
    assert {image_dimensions(sample.path) for sample in table.samples} == set(SIZES)
    assert table.notes[0].endswith("own size x 3")
    return folder


@pytest.mark.slow
def test_a_model_of_steps_trains_on_tiles(photographs, tmp_path):
    keys = {"data.root": str(photographs), "data.tiles": (64, 16), "data.image_size": (32, 32)}
    keys |= {"train.steps": 2, "train.batch_size": 4, "data.holdout": 0.3, "train.devices": 1}
    keys |= {"evaluate.report_images": 2, "data.stream": True, "model.latent": 8}
    config = jaxad.load_config("cae", keys)
    run = jaxad.train(config, tmp_path / "run")
    (predicted,) = load_detector(run.path).predict(photographs / "test/dot/3.png")
    assert predicted.map.shape == predicted.size == (101, 131)


def test_protocols_that_hold_at_any_size_are_those_of_the_maps(photographs, run, result):
    """Against plain figures of all maps, at the size of the photographs."""
    test = sorted((photographs / "test").rglob("*.png"))
    predictions = load_detector(run.path).predict(test)
    maps = [one.model_map for one in predictions]
    masks = []
    for path, one in zip(test, predictions, strict=True):
        mask = photographs / f"ground_truth/dot/{path.stem}_mask.png"
        bad = path.parent.name == "dot"
        pixels = Photograph(mask, Reading(1)).rows(0, one.size[0]) if bad else np.zeros(one.size)
        masks.append(pixels.reshape(one.size)[one.box.slices] > 0)
    labels = [mask.any() for mask in masks]
    own = result["protocol_figures"]
    for protocol, reduce in (("mvtec_official", np.max), ("mae", np.mean)):
        found = jaxad.evaluate(run.path, overrides={"evaluate.protocol": protocol})
        figures = found["protocol_figures"]
        assert found["protocol"] == protocol and found["image_auroc"] == own["image_auroc"]
        auroc = roc_auc_score(labels, [reduce(values) for values in maps])
        assert figures["image_auroc"] == pytest.approx(auroc)
        assert found["protocol_counts"] == {"images": 6, "images_without_mask": 0}
        if protocol == "mvtec_official":
            exact = evaluate_maps(maps, masks, limit=0.3)["aupro"]
            assert figures["aupro"] == pytest.approx(exact, abs=1e-6)
        assert set(found["protocol_maps"]) == set(found["maps"])
    jaxad.evaluate(run.path, overrides={"evaluate.protocol": "jaxad"})


def test_what_tiles_cannot_do_ends_in_one_sentence(photographs, run, tmp_path):
    with pytest.raises(UserError, match=r"have several .* give --photograph-size=HEIGHT,WIDTH"):
        export(run.path, tmp_path / "model.bin")  # of photographs of three sizes
    with pytest.raises(
        UserError, match=r"with data\.tiles there is none.* 'mae' or 'mvtec_official'"
    ):
        jaxad.evaluate(run.path, overrides={"evaluate.protocol": "vae_compare"})
    with pytest.raises(UserError, match=r"side of 500 .* largest good training image is 81 x 144"):
        train(photographs, tmp_path / "none", data__tiles=(500, 0))
    with pytest.raises(UserError, match="overlap of at most half the side"):
        train(photographs, tmp_path / "none", data__tiles=(48, 40))
