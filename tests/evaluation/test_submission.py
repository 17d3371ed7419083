"""What the evaluation server of MVTec AD 2 reads."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxad.cli import main as cli
from jaxad.evaluation.submission import Submission
from jaxad.run.errors import UserError


@pytest.fixture
def private(tiny, tmp_path):
    for name, defect in (("000_regular", False), ("001_shift_1", True)):
        tiny.save(tmp_path / f"can/test_private/{name}.png", tiny.stripes(300, defect=defect))
    tiny.save(tmp_path / "can/test_private_mixed/000.png", tiny.stripes(301, defect=True))
    return tmp_path / "can"


def test_files_of_a_submission(calibrated, private, predictor, tmp_path):
    out = tmp_path / "out"
    inputs = [str(private / "test_private"), str(private / "test_private_mixed")]
    words = [f"--workdir={calibrated}", f"--output={out}", "--submission", "--no-overlays"]
    assert cli.main(["predict", *words, "--input", *inputs]) == 0
    names = ["test_private/000_regular", "test_private/001_shift_1", "test_private_mixed/000"]
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert files == {
        "scores.csv",
        "predictions.json",
        "report.html",
        *(f"anomaly_images/data/{name}.tiff" for name in names),
        *(f"anomaly_images_thresholded/data/{name}.png" for name in names),
    }
    for name in names:
        (expected,) = predictor.predict([private / f"{name}.png"])
        values = tifffile.imread(out / f"anomaly_images/data/{name}.tiff")
        assert values.dtype == np.float16 and values.shape == (48, 64)
        # Half precision keeps 11 bits.
        scaled = expected.map / predictor.pixel_threshold
        np.testing.assert_allclose(values, scaled, rtol=2**-11, atol=1e-6)
        drawn = np.asarray(Image.open(out / f"anomaly_images_thresholded/data/{name}.png"))
        np.testing.assert_array_equal(drawn, expected.mask * 255)
        assert set(np.unique(drawn)) <= {0, 255}
    rows = json.loads((out / "predictions.json").read_text())["images"]
    assert rows[0]["files"]["submitted_map"] == f"anomaly_images/data/{names[0]}.tiff"


def test_what_cannot_be_submitted():
    with pytest.raises(UserError, match="needs a pixel threshold, and this run has none: too few"):
        Submission(["/a/can/test_private/0.png"], "can", None, "too few")
    paths = ["/a/can/test_private/0.png", "/a/vial/test_private/0.png"]
    with pytest.raises(UserError, match="would both be submitted as can/test_private/0"):
        Submission(paths, "can", 1.0, None)
