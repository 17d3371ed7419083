"""The JavaScript example, where Node.js and npm's onnxruntime-node are."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from jaxad.evaluation.predict import load_detector
from jaxad.export.formats import export

from .conftest import TILED_SIZE, waves


@pytest.fixture(scope="module")
def folder(project_root, tmp_path_factory):
    """The example with its packages."""
    folder = tmp_path_factory.mktemp("javascript")
    if not shutil.which("npm"):
        pytest.skip("npm is not here")
    shutil.copy(project_root / "examples" / "javascript" / "detect.mjs", folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(
        [*command, "onnxruntime-node", "pngjs"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"npm has no onnxruntime-node here: {done.stderr[-200:]}")
    return folder


@pytest.mark.slow
def test_node_gives_the_scores_of_predict(run, folder):
    export(run, folder / "waves.onnx", format="onnx")
    predictor = load_detector(run)
    for seed, defect in ((100, False), (101, True)):
        Image.fromarray(waves(seed, defect=defect)).save(folder / "image.png")
        command = ["node", "detect.mjs", "waves.onnx", "image.png", "map.png"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        score, verdict = done.stdout.split()
        [prediction] = predictor.predict([str(folder / "image.png")])
        assert float(score) == pytest.approx(prediction.score, rel=1e-5)
        assert (
            verdict
            == ("reject" if prediction.decision else "accept")
            == ("reject" if defect else "accept")
        )
        scale = predictor.scale
        share = (prediction.model_map - scale.low) / (scale.high - scale.low)
        drawn = np.asarray(Image.open(folder / "map.png").convert("L"), int)
        assert np.abs(drawn - 255 * np.clip(share, 0, 1)).max() <= 1
    description = folder / "waves.onnx.json"
    description.write_text(description.read_text().replace('"pca"', '"pcb"'))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1 and "waves.onnx.json is damaged" in done.stderr


@pytest.mark.slow
def test_node_judges_photographs_by_tiles(tiled_run, folder):
    export(tiled_run, folder / "tiles.onnx", format="onnx")
    Image.fromarray(waves(101, TILED_SIZE, defect=True)).save(folder / "image.png")
    command = ["node", "detect.mjs", "tiles.onnx", "image.png", "map.png"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    [prediction] = load_detector(tiled_run).predict([str(folder / "image.png")])
    score, verdict = done.stdout.split()
    assert float(score) == pytest.approx(prediction.score, rel=1e-5) and verdict == "reject"
    Image.fromarray(waves(101)).save(folder / "image.png")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2 and "takes photographs of 110 x 75" in done.stderr
