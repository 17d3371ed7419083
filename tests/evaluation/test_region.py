"""A region of interest from training to pictures, against runs on files cut beforehand."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.benchmark.papers import plan
from jaxad.cli import main as cli
from jaxad.data.crop import Box, box_of
from jaxad.evaluation.drawing import draw
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.export import export
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.predict_files import predict_files
from jaxad.report.content import Scale
from jaxad.report.figures import PREDICTED_COLOUR, outline, overlay
from jaxad.run.errors import UserError

REGION = (0.125, 0.0625, 0.9, 0.875)
BOX = Box(6, 4, 43, 56)  # of 48 x 64; the defects lie at rows 12-20, columns 20-32
TEXT = ",".join(map(str, REGION))


def cut_files(root, target):
    """The same data set, every image and mask cut to the box."""
    for path in root.rglob("*.png"):
        there = target / path.relative_to(root)
        there.parent.mkdir(parents=True, exist_ok=True)
        array = np.asarray(Image.open(path))
        Image.fromarray(np.ascontiguousarray(array[BOX.slices])).save(there)
    return target


def with_fixtures(root):
    """Draws into every photograph what only the border shows, other in each."""
    for seed, path in enumerate(sorted(root.rglob("*.png"))):
        if "ground_truth" not in path.parts:
            array = np.asarray(Image.open(path))
            top = np.iinfo(array.dtype).max // (1 if array.dtype == np.uint8 else 16)
            noise = np.random.default_rng(seed).integers(0, top, array.shape).astype(array.dtype)
            noise[BOX.slices] = array[BOX.slices]
            Image.fromarray(noise).save(path)
    return root


def rows_of(run):
    with open(run / "scores.csv", newline="") as file:
        return list(csv.reader(file))


def figures_of(run):
    result = json.loads((run / "metrics.json").read_text())
    return {k: v for k, v in result.items() if k not in ("region", "content_sha256")}


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """(run with the region, its data, run on files cut beforehand, its data), evaluated."""
    folder = tmp_path_factory.mktemp("region")
    data = with_fixtures(tiny.write_data(folder / "data"))
    before = cut_files(data, folder / "before")
    run = tiny.fit(data, folder / "run", data__region=TEXT)
    other = tiny.fit(before, folder / "other")
    evaluate(run)
    evaluate(other)
    return run, data, other, before


# Training and evaluation


def test_a_run_with_a_region_is_the_run_on_cut_files(runs):
    run, _, other, _ = runs
    assert box_of(REGION, (48, 64)) == BOX
    assert rows_of(run) == rows_of(other)
    assert figures_of(run) == figures_of(other)
    figure = "figures/box_000.png"
    assert (run / figure).read_bytes() == (other / figure).read_bytes()
    ours, theirs = (json.loads((r / "calibration.json").read_text()) for r in (run, other))
    sizes = [[part.pop(side) for side in ("height", "width")]
             for part in (ours["trained_on"], theirs["trained_on"])]  # fmt: skip
    digests = {record.pop("content_sha256") for record in (ours, theirs)}
    assert len(digests) == 2  # of the whole files, sizes included
    assert ours == theirs
    assert sizes == [[[48, 48], [64, 64]], [[37, 37], [52, 52]]]  # the files' own


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"evaluate.resolution": "original"},
        {"evaluate.protocol": "mvtec_official"},
        {"evaluate.protocol": "vae_compare"},
        {"evaluate.resolution": "original", "evaluate.memory_limit_mb": "0"},
    ],
)
def test_masks_are_those_of_cut_files_however_they_are_judged(runs, keys):
    run, _, other, _ = runs
    undo = {"evaluate.resolution": "model", "evaluate.protocol": "jaxad"}
    undo["evaluate.memory_limit_mb"] = "2048"
    try:
        assert evaluate(run, overrides=undo | keys)["region"] == list(REGION)
        evaluate(other, overrides=undo | keys)
        assert figures_of(run) == figures_of(other)
        original = keys.get("evaluate.resolution") == "original"
        pixels = 8 * (BOX.size[0] * BOX.size[1] if original else 32 * 32)
        assert figures_of(run)["counts"]["pixels"] == pixels
    finally:
        evaluate(run, overrides=undo)
        evaluate(other, overrides=undo)


def test_sixteen_bits_in_the_range_of_what_is_seen(tiny, tmp_path):
    data = with_fixtures(tiny.write_data(tmp_path / "data", deep=True))
    keys = {"data__range_16bit": "percentiles", "data__channels": 1}
    run = tiny.fit(data, tmp_path / "run", data__region=REGION, **keys)
    other = tiny.fit(cut_files(data, tmp_path / "before"), tmp_path / "other", **keys)
    ranges = [json.loads((r / "data.json").read_text())["range_16bit"] for r in (run, other)]
    assert ranges[0] == ranges[1] != [0.0, 65535.0]
    evaluate(run)
    evaluate(other)
    assert rows_of(run) == rows_of(other)


def test_a_streamed_run_sees_the_same(tiny, runs, tmp_path):
    run = tiny.fit(runs[1], tmp_path / "run", data__region=REGION, data__stream=True)
    evaluate(run)
    assert rows_of(run) == rows_of(runs[0])


def test_a_defect_outside_is_not_judged_and_its_image_stays_anomalous(tiny, data, tmp_path):
    run = tiny.fit(data, tmp_path / "run", data__region="0.5,0,1,1")
    result = evaluate(run)
    assert result["counts"]["anomalous"] == result["counts"]["images_with_empty_mask"] == 4
    assert result["image_auroc"] is not None and result["pixel_auroc"] is None
    assert result["undefined"]["pixel_auroc"]
    page = (run / "report.html").read_text()
    assert "50 to 100 % of the height, 0 to 100 % of the width (data.region)" in page
    assert "Of the anomalous test images 4 have a mask that marks nothing in that part" in page
    # Where the protocol asks the mask what an image is, nothing is left to find.
    official = evaluate(run, overrides={"evaluate.protocol": "mvtec_official"})
    assert official["protocol_figures"]["image_auroc"] is None
    assert official["undefined"]["protocol_figures.image_auroc"]


def test_the_region_belongs_to_the_training(runs):
    with pytest.raises(UserError, match=r"data.region cannot change after training"):
        evaluate(runs[0], overrides={"data.region": "0,0,1,1"})
    config = jaxad.load_config("pca", {"data.root": str(runs[1]), "data.region": "0.9,0,0.1,1"})
    with pytest.raises(UserError, match=r"0 <= top < bottom <= 1"):
        jaxad.train(config, runs[0].parent / "none")
    assert not (runs[0].parent / "none" / "config.json").exists()


def test_without_a_region_no_file_speaks_of_one(own_trained, tmp_path):
    run, data = own_trained
    head = predict_files(run, [data / "test" / "box"], tmp_path / "out", overlays=False)
    assert "region" not in head and "box" not in head["images"][0]
    assert "region" not in export(run, tmp_path / "program")


# Prediction


def test_predictions_lie_where_they_belong(runs):
    run, data, other, before = runs
    found = load_detector(run).predict(data / "test")
    expected = load_detector(other).predict(before / "test")
    arrays = load_detector(run).predict([np.asarray(Image.open(p.path)) for p in found])
    for one, cut, array in zip(found, expected, arrays, strict=True):
        assert one.score == cut.score == array.score and one.decision == cut.decision
        assert (one.size, cut.size) == ((48, 64), BOX.size) and one.box == array.box == BOX
        assert one.map.shape == one.mask.shape == (48, 64) and one.map.dtype == np.float32
        np.testing.assert_array_equal(one.map[BOX.slices], cut.map)
        np.testing.assert_array_equal(one.mask[BOX.slices], cut.mask)
        around = np.ones((48, 64), bool)
        around[BOX.slices] = False
        assert (one.map[around] == cut.map.min()).all() and not one.mask[around].any()
        x, y, value = cut.maximum
        assert one.maximum == (x + BOX.left, y + BOX.top, value)
        moved = [r._replace(x=r.x + BOX.left, y=r.y + BOX.top) for r in cut.regions]
        assert list(one.regions) == moved
    assert any(one.regions for one in found)


def test_nothing_is_found_outside_however_low_the_threshold(runs):
    predictor = load_detector(runs[0])
    thresholds = {"pixel_threshold": -1.0, "image_threshold": -1.0}
    predictor.calibration = {**predictor.calibration, **thresholds}
    (one,) = predictor.predict(runs[1] / "test" / "good" / "000.png")
    assert one.mask.sum() == BOX.size[0] * BOX.size[1]
    assert [r[:5] for r in one.regions] == [(4, 6, 52, 37, 52 * 37)]


def test_a_flat_map_has_its_maximum_inside(runs):
    (one,) = load_detector(runs[0]).predict(runs[1] / "test" / "good" / "000.png")
    flat = type(one)(path=None, size=one.size, box=one.box, score=0.0,
                     model_map=np.ones_like(one.model_map))  # fmt: skip
    assert flat.maximum == (BOX.left, BOX.top, 1.0) and flat.mask is None


def test_files_have_the_size_of_the_original(runs, tmp_path):
    run, data, other, before = runs
    options = ["--tiff"]
    for one, folder, out in ((run, data, "a"), (other, before, "b")):
        command = ["predict", f"--workdir={one}", f"--output={tmp_path / out}", "--input"]
        assert cli.main([*command, str(folder / "test"), *options]) == 0
    head = json.loads((tmp_path / "a" / "predictions.json").read_text())
    assert head["region"] == list(REGION)
    first = next(row for row in head["images"] if "box" in row["path"].rpartition("test")[2])
    assert first["box"] == {"x": 4, "y": 6, "width": 52, "height": 37}
    assert (first["height"], first["width"]) == (48, 64) and first["regions"]
    for name in (os.path.join("overlays", "box", "000.png"), first["files"]["overlay"]):
        assert Image.open(tmp_path / "a" / name).size == (64, 48)
    maps = [next((tmp_path / out).rglob("box/000.tiff")) for out in "ab"]
    whole, inside = (np.asarray(Image.open(path)) for path in maps)
    np.testing.assert_array_equal(whole[BOX.slices], inside)
    assert whole[0, 0] == inside.min() and whole.shape == (48, 64)
    pictures = [np.asarray(Image.open(tmp_path / out / "overlays/box/000.png")) for out in "ab"]
    np.testing.assert_array_equal(pictures[0][BOX.slices], pictures[1])
    record = export(run, tmp_path / "program")
    assert record["region"] == list(REGION)


def test_a_picture_frames_the_region_and_darkens_the_rest():
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (20, 30, 1), np.uint8)
    heat = rng.random((20, 30)).astype(np.float32)
    mask = np.zeros((20, 30), bool)
    mask[5:9, 6:10] = True
    box = Box(5, 0, 18, 25)
    picture = draw(photograph, heat, mask, Scale(0.2, 0.8), box)
    inside = overlay(photograph[box.slices], heat[box.slices], low=0.2, high=0.8)
    inside = outline(inside, mask[box.slices], colour=PREDICTED_COLOUR)
    np.testing.assert_array_equal(picture[box.slices], inside)
    frame = np.zeros((20, 30), bool)
    frame[4:19, 0:26] = True
    frame[box.slices] = False
    assert (picture[frame] == picture[4, 0]).all() and picture[4, 0].min() > 150
    frame[box.slices] = True
    gray = np.repeat(photograph, 3, axis=2)
    np.testing.assert_allclose(picture[~frame], gray[~frame] * 0.35, atol=1)  # of rounding down


# Tables of papers


def test_the_baseline_of_a_table_sees_the_region_too():
    planned = plan(["vt_adl_3"], variant="small", overrides={"data.root": "/images"})
    assert (planned.configs[0], planned.configs[-1]) == ("vt_adl:paper,small,mvtec,no_noise", "pca")
    region = jaxad.load_config("vt_adl:mvtec").data.region
    assert len(planned.configs) == 5  # with cae twice and vae, which the paper compares with
    for other in planned.configs[1:]:
        assert planned.own_overrides[other]["data.region"] == region
    for other in ("vt_adl_4_pro", "vt_adl_2"):
        own = plan([other], overrides={"data.root": "/images"}).own_overrides["pca"]
        assert "data.region" not in own


def test_defects_outside_the_region_are_told(tiny, data, tmp_path):
    run = tiny.fit(data, tmp_path / "run", **{"data.region": (0.8, 0.8, 1.0, 1.0)})
    result = evaluate(run)
    told = "lies outside data.region, so no defect is judged"
    assert any(note.endswith(told) for note in result["notes"])
    assert result["undefined"]["aupro"] == "no mask marks a defect inside data.region"
