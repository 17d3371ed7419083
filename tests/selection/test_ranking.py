"""The ranking, against scikit-learn and on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxad.selection.ranking import aurocs, choose, draw, kinds_of, rank, reasons_for
from jaxad.selection.trial import Split

GOOD, PER_KIND = 24, 12
KINDS = ("scratch", "stain", "blur")


def make_split(seed=0):
    rng = np.random.default_rng(seed)
    base = np.concatenate([rng.choice(GOOD, PER_KIND, replace=False) for _ in KINDS])
    kinds = tuple(kind for kind in KINDS for _ in range(PER_KIND))
    images = np.zeros((GOOD, 4, 4, 3), np.uint8)
    drawn, masks = images[base], np.zeros((len(base), 4, 4), bool)
    return Split(seed, tuple(map(str, range(GOOD))), images, base, kinds, drawn, masks)


def result_of(name, splits, scores, first=None):
    """A result with scores: name -> how far defects lie above good images, in deviations."""
    rng = np.random.default_rng(1)
    good, drawn = {}, {}
    for score, distance in scores.items():
        good[score] = [rng.normal(size=GOOD).tolist() for _ in splits]
        drawn[score] = [(distance + rng.normal(size=len(s.kinds))).tolist() for s in splits]
    return {
        "candidate": name, "config": name, "overrides": {}, "image_size": [4, 4],
        "primary_map": "l1", "primary_score": first or next(iter(scores)), "maps": ["l1"],
        "good": good, "drawn": drawn, "pixel_auroc": {"l1": 0.9}, "seconds": 1.0,
        "milliseconds": 1.0,
    }  # fmt: skip


def test_every_resample_is_the_weighted_auroc_of_scikit_learn():
    splits = [make_split(0), make_split(1)]
    result = result_of("a", splits, {"l1:max": 0.7})
    result["drawn"]["l1:max"][0][:4] = result["good"]["l1:max"][0][:4]  # ties
    draws = draw(splits, resamples=20)
    found = aurocs(result["good"]["l1:max"], result["drawn"]["l1:max"], splits, draws)
    assert kinds_of(splits) == list(KINDS) and found.shape == (21, 3)
    for r in (0, 1, 7, 20):
        for k, kind in enumerate(KINDS):
            each = []
            for i, split in enumerate(splits):
                weights, total, pairs = draws.images[i][r], 0.0, 0.0
                good = np.array(result["good"]["l1:max"][i])
                for j in np.flatnonzero(np.array(split.kinds) == kind):
                    others = np.arange(GOOD) != split.base[j]
                    count = weights[split.base[j]] * weights[others].sum()
                    if not count:
                        continue
                    auroc = roc_auc_score(
                        [0] * (GOOD - 1) + [1],
                        [*good[others], result["drawn"]["l1:max"][i][j]],
                        sample_weight=[*weights[others], 1.0],
                    )
                    total, pairs = total + count * auroc, pairs + count
                each.append(total / pairs)
            # Sums of a few hundred doubles.
            assert found[r, k] == pytest.approx(np.mean(each), abs=1e-12)
    assert (draws.kinds[0] == 1).all() and (draws.kinds.sum(axis=1) == len(KINDS)).all()


def test_the_known_best_is_first_and_chance_is_clearly_behind():
    splits = [make_split()]
    results = [
        result_of("chance", splits, {"l1:mean": 0.0}),
        result_of("good", splits, {"l1:top1": 3.0, "l1:mean": 0.2}),
    ]
    rows = rank(results, splits)
    first, *others = rows
    assert (first.candidate, first.score) == ("good", "l1:top1")
    assert first.value > 0.95 and first.low <= first.value <= first.high
    assert first.behind == first.behind_low == 0 and not first.clearly_behind
    assert all(row.clearly_behind for row in others)
    assert all(row.behind == pytest.approx(first.value - row.value) for row in others)
    assert first.value == pytest.approx(np.mean(list(first.kinds.values())))
    assert any("good" in reason for reason in reasons_for(choose(rows), rows))


def test_equal_scores_are_not_apart_and_stand_in_the_order_given():
    splits = [make_split()]
    one = result_of("one", splits, {"l1:max": 1.0})
    rows = rank([one, {**one, "candidate": "two"}], splits)
    assert [row.candidate for row in rows] == ["one", "two"]
    assert (rows[1].behind_low, rows[1].behind_high) == (0, 0) and not rows[1].clearly_behind


def test_where_drawn_defects_cannot_tell_the_usual_order_does():
    splits = [make_split()]
    usual = result_of("usual", splits, {"l1:max": 1.0, "l1:mean": 0.5})
    # The same, but for one kind of defect, of which it finds some that the first one misses.
    better = [[x + 2 * (i < PER_KIND // 2) for i, x in enumerate(usual["drawn"]["l1:max"][0])]]
    other = {**usual, "candidate": "other", "drawn": {**usual["drawn"], "l1:max": better}}
    rows = rank([usual, other], splits)
    assert rows[0].candidate == "other" and rows[1].value < rows[0].value
    assert (rows[1].candidate, rows[1].score) == ("usual", "l1:max")  # the better of its two
    assert not rows[1].clearly_behind
    assert (choose(rows).candidate, choose(rows).score) == ("usual", "l1:max")
    assert any("cannot tell" in reason for reason in reasons_for(choose(rows), rows))
    weak = result_of("usual", splits, {"l1:max": 0.0})
    strong = result_of("other", splits, {"l1:max": 2.0})
    assert choose(rank([weak, strong], splits)).candidate == "other"


def test_what_was_trained_on_drawn_defects_takes_part_by_its_configs_score_alone():
    splits = [make_split()]
    scores = {"probability:max": 4.0, "l1:top1": 1.0}
    results = [
        result_of("trained on them", splits, scores, first="l1:top1"),
        result_of("other", splits, {"l1:top1": 2.0, "l1:max": 0.1}),
    ]
    assert rank(results, splits)[0].score == "probability:max"
    rows = rank(results, splits, flattered=["trained on them"])
    assert [(row.candidate, row.score) for row in rows] == [
        ("other", "l1:top1"),
        ("trained on them", "l1:top1"),
        ("other", "l1:max"),
    ]


def test_the_same_seed_gives_the_same_intervals():
    splits = [make_split()]
    results = [result_of("a", splits, {"l1:max": 1.0, "l1:mean": 0.8})]
    assert rank(results, splits) == rank(results, splits)
    assert rank(results, splits)[0].low != rank(results, splits, seed=1)[0].low


def test_a_kind_that_all_miss_moves_no_other():
    splits = [make_split()]
    result = result_of("a", splits, {"l1:max": 3.0})
    hidden = [i for i, kind in enumerate(splits[0].kinds) if kind == "blur"]
    for i in hidden:  # the image as it was
        result["drawn"]["l1:max"][0][i] = result["good"]["l1:max"][0][splits[0].base[i]]
    (row,) = rank([result], splits)
    assert row.kinds["blur"] < 0.7 < 0.9 < min(row.kinds["scratch"], row.kinds["stain"])
