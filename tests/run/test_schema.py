"""Files of a run folder: what is damaged is a sentence, and no damage goes unnoticed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from jaxad.run.config import from_json, load_config, to_json
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder

CALIBRATION = {
    "checkpoint": 12,
    "model": {"ssim_window": 11, "terms": "l1,ssim"},
    "primary_map": "l1",
    "primary_score": "l1:max",
    "smoothing": 2.0,
    "false_positive_rate": 0.05,
    "pixel_false_positive_rate": 0.005,
    "held_out": 5,
    "smallest_false_positive_rate": 0.2,
    "image_threshold": 0.123456789,
    "pixel_threshold": 1e-300,
    "heat_map_low": 0.01,
    "heat_map_high": 0.02,
    "reason": None,
}
FILES = {
    "calibration": CALIBRATION,
    "timing": {"train_seconds": 1.5, "steps": 12, "history": "0a" * 32},
    "outcome": {"error": "", "time": 1.7e9},
    "data": {
        "name": "folder",
        "root": "/r",
        "category": "",
        "notes": ["größe"],
        "range_16bit": [0.0, 65535.0],
        "training": ["a.png", "b.png"],
        "holdout": ["c.png"],
    },
}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_comes_back(name, run):
    path = getattr(run, name)
    run.write_json(path, FILES[name])
    assert run.read_json(path) == FILES[name]
    # A run of before there were versions and digests.
    path.write_text(json.dumps(FILES[name]))
    assert run.read_json(path) == FILES[name]


def test_values_of_numpy_are_written_as_what_they_are_read_as(run):
    values = CALIBRATION | {"image_threshold": np.float32(0.1), "heat_map_low": math.nan}
    run.write_json(run.calibration, values)
    read = run.read_json(run.calibration)
    assert read["image_threshold"] == float(np.float32(0.1)) and read["heat_map_low"] is None


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_of_a_file_changes_what_is_read(name, run):
    path = getattr(run, name)
    run.write_json(path, FILES[name])
    whole = path.read_bytes()
    refused = 0
    for place in range(0, 8 * len(whole), 7):  # every bit of a byte in turn
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert run.read_json(path) == FILES[name]  # white space
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > len(whole) / 2


def test_no_flipped_bit_of_a_config_changes_what_is_read():
    config = load_config("pca:small")
    whole, wanted = to_json(config).encode(), from_json(to_json(config))
    for place in range(0, 8 * len(whole), 31):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        try:
            assert from_json(changed.decode("latin-1")) == wanted
        except UserError as error:
            assert str(error).startswith("config.json")


@pytest.mark.parametrize(
    "key, text",
    [
        ("image_threshold", "NaN"),
        ("image_threshold", "Infinity"),
        ("image_threshold", "1e999"),
        ("image_threshold", "true"),
        ("image_threshold", '"0.5"'),
        ("pixel_threshold", "[0.5]"),
        ("held_out", "-1"),
        ("held_out", "2.5"),
        ("false_positive_rate", "1.5"),
        ("model", '{"a": -Infinity}'),
        ("model", "null"),
        ("smoothing", "1" + "0" * 400),
        ("smoothing", "1" + "0" * 5000),
        ("reason", "[" * 100_000),
        # Deep enough for a reader of values, not for json's own.
        *(("model", '{"a": ' + "[" * n + "]" * n + "}") for n in (40, 400, 4_000)),
    ],
)
def test_a_value_that_would_decide_wrongly_is_refused(key, text, run):
    """As in a file without a digest, or of someone who removed it."""
    values = json.dumps(CALIBRATION | {key: "HERE"}).replace('"HERE"', text)
    run.calibration.write_text(values)
    with pytest.raises(UserError, match=r"calibration.json is damaged .*; remove it, and the next"):
        run.read_json(run.calibration)


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({**CALIBRATION, "image_treshold": 1.0}, r"it holds an unknown key 'image_treshold'"),
        ({"checkpoint": 1}, r"it lacks 'model'"),
        ([CALIBRATION], r"it holds no object"),
        ({**CALIBRATION, "schema": 2}, r"has schema 2, this jaxad reads 1; use the version"),
        ({**CALIBRATION, "schema": True}, r"has schema True"),
        ({**CALIBRATION, "content_sha256": "0"}, r"not what was written; if it was edited"),
    ],
)
def test_other_content_is_a_sentence(values, sentence, run):
    run.calibration.write_text(json.dumps(values))
    with pytest.raises(UserError, match=sentence):
        run.read_json(run.calibration)


def test_a_reversed_range_is_refused(run):
    run.data.write_text(json.dumps(FILES["data"] | {"range_16bit": [9.0, 9.0]}))
    with pytest.raises(UserError, match=r"'range_16bit' is \[9.0, 9.0\], not two finite numbers"):
        run.read_json(run.data)
