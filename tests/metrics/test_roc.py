"""ROC and PR figures against scikit-learn, on raw scores with ties, of many dtypes."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings, strategies as st

from jaxad import metrics

# Both sides are float64 sums over at most some thousand terms of order 1.
CLOSE = {"rtol": 0, "atol": 1e-9}

FIGURES = {
    metrics.auroc: sklearn.metrics.roc_auc_score,
    metrics.average_precision: sklearn.metrics.average_precision_score,
    metrics.pr_auc_trapezoid: lambda y, s: sklearn.metrics.auc(
        *reversed(sklearn.metrics.precision_recall_curve(y, s)[:2])
    ),
    lambda y, s: metrics.best_f1(y, s)[0]: lambda y, s: max(
        sklearn.metrics.f1_score(y, s >= t) for t in np.unique(s)
    ),
}


def check_all(labels, scores):
    for ours, theirs in FIGURES.items():
        np.testing.assert_allclose(ours(labels, scores), theirs(labels, scores), **CLOSE)
    ours = metrics.roc_curve(labels, scores)
    theirs = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    ours = metrics.precision_recall_curve(labels, scores)
    theirs = sklearn.metrics.precision_recall_curve(labels, scores)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@st.composite
def labelled_scores(draw):
    n = draw(st.integers(2, 30))
    labels = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda y: len({*y}) == 2))
    # Few distinct values make ties within and between the classes the rule.
    score = draw(st.sampled_from([st.integers(-2, 2), st.integers(-1000, 1000)]))
    scores = draw(st.lists(score, min_size=n, max_size=n))
    return np.array(labels), np.array(scores, np.float64)


@settings(max_examples=80, deadline=None)
@given(labelled_scores())
def test_equal_to_scikit_learn(case):
    check_all(*case)


@pytest.mark.parametrize("loc, scale", [(30.0, 3.0), (-5000.0, 0.01), (0.0, 1e-30), (1e30, 1e29)])
def test_raw_scores_of_any_range(loc, scale):
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.3
    check_all(labels, loc + scale * (rng.normal(size=400) + 2 * labels))


def test_shifted_normals_have_the_closed_form_area():
    # P(N(36, 3) > N(30, 3)) = Phi(6 / sqrt(18)); sampling error of 2 x 20000 draws is about 0.002.
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(30, 3, 20_000), rng.normal(36, 3, 20_000)])
    assert metrics.auroc(np.repeat([0, 1], 20_000), scores) == pytest.approx(0.92135, abs=0.008)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i8", "?"])
def test_dtypes(dtype):
    rng = np.random.default_rng(2)
    labels = rng.random(200) < 0.4
    scores = (rng.integers(0, 60, 200) + 20 * labels).astype(dtype)
    check_all(labels, scores)


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    labels = np.arange(50) % 3 == 0
    scores = np.sin(np.arange(50.0)).astype(ml_dtypes.bfloat16)
    assert metrics.auroc(labels, scores) == metrics.auroc(labels, scores.astype(np.float64))


def test_large_integers_are_not_rounded_to_float():
    big = 2**60
    assert metrics.auroc([0, 1], np.array([big, big + 1])) == 1.0
    assert metrics.auroc([0, 1], np.array([0, 255], np.uint8)) == 1.0


def test_float64_is_not_narrowed():
    # 30 + 1e-9 equals 30 in float32: a narrowed comparison would call it a tie.
    assert metrics.auroc([0, 1], np.array([30.0, 30.0 + 1e-9])) == 1.0
    assert metrics.pixel_metrics(np.array([[[30.0, 30.0 + 1e-9]]]), [[[0, 1]]])[0]["aupro"] == 1.0


def test_negative_zero_ties_with_zero():
    assert metrics.auroc([0, 1], [0.0, -0.0]) == 0.5


@settings(max_examples=40, deadline=None)
@given(labelled_scores(), st.randoms(use_true_random=False))
def test_only_the_order_counts(case, random):
    labels, scores = case
    order = random.sample(range(labels.size), labels.size)
    for figure in FIGURES:
        value = figure(labels, scores)
        assert figure(labels[order], scores[order]) == pytest.approx(value, abs=1e-12)
        assert figure(labels, scores**3 + 7 * scores) == pytest.approx(value, abs=1e-12)
    area = metrics.auroc(labels, scores)
    assert metrics.auroc(labels, -scores) == pytest.approx(1 - area, abs=1e-12)


def test_any_shape_is_taken_and_constant_scores_are_chance():
    labels = np.array([[0, 1], [1, 0]])
    assert metrics.auroc(labels, np.full((2, 2), 3.7)) == 0.5
    assert metrics.average_precision(labels, np.full((2, 2), 3.7)) == 0.5


def test_best_f1_gives_a_threshold_that_reaches_it():
    rng = np.random.default_rng(3)
    labels = rng.random(100) < 0.3
    scores = np.round(rng.normal(size=100) + labels, 1)
    best, threshold = metrics.best_f1(labels, scores)
    assert sklearn.metrics.f1_score(labels, scores >= threshold) == pytest.approx(best, abs=1e-12)


ALL = [
    metrics.roc_curve,
    metrics.auroc,
    metrics.precision_recall_curve,
    metrics.average_precision,
    metrics.pr_auc_trapezoid,
    metrics.best_f1,
]


@pytest.mark.parametrize("figure", ALL)
@pytest.mark.parametrize(
    "labels, reason",
    [([], "no labels"), ([0, 0], "none of the 2 labels"), ([1, 1, 1], "all 3 labels")],
)
def test_undefined(figure, labels, reason):
    with pytest.raises(metrics.UndefinedMetric, match=reason):
        figure(labels, np.arange(len(labels), dtype=float))


@pytest.mark.parametrize("figure", ALL)
@pytest.mark.parametrize(
    "labels, scores, message",
    [
        ([0, 1], [0.0, np.nan], r"scores\[1\] is nan"),
        ([0, 1], [np.inf, 0.0], r"scores\[0\] is inf"),
        ([0, 2], [0.0, 1.0], r"labels\[1\] is 2"),
        ([0, 1, 1], [0.0, 1.0], r"labels have shape \(3,\) but scores \(2,\)"),
        (["a", "b"], [0.0, 1.0], "labels must be 0"),
        ([0, 1], [1j, 2j], "real numbers"),
    ],
)
def test_bad_input_is_named(figure, labels, scores, message):
    with pytest.raises(ValueError, match=message) as caught:
        figure(labels, scores)
    assert not isinstance(caught.value, metrics.UndefinedMetric)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 5, 1000]), st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_partial_auroc_is_that_of_scikit_learn(seed, levels, max_fpr):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.random(40) < 0.4, [False, True])
    scores = rng.integers(0, levels, 42) + 0.3 * levels * labels
    expected = sklearn.metrics.roc_auc_score(labels, scores, max_fpr=max_fpr)
    value = metrics.partial_auroc(labels, scores, max_fpr=max_fpr)
    # scikit-learn leaves the whole area, max_fpr = 1, as it is: the same number.
    assert value == pytest.approx(expected, abs=1e-9)
    raw = metrics.partial_auroc(labels, scores, max_fpr=max_fpr, standardise=False)
    assert 0.5 * (1 + (raw - max_fpr / 2) / (1 - max_fpr / 2)) == pytest.approx(value, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 5, 1000]), st.sampled_from([0.05, 0.7, 0.95, 1]))
def test_fpr_at_tpr_is_a_step_of_the_roc_curve(seed, levels, tpr):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.random(38) < 0.4, [False, True])
    scores = rng.integers(0, levels, 40)
    rates = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    expected = rates[0][rates[1] >= tpr - 1e-12][0]
    assert metrics.fpr_at_tpr(labels, scores, tpr=tpr) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5, float("nan")])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match="max_fpr must be"):
        metrics.partial_auroc([0, 1], [0, 1], max_fpr=rate)
    with pytest.raises(ValueError, match="tpr must be"):
        metrics.fpr_at_tpr([0, 1], [0, 1], tpr=rate)
