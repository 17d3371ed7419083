"""The exported file, in a process that has neither jaxad nor flax, gives the detector's bits."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from model_cases import one_of_each

from jaxad import models
from jaxad.cli import main as cli
from jaxad.evaluation import export as export_module
from jaxad.evaluation.export import export, make_program, serialise
from jaxad.evaluation.export_view import Decisions
from jaxad.evaluation.outlines import outlined_in_each
from jaxad.evaluation.postprocess import make_detect
from jaxad.evaluation.predict import load_detector
from jaxad.evaluation.thresholds import predicted_pixels
from jaxad.models.base import parameter_key
from jaxad.run.compilation import detection_options
from jaxad.run.errors import UserError

MODELS = one_of_each()
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "export.md"
BEFORE = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jaxad", "flax", "ml_collections", "orbax"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
"""
AFTER = """
np.savez("found.npz", **result)
np.savez("two.npz", **program.call(images[:2]))
assert not {"jaxad", "flax"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def exported(own_trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("export") / "bottle.jaxexport"
    return file, export(own_trained[0], file)


def test_alone_it_gives_what_the_detector_gives(own_trained, exported, tmp_path):
    """The example of the page, run where jaxad and flax cannot be imported."""
    file, record = exported
    predictor = load_detector(own_trained[0])
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    for part in ("", ".sha256"):
        shutil.copy(f"{file}{part}", tmp_path / f"bottle.jaxexport{part}")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + example + AFTER],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
    )
    assert done.stdout.count("reject") == 4, "noise is no stripes"
    with np.load(tmp_path / "found.npz") as archive:
        found = dict(archive)
    expected = predictor.detector(images)
    score = expected.scores[record["primary_score"]]
    values = expected.maps[record["primary_map"]]
    # Compiled as jaxad compiles it: the same code, the same bits.
    option = dict(re.findall(r'compiler_options=\{"(\w+)": "(\w+)"\}', PAGE.read_text()))
    assert option
    if detection_options():  # this XLA has it
        assert detection_options() == option
    program = jax_export.deserialize(file.read_bytes())
    same = jax.jit(program.call, compiler_options=detection_options())(images)
    np.testing.assert_array_equal(same["score"], score)
    np.testing.assert_array_equal(same["map"], values)
    np.testing.assert_array_equal(same["reconstruction"], expected.reconstruction)
    np.testing.assert_array_equal(same["decision"], score > predictor.image_threshold)
    predicted = [predicted_pixels(v, True, predictor.pixel_threshold) for v in values]
    np.testing.assert_array_equal(same["mask"], predicted)
    # As the example has it, float32 sums may come in another order.
    np.testing.assert_allclose(found["score"], score, rtol=1e-5)
    np.testing.assert_allclose(found["map"], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["decision"], same["decision"])
    assert np.mean(found["mask"] != same["mask"]) < 1e-3
    assert found["decision"].all() and found["mask"].any()
    with np.load(tmp_path / "two.npz") as archive:
        # In a batch of two, float32 sums may come in another order.
        np.testing.assert_allclose(archive["score"], score[:2], rtol=1e-5)


def test_its_description_is_true(own_trained, exported):
    file, record = exported
    assert json.loads((file.parent / f"{file.name}.json").read_text()) == record
    data = file.read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["bytes"] == len(data)
    program = jax_export.deserialize(data)
    assert list(program.platforms) == record["platforms"] == ["cpu", "cuda"]
    assert record["input"] == {"shape": ["batch", 32, 32, 3], "dtype": "uint8"}
    assert record["outputs"]["mask"] == {"shape": ["batch", 32, 32], "dtype": "bool"}
    predictor = load_detector(own_trained[0])
    assert record["image_threshold"] == predictor.image_threshold
    assert record["no_threshold_because"] is None


def test_exported_outlines_are_those_of_predictions():
    values = np.random.default_rng(0).random((4, 20, 30)).astype(np.float32)
    decisions = np.array([True, False, True, False])
    for threshold in (-1.0, 0.5, 2.0):
        found = outlined_in_each(jnp.asarray(values), jnp.asarray(decisions), threshold)
        want = [
            predicted_pixels(one, bool(decision), threshold)
            for one, decision in zip(values, decisions, strict=True)
        ]
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("decided", [True, False])
def test_exported_outlines_of_large_maps_are_regions_with_a_peak(decided, monkeypatch):
    monkeypatch.setattr("jaxad.evaluation.outlines.LARGE", 1)
    rng = np.random.default_rng(1)
    values = rng.random((5, 20, 30)).astype(np.float32)
    values[2] = 0.1 * values[2]  # of which no pixel is over the threshold
    values[3] = np.minimum(values[3], 0.9)  # of which no region has a peak
    inside = np.ones((20, 30), bool)
    inside[:, 11:19] = inside[3] = False
    rejected = np.array([True, False, True, True, True]) if decided else None
    found = outlined_in_each(
        jnp.asarray(values), None if rejected is None else jnp.asarray(rejected), 0.7, 0.99, inside
    )
    for i, (one, mask) in enumerate(zip(values, found, strict=True)):
        decision = None if rejected is None else bool(rejected[i])
        np.testing.assert_array_equal(mask, predicted_pixels(one, decision, 0.7, 0.99, inside))


def test_without_held_out_images_nothing_is_decided(tiny, data, tmp_path):
    run = tiny.fit(data, tmp_path / "run", data__holdout=0.0, data__calibration="held_out")
    record = export(run, tmp_path / "file")
    assert set(record["outputs"]) == {"score", "map", "reconstruction"}
    assert record["image_threshold"] is None and "data.holdout=0" in record["no_threshold_because"]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_exported_with_its_bits(name):
    _, shape, options, _ = MODELS[name]
    model = models.build(name, shape, **options)
    variables = jax.jit(model.init)(parameter_key(0))
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    expected = jax.jit(make_detect(model, smoothing=1.0))(variables, images)
    # What a network that starts at zero says is the same of all images.
    tells = lambda name: len(np.unique(expected.scores[f"{name}:max"])) == len(images)
    primary = next(filter(tells, expected.maps))
    program = make_program(
        model,
        variables,
        Decisions(
            primary,
            f"{primary}:max",
            image_threshold=float(np.median(expected.scores[f"{primary}:max"])),
        ),
        smoothing=1.0,
    )
    data, outputs = serialise(program, shape, variables)
    found = jax_export.deserialize(data).call(images)
    assert set(found) == set(outputs) == {"score", "map", "reconstruction", "decision"}
    np.testing.assert_array_equal(found["map"], expected.maps[primary])
    np.testing.assert_array_equal(found["score"], expected.scores[f"{primary}:max"])
    np.testing.assert_array_equal(found["reconstruction"], expected.reconstruction)
    assert int(found["decision"].sum()) == 1, "the highest of three exceeds their median"


def test_parameters_that_the_format_cannot_hold_are_refused(monkeypatch):
    monkeypatch.setattr(export_module, "LARGEST", 3)
    with pytest.raises(UserError, match="at most 2 GB"):
        serialise(lambda images: {}, (4, 4, 3), {"params": {"x": jnp.zeros(1)}})


def test_the_command(own_trained, tmp_path, capsys):
    file = tmp_path / "file.jaxexport"
    assert cli.main(["export", f"--workdir={own_trained[0]}", f"--output={file}"]) == 0
    printed = capsys.readouterr().out
    assert file.exists() and str(file) in printed and "32 x 32 x 3" in printed


@pytest.mark.parametrize("place", ["", "nowhere/file"])
def test_an_output_that_cannot_be_is_one_sentence(own_trained, tmp_path, capsys, place):
    output = tmp_path / place
    assert cli.main(["export", f"--workdir={own_trained[0]}", f"--output={output}"]) == 2
    assert "must be a file in a folder that exists" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
