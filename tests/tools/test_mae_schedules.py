"""The figures and intervals of the study of mask schedules, against the library's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxad import metrics


@pytest.fixture(scope="module")
def study(load_tool):
    return load_tool("studies/mae_schedules")


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [30, 40])
    first = rng.normal(size=70) + labels
    return labels, first, first + 0.5 * rng.normal(size=70)


def test_image_figures_are_those_of_repeated_images(study, scored):
    labels, scores, _ = scored
    scores = np.round(scores, 1)  # with ties
    times = study.draws(labels, 5, seed=1)
    found = study.image_auroc(labels, scores, times)
    for row, value in zip(times.astype(int), found, strict=True):
        expected = roc_auc_score(np.repeat(labels, row), np.repeat(scores, row))
        assert value == pytest.approx(expected, abs=1e-12)
    assert np.all(times[0] == 1) and np.all(times[:, :30].sum(axis=1) == 30)


def test_pixel_figures_are_those_of_the_pixels(study):
    rng = np.random.default_rng(0)
    maps = rng.gamma(2.0, size=(6, 24, 24)).astype(np.float32)
    masks = [rng.random((24, 24)) < share for share in (0.0, 0.0, 0.1, 0.2, 0.3)] + [None]
    for values, mask in zip(maps, masks, strict=True):
        values[mask if mask is not None else slice(0)] += 0.7
    good, bad = study.histograms(maps, masks)
    assert good.sum() + bad.sum() == 5 * 24 * 24
    found = study.pixel_auroc(good, bad, np.ones((1, 6)))[0]
    seen = np.concatenate([m.ravel() for m in maps[:5]])
    expected = roc_auc_score(np.concatenate([m.ravel() for m in masks[:5]]), seen)
    # Pixels of one bin of 1 / 2048 of all count as equal.
    assert found == pytest.approx(expected, abs=1e-3)


def test_intervals_are_those_of_the_paired_bootstrap(study, scored):
    labels, first, second = scored
    empty = np.zeros((70, 2), int)
    one = {
        study.PAPER: study.Measured(first, empty, empty, 1.0, 1.0),
        "interleaved 4": study.Measured(second, empty, empty, 0.05, 0.05),
    }
    figures = study.figures_of(labels, [one], 4000, seed=3)
    rows = study.summary(figures, {study.PAPER: 1.0, "interleaved 4": 20.0})
    ours = rows[1]["image_auroc_difference"]
    theirs = metrics.bootstrap_difference(labels, first, second, resamples=4000)["image_auroc"]
    assert ours["value"] == pytest.approx(theirs.value)
    # Other draws: ends of 4,000 resamples agree to a few percent of the interval's width.
    width = theirs.high - theirs.low
    assert ours["low"] == pytest.approx(theirs.low, abs=0.1 * width)
    assert ours["high"] == pytest.approx(theirs.high, abs=0.1 * width)
    assert rows[0]["image_auroc_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert rows[1]["pixel_auroc"]["value"] is None and rows[1]["times_as_fast"] == 20.0


@pytest.mark.parametrize(
    "shift, speed, qualifies, as_good",
    [(0.0, 20.0, True, True), (0.0, 5.0, False, True), (3.0, 20.0, False, False)],
)
def test_a_schedule_qualifies_when_it_is_fast_and_no_worse(
    study, scored, shift, speed, qualifies, as_good
):
    labels, first, _ = scored
    empty = np.zeros((70, 2), int)
    worse = first - shift * labels
    one = {
        study.PAPER: study.Measured(first, empty, empty, 1.0, 1.0),
        "other": study.Measured(worse, empty, empty, 1.0, 1.0),
    }
    row = study.summary(
        study.figures_of(labels, [one], 500, 0), {study.PAPER: 1.0, "other": speed}
    )[1]
    assert (row["qualifies"], row["as_good"]) == (qualifies, as_good)


def test_a_part_of_the_images_keeps_the_classes(study):
    labels = np.repeat([0, 1], [30, 60])
    kept = study.chosen(labels, 30)
    assert len(kept) == 30 and labels[kept].sum() == 20
    assert np.array_equal(study.chosen(labels, 0), np.arange(90))
