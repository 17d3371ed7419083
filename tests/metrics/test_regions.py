"""Recall of regions against counts made by hand and by a plain loop."""

import numpy as np
import pytest
from scipy import ndimage

from jaxad import metrics


@pytest.fixture
def images():
    rng = np.random.default_rng(2)
    masks = np.zeros((6, 20, 20), np.uint8)
    masks[1, 2:6, 2:6] = masks[1, 10:12, 10:18] = 255
    masks[2, 0, 0] = 255
    masks[3, 5:15, 5:15] = 255
    return np.round(rng.normal(10, 2, masks.shape) + (masks > 0), 1), masks


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("threshold", [-np.inf, 9.0, 12.0, 14.3, np.inf])
def test_counts_of_a_plain_loop(images, threshold, overlap):
    maps, masks = images
    kinds = ["good", "a", "b", "a", "good", "good"]
    result = metrics.region_recall(maps, masks, threshold=threshold, overlap=overlap, defects=kinds)
    shares = {"a": [], "b": []}
    for image, mask, kind in zip(maps, masks, kinds, strict=True):
        label, found = ndimage.label(mask, np.ones((3, 3)))
        for k in range(1, found + 1):
            shares[kind].append(np.mean(image[label == k] >= threshold))
    every = np.array(shares["a"] + shares["b"])
    assert result["regions"] == every.size == 4
    assert result["found"] == np.sum(every > overlap)
    assert result["recall"] == np.mean(every > overlap)
    assert result["coverage"] == pytest.approx(every.mean(), abs=1e-12)
    assert result["false_positive_rate"] == np.mean(maps[masks == 0] >= threshold)
    assert set(result["per_defect"]) == {"a", "b"}
    for kind, row in result["per_defect"].items():
        assert row["recall"] == np.mean(np.array(shares[kind]) > overlap)
        assert row["coverage"] == pytest.approx(np.mean(shares[kind]), abs=1e-12)


def test_coverage_lies_on_the_pro_curve(images):
    maps, masks = images
    fpr, pro, thresholds = metrics.pro_curve(maps, masks)
    for x, y, t in zip(fpr, pro, thresholds, strict=True):
        result = metrics.region_recall(maps, masks, threshold=t)
        assert result["coverage"] == pytest.approx(y, abs=1e-12)
        assert result["false_positive_rate"] == pytest.approx(x, abs=1e-12)


@pytest.mark.parametrize("fpr", [0.0, 0.001, 0.01, 0.3, 0.9])
def test_threshold_is_the_lowest_that_keeps_the_rate(images, fpr):
    maps, masks = images
    threshold = metrics.threshold_at_fpr(maps, masks, fpr=fpr)
    normal = maps[masks == 0]
    assert np.mean(normal >= threshold) <= fpr
    lower = maps[maps < threshold].max()
    assert np.mean(normal >= lower) > fpr


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
def test_threshold_where_none_is_high_enough(dtype):
    maps = np.zeros((1, 3, 3), dtype)
    assert metrics.threshold_at_fpr(maps, np.zeros((1, 3, 3)), fpr=0.5) == np.inf
    maps[0, 1, 1] = 7
    assert metrics.threshold_at_fpr(maps, np.zeros((1, 3, 3)), fpr=0.5) == 7


def test_bad_input(images):
    maps, masks = images
    with pytest.raises(metrics.UndefinedMetric, match="no mask holds a defect"):
        metrics.region_recall(maps, masks * 0, threshold=1)
    with pytest.raises(metrics.UndefinedMetric, match="no pixel is normal"):
        metrics.threshold_at_fpr(maps, masks * 0 + 1, fpr=0.1)
    with pytest.raises(ValueError, match="overlap must be"):
        metrics.region_recall(maps, masks, threshold=1, overlap=1.0)
    with pytest.raises(ValueError, match="fpr must be"):
        metrics.threshold_at_fpr(maps, masks, fpr=1.0)
    with pytest.raises(ValueError, match="6 maps but 1 defects"):
        metrics.region_recall(maps, masks, threshold=1, defects=["a"])
