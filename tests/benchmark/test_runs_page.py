"""The page that compares runs."""

import numpy as np
import pytest
from report_pages import NASTY, Page, assert_self_contained, make_cases, pixels_of

from jaxad.benchmark.runs_page import RunSummary, write_comparison
from jaxad.report import figures
from jaxad.report.content import Scale
from jaxad.run.config import shipped_names
from jaxad.run.variants import about_config, variants_of


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


def test_figures_at_or_below_chance_are_marked_by_what_guessing_gives(tmp_path):
    counts = {"images": 10, "anomalous": 4, "pixels": 1000, "defect_pixels": 20}
    better = {
        "image_auroc": 0.51,
        "image_ap": 0.41,
        "pixel_auroc": 0.6,
        "pixel_ap": 0.03,
        "aupro": 0.2,
    }
    worse = {
        "image_auroc": 0.5,
        "image_ap": 0.4,
        "pixel_auroc": 0.3,
        "pixel_ap": 0.02,
        "aupro": 0.15,
    }
    runs = [
        RunSummary(name=name, metrics=metrics | {"counts": counts, "aupro_limit": 0.3})
        for name, metrics in (("better", better), ("worse", worse))
    ]
    write_comparison(tmp_path / "c.html", runs)
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    parsed = Page(text)
    for value in worse.values():
        assert f"{value:.4f}†" in parsed.text
    assert parsed.text.count("†") == 6 and "At or below chance" in parsed.text
    titles = [
        attrs["title"]
        for _, attrs in parsed.tags
        if attrs.get("class") == "chance" and "title" in attrs
    ]
    assert titles == [f"guessing gives {value}" for value in (0.5, 0.4, 0.5, 0.02, 0.15)]
    write_comparison(tmp_path / "d.html", runs[:1])
    assert "†" not in Page((tmp_path / "d.html").read_text(encoding="utf-8")).text


def test_decisions_data_failures_and_odd_images_are_told(tmp_path):
    decided = {"defective": 40, "defective_rejected": 7, "good": 14, "good_rejected": 1}
    metrics = {
        "image_threshold": 9.0213,
        "decisions": decided,
        "counts": {"images": 54, "good": 14, "anomalous": 40},
    }
    run = RunSummary(
        name="pca", metrics=metrics, data=NASTY, link="pca/default/seed0/report.html", odd_images=2
    )
    failures = [("pca/default/seed0", NASTY), ("vae/default/seed0", "out of memory")]
    write_comparison(tmp_path / "c.html", [run], failures=failures)
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert_self_contained(parsed, text)
    assert "54 test images, 14 good and 40 defective" in parsed.text and NASTY in parsed.text
    assert "9.021 7 of 40 1 of 14" in parsed.text
    assert "2 training images score far above the others" in parsed.text
    assert parsed.text.count("Shown is the run that was finished before") == 1
    assert "out of memory" in parsed.text


def test_models_that_see_images_at_different_sizes_are_told(tmp_path):
    runs = [
        RunSummary(name=name, metrics={}, cases=make_cases(2, shape=shape))
        for name, shape in (("a", (32, 48, 3)), ("b", (64, 96, 3)))
    ]
    write_comparison(tmp_path / "c.html", runs)
    assert "a 32 × 48, b 64 × 96" in Page((tmp_path / "c.html").read_text(encoding="utf-8")).text
    write_comparison(tmp_path / "d.html", runs[:1])
    assert "32 × 48" not in Page((tmp_path / "d.html").read_text(encoding="utf-8")).text


def test_scales_of_bars_and_maps_are_shown(tmp_path):
    runs = [
        RunSummary(
            name=name,
            metrics={"image_auroc": 0.9},
            cases=make_cases(2),
            scale=Scale(0.125, high, 2.5),
        )
        for name, high in (("a", 4.5), ("b", 8.25))
    ]
    write_comparison(tmp_path / "c.html", runs)
    parsed = Page((tmp_path / "c.html").read_text(encoding="utf-8"))
    assert "0.125 4.5" in parsed.text and "0.125 8.25" in parsed.text
    assert "0 0.25 0.5 0.75 1" in parsed.text
    marks = [attrs["title"] for _, attrs in parsed.tags if attrs.get("class") == "mark"]
    assert marks == ["pixel threshold 2.5"] * 2


def test_the_page_says_what_each_config_and_variant_is_for(tmp_path):
    assert variants_of("pca")["patch"].startswith("for textures: ")
    about = about_config("pca:patch,nothing")
    assert about.startswith("Principal components") and "patch: for textures" in about
    assert about_config("mine.py:patch") == ""
    # A meaning that goes on in a second line is whole.
    assert variants_of("mae")["paper"].endswith("nothing is trained")
    runs = [
        RunSummary(name="pca:patch", about=about, metrics={}),
        RunSummary(name=NASTY, about=NASTY, metrics={}),
    ]
    write_comparison(tmp_path / "c.html", runs)
    parsed = Page((tmp_path / "c.html").read_text(encoding="utf-8"))
    assert "patch: for textures" in parsed.text and NASTY in parsed.text


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_variant_says_what_it_is_for(name):
    meanings = variants_of(name)
    assert {"small", "paper"} <= set(meanings) and all(meanings.values())
