"""The page that compares runs."""

import numpy as np
import pytest
from report_pages import NASTY, Page, assert_self_contained, make_cases, pixels_of

from jaxad.benchmark.runs_page import RunSummary, write_comparison
from jaxad.report import figures
from jaxad.report.content import Scale


def test_comparison_puts_the_runs_side_by_side(tmp_path):
    first, second = make_cases(6), make_cases(4)
    runs = [
        RunSummary(
            name=NASTY,
            metrics={"image_auroc": 0.9, "image_ap": 0.7, "undefined": {"aupro": NASTY}},
            link="a b/#1/report.html",
            seconds=75.0,
            cases=first,
            scale=Scale(0.0, 4.0),
        ),
        RunSummary(name="pca", metrics={"image_auroc": 0.8, "image_ap": 0.7}, cases=second),
    ]
    path = tmp_path / "comparison.html"
    write_comparison(path, runs)
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    assert_self_contained(parsed, text)
    assert "./a%20b/%231/report.html" in parsed.addresses
    assert "1 min 15 s" in parsed.text
    assert "<b>0.9000</b>" in text and "<b>0.7000</b>" not in text  # a tie has no best
    # One photograph per path, one heat map per run that has the image.
    photographs = [one for one in parsed.images if one["alt"].startswith("photograph")]
    assert len(photographs) == 6 and len(parsed.images) == 6 + 6 + 4
    heat = next(one for one in parsed.images if one["alt"] == "heat map of test/001.png")
    expected = figures.panels(first[1], Scale(0.0, 4.0))[2].pixels
    np.testing.assert_allclose(pixels_of(heat).mean((0, 1)), expected.mean((0, 1)), atol=3)
    assert (pixels_of(photographs[1]) == figures.TRUTH_COLOUR).all(-1).any()


@pytest.mark.parametrize("link", ["javascript:alert(1)", "https:x", "../run/report.html"])
def test_links_stay_relative(tmp_path, link):
    write_comparison(tmp_path / "c.html", [RunSummary(name="a", metrics={}, link=link)])
    parsed = Page((tmp_path / "c.html").read_text(encoding="utf-8"))
    (address,) = (one for one in parsed.addresses if not one.startswith("#"))
    assert address.startswith(("./", "../"))


def test_comparison_of_nothing_is_a_page(tmp_path):
    write_comparison(tmp_path / "c.html", [], title="Nothing yet")
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    Page(text)  # raises where tags do not balance
    assert "Nothing yet" in text
