"""``jaxad export --format=onnx``: the file against ``jaxad.load_detector(...).predict``."""

import hashlib
import json
import re
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from jaxad.cli import main as cli
from jaxad.evaluation.predict import load_detector
from jaxad.export import lowering
from jaxad.export.formats import export
from jaxad.run.errors import UserError

from .conftest import fit, waves


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    target = tmp_path_factory.mktemp("onnx") / "waves.onnx"
    assert cli.main(["export", f"--workdir={run}", f"--output={target}", "--format=onnx"]) == 0
    return target


def answers(file, images):
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images}), strict=True))


def agree(found, predictions, predictor):
    """Scores, maps and verdicts of a file are those of predictions."""
    for i, prediction in enumerate(predictions):
        scale = np.abs(prediction.model_map).max()
        np.testing.assert_allclose(found["score"][i], prediction.score, rtol=1e-5)
        np.testing.assert_allclose(found["map"][i], prediction.model_map, rtol=0, atol=1e-5 * scale)
        assert bool(found["decision"][i]) == prediction.decision
        assert tuple(found["box"]) == prediction.box
    assert predictor.image_threshold is not None


def test_photographs_of_any_size_are_judged_as_by_predict(run, file):
    predictor = load_detector(run)
    verdicts = set()
    for size in ((48, 64), (32, 24), (100, 70)):
        images = np.stack([waves(100, size), waves(101, size, defect=True)])
        predictions = predictor.predict(list(images))
        agree(answers(file, images), predictions, predictor)
        agree(answers(file, images[1:]), predictions[1:], predictor)
        verdicts |= {prediction.decision for prediction in predictions}
    assert verdicts == {True, False}


def test_a_region_and_gray_images(tmp_path):
    own = fit(tmp_path, data__region=(0.1, 0.2, 0.9, 0.8), data__channels=1)
    target = tmp_path / "part.onnx"
    record = export(own, target, format="onnx")
    predictor = load_detector(own)
    images = np.stack([waves(100), waves(101, defect=True)])
    agree(answers(target, images), predictor.predict(list(images)), predictor)
    assert record["region"] == [0.1, 0.2, 0.9, 0.8] and record["channels"] == 1


def test_parts_that_auto_leaves_as_they_lie_are_exported(tmp_path, capsys):
    own = fit(tmp_path, data__align="auto")
    assert "as they lie" in capsys.readouterr().err
    target = tmp_path / "part.onnx"
    export(own, target, format="onnx")
    predictor = load_detector(own)
    images = np.stack([waves(100), waves(101, defect=True)])
    agree(answers(target, images), predictor.predict(list(images)), predictor)


def test_a_region_of_any_shape(tmp_path):
    drawn = np.zeros((48, 64), np.uint8)
    drawn[8:40, 12:50] = 255
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    own = fit(tmp_path, evaluate__region_mask=str(tmp_path / "drawn.png"))
    target = tmp_path / "part.onnx"
    record = export(own, target, format="onnx")
    predictor = load_detector(own)
    images = np.stack([waves(100), waves(101, defect=True)])
    found, region = answers(target, images), predictor.detector.regions.every
    predictions = predictor.predict(list(images))
    # The map of a quiet image is little more than the rounding of what a loud one shows.
    atol = 1e-6 * max(one.model_map.max() for one in predictions)
    for i, one in enumerate(predictions):
        hidden = region.hide(one.model_map)
        np.testing.assert_allclose(found["score"][i], one.score, rtol=1e-5, atol=atol)
        np.testing.assert_allclose(found["map"][i], hidden, rtol=0, atol=atol)
        assert bool(found["decision"][i]) == one.decision
        assert not found["mask"][i][~region.at((32, 24))].any()
    assert record["region_mask_share"] == region.share == drawn.mean() / 255


def test_it_says_what_it_is(run, file):
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    record = json.loads(file.with_name("waves.onnx.json").read_text())
    data = file.read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest() and record["bytes"] == len(data)
    inside = {entry.key: entry.value for entry in model.metadata_props}
    predictor = load_detector(run)
    assert float(inside["image_threshold"]) == predictor.image_threshold
    assert json.loads(inside["outputs"]) == record["outputs"]
    assert inside["model"] == "pca" and inside["primary_score"] == record["primary_score"]
    assert json.loads(inside["range_16bit"]) == list(predictor.range_16bit)
    assert record["format"] == "ONNX, opset 18" and model.opset_import[0].version == 18
    assert record["input"]["shape"] == ["batch", "height", "width", 3]
    assert record["outputs"]["map"] == {"shape": ["batch", 32, 24], "dtype": "float32"}
    [given] = model.graph.input
    assert [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim] == [
        "batch",
        "height",
        "width",
        3,
    ]


def test_the_example_of_the_page(project_root, run, file, tmp_path, monkeypatch, capsys):
    page = (project_root / "docs" / "onnx.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "new").mkdir()
    image = waves(101, defect=True)
    Image.fromarray(image).save(tmp_path / "new" / "001.png")
    for part in ("", ".sha256"):
        shutil.copy(f"{file}{part}", tmp_path / f"bottle.onnx{part}")
    monkeypatch.chdir(tmp_path)
    program = compile(example, "page", "exec", dont_inherit=True)
    exec(program, {})
    [prediction] = load_detector(run).predict([image])
    score, verdict = capsys.readouterr().out.split("\n")[0].split()
    assert verdict == "reject" and prediction.decision
    assert float(score) == pytest.approx(prediction.score, rel=1e-5)
    # One bit of a weight: onnxruntime takes the file, the example does not.
    copy = tmp_path / "bottle.onnx"
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 64
    copy.write_bytes(content)
    assert answers(copy, image[None])["score"].shape == (1,)
    with pytest.raises(SystemExit, match="damaged"):
        exec(program, {})


def test_without_its_package_it_says_what_to_install(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [n for n in sys.modules if n.startswith("jaxad.export.")]:
        monkeypatch.delitem(sys.modules, name)
    output = f"--output={tmp_path / 'x.onnx'}"
    assert cli.main(["export", f"--workdir={run}", output, "--format=onnx"]) == 2
    assert "pip install 'jaxad[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_converted_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(lowering.RULES, "dot_general")
    output = f"--output={tmp_path / 'x.onnx'}"
    assert cli.main(["export", f"--workdir={run}", output, "--format=onnx"]) == 2
    said = capsys.readouterr().err
    assert "'pca' cannot be written as ONNX" in said and "dot_general" in said
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_there_is_not(run, tmp_path):
    with pytest.raises(UserError, match="none of stablehlo, onnx, web"):
        export(run, tmp_path / "x", format="torch")
