"""What pages give their script: thresholds with what each rejects."""

import itertools

import numpy as np
import pytest
from report_pages import NASTY, Page, make_cases, make_content

from jaxad.report import html
from jaxad.report.content import Case, ScoreRow
from jaxad.report.live import MOST_STEPS, gauge_range, live_data, thresholds


def rows_of(good, bad):
    return [ScoreRow("p", label, "d", s) for label, group in enumerate((good, bad)) for s in group]


@pytest.mark.parametrize("own", [None, 0.25])
@pytest.mark.parametrize("count", [0, 1, 40, 3000])
def test_counts_of_every_step_are_those_of_the_scores(count, own):
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0, 1, count), rng.normal(1, 1, count // 2)
    data = live_data(rows_of(good, bad), own)
    assert data["totals"] == [count, count // 2] and data["threshold"] == own
    assert own is None or own in [step for step, *_ in data["steps"]]
    assert len(data["steps"]) <= MOST_STEPS + 1
    for step, over_good, over_bad in data["steps"]:
        assert over_good == (good > step).sum() and over_bad == (bad > step).sum()
    if count == 40:  # one image after the other is accepted
        over = [a + b for _, a, b in data["steps"]]
        assert over[0] == 60 and over[-1] == 0
        assert all(0 <= a - b <= 1 for a, b in itertools.pairwise(over))


def test_new_images_are_one_group():
    rows = [ScoreRow("p", None, "", float(score)) for score in range(4)]
    data = live_data(rows, 1.5)
    assert data["totals"] == [4]
    assert [2] in [over for step, *over in data["steps"] if step == 1.5]


def test_equal_scores_leave_room_for_a_threshold_on_both_sides():
    below, above = thresholds(np.zeros(5))
    assert below < 0 < above


def test_the_page_carries_its_data_and_pictures_once():
    parsed = Page(html.render_report(make_content()))
    assert parsed.data["totals"] == [8, 8] and parsed.data["threshold"] == 3.5
    assert {f"{kind}{n}" for kind in "prh" for n in range(16)} <= set(parsed.stored)
    used = [attrs["href"] for tag, attrs in parsed.tags if tag == "use"]
    assert len(used) > 100 and {name[1:] for name in used} <= set(parsed.stored)


def test_without_scripts_all_is_there_and_nothing_waits_for_one():
    text = html.render_report(make_content())
    parsed = Page(text)
    # What scripts alone can use is marked so, and the style sheet hides it without them.
    assert "html:not(.js) .live{display:none" in text
    for tag, attrs in parsed.tags:
        if tag in ("button", "select") or (tag == "input" and attrs["type"] == "range"):
            assert "on" not in {name[:2] for name in attrs}
    assert parsed.text.count("photograph") >= 16 and "6 of 8 (75.0 %)" in parsed.text


def test_an_accepted_image_has_its_outline_hidden():
    shape = (32, 48)
    cases = [
        Case(**{**vars(case), "predicted": np.zeros(shape, bool), "regions": case.heat > 0.5})
        for case in make_cases(2)
    ]
    text = html.render_report(make_content(cases=cases))
    card = text[text.index('<article class="case" id="case-0"') :]
    card = card[: card.index("</article>")]
    assert 'data-rejected="no"' in card and "accepted: no outline" in card
    assert card.count('href="#o0"') == 4 and card.count("if-rejected") == 2
    assert "[data-rejected=no] .if-rejected" in text


def test_every_word_is_explained_once():
    parsed = Page(html.render_report(make_content()))
    assert len(parsed.explained) == len(set(parsed.explained)) > 10
    focusable = [attrs for _, attrs in parsed.tags if attrs.get("class") == "term"]
    assert all(attrs["tabindex"] == "0" for attrs in focusable)


def test_hostile_names_stay_text_in_the_data_too():
    cases = [
        Case(**{**vars(case), "path": f"{NASTY}</script><!--", "defect": NASTY})
        for case in make_cases(3)
    ]
    parsed = Page(html.render_report(make_content(cases=cases, title=NASTY)))
    assert len(parsed.scripts) == 2 and NASTY in parsed.text


def test_the_size_grows_with_the_pictures_alone():
    rng = np.random.default_rng(0)
    many = [
        ScoreRow(f"test/{n:06}.png", n % 2, "scratch" if n % 2 else "good", rng.random(), True)
        for n in range(20_000)
    ]
    few = html.render_report(make_content())
    large = html.render_report(make_content(scores=many))
    assert len(large) - len(few) < 100_000
    assert "16 of them are shown" in Page(large).text


def test_bars_of_scores_begin_at_zero_or_below_the_lowest():
    assert gauge_range([0.25, 0.5, float("inf")]) == (0.0, 0.5)
    low, high = gauge_range([-19.0, 0.0])
    assert (low, high) == (-20.0, 0.0)  # the lowest has a twentieth of the bar
    assert gauge_range([0.5, 0.5]) == (0.5, 0.5) and gauge_range([]) == (0.0, 1.0)
