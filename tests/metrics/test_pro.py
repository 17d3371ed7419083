"""PRO against a plain write-up of its definition, one threshold at a time, sharing no code."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from jaxad import metrics

# The oracle and the package both sum in float64; the brief set of pixels leaves errors near 1e-15.
CLOSE = 1e-9


def components_by_flood_fill(mask):
    """Lists of (row, col), pixels joined over edges and corners."""
    left = {(int(r), int(c)) for r, c in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        front = [left.pop()]
        component = []
        while front:
            r, c = front.pop()
            component.append((r, c))
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            front += near
        found.append(component)
    return found


def curve_by_definition(maps, masks):
    """(fpr, pro) at every distinct score, high to low, with (0, 0) before."""
    regions = [
        (i, component)
        for i, mask in enumerate(masks)
        for component in components_by_flood_fill(mask)
    ]
    normal = sum(int((np.asarray(mask) == 0).sum()) for mask in masks)
    points = [(0.0, 0.0)]
    for t in sorted({float(v) for m in maps for v in np.asarray(m).ravel()}, reverse=True):
        false = sum(
            int(((np.asarray(m) >= t) & (np.asarray(g) == 0)).sum())
            for m, g in zip(maps, masks, strict=True)
        )
        shares = [np.mean([maps[i][r][c] >= t for r, c in component]) for i, component in regions]
        points.append((false / normal, float(np.mean(shares))))
    return [*points, (1.0, 1.0)]


def area_by_definition(points, limit):
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@st.composite
def image_sets(draw):
    """Small images of one or of mixed sizes, with defect and normal pixels, and many ties."""
    levels = draw(st.sampled_from([1, 3, 1000]))
    maps, masks = [], []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
        maps.append(draw(hnp.arrays(np.int64, shape, elements=st.integers(0, levels))) * 0.5 + 30)
        good = draw(st.booleans())
        masks.append(np.zeros(shape, bool) if good else draw(hnp.arrays(bool, shape)))
    total = sum(m.size for m in masks)
    defect = sum(int(m.sum()) for m in masks)
    if defect == 0:
        masks[0][0, 0] = True
    if defect == total or (defect == 0 and total == 1):
        maps.append(np.full((1, 2), 30.5))
        masks.append(np.zeros((1, 2), bool))
    return maps, masks


@settings(max_examples=150, deadline=None)
@given(image_sets(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_aupro_is_the_definition(images, limit):
    maps, masks = images
    expected = area_by_definition(curve_by_definition(maps, masks), limit)
    assert metrics.aupro(maps, masks, limit=limit) == pytest.approx(expected, abs=CLOSE)
    # The pooled summary takes the way over the full sort instead of the cut.
    figures, _ = metrics.pixel_metrics(maps, masks, limit=limit)
    assert figures["aupro"] == pytest.approx(expected, abs=CLOSE)


@settings(max_examples=80, deadline=None)
@given(image_sets())
def test_curve_is_the_definition(images):
    maps, masks = images
    fpr, pro, thresholds = metrics.pro_curve(maps, masks)
    points = curve_by_definition(maps, masks)
    # Each point of the definition lies on the polyline, and each corner is such a point.
    for x, y in points:
        on = [
            abs((y - y0) * (x1 - x0) - (x - x0) * (y1 - y0)) < CLOSE
            and x0 - CLOSE <= x <= x1 + CLOSE
            and y0 - CLOSE <= y <= y1 + CLOSE
            for x0, y0, x1, y1 in zip(fpr[:-1], pro[:-1], fpr[1:], pro[1:], strict=True)
        ]
        assert any(on)
    for x, y, t in zip(fpr, pro, thresholds, strict=True):
        false = sum(int(((m >= t) & ~g).sum()) for m, g in zip(maps, masks, strict=True))
        assert x == pytest.approx(false / sum(int((~g).sum()) for g in masks), abs=CLOSE)
        assert min(abs(x - a) + abs(y - b) for a, b in points) < CLOSE
    assert np.all(np.diff(thresholds) < 0)
    assert np.all(np.diff(fpr) >= 0) and np.all(np.diff(pro) >= 0)


def blobs(seed=0, n=6, size=24):
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, size, size), bool)
    for mask in masks[2:]:
        for _ in range(3):
            r, c = rng.integers(0, size - 6, 2)
            mask[r : r + rng.integers(1, 6), c : c + rng.integers(1, 6)] = True
    return rng.normal(30, 3, masks.shape) + 4 * masks, masks


def test_constant_map_scores_half_the_limit():
    _, masks = blobs()
    maps = np.full(masks.shape, 12.5)
    assert metrics.aupro(maps, masks) == pytest.approx(0.15, abs=1e-12)
    assert metrics.aupro(maps, masks, limit=1.0) == pytest.approx(0.5, abs=1e-12)


def test_perfect_map_scores_one_and_its_opposite_zero():
    _, masks = blobs()
    assert metrics.aupro(masks.astype(float), masks) == 1.0
    assert metrics.aupro(-masks.astype(float), masks) == 0.0


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.7, 1.0])
def test_a_perfect_map_is_exactly_one_whatever_the_component_sizes(limit):
    # Sums of 1 / size are inexact; a perfect detector must still print 1, never 0.9999999.
    mask = np.zeros((1, 40, 40), bool)
    for i, size in enumerate([3, 7, 11, 13, 17, 19, 23]):
        mask[0, 2 * i, :size] = True
    rng = np.random.default_rng(4)
    maps = np.where(mask, 50, 10) + rng.random(mask.shape)
    assert metrics.aupro(maps, mask, limit=limit) == pytest.approx(1.0, abs=1e-12)
    assert metrics.pro_curve(maps, mask)[1].max() == 1.0


def test_components_count_alike_whatever_their_size():
    # One component of 1 pixel found, one of 9 missed: half the curve's height, everywhere.
    mask = np.zeros((20, 20))
    mask[0, 0] = 1
    mask[5:8, 5:8] = 1
    scores = np.zeros((20, 20))
    scores[0, 0] = 2
    scores[5:8, 5:8] = -1
    assert metrics.pixel_metrics([scores], [mask])[0]["aupro"] < 0.6
    fpr, pro, _ = metrics.pro_curve([scores], [mask])
    assert pro[1] == 0.5 and fpr[1] == 0.0


def test_pixels_touching_at_a_corner_are_one_component():
    touching = np.zeros((1, 6, 6))
    touching[0, [1, 2], [1, 2]] = 1
    counts = metrics.evaluate_maps(touching, touching)["counts"]
    assert counts["defect_components"] == 1
    apart = np.zeros((1, 6, 6))
    apart[0, [1, 3], [1, 3]] = 1
    assert metrics.evaluate_maps(apart, apart)["counts"]["defect_components"] == 2


def test_good_images_count_in_the_false_positive_rate():
    maps, masks = blobs()
    defective = metrics.aupro(maps[2:], masks[2:])
    worst = np.concatenate([np.full_like(maps[:2], 1e3), maps[2:]])
    # A third of the normal pixels now outranks all: nothing is found before FPR 0.3.
    assert metrics.aupro(worst, masks) == 0.0 < defective


def test_only_the_order_of_scores_counts():
    maps, masks = blobs(1)
    value = metrics.aupro(maps, masks)
    assert metrics.aupro(np.exp(maps / 5) - 100, masks) == pytest.approx(value, abs=1e-12)
    assert metrics.aupro(maps[::-1], masks[::-1]) == pytest.approx(value, abs=1e-12)
    assert metrics.aupro(maps[:, ::-1, ::-1], masks[:, ::-1, ::-1]) == pytest.approx(
        value, abs=1e-12
    )


def test_layouts_and_dtypes_give_the_same_number():
    maps, masks = blobs(2)
    maps = np.round(maps).astype(np.float32)  # exact in every dtype below
    value = metrics.aupro(maps, masks)
    for same in (maps[:, None], maps[..., None], list(maps), maps.astype("f8"), maps.astype("i2")):
        assert metrics.aupro(same, masks) == value
    assert metrics.aupro(maps.astype("f2"), masks) == value
    for same in (masks * np.uint8(255), masks[:, None], list(masks.astype(int)), masks * 0.5):
        assert metrics.aupro(maps, same) == value


def test_inputs_are_left_unchanged():
    maps, masks = blobs(3)
    before = maps.copy(), masks.copy()
    metrics.aupro(maps, masks)
    metrics.evaluate_maps(maps, masks)
    np.testing.assert_array_equal(maps, before[0])
    np.testing.assert_array_equal(masks, before[1])


@pytest.mark.parametrize("figure", [metrics.aupro, metrics.pro_curve])
def test_undefined(figure):
    zeros = np.zeros((2, 4, 4))
    with pytest.raises(metrics.UndefinedMetric, match="no mask holds a defect pixel"):
        figure(zeros, zeros)
    with pytest.raises(metrics.UndefinedMetric, match="all 32 pixels are anomalous"):
        figure(zeros, zeros + 1)
    with pytest.raises(metrics.UndefinedMetric, match="there are no pixels"):
        figure([], [])


@pytest.mark.parametrize("figure", [metrics.aupro, metrics.pro_curve, metrics.evaluate_maps])
def test_bad_input_is_named(figure):
    maps, masks = blobs()
    broken = maps.copy()
    broken[3, 1, 2] = np.nan
    mask_int = masks.astype(int)
    cases = [
        (broken, masks, r"maps\[3\]\[1, 2\] is nan"),
        (maps, masks[:-1], "6 maps but 5 masks"),
        (maps, masks[:, :-1], r"masks\[0\] is 23x24 but maps\[0\] is 24x24"),
        (maps[0], masks[0], "put a single image in a list"),
        (maps, [*masks[:-1], None], r"masks\[5\] is missing"),
        (maps, -mask_int, r"masks\[2\] holds NaN or negative"),
        (maps.astype(complex), masks, "real numbers"),
    ]
    for bad_maps, bad_masks, message in cases:
        with pytest.raises(ValueError, match=message):
            figure(bad_maps, bad_masks)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, float("nan")])
def test_limit_out_of_range(limit):
    maps, masks = blobs()
    for figure in (metrics.aupro, metrics.evaluate_maps, metrics.pixel_metrics):
        with pytest.raises(ValueError, match="limit must be"):
            figure(maps, masks, limit=limit)
