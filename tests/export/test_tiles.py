"""``jaxad export --format=onnx`` of runs with tiles, against ``predict``."""

import json

import numpy as np
import onnx
import onnxruntime

from jaxad.cli import main as cli
from jaxad.evaluation.predict import load_detector

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
