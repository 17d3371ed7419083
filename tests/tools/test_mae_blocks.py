"""The study of the sliding mask's size: which images, which figures, which table."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score


@pytest.fixture(scope="module")
def study(load_tool):
    return load_tool("studies/mae_blocks")


def test_figures_are_those_of_means_and_of_all_pixels(study):
    rng = np.random.default_rng(0)
    maps, labels = rng.random((6, 8, 8)).astype(np.float32), np.array([0, 0, 1, 1, 1, 0])
    masks = [rng.random((8, 8)) < 0.2 if label else np.zeros((8, 8), bool) for label in labels]
    masks[3] = None  # a defective image without a mask has no pixels
    found = study.figures(labels, masks, maps)
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, maps.mean(axis=(1, 2))))
    kept = [0, 1, 2, 4, 5]
    truth = np.concatenate([masks[i].ravel() for i in kept])
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, maps[kept].ravel()))


def test_images_are_chosen_from_both_classes(study):
    labels = np.repeat([0, 1], [20, 60])
    kept = study.chosen(labels, 16)
    assert np.bincount(labels[kept]).tolist() == [4, 12] and len(set(kept)) == 16
    assert len(study.chosen(labels, 0)) == 80


def test_the_table_has_a_line_for_each_choice(study):
    row = {"image_auroc": 0.5, "pixel_auroc": 0.25}
    blocks = [{"blocks": [b], "cpu_seconds_per_image": 4.0 / b, **row} for b in study.BLOCKS]
    windows = [{"window": w, "filter": f, **row} for w in study.WINDOWS for f in study.FILTERS]
    text = study.markdown({"bottle": {"blocks": blocks, "windows": windows}})
    assert "| 1 | 2.0 | 50.0 / 25.0 |" in text and "| 4 | 0.5 | 50.0 / 25.0 |" in text
    assert "| 11 | 4 | 50.0 / 25.0 |" in text
