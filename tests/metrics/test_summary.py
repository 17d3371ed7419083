"""The summary against scikit-learn and the single metrics; undefined figures; missing masks."""

import json

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings, strategies as st

from jaxad import metrics

CLOSE = 1e-9  # both sides are float64 sums
FIGURES = {
    "image_auroc",
    "image_ap",
    "image_pr_auc_trapezoid",
    "image_f1_max",
    "image_fpr95",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "pixel_fpr95",
    "aupro",
    "pixel_auroc_per_image_mean",
    "pixel_auroc_per_image_std",
}
KINDS = ["good", "good", "good", "hole", "scratch", "hole", "scratch", "scratch"]


@pytest.fixture
def images():
    """Raw maps near N(30, 3) with ties, and masks: 3 good images, 2 holes, 3 scratches."""
    rng = np.random.default_rng(0)
    masks = np.zeros((8, 16, 16), np.uint8)
    for mask, kind in zip(masks, KINDS, strict=True):
        if kind == "hole":
            mask[2:5, 2:6] = mask[10:12, 3] = 255
        elif kind == "scratch":
            mask[np.arange(9), np.arange(9) + 4] = 255
    return np.round(rng.normal(30, 3, masks.shape) + 5 * (masks > 0), 1), masks


def fpr95(labels, scores):
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    return fpr[tpr >= 0.95][0]


def max_f1(labels, scores):
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    return np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))


def test_every_figure(images):
    maps, masks = images
    result = metrics.evaluate_maps(maps, masks, defects=KINDS)
    assert set(result) == FIGURES | {"method", "counts", "per_defect", "undefined", "brackets"}
    truth, labels, scores = masks > 0, np.array(KINDS) != "good", maps.max(axis=(1, 2))
    per_image = [
        sklearn.metrics.roc_auc_score(t.ravel(), m.ravel())
        for t, m in zip(truth, maps, strict=True)
        if t.any()
    ]
    expected = {
        "image_auroc": sklearn.metrics.roc_auc_score(labels, scores),
        "image_ap": sklearn.metrics.average_precision_score(labels, scores),
        "image_pr_auc_trapezoid": metrics.pr_auc_trapezoid(labels, scores),
        "image_f1_max": metrics.best_f1(labels, scores)[0],
        "image_fpr95": fpr95(labels, scores),
        "pixel_f1_max": max_f1(truth.ravel(), maps.ravel()),
        "pixel_fpr95": fpr95(truth.ravel(), maps.ravel()),
        "pixel_auroc": sklearn.metrics.roc_auc_score(truth.ravel(), maps.ravel()),
        "pixel_ap": sklearn.metrics.average_precision_score(truth.ravel(), maps.ravel()),
        "aupro": metrics.aupro(maps, masks),
        "pixel_auroc_per_image_mean": np.mean(per_image),
        "pixel_auroc_per_image_std": np.std(per_image),
    }
    assert {k: result[k] for k in FIGURES} == pytest.approx(expected, abs=CLOSE)
    assert result["undefined"] == {}
    assert result["counts"] == {
        "images": 8,
        "good": 3,
        "anomalous": 5,
        "images_without_mask": 0,
        "images_with_empty_mask": 0,
        "images_in_pixel_auroc_per_image": 5,
        "pixels": 8 * 256,
        "defect_pixels": 2 * 14 + 3 * 9,
        "defect_components": 2 * 2 + 3,
    }


def test_each_kind_is_set_against_the_good_images(images):
    maps, masks = images
    result = metrics.evaluate_maps(maps, masks, defects=KINDS)
    assert list(result["per_defect"]) == ["hole", "scratch"]
    for kind, row in result["per_defect"].items():
        part = np.isin(KINDS, ["good", kind])
        alone = metrics.evaluate_maps(maps[part], masks[part])
        assert row.pop("count") == KINDS.count(kind)
        assert set(row) == {"image_auroc", "pixel_auroc", "aupro"}
        assert row == pytest.approx({k: alone[k] for k in row}, abs=CLOSE)


def test_grouping_changes_no_pooled_figure(images):
    maps, masks = images
    grouped = metrics.evaluate_maps(maps, masks, defects=KINDS)
    pooled = metrics.evaluate_maps(maps, masks)
    alone, undefined = metrics.pixel_metrics(maps, masks)
    assert pooled["per_defect"] == {} == undefined
    for name in FIGURES:
        assert grouped[name] == pytest.approx(pooled[name], abs=1e-12)
    assert alone == pytest.approx({name: pooled[name] for name in alone}, abs=1e-12)


def test_given_image_scores_replace_the_maximum(images):
    maps, masks = images
    scores = maps.mean(axis=(1, 2))
    result = metrics.evaluate_maps(maps, masks, image_scores=scores)
    figures, _ = metrics.image_metrics(masks.any(axis=(1, 2)), scores)
    assert figures == {name: result[name] for name in figures}


def test_result_is_json(images):
    maps, masks = images
    result = metrics.evaluate_maps(maps.astype(np.float32), masks, defects=KINDS)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_mixed_sizes_and_dtypes(images):
    maps, masks = images
    maps = [np.asarray(m[: 12 + i]) for i, m in enumerate(maps[:4])] + list(maps[4:])
    masks = [np.asarray(m[: 12 + i]) for i, m in enumerate(masks[:4])] + list(masks[4:])
    result = metrics.evaluate_maps(
        [m.astype("f4") if i % 2 else m for i, m in enumerate(maps)], masks
    )
    # Rounding every other map to float32 would break its ties with the float64 maps, as here.
    same = [m.astype("f4").astype("f8") if i % 2 else m for i, m in enumerate(maps)]
    truth = np.concatenate([m.ravel() > 0 for m in masks])
    area = sklearn.metrics.roc_auc_score(truth, np.concatenate([m.ravel() for m in same]))
    assert result["pixel_auroc"] == pytest.approx(area, abs=CLOSE)


def test_missing_masks(images):
    maps, masks = images
    labels = np.array(KINDS) != "good"
    some = [None, None, masks[2], None, *masks[4:]]
    result = metrics.evaluate_maps(maps, some, labels=labels)
    # The good images count as all zeros, the unmasked anomalous one is left out.
    kept = np.arange(8) != 3
    alone = metrics.evaluate_maps(maps[kept], masks[kept])
    for name in ("pixel_auroc", "pixel_ap", "aupro", "pixel_auroc_per_image_mean"):
        assert result[name] == pytest.approx(alone[name], abs=1e-12)
    assert result["counts"]["images_without_mask"] == 1
    assert result["counts"]["pixels"] == 7 * 256
    scores = maps.max(axis=(1, 2))
    assert result["image_auroc"] == pytest.approx(metrics.auroc(labels, scores), abs=1e-12)


PIXEL = {name for name in FIGURES if "pixel" in name} | {"aupro"}


def check_undefined(result, names, reason):
    for name in names:
        assert result[name] is None
        assert result["undefined"][name] == reason


def test_no_masks_at_all(images):
    maps, _ = images
    labels = [kind != "good" for kind in KINDS]
    result = metrics.evaluate_maps(maps, None, labels=labels, defects=KINDS)
    check_undefined(result, PIXEL, "no anomalous image has a mask")
    assert result["image_auroc"] is not None and result["counts"]["images_without_mask"] == 5
    hole = result["per_defect"]["hole"]
    assert hole["count"] == 2 and hole["aupro"] is None and hole["image_auroc"] is not None
    assert result["undefined"]["per_defect.hole.aupro"] == "no anomalous image has a mask"
    assert "per_defect.hole.image_auroc" not in result["undefined"]


def test_good_images_only(images):
    maps, masks = images
    result = metrics.evaluate_maps(maps[:3], masks[:3])
    check_undefined(result, PIXEL, "no image is anomalous")
    check_undefined(result, FIGURES - PIXEL, "none of the 3 labels is anomalous")
    assert set(result["undefined"]) == FIGURES


def test_anomalous_images_only(images):
    maps, masks = images
    result = metrics.evaluate_maps(maps[3:], masks[3:], defects=KINDS[3:])
    check_undefined(result, FIGURES - PIXEL, "all 5 labels are anomalous")
    assert result["pixel_auroc"] > 0.5
    assert result["undefined"]["per_defect.hole.image_auroc"] == "all 2 labels are anomalous"
    assert result["per_defect"]["hole"]["aupro"] > 0


def test_empty_masks_of_anomalous_images(images):
    maps, masks = images
    result = metrics.evaluate_maps(maps, masks * 0, labels=np.array(KINDS) != "good")
    check_undefined(result, PIXEL, "no mask holds a defect pixel")
    assert result["counts"]["images_with_empty_mask"] == 5


def test_defects_which_fill_every_image():
    result = metrics.evaluate_maps(np.ones((2, 3, 3)), np.ones((2, 3, 3)))
    check_undefined(result, {"pixel_auroc", "aupro"}, "all 18 pixels are anomalous")
    check_undefined(
        result,
        {"pixel_auroc_per_image_mean", "pixel_auroc_per_image_std"},
        "no image has both normal and defect pixels",
    )


def test_no_images():
    result = metrics.evaluate_maps([], [])
    assert all(result[name] is None for name in FIGURES)
    assert set(result["undefined"]) == FIGURES
    assert metrics.evaluate_maps(np.zeros((0, 4, 4)), None, labels=[])["counts"]["images"] == 0


def test_bad_input_is_named(images):
    maps, masks = images
    cases = [
        ({"masks": None}, "labels must be given"),
        ({"labels": [0] * 8}, r"labels\[3\] is 0 but its mask holds defect pixels"),
        ({"labels": [0, 1]}, "8 maps but labels"),
        ({"labels": [3] * 8}, r"labels\[0\] is 3"),
        ({"defects": ["hole"]}, "8 maps but 1 defects"),
        ({"defects": [None] * 8}, r"defects\[3\] is None"),
        ({"image_scores": [1.0]}, "8 maps but 1 image_scores"),
        ({"image_scores": [np.nan] * 8}, r"image_scores\[0\] is nan"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            metrics.evaluate_maps(maps, **{"masks": masks, **options})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(images, value):
    maps, masks = images
    broken = maps.copy()
    broken[4, 3, 2] = value
    for call in (metrics.evaluate_maps, metrics.pixel_metrics, metrics.pixel_curves):
        with pytest.raises(
            ValueError, match=rf"maps\[4\]\[3, 2\] is {value}; scores must be finite"
        ):
            call(broken, masks)
    with pytest.raises(ValueError, match=r"maps\[4\]\[3, 2\]"):
        metrics.region_recall(broken, masks, threshold=1.0)


def test_pixel_curves_are_those_of_the_single_functions(images):
    maps, masks = images
    curves = metrics.pixel_curves(maps, masks)
    truth, scores = (masks > 0).ravel(), maps.ravel()
    for name, value in (("roc", metrics.auroc(truth, scores)), ("pro", None)):
        x, y = curves[name]
        if value is None:
            fpr, pro, _ = metrics.pro_curve(maps, masks)
            value = np.trapezoid(pro, fpr)
        assert np.trapezoid(y, x) == pytest.approx(value, abs=CLOSE)
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    recall, precision = curves["pr"]
    expected = sklearn.metrics.average_precision_score(truth, scores)
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(expected, abs=CLOSE)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 50, 10**9]))
def test_no_figure_changes_with_the_scale_or_the_order(seed, levels):
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 6, 5)) < 0.25
    masks[0], masks[1, 0, 0], masks[1, 0, 1] = False, True, False
    maps = rng.integers(0, levels, masks.shape).astype(np.float64)
    first = metrics.evaluate_maps(maps, masks)
    order = rng.permutation(4)
    for changed, truth in (
        (np.exp(maps / levels) * 1e20, masks),  # one to one on these levels
        (maps.astype(np.int64) - 2**40, masks),
        (maps[order], masks[order]),
        (maps[:, ::-1], masks[:, ::-1]),
    ):
        again = metrics.evaluate_maps(changed, truth)
        assert {k: again[k] for k in FIGURES} == pytest.approx(
            {k: first[k] for k in FIGURES}, abs=CLOSE
        )


@pytest.mark.parametrize("streamed", [False, True])
def test_every_figure_with_a_value_has_a_bracket(streamed):
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 8, 8), np.uint8)
    masks[0, 2:4, 2:4] = 2
    maps = rng.random(masks.shape)
    kinds = ["dent", None, None, None]
    if streamed:
        accumulator = metrics.Accumulator(kept_pixels=10)
        accumulator.update(maps, masks, defects=kinds)
        result = accumulator.compute()
    else:
        result = metrics.evaluate_maps(maps, masks, defects=kinds)
    names = [name for name in FIGURES if result[name] is not None]
    assert {*names, "per_defect.dent.aupro", "per_defect.dent.image_auroc"} <= set(
        result["brackets"]
    )
    for name in names:
        low, high = result["brackets"][name]
        assert low <= result[name] <= high
        assert (low == high) == (not streamed or name.startswith(("image", "pixel_auroc_per")))


def test_all_forms_of_maps_and_masks_give_the_same_figures():
    rng = np.random.default_rng(0)
    maps = rng.random((4, 6, 5)).astype(np.float16)
    ids = np.zeros((4, 6, 5), np.uint8)
    ids[0, 2:4, 2:4], ids[1, 1, 1] = 1, 2
    expected = metrics.evaluate_maps(maps, ids > 0)
    forms = {
        "n 1 h w": (maps[:, None], ids[:, None]),
        "n h w 1": (maps[..., None], ids[..., None]),
        "mixed": (maps[:, None], ids[..., None]),
        "list": (list(maps), list(ids)),
        "wider": (maps.astype(np.float64), ids.astype(np.int64)),
        "soft": (maps, ids / 4),
    }
    for name, (some, masks) in forms.items():
        assert metrics.evaluate_maps(some, masks) == expected, name
        accumulator = metrics.Accumulator()
        accumulator.update(some[:1], masks[:1])
        accumulator.update(some[1:], masks[1:])
        assert accumulator.compute() == expected, name
    sizes = metrics.evaluate_maps([maps[0], maps[2][:3]], [ids[0], ids[2][:3]])
    assert sizes["image_auroc"] is not None and sizes["counts"]["pixels"] == 30 + 15


def test_no_image_and_one_class_have_reasons():
    for result in (metrics.evaluate_maps([], []), metrics.Accumulator().compute()):
        assert result["image_auroc"] is None and result["undefined"]["image_auroc"]
        assert result["brackets"] == {}
    one = metrics.evaluate_maps(np.ones((2, 3, 3)), np.zeros((2, 3, 3)))
    assert one["aupro"] is None and "anomalous" in one["undefined"]["aupro"]
    with pytest.raises(ValueError, match="must be one"):
        metrics.evaluate_maps(np.ones((2, 3, 3, 3)), None, labels=[0, 1])
