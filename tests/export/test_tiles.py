"""``jaxad export --format=onnx`` of runs with tiles, against ``predict``."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from model_cases import CASES, one_of_each

from jaxad import models
from jaxad.cli import main as cli
from jaxad.data.crop import Box
from jaxad.data.tiles import Tiling
from jaxad.evaluation.export_tiles import make_tiled_program
from jaxad.evaluation.export_view import Decisions, View
from jaxad.evaluation.predict import load_detector
from jaxad.export.graph import Graph, described
from jaxad.export.lowering import lower
from jaxad.export.onnx_file import OPSET
from jaxad.models.base import parameter_key

from .conftest import TILED_SIZE as SIZE, waves


def test_photographs_are_judged_as_by_predict(tiled_run, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxad.evaluation.calibration.LARGE_MAP", 1)
    predictor = load_detector(tiled_run)
    assert predictor.region_threshold is not None
    file = tmp_path / "file.onnx"
    assert cli.main(["export", f"--workdir={tiled_run}", f"--output={file}", "--format=onnx"]) == 0
    model, record = onnx.load(file), json.loads((tmp_path / "file.onnx.json").read_text())
    onnx.checker.check_model(model, full_check=True)
    inside = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(inside["tiles"]) == record["tiles"] == [40, 12]
    assert float(inside["region_threshold"]) == predictor.region_threshold
    session = onnxruntime.InferenceSession(file)
    images = np.stack([waves(100, SIZE), waves(101, SIZE, defect=True), waves(102, SIZE)])
    predictions = predictor.predict(list(images))
    assert {one.decision for one in predictions} == {True, False}
    for some in (slice(0, 3), slice(1, 2)):
        results = session.run([*record["outputs"]], {"image": images[some]})
        found = dict(zip(record["outputs"], results, strict=True))
        agree(found, predictions[some])


def agree(found, predictions):
    for i, one in enumerate(predictions):
        scale = np.abs(one.model_map).max()
        # Sums of float32 in another order, as of whole images.
        np.testing.assert_allclose(found["map"][i], one.model_map, rtol=0, atol=1e-5 * scale)
        np.testing.assert_allclose(found["score"][i], one.score, rtol=1e-5)
        assert found["decision"][i] == one.decision and tuple(found["box"]) == one.box
        assert np.mean(found["mask"][i] != one.mask[one.box.slices]) < 1e-3
        assert found["mask"][i].any() == one.mask.any() == one.decision


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_each())
def test_every_model_is_carried_over_tile_by_tile(name):
    case = CASES[name]
    model = models.build(case.model, case.image_shape, **case.options)
    variables = jax.jit(model.init)(parameter_key(0))
    height, width, channels = case.image_shape
    size, side = (70, 90), 40
    view = View(Box(0, 0, *size), Tiling(side, 8), (height, width), channels)
    example = jnp.zeros((1, *case.image_shape), jnp.uint8)
    primary = next(iter(jax.eval_shape(model.detect, variables, example).maps))
    program = make_tiled_program(
        model, variables, view, Decisions(primary, f"{primary}:mean"), smoothing=1.0
    )
    graph = Graph()
    found = lower(program, graph, {"image": ((*size, 3), np.dtype(np.uint8))})
    for key, value in found.items():
        graph.output(key, value.name)
    written = onnx.helper.make_model(
        graph.finish(
            "f",
            [described("image", np.uint8, ("batch", *size, 3))],
            [described(key, value.dtype, value.shape) for key, value in found.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(written.SerializeToString())
    photographs = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    expected = jax.jit(program)(photographs)
    results = dict(zip(found, session.run([*found], {"image": photographs}), strict=True))
    for key, values in results.items():
        want = np.asarray(expected[key])
        np.testing.assert_allclose(values, want, rtol=0, atol=1e-5 * np.abs(want).max())
