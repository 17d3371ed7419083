"""The page of a prediction: bounded, escaped, and honest about what it leaves out."""

import numpy as np
from report_pages import (
    CALIBRATION,
    NASTY,
    Page,
    assert_self_contained,
    make_predictions,
    make_shown,
)

from jaxad.evaluation.predict_page import PageImages
from jaxad.report.content import ScoreRow
from jaxad.report.predictions import render_predictions


def test_the_page_tells_decisions_and_shows_the_images():
    shown = [make_shown(n, float(n)) for n in range(14)]
    text = render_predictions(make_predictions(shown))
    parsed = Page(text)
    assert_self_contained(parsed, text)
    sections = [attrs["id"] for tag, attrs in parsed.tags if tag == "section"]
    assert sections == ["summary", "threshold", "extremes", "images", "setup"]
    assert "14 images 10 rejected 4 accepted" in parsed.text
    assert "over a score of 3.5 ." in parsed.text and "Most normal" in parsed.text
    assert parsed.data["totals"] == [14] and [3.5, 10] in parsed.data["steps"]
    assert "./overlays/a.png" in parsed.addresses and "a note" in parsed.text
    # Nothing is known of the truth, and nothing is called right or wrong.
    for word in ("missed", "false alarm", "ground truth", "true defect"):
        assert word not in parsed.text


def test_the_page_tells_the_promised_rate_and_the_odd_training_images():
    shown = [make_shown(n, float(n)) for n in range(14)]
    calibration = CALIBRATION | {
        "method": "cross_fitted",
        "held_out_rejected": 0,
        "promised_false_positive_rate": 0.025,
        "promised_interval": [0.001, 0.09],
        "odd_images": [{"path": NASTY, "score": 3.4}],
        "odd_limit": 1.5,
    }
    links = {"odd_images": "../runs/a/odd_images.csv", "report": "../runs/a/report.html"}
    text = render_predictions(make_predictions(shown, calibration=calibration, links=links))
    parsed = Page(text)
    assert_self_contained(parsed, text)
    assert "all 40 good training images" in parsed.text
    assert "2.5 % of new good ones are expected to" in parsed.text
    assert "1 of 40 score over 1.5" in parsed.text and NASTY in parsed.text
    assert "2 of the accepted images score higher than that" in parsed.text  # 2 and 3
    assert set(links.values()) <= set(parsed.addresses)
    # Nobody knows what these images are, and an evaluation may have no test images.
    assert "test images looks better" not in parsed.text
    assert "jaxad evaluate" not in parsed.text and "--threshold=" in parsed.text
    without = make_predictions(shown, calibration=calibration)
    assert "odd_images.csv" not in Page(render_predictions(without)).text


def test_names_stay_text_and_files_that_cannot_be_read_are_named():
    shown = [make_shown(n, float(n), path=NASTY) for n in range(3)]
    files = [(f"{NASTY}{n}", f"why {NASTY}") for n in range(120)]
    content = make_predictions(
        shown,
        title=NASTY,
        unreadable=files,
        unlike=files,
        facts={"run": NASTY},
        complete=False,
        counts={"images": 200},
    )
    text = render_predictions(content)
    parsed = Page(text)
    assert_self_contained(parsed, text)
    assert text.lower().count("<script") == 2
    assert parsed.text.count("The first 50 of 120; scores.csv lists all") == 2
    assert "123 of 200 images are judged" in parsed.text and "ended early" in parsed.text


def test_ten_thousand_images_make_a_page_that_says_what_it_leaves_out():
    rng = np.random.default_rng(0)
    scores = rng.gamma(2.0, 1.0, 10_000)
    chosen = PageImages(len(scores), limit=30, threshold=3.5)
    made = 0
    for number, score in enumerate(scores):
        if chosen.offer(number, float(score)):
            made += 1
            chosen.add(make_shown(number, float(score)))
    shown = chosen.shown
    assert len(shown) <= 30 and made < 500
    order = np.argsort(-scores)
    numbers = {one.number for one in shown}
    assert set(order[:20]) <= numbers and set(order[-5:]) <= numbers
    assert set(np.argsort(np.abs(scores - 3.5))[:5]) <= numbers
    rows = [ScoreRow(f"new/{n:05}.png", None, "", float(s), s > 3.5) for n, s in enumerate(scores)]
    text = render_predictions(make_predictions(shown, scores=rows))
    assert len(text) < 400_000
    assert f"{len(shown)} of 10000 images are shown" in Page(text).text
    assert "scores.csv and predictions.json list them" in Page(text).text


def test_of_few_images_all_are_shown_whatever_order_their_pictures_come_in():
    chosen = PageImages(5, limit=30, threshold=None)
    shown = [make_shown(n, 1.0) for n in range(5)]
    assert all(chosen.offer(n, 1.0) for n in range(5))
    for one in reversed(shown):
        chosen.add(one)
    assert [one.number for one in chosen.shown] == [0, 1, 2, 3, 4]


def test_pictures_that_come_late_do_not_stay():
    chosen = PageImages(100, limit=6, threshold=None)
    assert chosen.offer(0, 0.5)
    for number in range(1, 20):
        chosen.offer(number, 0.5 + (number if number % 2 else -number))
    chosen.add(make_shown(0, 0.5))
    assert not chosen.shown


def test_without_a_threshold_there_are_scores_and_no_verdicts():
    shown = [make_shown(n, float(n)) for n in range(3)]
    rows = [one.row._replace(decision=None) for one in shown]
    shown = [one._replace(row=row) for one, row in zip(shown, rows, strict=True)]
    calibration = {"image_threshold": None, "reason": "why not"}
    text = render_predictions(make_predictions(shown, scores=rows, calibration=calibration))
    assert "No threshold: why not." in Page(text).text and "nan" not in Page(text).text


def test_a_call_that_judged_nothing_yet_is_a_page():
    text = render_predictions(make_predictions([], complete=False, counts={"images": 9}))
    assert "0 of 9 images are judged" in Page(text).text
