"""AUPIMO against an integration of its definition over a fine grid of rates."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxad import metrics


def by_definition(maps, masks, low, high, grid=20_000):
    """Mean height of the curves over a logarithmic grid, thresholds one by one."""
    good = [m for m, g in zip(maps, masks, strict=True) if not np.any(g)]
    values = np.unique(np.concatenate([np.ravel(m) for m in good]))[::-1]
    rate = np.array([0.0, *(np.mean([np.mean(m >= t) for m in good]) for t in values)])
    edges = np.exp(np.linspace(np.log(low), np.log(high), grid + 1))
    middle = np.sqrt(edges[1:] * edges[:-1])
    result = []
    for image, mask in zip(maps, masks, strict=True):
        if not np.any(mask):
            result.append(np.nan)
            continue
        scores = image[mask > 0]
        # Two points per rate: (rate before t, recall above t) and (rate at t, recall at t).
        x, y = [], []
        for k, t in enumerate(values):
            x += [rate[k], rate[k + 1]]
            y += [np.mean(scores > t), np.mean(scores >= t)]
        piece = np.searchsorted(x[1::2], middle)
        a, b = np.array(x)[2 * piece], np.array(x)[2 * piece + 1]
        c, d = np.array(y)[2 * piece], np.array(y)[2 * piece + 1]
        result.append(np.mean(c + (d - c) * (middle - a) / (b - a)))
    return np.array(result)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 40, 10**6]), st.sampled_from([1e-3, 0.02]))
def test_is_the_definition(seed, levels, low):
    rng = np.random.default_rng(seed)
    shapes = [(6, 7), (9, 4), (5, 5), (6, 7)]
    masks = [np.zeros(s, int) for s in shapes]
    masks[2][1:3, 1:4] = masks[3][2:5, 2:4] = 1
    maps = [
        rng.integers(0, levels, s) + 0.2 * levels * m for s, m in zip(shapes, masks, strict=True)
    ]
    value = metrics.aupimo(maps, masks, fpr_bounds=(low, 0.3))
    # The grid's error: one cell of 1 / 20000 of the range at each of the few jumps.
    np.testing.assert_allclose(value, by_definition(maps, masks, low, 0.3), atol=2e-3)


def test_closed_form():
    # Good pixels 1 ... 100; a defect pixel at 99.5 is missed up to rate 1 %, one at 90.5 up to 10 %.
    maps = [np.arange(1.0, 101).reshape(10, 10), np.array([[99.5, 90.5, 0.0]])]
    masks = [np.zeros((10, 10)), np.array([[1, 1, 0]])]
    good, value = metrics.aupimo(maps, masks, fpr_bounds=(1e-3, 1.0))
    # Three decades: nothing is lost below 1 % for the first, two decades up to 10 % for the other;
    # at the score of 99 the second percent begins with the first pixel found already.
    assert np.isnan(good)
    assert value == pytest.approx((2 / 3 + 1 / 3) / 2, abs=1e-12)


def test_good_images_count_alike_whatever_their_size():
    rng = np.random.default_rng(0)
    small, large = rng.random((10, 10)), rng.random((100, 100))
    bad = rng.random((10, 10)) * 1.2
    mask = np.ones((10, 10))
    zeros = [np.zeros((10, 10)), np.zeros((100, 100))]
    together = metrics.aupimo([small, large, bad], [*zeros, mask], fpr_bounds=(0.02, 0.2))
    repeated = np.tile(small, (10, 10))
    same = metrics.aupimo(
        [repeated, large, bad], [zeros[1], zeros[1], mask], fpr_bounds=(0.02, 0.2)
    )
    np.testing.assert_allclose(together[2], same[2], atol=1e-12)


def test_only_the_order_of_scores_counts():
    rng = np.random.default_rng(1)
    masks = np.zeros((4, 30, 30))
    masks[2:, 4:9, 4:9] = 1
    maps = rng.normal(size=masks.shape) + 2 * masks
    value = metrics.aupimo(maps, masks, fpr_bounds=(1e-3, 1e-1))
    assert 0 < value[2] < 1
    np.testing.assert_array_equal(
        metrics.aupimo(np.exp(maps) + 1e3, masks, fpr_bounds=(1e-3, 1e-1)), value
    )


def test_undefined_and_bad_input():
    zeros = np.zeros((2, 4, 4))
    with pytest.raises(metrics.UndefinedMetric, match="no mask holds a defect"):
        metrics.aupimo(zeros, zeros)
    with pytest.raises(metrics.UndefinedMetric, match="no image is good"):
        metrics.aupimo(zeros, zeros + 1)
    for bounds in [(0, 1e-4), (1e-4, 1e-5), (0.1, 2)]:
        with pytest.raises(ValueError, match="fpr_bounds must rise"):
            metrics.aupimo(zeros, zeros, fpr_bounds=bounds)
