import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from jaxad.evaluation.calibration import calibrate, calibration_of, saved_calibration, threshold_at
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import run_table
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import prepare_inputs

VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    # Few distinct values: ties are the hard case.
    elements=st.one_of(st.integers(0, 4).map(float), st.floats(-100, 100, width=32)),
)


@settings(max_examples=200, deadline=None)
@given(values=VALUES, rate=st.floats(0, 0.999))
def test_at_most_the_rate_lies_above_and_no_lower_value_would_do(values, rate):
    threshold = threshold_at(values, rate)
    allowed = int(np.floor(rate * len(values) + 1e-9))
    assert threshold in values
    assert np.sum(values > threshold) <= allowed
    lower = values[values < threshold]
    if lower.size:
        assert np.sum(values > lower.max()) > allowed


def test_rates_that_are_not_exact_in_binary_count_whole_images():
    # 0.29 * 100 is 28.999999999999996 in double precision.
    assert np.sum(np.arange(100) > threshold_at(np.arange(100.0), 0.29)) == 29
    assert threshold_at(np.arange(20.0), 0.05) == 18.0
    assert threshold_at(np.arange(19.0), 0.05) == 18.0  # below 1 / 20 none may be rejected
    assert threshold_at(np.array([3.0]), 0.9) == 3.0


def test_calibration_rejects_only_what_the_rates_allow(run, data):
    folder = RunFolder(run)
    detector = Detector.load(run, overrides={"evaluate.image_false_positive_rate": 0.4})
    table = run_table(detector.config, None)
    result = calibrate(detector, table, folder.read_json(folder.data))
    findings = detector(prepare_inputs(detector.config).holdout)
    scores = findings.scores[detector.primary_score]
    pixels = findings.maps[detector.primary_map]
    assert result["held_out"] == len(scores) == 5
    assert result["smallest_false_positive_rate"] == 0.2
    assert np.sum(scores > result["image_threshold"]) == 2  # floor(0.4 * 5)
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


def test_missing_held_out_image_is_named(run, data):
    folder = RunFolder(run)
    record = folder.read_json(folder.data)
    record["holdout"][1] = "train/good/gone.png"
    detector = Detector.load(run)
    with pytest.raises(UserError, match=r"train/good/gone\.png is no longer in"):
        calibrate(detector, run_table(detector.config, None), record)


def test_nothing_held_out_gives_a_reason_instead_of_a_threshold(run):
    folder = RunFolder(run)
    detector = Detector.load(run)
    result = calibrate(detector, None, folder.read_json(folder.data) | {"holdout": []})
    assert result["image_threshold"] is result["pixel_threshold"] is result["heat_map_low"] is None
    assert "data.holdout=0" in result["reason"]
    used = calibrate(detector, run_table(detector.config, None), folder.read_json(folder.data))
    assert list(used) == list(result)
