"""Bootstrap intervals against plain resampling with scikit-learn, and their coverage."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from jaxad import metrics
from jaxad.metrics import bootstrap


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 25])
    return labels, np.round(rng.normal(30, 3, 65) + 3 * labels, 0)


def test_resampled_figures_are_those_of_the_repeated_images(images):
    labels, scores = images
    rng = np.random.default_rng(3)
    times = np.zeros((20, labels.size), int)
    for row in times:
        for k in (0, 1):
            members = np.flatnonzero(labels == k)
            np.add.at(row, rng.choice(members, members.size), 1)
    figures = bootstrap._metrics(times, labels == 1, scores)
    for row, (auroc, average, f1) in zip(times, figures, strict=True):
        truth, values = np.repeat(labels, row), np.repeat(scores, row)
        assert auroc == pytest.approx(sklearn.metrics.roc_auc_score(truth, values), abs=1e-12)
        expected = sklearn.metrics.average_precision_score(truth, values)
        assert average == pytest.approx(expected, abs=1e-12)
        assert f1 == pytest.approx(metrics.best_f1(truth, values)[0], abs=1e-12)


def test_classes_keep_their_sizes_and_the_seed_decides(images, monkeypatch):
    labels, scores = images
    first = metrics.bootstrap_image_metrics(labels, scores, resamples=200)
    assert first == metrics.bootstrap_image_metrics(labels, scores, resamples=200)
    assert first != metrics.bootstrap_image_metrics(labels, scores, resamples=200, seed=1)
    seen = []
    original = bootstrap._metrics
    monkeypatch.setattr(
        bootstrap, "_metrics", lambda times, *rest: seen.append(times) or original(times, *rest)
    )
    monkeypatch.setattr(bootstrap, "_CELLS", 65 * 30)  # in several pieces
    metrics.bootstrap_image_metrics(labels, scores, resamples=100)
    times = np.concatenate(seen)
    assert times.shape == (100, 65) and len(seen) == 4
    assert (times[:, labels == 0].sum(1) == 40).all() and (times[:, labels == 1].sum(1) == 25).all()


def test_intervals_hold_the_truth_as_often_as_they_say():
    # AUROC of N(0, 1) against N(1, 1) is Phi(1 / sqrt 2). Of 100 intervals of 90 % about 90 hold
    # it; fewer than 78 or all 100 would be a chance below 1e-3 even at a true coverage of 88 %.
    truth = 0.7602499389065233
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 60)
        scores = rng.normal(size=120) + labels
        _, low, high = metrics.bootstrap_image_metrics(
            labels, scores, confidence=0.9, resamples=300
        )["image_auroc"]
        held += low <= truth <= high
    assert 78 <= held < 100


def test_pairs_narrow_the_difference(images):
    labels, scores = images
    rng = np.random.default_rng(5)
    better = scores + 0.5 * labels + 0.1 * rng.normal(size=65)
    paired = metrics.bootstrap_difference(labels, scores, better)["image_auroc"]
    value = metrics.auroc(labels, better) - metrics.auroc(labels, scores)
    assert paired.value == pytest.approx(value, abs=1e-12)
    assert paired.low <= value <= paired.high
    alone = metrics.bootstrap_image_metrics(labels, scores)["image_auroc"]
    assert paired.high - paired.low < alone.high - alone.low
    worse = metrics.bootstrap_difference(labels, better, scores)["image_auroc"]
    assert worse.value == pytest.approx(-value, abs=1e-12)


def test_p_values(images):
    labels, scores = images
    noise = np.random.default_rng(0).normal(size=65)
    clear = metrics.bootstrap_difference(labels, noise, scores + 3 * labels)
    assert clear["image_auroc"].p_value == 1 / 2000
    none = metrics.bootstrap_difference(labels, scores, scores)
    assert all(d.p_value == 1.0 for d in none.values())


@pytest.mark.parametrize("seed", range(3))
def test_p_values_are_two_sided(seed):
    # Where the resampled differences are about normal, p follows from the ends of the interval:
    # z = value / standard error, p = 2 (1 - Phi(|z|)). A one-sided p would be half of it.
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 150)
    scores = rng.normal(size=300) + labels
    other = scores + 0.1 * labels + 0.6 * rng.normal(size=300)
    forth = metrics.bootstrap_difference(labels, scores, other, resamples=4000)["image_auroc"]
    back = metrics.bootstrap_difference(labels, other, scores, resamples=4000)["image_auroc"]
    error = (forth.high - forth.low) / (2 * scipy.stats.norm.ppf(0.975))
    expected = 2 * scipy.stats.norm.sf(abs(forth.value) / error)
    assert 0.02 < expected < 0.6
    # 4000 resamples leave up to 15 % at these p; the rest is for what is not normal.
    assert forth.p_value == pytest.approx(expected, rel=0.3)
    assert back.p_value == forth.p_value


def test_bad_input(images):
    labels, scores = images
    with pytest.raises(metrics.UndefinedMetric, match="all 65 labels are anomalous"):
        metrics.bootstrap_image_metrics(labels * 0 + 1, scores)
    with pytest.raises(ValueError, match="65 scores but 64 other_scores"):
        metrics.bootstrap_difference(labels, scores, scores[1:])
    with pytest.raises(ValueError, match="confidence must be"):
        metrics.bootstrap_image_metrics(labels, scores, confidence=95)
    with pytest.raises(ValueError, match="resamples must be"):
        metrics.bootstrap_difference(labels, scores, scores, resamples=0)
