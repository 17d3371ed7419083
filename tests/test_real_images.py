"""The main job on real photographs, against what the linear baseline is known to reach.

The figures were reached by an independent numpy prototype on the same images (128 x 128, no
held-out images, gaussian of sigma 2); a change of 0.3 points is more than another order of sums or
another resizer makes.
"""

from __future__ import annotations

import pytest

from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.predict import load_detector
from jaxad.run.config import load_config
from jaxad.training.train import train

# category, components, map, pixel AUROC, AUPRO, image AUROC (map maximum)
KNOWN = [
    ("bottle", 30, "l1*ssim", 0.975, 0.919, 0.997),
    pytest.param("transistor", 190, "l1*ssim", 0.969, 0.829, 0.919, marks=pytest.mark.slow),
    pytest.param("screw", 190, "l1", 0.981, 0.924, 0.798, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("category", "components", "name", "pixel", "aupro", "image"), KNOWN)
def test_pca_reaches_the_known_figures(
    real_data, tmp_path, category, components, name, pixel, aupro, image
):
    config = load_config(
        "pca",
        {
            "data.root": str(real_data / "mvtec_ad"),
            "data.category": category,
            "data.holdout": 0.0,
            "data.calibration": "held_out",
            "data.pipeline": "memory",
            "model.components": components,
            "train.devices": 1,
            "evaluate.report_images": 3,
        },
    )
    train(config, tmp_path)
    result = evaluate(tmp_path)
    assert result["maps"][name]["pixel_auroc"] == pytest.approx(pixel, abs=0.003)
    assert result["maps"][name]["aupro"] == pytest.approx(aupro, abs=0.003)
    assert result["scores"][f"{name}:max"]["image_auroc"] == pytest.approx(image, abs=0.003)
    assert result["image_threshold"] is None, "nothing was held out"


@pytest.mark.slow
def test_the_vqvae_learns_real_bottles(real_data, tmp_path):
    """A few hundred steps: far from trained, but well above chance, and able to predict."""
    config = load_config(
        "vqvae:small",
        {
            "data.root": str(real_data / "mvtec_ad"),
            "data.category": "bottle",
            "data.pipeline": "memory",
            "train.steps": 400,
            "train.devices": 1,
            "evaluate.report_images": 3,
        },
    )
    train(config, tmp_path)
    result = evaluate(tmp_path)
    assert result["maps"]["ssim"]["pixel_auroc"] > 0.85
    broken = real_data / "mvtec_ad" / "bottle" / "test" / "broken_large"
    predictions = load_detector(tmp_path).predict(broken)
    assert len(predictions) == 20 and all(p.map.shape == (256, 256) for p in predictions)
