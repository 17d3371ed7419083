"""Streaming: brackets contain the exact value on any scores, are narrow on real ones, and merge."""

import functools
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import ndimage

from jaxad import metrics
from jaxad.metrics import _bins, _intervals, summary

POOLED = ("pixel_auroc", "pixel_ap", "aupro", "pixel_f1_max", "pixel_fpr95")
SAME = 1e-12  # image-level figures: the same sums, at most in another order


def discs(rng, images, size, share=0.7):
    rows, cols = np.mgrid[:size, :size]
    masks = np.zeros((images, size, size), bool)
    for mask in masks[rng.random(images) < share]:
        for _ in range(rng.integers(1, 5)):
            row, col = rng.integers(0, size, 2)
            mask |= (rows - row) ** 2 + (cols - col) ** 2 <= (rng.uniform(0.02, 0.1) * size) ** 2
    for i in np.flatnonzero(rng.random(images) < share):
        row, col = rng.integers(0, size, 2)
        masks[i] |= (rows - row) ** 2 + (cols - col) ** 2 <= (rng.uniform(0.03, 0.1) * size) ** 2
    return masks


def heavy_tails(rng, shape):
    return rng.standard_cauchy(shape)


def two_clusters(rng, shape):
    return rng.choice([-5e11, 5e11], shape) + rng.normal(size=shape)


def denormals(rng, shape):
    return (rng.integers(-50, 50, shape) * np.float32(1e-45)).astype(np.float32)


def signed_zeros(rng, shape):
    return rng.choice([-0.0, 0.0, 1.0, -1.0], shape)


def constants(rng, shape):
    return np.full(shape, 30.0)


def all_orders_of_magnitude(rng, shape):
    return (rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-44, 38, shape)).astype(np.float32)


def few_values(rng, shape):
    return rng.integers(0, 3, shape).astype(np.uint8)


def near_the_largest(rng, shape):
    return rng.choice(np.array([np.finfo("f4").max, np.finfo("f4").min, 0], "f4"), shape)


def rising(rng, shape):
    # Every image scores higher than all before: bins are always in the wrong place.
    return np.arange(shape[0])[:, None, None] * 10.0 + rng.random(shape)


def falling(rng, shape):
    return -rising(rng, shape)


ADVERSARIES = [
    heavy_tails,
    two_clusters,
    denormals,
    signed_zeros,
    constants,
    all_orders_of_magnitude,
    few_values,
    near_the_largest,
    rising,
    falling,
]


def stream(maps, masks, *, kept_pixels, batch=1, **options):
    accumulator = metrics.Accumulator(kept_pixels=kept_pixels)
    for i in range(0, len(maps), batch):
        part = {k: v[i : i + batch] for k, v in options.items()}
        accumulator.update(maps[i : i + batch], masks[i : i + batch], **part)
    return accumulator


def assert_contains(streamed, exact, names=POOLED):
    assert streamed["method"] == "streaming"
    for name in names:
        low, high = streamed["brackets"][name]
        assert low <= exact[name] <= high, name
        assert low <= streamed[name] <= high, name


@pytest.fixture
def coarse(monkeypatch):
    """Bins so few and wide that all that bounds them is at work."""

    def install(step, most):
        monkeypatch.setattr(_bins, "SHARE_OF_HIGHER", step)
        monkeypatch.setattr(_bins, "SHARE_OF_ALL", 0.4 * step)
        monkeypatch.setattr(_bins, "_MAX_BINS", most)
        monkeypatch.setattr(_bins, "_MAX_INTERVALS", most)

    return install


@pytest.mark.parametrize("step", [2e-4, 0.05, 0.4])
@pytest.mark.parametrize("scores", ADVERSARIES, ids=lambda f: f.__name__)
def test_brackets_contain_the_exact_value(scores, step, coarse):
    coarse(step, 12 if step > 0.1 else 2**19)
    rng = np.random.default_rng(7)
    masks = discs(rng, 24, 12)
    maps = scores(rng, masks.shape)
    maps = np.where(masks & (rng.random(masks.shape) < 0.5), np.flip(np.sort(maps, 1), 1), maps)
    exact = metrics.evaluate_maps(maps, masks)
    for kept in (1, 700):
        assert_contains(stream(maps, masks, kept_pixels=kept).compute(), exact)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_brackets_contain_the_exact_value_of_anything(data):
    dtype = data.draw(st.sampled_from(["f2", "f4", "f8", "i2", "u1", "i8"]))
    elements = {
        "f": functools.partial(st.floats, allow_nan=False, allow_infinity=False),
        "i": functools.partial(st.integers, -(2**15), 2**15 - 1),
        "u": functools.partial(st.integers, 0, 255),
    }[dtype[0]]
    width = {"width": 8 * int(dtype[1])} if dtype[0] == "f" else {}
    pool = data.draw(st.lists(elements(**width), min_size=1, max_size=12))
    seed, n = data.draw(st.integers(0, 2**32)), data.draw(st.integers(2, 6))
    rng = np.random.default_rng(seed)
    maps = np.array(pool, dtype)[rng.integers(0, len(pool), (n, 5, 5))]
    masks = rng.random(maps.shape) < 0.3
    masks[0, 0, 0], masks[0, 0, 1] = True, False
    exact = metrics.evaluate_maps(maps, masks)
    kept = data.draw(st.sampled_from([1, 40]))
    limit = data.draw(st.sampled_from([0.01, 0.3, 1.0]))
    streamed = stream(maps, masks, kept_pixels=kept).compute(limit=limit)
    exact["aupro"] = metrics.aupro(maps, masks, limit=limit)
    assert_contains(streamed, exact)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 8))
def test_bounds_contain_every_choice_within_the_intervals(seed, intervals, most):
    # Any scores inside the intervals, overlapping and nested ones included, stay in the brackets.
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, 10, (intervals, 2)), axis=1).astype(np.float64)
    home = np.append(np.arange(intervals), rng.integers(0, intervals, 20))
    score = rng.integers(ends[home, 0], ends[home, 1] + 1).astype(np.float64)
    defect = rng.random(score.size) < 0.4
    defect[:1], defect[1:2] = True, False
    if score.size < 2:
        return
    weight = rng.random(score.size) * defect
    weight /= weight.sum() / 3
    held = _intervals.Intervals(
        ends[:, 0],
        ends[:, 1],
        np.stack([np.bincount(home, w, intervals) for w in (~defect, defect, weight)]),
    )
    for some in (held, _intervals.coarsen(held, most)):
        bounds = _intervals.BinnedPixels(some, 3).pooled_metrics(0.3, tpr=0.7)
        exact = {
            "pixel_auroc": metrics.auroc(defect, score),
            "pixel_ap": metrics.average_precision(defect, score),
            "pixel_f1_max": metrics.best_f1(defect, score)[0],
            "pixel_fpr95": metrics.fpr_at_tpr(defect, score, tpr=0.7),
            "aupro": weighted_aupro(score, defect, weight, 0.3),
        }
        assert exact.keys() == bounds.keys()
        for name, (low, high) in bounds.items():
            assert low <= exact[name] <= high, name


def test_a_tie_across_nested_intervals_is_within_the_bounds_of_average_precision():
    # All 200 defect pixels may tie at 0, below ten normal ones: better than any order of them.
    held = _intervals.Intervals(
        np.array([0.0, 0.0, 20.0]),
        np.array([10.0, 5.0, 20.0]),
        np.array([[0, 0, 10], [100, 100, 0], [1, 1, 0]], np.float64),
    )
    low, high = _intervals.BinnedPixels(held, 2).pooled_metrics(0.3)["pixel_ap"]
    assert high >= 200 / 210
    # At best apart, at worst one by one.
    assert low <= np.mean(np.arange(1, 201) / np.arange(11, 211))


def weighted_aupro(score, defect, weight, limit):
    """Area of the polyline through all distinct scores, with any weights."""
    x, y = [0.0], [0.0]
    for t in np.unique(score)[::-1]:
        x.append(np.mean(score[~defect] >= t))
        y.append(weight[score >= t].sum() / weight.sum())
    grid = np.unique(np.append(np.clip(x, 0, limit), limit))
    area = 0.0
    for a, b in itertools.pairwise(grid):
        inner = np.interp([a + (b - a) * 1e-9, b - (b - a) * 1e-9], x, y)
        area += (b - a) * inner.mean()
    return area / limit


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m,
        lambda m: m * 1e-30,
        lambda m: m * 1e30 - 4e31,
        lambda m: 1e6 + m,  # float32 leaves some 16 values per unit here
        lambda m: np.exp(m / 3),
        lambda m: m.astype(np.float64) + 1e12,
        lambda m: np.round(4 * m).clip(0, 255).astype(np.uint8),
        lambda m: m.astype(np.float16),
    ],
    ids=["raw", "tiny", "huge", "offset", "exp", "float64", "uint8", "float16"],
)
def test_brackets_are_narrow_on_realistic_maps_of_any_range(change):
    rng = np.random.default_rng(3)
    masks = discs(rng, 40, 96)
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 2, 2))
    maps = 30 + 3 * noise / noise.std() + 5 * ndimage.gaussian_filter(masks * 1.0, (0, 2, 2))
    # Good images first and each brighter than the last: not what the first bins were made for.
    maps += 0.05 * np.arange(len(maps))[:, None, None]
    maps = change(maps.astype(np.float32))
    exact = metrics.evaluate_maps(maps, masks)
    streamed = stream(maps, masks, kept_pixels=50_000, batch=4).compute()
    assert_contains(streamed, exact)
    for name in POOLED:
        low, high = streamed["brackets"][name]
        assert high - low < 1e-4, name


KINDS = ["good", "hole", "scratch"]


@pytest.fixture(scope="module")
def kinds():
    rng = np.random.default_rng(5)
    masks = discs(rng, 30, 24)
    masks[:10] = False
    labels = masks.any(axis=(1, 2))
    defects = [KINDS[1 + i % 2] if bad else KINDS[0] for i, bad in enumerate(labels)]
    maps = (rng.normal(30, 3, masks.shape) + 4 * masks).astype(np.float32)
    return maps, masks, defects


def test_kinds_and_image_level_figures(kinds):
    maps, masks, defects = kinds
    exact = metrics.evaluate_maps(maps, masks, defects=defects)
    streamed = stream(maps, masks, kept_pixels=2000, batch=7, defects=defects).compute()
    assert_contains(streamed, exact)
    assert streamed["counts"] == exact["counts"]
    for name in exact:
        if name.startswith("image_") or "per_image" in name:
            assert streamed[name] == pytest.approx(exact[name], abs=SAME)
    for kind, row in exact["per_defect"].items():
        assert streamed["per_defect"][kind]["image_auroc"] == pytest.approx(row["image_auroc"])
        for name in ("pixel_auroc", "aupro"):
            low, high = streamed["brackets"][f"per_defect.{kind}.{name}"]
            assert low <= row[name] <= high


@pytest.mark.parametrize("kept", [500, 10**6])
def test_recall_of_regions_is_exact_at_any_size(kinds, kept):
    maps, masks, defects = kinds
    expected = metrics.region_recall(maps, masks, threshold=40.0, defects=defects)
    assert 0 < expected["found"] < expected["regions"] and len(expected["per_defect"]) == 2
    parts = [metrics.Accumulator(kept_pixels=kept, threshold=40.0) for _ in range(2)]
    for i in range(0, 30, 5):
        some = slice(i, i + 5)
        parts[i % 2].update(maps[some], masks[some], defects=defects[some])
    streamed = parts[0].merge(parts[1]).compute()
    whole = metrics.evaluate_maps(maps, masks, defects=defects, threshold=40.0)
    for result in (streamed, whole):
        assert result["regions"].pop("threshold") == 40.0
        assert result["regions"]["per_defect"] == {
            k: pytest.approx(v, abs=SAME) for k, v in expected["per_defect"].items()
        }
        for name in ("regions", "found", "recall", "coverage", "false_positive_rate"):
            assert result["regions"][name] == pytest.approx(expected[name], abs=SAME)
    with pytest.raises(ValueError, match=r"thresholds differ: 40.0 and None"):
        parts[0].merge(metrics.Accumulator())
    assert "regions" not in metrics.evaluate_maps(maps, masks)
    none = metrics.evaluate_maps(maps[:2], masks[:2] & False, threshold=1.0)
    assert none["regions"] is None and none["undefined"]["regions"] == "no image is anomalous"


def test_few_pixels_stay_exact(kinds):
    maps, masks, defects = kinds
    exact = metrics.evaluate_maps(maps, masks, defects=defects)
    streamed = stream(maps, masks, kept_pixels=10**6, batch=3, defects=defects).compute()
    assert streamed["method"] == "exact"
    assert all(low == high for low, high in streamed["brackets"].values())
    assert streamed["aupro"] == pytest.approx(exact["aupro"], abs=SAME)
    assert streamed["per_defect"] == {k: pytest.approx(v) for k, v in exact["per_defect"].items()}


def test_size_chooses_the_method(kinds, monkeypatch):
    maps, masks, _ = kinds
    assert metrics.evaluate_maps(maps, masks)["method"] == "exact"
    small = functools.partial(metrics.Accumulator, kept_pixels=1000)
    monkeypatch.setattr(summary, "Accumulator", small)
    streamed = metrics.evaluate_maps(maps, masks, memory_limit_mb=0.01)
    assert_contains(streamed, metrics.evaluate_maps(maps, masks))


def test_the_limit_is_in_bytes_of_the_maps(monkeypatch):
    """Three maps of 64 x 64 float32 are 49,152 bytes."""
    maps = np.random.default_rng(0).random((3, 64, 64), np.float32)
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[0, :8, :8] = 1
    small = functools.partial(metrics.Accumulator, kept_pixels=1000)
    monkeypatch.setattr(summary, "Accumulator", small)
    for bytes_allowed, method in ((49_152, "exact"), (49_151, "streaming")):
        found = metrics.evaluate_maps(maps, masks, memory_limit_mb=bytes_allowed / 2**20)
        assert found["method"] == method


def test_compute_does_not_disturb_what_follows(kinds):
    maps, masks, _ = kinds
    accumulator = stream(maps[:9], masks[:9], kept_pixels=500)
    accumulator.compute()
    accumulator.update(maps[9:], masks[9:])
    assert_contains(accumulator.compute(), metrics.evaluate_maps(maps, masks))
    assert len(accumulator) == 30


@pytest.mark.parametrize("kept", [1, 3000, 10**6])
def test_merged_processes_agree_whatever_the_order(kinds, kept):
    maps, masks, defects = kinds
    exact = metrics.evaluate_maps(maps, masks, defects=defects)
    parts = [
        stream(maps[i::3], masks[i::3], kept_pixels=kept, defects=defects[i::3]) for i in range(3)
    ]
    parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    new = metrics.Accumulator
    ways = [
        new(kept_pixels=kept).merge(parts[0]).merge(parts[1]).merge(parts[2]),
        new(kept_pixels=kept).merge(parts[2]).merge(parts[1]).merge(parts[0]),
        new(kept_pixels=kept).merge(parts[0]).merge(new().merge(parts[1]).merge(parts[2])),
    ]
    for whole in ways:
        result = whole.compute()
        assert result["counts"] == exact["counts"]
        assert result["image_auroc"] == pytest.approx(exact["image_auroc"], abs=SAME)
        for name in POOLED:
            low, high = result["brackets"].get(name, [exact[name] - SAME, exact[name] + SAME])
            assert low <= exact[name] <= high
            assert high - low < 1e-3  # 17 280 pixels: one defect pixel alone is some 1e-3
    # What is merged stays as it was.
    assert [len(part) for part in parts] == [10, 10, 10]


def test_merging_goes_on(kinds):
    maps, masks, _ = kinds
    whole = stream(maps[:10], masks[:10], kept_pixels=100)
    whole.merge(stream(maps[10:20].astype(np.float64), masks[10:20], kept_pixels=100))
    whole.update(maps[20:], masks[20:])
    assert_contains(whole.compute(), metrics.evaluate_maps(maps, masks))


def test_batches_of_different_dtypes_and_sizes(kinds):
    maps, masks, _ = kinds
    wide = maps[10:20].astype(np.float64) + 1e-9  # float32 cannot tell these from maps + 0
    accumulator = metrics.Accumulator(kept_pixels=2000)
    accumulator.update(maps[:10], masks[:10])
    accumulator.update(wide, masks[10:20])
    accumulator.update([m[:20] for m in maps[20:]], [m[:20] for m in masks[20:]])
    whole = [*maps[:10].astype("f8"), *wide, *(m[:20].astype("f8") for m in maps[20:])]
    truth = [*masks[:20], *(m[:20] for m in masks[20:])]
    assert_contains(accumulator.compute(), metrics.evaluate_maps(whole, truth))


def test_missing_masks_and_undefined_figures(kinds):
    maps, _, _ = kinds
    accumulator = metrics.Accumulator(kept_pixels=100)
    assert accumulator.compute()["undefined"]["pixel_auroc"] == "there are no pixels"
    assert accumulator.curves() == {}
    accumulator.update(maps[:10], labels=[0] * 10)
    accumulator.update(maps[10:], labels=[1] * 20)
    result = accumulator.compute()
    assert result["pixel_auroc"] is None
    assert result["undefined"]["aupro"] == "no anomalous image has a mask"
    assert result["counts"]["images_without_mask"] == 20


@pytest.mark.parametrize("kept", [100, 10**6])
def test_curves(kinds, kept):
    maps, masks, _ = kinds
    curves = stream(maps, masks, kept_pixels=kept).curves()
    truth, scores = masks.ravel(), maps.ravel()
    area = lambda x, y: float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    # Each bin holds some 1e-4 of the pixels at most, or a single pixel.
    assert area(*curves["roc"]) == pytest.approx(metrics.auroc(truth, scores), abs=1e-3)
    fpr, pro, _ = metrics.pro_curve(maps, masks)
    assert area(*curves["pro"]) == pytest.approx(area(fpr, pro), abs=1e-3)
    recall, precision = curves["pr"]
    steps = float(np.sum(np.diff(recall) * precision[1:]))
    assert steps == pytest.approx(metrics.average_precision(truth, scores), abs=2e-3)


def test_memory_does_not_grow(coarse):
    coarse(0.01, 2000)
    rng = np.random.default_rng(0)
    accumulator = metrics.Accumulator(kept_pixels=5000)
    sizes = []
    for i in range(60):
        masks = discs(rng, 4, 40)
        accumulator.update(rng.standard_cauchy(masks.shape) + i, masks)
        record = accumulator._images
        accumulator._images = []
        sizes.append(len(pickle.dumps(accumulator)))
        accumulator._images = record
    assert max(sizes[30:]) < 1.5 * max(sizes[:30])


def test_nothing_is_added_by_a_refused_batch(kinds):
    maps, masks, defects = kinds
    accumulator = metrics.Accumulator()
    accumulator.update(maps[:3], masks[:3], defects=defects[:3])
    broken = maps[3:6].copy()
    broken[1, 2, 3] = np.inf
    nan = np.where(np.isinf(broken), np.nan, broken)
    cases = [
        ((broken, masks[3:6]), {"defects": defects[3:6]}, r"maps\[1\]\[2, 3\] is inf"),
        ((-broken, masks[3:6]), {"defects": defects[3:6]}, r"maps\[1\]\[2, 3\] is -inf"),
        ((nan, masks[3:6]), {"defects": defects[3:6]}, r"maps\[1\]\[2, 3\] is nan"),
        ((maps[3:6], masks[3:6]), {}, "defects must be given for all batches or for none"),
        (
            (maps[3:4].astype(np.int64) + 2**60, masks[3:4]),
            {"defects": defects[3:4]},
            r"maps\[0\] holds integers beyond",
        ),
        (
            (maps[3:4].astype(np.longdouble), masks[3:4]),
            {"defects": defects[3:4]},
            "cannot be streamed",
        ),
    ]
    for positional, options, message in cases:
        with pytest.raises(ValueError, match=message):
            accumulator.update(*positional, **options)
    assert len(accumulator) == 3
    with pytest.raises(ValueError, match="limit must be"):
        accumulator.compute(limit=0)
