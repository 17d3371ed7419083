"""Predictions from Python: images of any kind in, scores, maps and decisions out."""

import dataclasses
import json
import os
import shutil
import sys

import numpy as np
import pandas
import pytest
from PIL import Image

import jaxad
from jaxad.data.images import resize
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.predict_files import predict_files
from jaxad.evaluation.prediction import Predictions
from jaxad.run.errors import UserError
from jaxad.run.files import read_csv


def test_predictions_are_those_of_the_evaluation(calibrated, predictor, data):
    rows = read_csv(calibrated / "scores.csv")
    predictions = predictor.predict(data / "test")
    assert [os.path.relpath(p.path, data) for p in predictions] == [row["path"] for row in rows]
    for row, prediction in zip(rows, predictions, strict=True):
        assert f"{prediction.score:.9g}" == row["score"]
        assert prediction.decision == bool(int(row["decision"]))
        assert prediction.size == prediction.map.shape == (48, 64)
        assert prediction.map.dtype == np.float32
        assert prediction.error is None


def test_a_defect_is_found_where_it_is(predictor, data):
    (prediction,) = predictor.predict(data / "test" / "box" / "000.png")
    assert prediction.decision is True
    best = prediction.regions[0]
    assert 20 <= prediction.maximum.x < 32 and 12 <= prediction.maximum.y < 20
    assert best.x <= prediction.maximum.x < best.x + best.width
    assert best.y <= prediction.maximum.y < best.y + best.height
    assert best.peak == prediction.maximum.value == prediction.map.max()
    np.testing.assert_array_equal(prediction.mask, prediction.map > predictor.pixel_threshold)
    assert sum(region.area for region in prediction.regions) == prediction.mask.sum()


def test_accepted_images_have_no_outline_and_rejected_ones_have(predictor, data):
    """However the two thresholds lie."""
    images = [*(data / "test").rglob("*.png")]
    scores = sorted(p.score for p in predictor.predict(images))
    before = predictor.calibration
    try:
        for image, pixel in [(scores[3], -1.0), (scores[3], 1e9), (None, None)]:
            if image is not None:
                predictor.calibration = before | {
                    "image_threshold": image,
                    "pixel_threshold": pixel,
                }
            found = predictor.predict(images)
            assert {p.decision for p in found} == {True, False}
            assert all(bool(p.regions) == p.mask.any() == p.decision for p in found)
    finally:
        predictor.calibration = before


def test_arrays_give_what_their_files_give(predictor, data):
    paths = sorted((data / "test" / "box").glob("*.png"))
    arrays = [np.asarray(Image.open(path)) for path in paths]
    from_files = predictor.predict(paths)
    for given in (arrays, tuple(arrays), np.stack(arrays), iter(arrays)):
        found = predictor.predict(given)
        assert [p.path for p in found] == [None] * 4
        for a, b in zip(found, from_files, strict=True):
            assert a.score == b.score and a.size == b.size
            np.testing.assert_array_equal(a.map, b.map)
    mixed = predictor.predict([arrays[1], paths[0], data / "test" / "good"])
    assert [p.path for p in mixed[:2]] == [None, str(paths[0])] and len(mixed) == 6
    assert mixed[0].score == from_files[1].score


def test_gray_is_repeated_for_a_colour_run(predictor, tiny):
    gray = tiny.stripes(5, channels=1)
    (a, b, c) = predictor.predict([gray, gray[..., None], np.repeat(gray[..., None], 3, axis=2)])
    assert a.score == b.score == c.score


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int32)], "image 1 .* int32"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        ([[1, 2, 3]], "image 0 is a list"),
        (["no/such/file.png"], "does not exist"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_other_inputs_are_refused_in_one_sentence(predictor, images, message):
    with pytest.raises(UserError, match=message):
        predictor.predict(images)
    with pytest.raises(UserError, match=message):
        predictor.iterate(images)  # before anything is read


def test_one_image_in_any_form_gives_what_its_file_gives(predictor, data):
    path = data / "test" / "box" / "000.png"
    (want,) = predictor.predict(path)
    array = np.asarray(Image.open(path))
    forms = [array, array / 255.0, Image.open(path), path.read_bytes(), path.open("rb")]
    for (found,) in map(predictor.predict, forms):
        assert found.score == want.score and found.path is None
        np.testing.assert_array_equal(found.map, want.map)
        np.testing.assert_array_equal(found.reconstruction, want.reconstruction)
        assert np.asarray(found.overlay()).tobytes() == np.asarray(want.overlay()).tobytes()


def test_the_reconstruction_is_that_of_the_model(predictor, data):
    (prediction,) = predictor.predict(data / "test" / "good" / "000.png")
    height, width = predictor.detector.config.data.image_size
    assert prediction.reconstruction.shape == (height, width, 3)
    seen = resize(prediction.photograph(channels=3), (height, width))
    want = predictor.detector(seen[None]).reconstruction[0]
    np.testing.assert_array_equal(prediction.reconstruction, want)


def test_the_overlay_is_the_picture_of_the_command(calibrated, predictor, data, tmp_path):
    path = data / "test" / "box" / "000.png"
    predict_files(calibrated, [path], tmp_path)
    (picture,) = tmp_path.rglob("overlays/**/*.png")
    (prediction,) = predictor.predict(path)
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), np.asarray(prediction.overlay()))
    wide = np.asarray(prediction.overlay(low=0.0, high=1e9))
    assert not np.array_equal(wide, np.asarray(prediction.overlay()))


def test_an_overlay_says_why_there_is_none(predictor, data, tmp_path):
    path = shutil.copy(data / "test" / "box" / "000.png", tmp_path)
    (prediction,) = predictor.predict(path)
    with pytest.raises(UserError, match="no heat-map scale"):
        dataclasses.replace(prediction, scale=None).overlay()
    with pytest.raises(UserError, match="no photograph"):
        dataclasses.replace(prediction, photograph=None).overlay()
    Image.new("RGB", (5, 5)).save(path)
    with pytest.raises(UserError, match="has changed"):
        prediction.overlay()


def test_predictions_are_a_table_for_notebooks_and_pandas(predictor, data, tmp_path, monkeypatch):
    bad = tmp_path / "<script>.png"
    bad.write_bytes(b"no image")
    found = predictor.predict([data / "test" / "box" / "000.png", bad, np.zeros((8, 8), np.uint8)])
    first, second, third = found.table()
    assert first["path"] == found[0].path and first["score"] == found[0].score
    assert (first["verdict"], first["decision"]) == ("rejected", True)
    assert first["threshold"] == predictor.image_threshold
    assert first["regions"] == len(found[0].components) == len(found[0].regions) > 0
    assert second["score"] is second["regions"] is None and str(bad) in second["error"]
    assert third["path"] is None and third["notes"]  # it is black
    page = found._repr_html_()
    assert page.count("<tr>") == 4 and page.count("<img") == 2
    assert "image 2" in page and "<script>" not in page and "&lt;script&gt;" in page
    assert found[0].path.rpartition("/")[2] in found[0]._repr_html_()
    many = Predictions([*found] * 8)
    assert many._repr_html_().count("<tr>") == 21 and "and 4 more" in many._repr_html_()
    assert Predictions()._repr_html_().count("<tr>") == 1

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        found.to_pandas()


def test_the_data_frame_is_the_table(predictor, data):
    found = predictor.predict(data / "test")
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and [*frame.columns] == [*found.table()[0]]
    for name in ("path", "score", "decision", "verdict", "regions"):
        assert [*frame[name]] == [row[name] for row in found.table()]


def test_progress_of_a_prediction_is_told(predictor, data):
    updates = []
    found = predictor.predict(data / "test", on_progress=updates.append)
    assert [one.done for one in updates] == [*range(1, len(found) + 1)]
    assert {(one.label, one.total) for one in updates} == {("image", len(found))}

    class Enough(Exception):
        pass

    def stop(update):
        if update.done == 2:
            raise Enough

    with pytest.raises(Enough):
        predictor.predict(data / "test", on_progress=stop)
    assert len(predictor.predict(data / "test")) == len(found)  # nobody listens any more


def test_a_file_that_cannot_be_read_does_not_hold_up_the_others(predictor, data, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    good = data / "test" / "good" / "000.png"
    first, broken, last = predictor.predict([good, bad, good])
    assert first.score == last.score and first.error is None
    assert str(bad) in broken.error
    assert broken.score is broken.decision is broken.size is None
    with pytest.raises(UserError, match=r"bad\.png"):
        _ = broken.map
    assert [p.error is None for p in predictor.predict([bad, bad])] == [False, False]


def test_iterating_reads_at_most_two_batches_ahead(predictor, tiny):
    taken = 0

    def camera():
        nonlocal taken
        while True:
            taken += 1
            yield tiny.stripes(taken, size=(20, 20))

    predictions = predictor.iterate(camera())
    for given in range(1, 14):
        next(predictions)
        assert taken <= given + 2 * predictor.batch_size
    predictions.close()
    assert list(predictor.iterate([])) == []


def test_images_are_padded_to_few_sizes_and_scores_do_not_depend_on_them(
    calibrated, tiny, monkeypatch
):
    predictor = load_detector(calibrated, overrides={"evaluate.batch_size": 6})
    detector, sizes = predictor.detector, []

    def noting(variables, images_and_regions):
        sizes.append(len(images_and_regions[0]))
        return compiled(variables, images_and_regions)

    compiled = detector._detect
    monkeypatch.setattr(detector, "_detect", noting)
    images = [tiny.stripes(i) for i in range(13)]
    scores = {}
    for count, expected in ((1, [1]), (3, [4]), (5, [6]), (13, [6, 6, 6])):
        sizes.clear()
        scores[count] = [p.score for p in predictor.predict(images[:count])]
        assert sizes == expected
    for some in scores.values():  # sums in other orders: some float32 steps of 6e-8
        np.testing.assert_allclose(some, scores[13][: len(some)], rtol=2e-6)
    monkeypatch.setattr(detector, "_devices", [None] * 3)
    assert [detector.size_for(count) for count in (1, 3, 4, 5)] == [3, 6, 6, 6]


def test_lists_of_predictions_hold_maps_of_the_models_size_until_asked(predictor, tiny):
    (prediction,) = predictor.predict([tiny.stripes(1, size=(400, 300))])
    assert prediction.model_map.shape == (32, 32) and "map" not in vars(prediction)
    assert prediction.map is prediction.map


def test_overrides_and_checkpoints(calibrated, predictor, data):
    other = jaxad.load_detector(
        calibrated, "best", overrides={"evaluate.batch_size": 1, "evaluate.primary_score": "nll"}
    )
    assert other.batch_size == 1 and other.image_threshold is not None
    assert other.detector.primary_score == "nll"
    nll = other.predict(data / "test" / "box")[0].score
    assert nll != predictor.predict(data / "test" / "box")[0].score
    # The calibration of the last evaluation is not replaced by one for this call only.
    saved = json.loads((calibrated / "calibration.json").read_text())
    assert saved["primary_score"] == "l1*ssim:top1"


def test_a_run_that_was_never_evaluated_is_calibrated(run, predictor):
    assert load_detector(run).image_threshold == predictor.image_threshold
    saved = json.loads((run / "calibration.json").read_text())
    assert saved["image_threshold"] == predictor.image_threshold


def test_without_held_out_images_nothing_is_looked_for(tiny, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "data")
    keys = {"data__holdout": 0.0, "data__calibration": "held_out"}
    run = tiny.fit(moved, tmp_path / "run", **keys)
    shutil.rmtree(moved)
    assert "data.holdout=0" in load_detector(run).reason


def test_a_read_only_run_folder_predicts_all_the_same(run, data, predictor, monkeypatch):
    def refuse(path, *values):
        raise UserError(f"{path} could not be written: read-only file system")

    monkeypatch.setattr("jaxad.evaluation.calibration.write_csv", refuse)
    assert load_detector(run).image_threshold == predictor.image_threshold
