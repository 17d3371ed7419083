"""Pixels that do not count (``valid``): a rectangle of them is a cropped image."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxad import metrics

TOP, BOTTOM, LEFT, RIGHT = 3, 17, 2, 21


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 20, 24), bool)
    masks[2, 4:8, 4:9] = masks[2, 15:19, 10:14] = True  # the second one leaves the rectangle
    masks[3, 0:2, 0:24] = True  # wholly outside
    masks[4, 5:9, 0:12] = True
    masks[5, 6:8, 6:8] = masks[5, 12:14, 19:23] = True
    maps = rng.normal(size=masks.shape).astype(np.float32) + 1.5 * masks
    labels = np.array([0, 0, 1, 1, 1, 1])
    valid = np.zeros_like(masks)
    valid[:, TOP:BOTTOM, LEFT:RIGHT] = True
    return maps, masks, labels, valid


def cropped(array):
    return array[:, TOP:BOTTOM, LEFT:RIGHT]


@pytest.mark.parametrize("memory", [4096.0, 0.0])
def test_a_rectangle_is_what_a_crop_is(case, memory):
    maps, masks, labels, valid = case
    options = {
        "labels": labels,
        "defects": [None, None, "a", "a", "b", "b"],
        "threshold": 1.0,
        "memory_limit_mb": memory,
    }
    found = metrics.evaluate_maps(maps, masks, valid=valid, **options)
    assert found == metrics.evaluate_maps(cropped(maps), cropped(masks), **options)
    assert found["counts"]["images_with_empty_mask"] == 1
    assert found != metrics.evaluate_maps(maps, masks, **options)


def test_curves_are_those_of_the_crop(case):
    maps, masks, _, valid = case
    found = metrics.pixel_curves(maps, masks, valid=valid)
    expected = metrics.pixel_curves(cropped(maps), cropped(masks))
    for name, axes in expected.items():
        for one, other in zip(found[name], axes, strict=True):
            np.testing.assert_array_equal(one, other)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_shape_agrees_with_pixels_taken_by_hand(seed):
    rng = np.random.default_rng(seed)
    masks = ndimage.binary_dilation(rng.random((4, 16, 16)) > 0.97)
    masks[0] = False
    valid = rng.random(masks.shape) > 0.4
    masks[1, 0, 0] = valid[1, 0, 0] = True
    maps = rng.integers(0, 9, masks.shape) / 8 + masks  # with ties
    found = metrics.evaluate_maps(maps, masks, valid=list(valid), labels=[0, 1, 1, 1])
    truth, scores = masks[valid], maps[valid]
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert found["counts"]["pixels"] == valid.sum()
    regions = sum(
        ndimage.label(m & v, np.ones((3, 3)))[1] for m, v in zip(masks, valid, strict=True)
    )
    assert found["counts"]["defect_components"] == regions
    highest = [m[v].max() for m, v in zip(maps, valid, strict=True)]
    assert found["image_auroc"] == pytest.approx(roc_auc_score([0, 1, 1, 1], highest))


def test_everything_valid_changes_nothing(case):
    maps, masks, labels, valid = case
    every = metrics.evaluate_maps(maps, masks, labels=labels, valid=np.ones_like(valid))
    assert every == metrics.evaluate_maps(maps, masks, labels=labels)


@pytest.mark.parametrize(
    ("valid", "said"),
    [
        (np.ones((5, 20, 24), bool), "6 maps but 5 of valid"),
        (np.ones((6, 20, 23), bool), r"valid\[0\] is 20x23 but maps\[0\] is 20x24"),
        (np.ones((6, 20, 24), np.uint8), r"valid\[0\] must be boolean, not uint8"),
        (np.zeros((6, 20, 24), bool), r"valid\[0\] is False everywhere"),
    ],
)
def test_bad_arguments(case, valid, said):
    maps, masks, _, _ = case
    with pytest.raises(ValueError, match=said):
        metrics.evaluate_maps(maps, masks, valid=valid)
    with pytest.raises(ValueError, match=said):
        metrics.Accumulator().update(maps, masks, valid=valid)
