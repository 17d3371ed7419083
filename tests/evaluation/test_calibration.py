import json
import os
import shutil

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy import stats

from jaxad.cli import main as cli
from jaxad.data.images import image_dimensions
from jaxad.evaluation.calibration import (
    calibrate,
    calibration_of,
    save_calibration,
    saved_calibration,
    uncalibrated,
    with_threshold_by_hand,
)
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.inputs import run_table
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.predict_files import predict_files
from jaxad.evaluation.thresholds import (
    conformal_threshold,
    labelled_threshold,
    margin_of,
    odd_limit,
    parse_by_hand,
    pixel_threshold,
    predicted_pixels,
    region_threshold,
    with_peak,
)
from jaxad.models import ARCHITECTURES
from jaxad.run.config import load_settings, with_absolute_root, with_keys
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.run.lists import listed_paths
from jaxad.training.inputs import prepare_inputs

VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    # Few distinct values: ties are the hard case.
    elements=st.one_of(st.integers(0, 4).map(float), st.floats(-100, 100, width=32)),
)


@settings(max_examples=200, deadline=None)
@given(values=VALUES, rate=st.floats(0, 0.999))
def test_at_most_the_rate_of_pixels_lies_above_and_no_lower_value_would_do(values, rate):
    threshold = pixel_threshold(values, rate)
    allowed = int(np.floor(rate * len(values) + 1e-9))
    assert threshold in values
    assert np.sum(values > threshold) <= allowed
    lower = values[values < threshold]
    if lower.size:
        assert np.sum(values > lower.max()) > allowed


@settings(max_examples=200, deadline=None)
@given(values=VALUES, rate=st.floats(0, 0.999))
def test_an_image_threshold_promises_its_rate_and_keeps_off_every_score(values, rate):
    found = conformal_threshold(values, rate)
    n, margin = len(values), margin_of(values)
    assert found.rejected == np.sum(values > found.value)
    assert found.promised == (found.rejected + 1) / (n + 1)
    # The largest rate below the one asked for, or the smallest there is.
    assert found.promised <= max(rate, 1 / (n + 1)) + 1e-12
    assert np.abs(values.astype(np.float64) - found.value).min() >= margin * (1 - 1e-9)
    assert found.interval[0] <= found.promised <= found.interval[1]
    law = stats.beta(found.rejected + 1, n - found.rejected)
    assert found.interval == pytest.approx(law.interval(0.95), rel=1e-6, abs=1e-12)


def test_what_is_promised_is_kept_on_average_and_in_the_interval():
    """Against drawn scores: a threshold from 40 of them, and the share of the law over it."""
    rng = np.random.default_rng(0)
    shares, within = [], 0
    for _ in range(2000):
        found = conformal_threshold(rng.normal(10.0, 1.0, 40), 0.05)
        share = stats.norm.sf(found.value, 10.0, 1.0)
        shares.append(share)
        within += found.interval[0] <= share <= found.interval[1]
    assert found.rejected == 1 and found.promised == 2 / 41
    # The mean of 2000 draws of Beta(2, 39), whose deviation is 0.033; the margin takes a little.
    assert np.mean(shares) == pytest.approx(2 / 41, abs=4 * 0.033 / np.sqrt(2000))
    assert within / 2000 == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("n", "rate", "rejected"),
    [(21, 0.05, 0), (39, 0.05, 1), (209, 0.05, 9), (99, 0.29, 28), (5, 0.05, 0), (1, 0.9, 0)],
)
def test_how_many_good_images_may_be_rejected(n, rate, rejected):
    """(k + 1) / (n + 1) <= rate; 0.29 * 100 is 28.999999999999996 in double precision."""
    assert conformal_threshold(np.arange(1.0, n + 1), rate).rejected == rejected


def test_scores_that_nearly_tie_are_passed_over():
    scores = np.array([1.0, 2.0, 3.0, 3.0000001, 9.0])
    found = conformal_threshold(scores, 3 / 6)  # would reject the two largest, but for the tie
    assert found.rejected == 1 and 3.0000001 < found.value < 3.01


def test_odd_images_lie_beyond_the_fence():
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert odd_limit(scores) == 7.0  # quartiles 2 and 4


def test_outlines_never_contradict_the_decision():
    heat = np.arange(400.0).reshape(20, 20)
    for decision, threshold, count in [
        (False, 10.0, 0),
        (True, 397.0, 2),
        (True, 1000.0, 4),  # the highest hundredth
        (None, 397.0, 2),
    ]:
        assert predicted_pixels(heat, decision, threshold).sum() == count
    assert predicted_pixels(heat, True, None) is None


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("0.2", "score", 0.2),
        ("-1e3", "score", -1e3),
        ("fpr:0", "fpr", 0),
        ("recall:1", "recall", 1),
    ],
)
def test_thresholds_by_hand_are_read(text, kind, value):
    assert parse_by_hand(text) == (kind, value)


@pytest.mark.parametrize("text", ["high", "nan", "fpr:1", "recall:0", "tpr:0.5", "fpr:"])
def test_other_words_are_refused(text):
    with pytest.raises(UserError, match=r"evaluate\.image_threshold.*recall:0\.95"):
        parse_by_hand(text)


@settings(max_examples=100, deadline=None)
@given(values=VALUES, rate=st.floats(0.01, 0.99))
def test_rates_on_labelled_images_are_kept(values, rate):
    bad = np.ones(len(values), bool)
    recall = labelled_threshold(parse_by_hand(f"recall:{rate}"), values, bad)
    assert np.mean(values > recall) >= rate - 1e-9
    alarms = labelled_threshold(parse_by_hand(f"fpr:{rate}"), values, ~bad)
    assert np.mean(values > alarms) <= rate + 1e-9


def test_calibration_rejects_only_what_the_rates_allow(run, data):
    folder = RunFolder(run)
    detector = Detector.load(run, overrides={"evaluate.image_false_positive_rate": 0.4})
    table = run_table(detector.config, None)
    result = calibrate(folder, detector, table, folder.read_json(folder.data))
    findings = detector(prepare_inputs(detector.config).holdout)
    scores = findings.scores[detector.primary_score]
    pixels = findings.maps[detector.primary_map]
    assert result["held_out"] == len(scores) == 5
    assert result["method"] == "held_out"
    assert result["smallest_false_positive_rate"] == 1 / 6
    # 2 / 6 of new good images are promised to exceed it, 3 / 6 would be more than 0.4.
    assert np.sum(scores > result["image_threshold"]) == result["held_out_rejected"] == 1
    assert result["promised_false_positive_rate"] == 2 / 6
    assert np.sum(pixels > result["pixel_threshold"]) <= 0.005 * pixels.size
    assert result["heat_map_low"] == np.median(pixels)
    middle = (result["heat_map_low"] + result["heat_map_high"]) / 2
    np.testing.assert_allclose(middle, result["pixel_threshold"], rtol=1e-12)


def test_saved_calibration_is_used_only_for_the_same_settings(run):
    folder = RunFolder(run)
    detector = Detector.load(run)
    table = run_table(detector.config, None)
    assert saved_calibration(folder, detector) is None
    first = calibration_of(folder, detector, table)
    folder.calibration.write_text(json.dumps(first | {"image_threshold": 123.0}))
    assert calibration_of(folder, detector, table)["image_threshold"] == 123.0
    for key, value in {
        "evaluate.smoothing": 1.0,
        "evaluate.primary_score": "ssim:max",
        "evaluate.primary_map": "ssim",
        "evaluate.image_false_positive_rate": 0.5,
        "evaluate.pixel_false_positive_rate": 0.1,
    }.items():
        assert saved_calibration(folder, Detector.load(run, overrides={key: value})) is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_calibrations_of_all_models_are_found_again_in_their_file(name, run):
    # Some have an option that is a tuple, which JSON gives back as a list.
    detector = Detector.load(run)
    detector.config = load_settings(name)
    folder = RunFolder(run)
    save_calibration(folder, uncalibrated(detector, held_out=0, reason="none"))
    assert saved_calibration(folder, detector) is not None
    detector.step += 1
    assert saved_calibration(folder, detector) is None


def test_missing_held_out_image_is_named(run, data):
    folder = RunFolder(run)
    record = folder.read_json(folder.data)
    record["holdout"][1] = "train/good/gone.png"
    detector = Detector.load(run)
    with pytest.raises(UserError, match=r"train/good/gone\.png is no longer in"):
        calibrate(folder, detector, run_table(detector.config, None), record)


def test_nothing_held_out_gives_a_reason_instead_of_a_threshold(run):
    folder = RunFolder(run)
    detector = Detector.load(run)
    result = calibrate(folder, detector, None, folder.read_json(folder.data) | {"holdout": []})
    assert result["image_threshold"] is result["pixel_threshold"] is result["heat_map_low"] is None
    assert "data.holdout=0" in result["reason"]
    record = folder.read_json(folder.data)
    used = calibrate(folder, detector, run_table(detector.config, None), record)
    assert list(used) == list(result)


def test_the_verdict_is_the_same_alone_and_in_batches(run, data):
    """On the very images that the threshold comes from, the hardest there are."""
    held_out = [data / name for name in json.loads((run / "data.json").read_text())["holdout"]]
    decisions = {}
    for size in (1, 3, 16):
        keys = {"evaluate.batch_size": size, "evaluate.image_false_positive_rate": 0.4}
        decisions[size] = [p.decision for p in load_detector(run, overrides=keys).predict(held_out)]
    assert decisions[1] == decisions[3] == decisions[16]
    assert sum(decisions[1]) == 1


@pytest.fixture(scope="module")
def cross_fitted(tiny, trained, tmp_path_factory):
    """A run whose thresholds come from all 20 good images, and its data."""
    run = tiny.fit(trained[1], tmp_path_factory.mktemp("crossed") / "run", data__holdout=0.0)
    evaluate(run)
    return run, trained[1]


def test_cross_fitted_scores_are_those_of_models_that_did_not_see_the_image(
    cross_fitted, tiny, tmp_path
):
    run, data = cross_fitted
    record = json.loads((run / "data.json").read_text())
    calibration = json.loads((run / "calibration.json").read_text())
    assert len(record["training"]) == 20 and not record["holdout"]
    assert np.bincount(record["folds"]).tolist() == [4] * 5
    assert (calibration["method"], calibration["held_out"]) == ("cross_fitted", 20)
    assert calibration["promised_false_positive_rate"] == 1 / 21
    detector, table = Detector.load(run), run_table(Detector.load(run).config, None)
    images = prepare_inputs(detector.config, closed_form=True).train
    folds, scores = np.array(record["folds"]), np.empty(20, np.float32)
    for number in range(5):
        model = detector.of_fold(RunFolder(run), number)
        scores[folds == number] = model(images[folds == number]).scores[detector.primary_score]
    threshold = conformal_threshold(scores, 0.05)
    assert calibration["image_threshold"] == pytest.approx(threshold.value, rel=1e-6)
    # The same by another way: for one fold, a run on a folder that lacks its images.
    others = shutil.copytree(data, tmp_path / "others")
    for name in np.array(record["training"])[folds == 2]:
        (others / name).unlink()
    keys = {"data__holdout": 0.0, "data__calibration": "held_out"}
    unaware = Detector.load(tiny.fit(others, tmp_path / "unaware", **keys))
    want = unaware(images[folds == 2]).scores[detector.primary_score]
    np.testing.assert_allclose(scores[folds == 2], want, rtol=1e-5)
    # And what the images looked like.
    sizes = {image_dimensions(sample.path) for sample in table.train_good()}
    assert sizes == {(48, 64)}
    assert calibration["trained_on"]["height"] == [48, 48]
    brightness = images.mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(
        calibration["trained_on"]["brightness"], [brightness.min(), brightness.max()]
    )


def test_a_cross_fitted_run_that_was_interrupted_goes_on(cross_fitted, tiny, tmp_path):
    run = shutil.copytree(cross_fitted[0], tmp_path / "run")
    (run / "calibration.json").unlink()
    shutil.rmtree(run / "folds" / "4")
    with pytest.raises(UserError, match="run `jaxad train` with this workdir"):
        evaluate(run)
    tiny.fit(cross_fitted[1], run, data__holdout=0.0)
    evaluate(run)
    whole = (cross_fitted[0] / "calibration.json").read_bytes()
    assert (run / "calibration.json").read_bytes() == whole


def test_streamed_images_cross_fit_to_the_same_thresholds(cross_fitted, tiny, tmp_path):
    streamed = tiny.fit(cross_fitted[1], tmp_path / "run", data__holdout=0.0, data__stream=True)
    evaluate(streamed)
    whole = (cross_fitted[0] / "calibration.json").read_bytes()
    assert (streamed / "calibration.json").read_bytes() == whole


def test_odd_training_images_are_listed_and_can_be_left_out(cross_fitted, tiny, tmp_path):
    data = shutil.copytree(cross_fitted[1], tmp_path / "data")
    odd = data / "train" / "good" / "007.png"
    shutil.copy(data / "test" / "box" / "000.png", odd)
    run = tiny.fit(data, tmp_path / "run", data__holdout=0.0)
    evaluate(run)
    lines = (run / "odd_images.csv").read_text().splitlines()
    assert lines[0] == "path,score,limit,excluded" and lines[1].startswith("train/good/007.png,")
    listed = [line.partition(",")[0] for line in lines[1:]]
    (run / "odd_images.csv").write_text("damaged")
    evaluate(run)
    assert (run / "odd_images.csv").read_text().splitlines() == lines
    assert 'alt="training image train/good/007.png"' in (run / "report.html").read_text()
    # The page of a prediction names it too, and leads to the list and to the report of the run.
    predict_files(run, [str(odd)], tmp_path / "judged")
    page = (tmp_path / "judged" / "report.html").read_text()
    assert "Look at these training images" in page and "train/<wbr>good/<wbr>007.png" in page
    assert 'href="../run/odd_images.csv"' in page and 'href="../run/report.html"' in page
    config = with_keys(RunFolder(run).read_config(), {"data.root": str(data)})
    relative = os.path.relpath(data / listed[0])
    for exclude in (",".join(listed), str(run / "odd_images.csv"), relative):
        left_out = with_absolute_root(with_keys(config, {"data.exclude": exclude}))
        record = prepare_inputs(left_out, closed_form=True).record
        names = listed[:1] if exclude == relative else listed
        assert sorted([*record["training"], *names]) == sorted(
            f"train/good/{i:03}.png" for i in range(20)
        )
    # What the next run calls odd, and what it was trained without: its table leaves out both.
    after = tiny.fit(data, tmp_path / "after", data__holdout=0.0, data__exclude=",".join(listed))
    load_detector(after)  # a prediction alone calibrates too
    assert listed_paths(str(after / "odd_images.csv"), key="data.exclude")[-len(listed) :] == listed
    wrong = with_keys(config, {"data.exclude": "07.png"})
    with pytest.raises(UserError, match=r"data\.exclude names 07\.png, which is no good training"):
        prepare_inputs(wrong)


def test_a_threshold_by_hand_is_marked_and_undone_by_the_same_key(run, data, capsys):
    calibrated = evaluate(run)["image_threshold"]
    key = "evaluate.image_threshold"
    result = evaluate(run, overrides={key: "0.5"})
    assert (result["image_threshold"], result["threshold_set_by_hand"]) == (0.5, "0.5")
    assert "by hand" in (run / "report.html").read_text()
    assert load_detector(run).image_threshold == 0.5
    assert load_detector(run, overrides={key: ""}).image_threshold == calibrated
    with pytest.raises(UserError, match="is set on labelled images; run `jaxad evaluate`"):
        load_detector(run, overrides={key: "recall:0.75"})
    assert cli.main(["evaluate", f"--workdir={run}", "--threshold=recall:0.75"]) == 0
    printed = capsys.readouterr().out
    assert "score l1*ssim:top1 (of the config, not chosen on the test images), thr" in printed
    assert "kept for later calls of evaluate and predict: evaluate.image_threshold=rec" in printed
    assert "(set by hand: recall:0.75)\nrejected: 3 of 4 defective, 0 of 4 good" in printed
    result = json.loads((run / "metrics.json").read_text())
    assert result["decisions"] == {
        "defective": 4,
        "defective_rejected": 3,
        "good": 4,
        "good_rejected": 0,
    }
    decisions = [p.decision for p in load_detector(run).predict(data / "test" / "box")]
    assert sum(decisions) == 3
    assert load_detector(run).image_threshold == result["image_threshold"]
    result = evaluate(run, overrides={key: "auto"})
    assert (result["image_threshold"], result["threshold_set_by_hand"]) == (calibrated, "")


def test_a_calibration_from_before_cross_fitting_is_read_as_it_was(run, edited):
    evaluate(run)
    saved = json.loads((run / "calibration.json").read_text())
    old = (
        *("checkpoint", "model", "primary_map", "primary_score", "smoothing", "held_out"),
        *("false_positive_rate", "pixel_false_positive_rate", "smallest_false_positive_rate"),
        *("image_threshold", "pixel_threshold", "heat_map_low", "heat_map_high", "reason"),
    )
    before = {key: saved[key] for key in old} | {"image_threshold": 0.123}
    (run / "calibration.json").write_text(json.dumps(before))
    with edited(run / "data.json") as record:
        del record["folds"]
    assert load_detector(run).image_threshold == 0.123
    assert evaluate(run)["image_threshold"] == 0.123
    by_hand = with_threshold_by_hand(before, "2")
    assert with_threshold_by_hand(by_hand, "")["image_threshold"] == 0.123


def test_regions_of_large_maps_need_a_peak():
    heat = np.zeros((8, 9), np.float32)
    heat[1:3, 1:3] = 2.0  # a speck of a good image
    heat[5:8, 4:7] = 2.0  # a defect: as high around, higher in its middle
    heat[6, 5] = 5.0
    defect = np.zeros_like(heat, bool)
    defect[5:8, 4:7] = True
    np.testing.assert_array_equal(with_peak(heat > 1, heat, 3.0), defect)
    np.testing.assert_array_equal(predicted_pixels(heat, True, 1.0, 3.0), defect)
    np.testing.assert_array_equal(predicted_pixels(heat, None, 1.0, 3.0), defect)
    assert not predicted_pixels(heat, False, 1.0, 3.0).any()
    # Rejected without such a region: that of the highest pixel, never none.
    np.testing.assert_array_equal(predicted_pixels(heat, True, 1.0, 9.0), defect)
    assert not predicted_pixels(heat, None, 1.0, 9.0).any()
    assert predicted_pixels(heat, True, 9.0, 9.0).any()


def test_the_threshold_of_regions_is_the_conformal_one_of_peaks():
    peaks = np.random.default_rng(0).normal(5, 1, 60).astype(np.float32)
    assert region_threshold(peaks, 0.05) == conformal_threshold(peaks, 0.05).value
    assert (peaks > region_threshold(peaks, 0.05)).sum() == 2  # (2 + 1) / 61 is within 5 %
