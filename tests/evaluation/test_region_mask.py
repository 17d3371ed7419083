"""A region of any shape (``evaluate.region_mask``): what lies outside counts nowhere."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from jaxad.data.crop import WHOLE
from jaxad.data.given import named_file
from jaxad.data.photographs import Reading
from jaxad.data.region_mask import RegionMask, RegionMasks, read_region_masks
from jaxad.data.tiled import Photographs
from jaxad.data.tiles import Tiling
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.drawing import draw
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.export import export
from jaxad.evaluation.inputs import read_inputs, read_masks
from jaxad.evaluation.postprocess import finish
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.predict_files import predict_files
from jaxad.evaluation.thresholds import predicted_pixels
from jaxad.evaluation.tiled_detection import judge
from jaxad.report.content import Scale
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.run.files import read_csv
from jaxad.run.folder import RunFolder

KEY = "evaluate.region_mask"
SIZE = (48, 64)


def disc(size=SIZE):
    """Most of an image, without its corners; the defects (rows 12-20, columns 20-32) lie inside."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.hypot((y + 0.5) / size[0] - 0.5, (x + 0.5) / size[1] - 0.5) < 0.45


def dot():
    """One pixel of an image, a third of what the model sees as one."""
    drawn = np.zeros(SIZE, bool)
    drawn[20, 30] = True
    return drawn


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("drawn") / "disc.png"
    Image.fromarray(disc()).save(file)
    return file


@pytest.fixture(scope="module")
def judged(own_trained, picture):
    """(run, its data), evaluated inside the disc."""
    run, data = own_trained
    evaluate(run, overrides={KEY: str(picture)})
    return run, data


# Maps and scores


@pytest.mark.parametrize("smoothing", [0.0, 1.5])
def test_maps_and_scores_are_those_of_the_pixels_inside(smoothing):
    rng = np.random.default_rng(0)
    maps = rng.random((3, 20, 30)).astype(np.float32)
    inside = rng.random(maps.shape) > 0.4
    inside[2] = False
    inside[2, 5, 5] = True
    own = {"own": jnp.asarray(maps[:, 0, 0])}
    found, scores = finish({"m": jnp.asarray(maps)}, own, jnp.asarray(inside), smoothing=smoothing)
    assert set(scores) == {"m:max", "m:mean", "m:top1"}
    for i, (values, part) in enumerate(zip(maps.astype(np.float64), inside, strict=True)):
        if smoothing:  # by scipy, in float64; float32 sums of a few hundred terms differ by 1e-6
            blur = [
                ndimage.gaussian_filter(x, smoothing, mode="reflect")
                for x in (values * part, part.astype(np.float64))
            ]
            values = blur[0] / np.where(part, blur[1], 1.0)
        pixels = values[part]
        np.testing.assert_allclose(np.asarray(found["m"])[i][part], pixels, rtol=1e-5)
        highest = np.sort(pixels)[::-1][: max(1, part.sum() // 100)]
        expected = {"max": pixels.max(), "mean": pixels.mean(), "top1": highest.mean()}
        for name, value in expected.items():
            np.testing.assert_allclose(scores[f"m:{name}"][i], value, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 2.0])
@pytest.mark.parametrize("outside", [1e6, -1e6, np.inf, np.nan])
def test_nothing_from_outside_reaches_what_is_judged(outside, smoothing):
    maps = np.random.default_rng(1).random((2, 24, 24)).astype(np.float32)
    inside = np.broadcast_to(disc((24, 24)), maps.shape)
    other = np.where(inside, maps, np.float32(outside))
    (a, scores), (b, others) = (
        finish({"m": jnp.asarray(m)}, {}, jnp.asarray(inside), smoothing=smoothing)
        for m in (maps, other)
    )
    np.testing.assert_array_equal(np.asarray(a["m"])[inside], np.asarray(b["m"])[inside])
    assert np.isfinite(b["m"]).all()
    jax.tree.map(np.testing.assert_array_equal, scores, others)


def test_all_inside_is_no_region():
    maps = np.random.default_rng(2).random((2, 21, 17)).astype(np.float32)
    named = {"m": jnp.asarray(maps)}
    whole, scores = finish(named, {}, smoothing=1.0)
    same, others = finish(named, {}, jnp.ones(maps.shape, bool), smoothing=1.0)
    np.testing.assert_allclose(whole["m"], same["m"], rtol=1e-6)
    for name, values in scores.items():
        np.testing.assert_allclose(values, others[name], rtol=1e-6)


# The drawing


@pytest.mark.parametrize("size", [SIZE, (24, 32), (96, 128), (35, 50)])
def test_a_pixel_is_judged_where_half_of_it_lies_inside(size):
    drawn = disc()
    region = RegionMask(drawn, WHOLE, name="x")
    inside = region.at(size)
    # Every drawn pixel as a block of the same area, averaged over the pixels of the map.
    fine = np.kron(drawn, np.ones(size))  # (48 h, 64 w)
    share = fine.reshape(size[0], SIZE[0], size[1], SIZE[1]).mean(axis=(1, 3))
    np.testing.assert_array_equal(inside, share >= 0.5 - 1e-9)
    np.testing.assert_array_equal(region.rows(size, 5, 11), inside[5:11])


def test_a_long_picture_takes_little_more_than_itself():
    """A hostile picture of one row could take a thousand times its own memory at a map's size."""
    mask = RegionMask(np.ones((2, 1_000_000), bool), WHOLE, name="long.png")
    tracemalloc.start()
    inside = mask.at((64, 64))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert inside.all()


def test_of_a_folder_few_large_pictures_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxad.data.region_mask._KEPT", 30 * 40)
    for i in range(4):
        Image.fromarray(np.full((20, 20 + i), 255, np.uint8)).save(tmp_path / f"{i}.png")
    masks = RegionMasks(tmp_path, WHOLE)
    for _ in range(2):
        for i in range(4):
            assert masks.of(f"/photographs/{i}.jpg").drawn.shape == (20, 20 + i)
            assert sum(kept.drawn.size for kept in masks._kept.values()) <= 30 * 40
    assert masks.of("/photographs/3.jpg") is masks.of("/elsewhere/3.jpg")


def test_of_a_crop_the_drawing_is_cut():
    drawn = disc()
    region = RegionMask(drawn, (0.25, 0.0, 0.75, 0.5), name="x")
    np.testing.assert_array_equal(region.at((24, 32)), drawn[12:36, :32])
    assert region.share == pytest.approx(drawn[12:36, :32].mean())


def test_nothing_outside_is_outlined_whatever_it_is():
    heat = np.arange(400, dtype=np.float32).reshape(20, 20)
    inside = np.zeros((20, 20), bool)
    inside[:5, :8] = True
    over = predicted_pixels(heat, True, 50.0, None, inside)
    np.testing.assert_array_equal(over, inside & (heat > 50))
    # None over the threshold: the highest hundredth of the 40 pixels, one.
    assert np.argwhere(predicted_pixels(heat, True, 1e3, None, inside)).tolist() == [[4, 7]]
    found = predicted_pixels(heat, True, 50.0, 1e3, inside)
    assert found[4, 7] and not (found & ~inside).any()
    assert not predicted_pixels(heat, False, 50.0, None, inside).any()


# A run


@pytest.mark.parametrize("keys", [{}, {"evaluate.memory_limit_mb": 0},
                                  {"evaluate.resolution": "original"}])  # fmt: skip
def test_metrics_and_thresholds_are_of_the_pixels_inside(judged, keys):
    run, _ = judged
    found = evaluate(run, overrides=keys)
    folder, detector = RunFolder(run), Detector.load(run)
    test = read_inputs(folder, detector.config, None)
    inside = detector.inside_of([sample.path for sample in test.samples])
    output = detector(test.images, inside=inside)
    name = detector.primary_map
    masks = read_masks(test.samples, detector.config)
    truth, scores = [], []
    for values, mask in zip(output.maps[name], masks, strict=True):
        part = detector.regions.every.at(mask.shape)
        large = Image.fromarray(values).resize(mask.shape[::-1], Image.Resampling.BILINEAR)
        truth.append(mask[part])
        scores.append(np.asarray(large)[part])
    counts = found["counts"]
    assert counts["pixels"] == sum(map(len, truth)) < sum(mask.size for mask in masks)
    expected = roc_auc_score(np.concatenate(truth), np.concatenate(scores))
    assert found["pixel_auroc"] == pytest.approx(expected, abs=1e-4)
    assert found["region_mask_share"] == pytest.approx(disc().mean(), abs=1e-3)
    held_out = json.loads((run / "data.json").read_text())["holdout"]
    images = np.stack([np.asarray(Image.open(judged[1] / one).resize((32, 32), 2))
                       for one in held_out])  # fmt: skip
    inside = detector.inside_of(held_out)
    seen = detector(images, inside=inside).maps[name][inside]
    calibration = folder.read_json(folder.calibration)
    # Pillow's bilinear filter on these images is that of the pipeline, up to a level of rounding.
    assert calibration["pixel_threshold"] == pytest.approx(np.quantile(seen, 0.995), rel=0.05)
    assert calibration["region_mask"] == detector.regions.sha256
    for key, value in {"evaluate.memory_limit_mb": 2048, "evaluate.resolution": "model"}.items():
        evaluate(run, overrides={key: value})


def test_the_run_keeps_the_picture_and_forgets_it_when_told(run, picture, tmp_path):
    away = tmp_path / "away.png"
    away.write_bytes(picture.read_bytes())
    first = evaluate(run, overrides={KEY: str(away)})
    away.unlink()
    config = json.loads((run / "config.json").read_text())
    assert config["evaluate"]["region_mask"] == "region_mask.png"
    again = evaluate(run)
    assert again["image_auroc"] == first["image_auroc"]
    assert again["counts"] == first["counts"]
    whole = evaluate(run, overrides={KEY: ""})
    assert "region_mask_share" not in whole
    assert whole["counts"]["pixels"] == 8 * 32 * 32 > again["counts"]["pixels"]
    assert "evaluate.region_mask" not in (run / "report.html").read_text().split("Setup")[0]


def test_training_keeps_it_from_the_start(tiny, data, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(picture.parent)
    run = tiny.fit(data, tmp_path / "run", evaluate__region_mask="disc.png")
    monkeypatch.chdir(tmp_path)
    assert Detector.load(run).regions.sha256 == RegionMask(disc(), WHOLE, name="x").sha256
    tiny.fit(data, tmp_path / "run", evaluate__region_mask=str(picture))  # goes on


def test_predictions_and_files_hide_what_is_not_judged(judged, tmp_path):
    run, data = judged
    predictor = load_detector(run)
    (one,) = predictor.predict([data / "test/box/001.png"])
    outside = ~disc()
    np.testing.assert_array_equal(one.judged, disc())
    assert one.decision and one.mask.any() and not one.mask[outside].any()
    assert (one.map[outside] == one.map.min()).all()
    assert disc()[one.maximum.y, one.maximum.x]
    low, high = predictor.scale.low, predictor.scale.high
    picture = np.asarray(one.overlay(low, high))
    photograph = np.asarray(Image.open(data / "test/box/001.png").convert("L"))
    dark = ndimage.binary_erosion(outside, iterations=2, border_value=1)
    dark[:20] = False  # where the verdict may be written
    dark[-20:] = False
    np.testing.assert_array_equal(
        picture[dark], np.repeat((photograph[dark] * 0.35).astype(np.uint8)[:, None], 3, axis=1)
    )
    result = predict_files(run, [data / "test/box/001.png"], tmp_path / "out")
    assert result["images"][0]["score"] == pytest.approx(one.score, rel=1e-5)


def test_an_exported_file_judges_the_same(judged, tmp_path):
    run, data = judged
    record = export(run, tmp_path / "file")
    assert record["region_mask_share"] == pytest.approx(disc().mean(), abs=1e-3)
    predictor = load_detector(run)
    files = sorted((data / "test/box").iterdir()) + sorted((data / "test/good").iterdir())
    predictions = predictor.predict(files)
    images = np.stack([predictor._read(one)[0] for one in map(named_file, map(str, files))])
    found = jax_export.deserialize((tmp_path / "file").read_bytes()).call(images)
    region = predictor.detector.regions.every
    inside = region.at((32, 32))
    for i, prediction in enumerate(predictions):
        # Squares of differences of float32: a score of 3e-5 is known to some 1e-10.
        np.testing.assert_allclose(found["score"][i], prediction.score, rtol=1e-5)
        assert bool(found["decision"][i]) == prediction.decision
        hidden = region.hide(prediction.model_map)
        np.testing.assert_allclose(found["map"][i], hidden, rtol=1e-5, atol=1e-9)
        expected = predicted_pixels(
            prediction.model_map, prediction.decision, predictor.pixel_threshold, None, inside
        )
        np.testing.assert_array_equal(found["mask"][i], expected)


def test_single_photographs_have_masks_of_their_own(run, data, tmp_path):
    """A folder: one test image is judged on its left half, a training image on its upper one."""
    folder = tmp_path / "masks"
    left, upper = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    left[:, :18] = upper[:24] = True  # the box of defects begins at column 20
    (folder / "test/box").mkdir(parents=True)
    (folder / "train/good").mkdir(parents=True)
    Image.fromarray(left).save(folder / "test/box/001.png")
    before = evaluate(run)
    quiet = evaluate(run, overrides={KEY: str(folder)})
    assert json.loads((run / "config.json").read_text())["evaluate"]["region_mask"] == str(folder)
    assert quiet["counts"]["pixels"] == before["counts"]["pixels"] - 32 * (32 - 9)
    assert quiet["counts"]["images_with_empty_mask"] == 1
    calibration = json.loads((run / "calibration.json").read_text())
    assert calibration["region_mask"] == "folder"
    predictor = load_detector(run)
    one, other = predictor.predict([data / "test/box/001.png", data / "test/box/002.png"])
    assert other.decision and other.judged is None
    assert one.score < 0.5 * other.score and not one.mask[:, 18:].any()
    np.testing.assert_array_equal(one.judged, left)
    rows = {row["path"]: row for row in read_csv(run / "scores.csv")}
    assert float(rows["test/box/001.png"]["score"]) == pytest.approx(one.score, rel=1e-5)
    with pytest.raises(UserError, match="an exported file cannot look up"):
        export(run, tmp_path / "file")
    # Masks of calibration images that are new or other ones set thresholds anew.
    held_out = json.loads((run / "data.json").read_text())["holdout"]
    for name in held_out:
        Image.fromarray(upper).save(folder / name)
    evaluate(run)
    again = json.loads((run / "calibration.json").read_text())
    assert again["pixel_threshold"] != calibration["pixel_threshold"]
    (folder / held_out[0]).write_bytes(b"no picture")
    with pytest.raises(UserError, match=f"{held_out[0]} is not an image"):
        evaluate(run)


# Tiles


def by_brightness(tiles, inside=None, places=None):
    brightness = jnp.float32(tiles.mean(axis=-1))
    maps, scores = finish({"map": brightness}, {}, jnp.asarray(inside), smoothing=0.0)
    yield DetectorOutput(
        {k: np.asarray(v) for k, v in maps.items()},
        {k: np.asarray(v) for k, v in scores.items()},
        tiles,
    )


@pytest.mark.parametrize("limit_mb", [2048, 8])
def test_of_a_photograph_in_tiles_too(limit_mb):
    size = (600, 801)
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    tiling = Tiling(64, 8)
    photographs = Photographs([image], tiling=tiling, image_size=(64, 64), reading=Reading(3))
    region = RegionMask(disc(), WHOLE, name="x")
    (photograph,) = photographs
    output = judge(
        by_brightness, photographs, photograph, batch_size=7, limit_mb=limit_mb, region=region
    )
    inside, values = region.at(size), image.mean(axis=-1)
    pixels = np.sort(values[inside])
    expected = {"max": pixels[-1], "mean": pixels.mean(), "top1": pixels[-40:].mean()}
    for name, value in expected.items():
        np.testing.assert_allclose(output.scores[f"map:{name}"], [value], rtol=1e-5)
    found = output.maps["map"][0]
    if found.shape == size:
        np.testing.assert_allclose(found[inside], values[inside], rtol=1e-5)
        assert (found[~inside] == found[inside].min()).all()
    else:
        assert found.max() == pytest.approx(pixels[-1]) and np.isfinite(found).all()


# Bad input


@pytest.mark.parametrize(
    ("drawn", "keys", "said"),
    [
        (np.zeros(SIZE, bool), {}, "is black everywhere, so no pixel would be judged"),
        (None, {}, "holds no picture"),
        (disc(), {"evaluate.protocol": "mvtec_official"}, "take the protocol 'jaxad'"),
        (dot(), {}, "nothing of .* is left at 32 x 32"),
    ],
)
def test_bad_regions_are_named(run, tmp_path, drawn, keys, said):
    file = tmp_path / "drawn"
    if drawn is None:
        file.mkdir()
    else:
        Image.fromarray(drawn).save(file, format="PNG")
    before = (run / "config.json").read_bytes()
    with pytest.raises(UserError, match=said):
        evaluate(run, overrides={KEY: str(file), **keys})
    assert (run / "config.json").read_bytes() == before


def test_a_picture_that_is_not_there_is_named_before_training(tiny, data, tmp_path):
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        tiny.fit(data, tmp_path / "run", evaluate__region_mask=str(tmp_path / "none.png"))
    assert not (tmp_path / "run/checkpoints").exists()


def test_no_other_file_stands_in_for_a_copy_that_is_gone(tmp_path, monkeypatch):
    run, config = RunFolder(tmp_path / "run"), load_settings("pca")
    run.create()
    evaluate = dataclasses.replace(config.evaluate, region_mask="region_mask.png")
    config = dataclasses.replace(config, evaluate=evaluate)
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "region_mask.png")
    monkeypatch.chdir(tmp_path)
    assert read_region_masks(run, config).every.share == 1.0  # of a run that is to begin
    run.write_config(config)
    with pytest.raises(UserError, match=r"run/region_mask\.png does not exist"):
        read_region_masks(run, config)


def test_a_black_crop_of_the_region_is_named():
    with pytest.raises(UserError, match=r"black everywhere in the part that data\.region sees"):
        RegionMask(disc(), (0.0, 0.0, 0.05, 0.05), name="x")


def test_the_drawing_darkens_and_frames_what_is_not_judged():
    gray = np.full((40, 40, 1), 200, np.uint8)
    inside = disc((40, 40))
    picture = draw(gray, np.zeros((40, 40), np.float32), None, Scale(0, 1, None), None, inside)
    assert (picture[0, 0] == 70).all() and (picture[20, 20] == 200).all()
