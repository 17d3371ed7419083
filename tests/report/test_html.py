"""The page of a run: complete, self-contained, escaped, and the same for the same content."""

import pathlib
import re

import numpy as np
import pytest
from report_pages import (
    CALIBRATION,
    METRICS,
    NASTY,
    Page,
    assert_self_contained,
    make_cases,
    make_content,
    pixels_of,
)

from jaxad.report import figures, html, page
from jaxad.report.content import Case, Learned, Scale, ScoreRow
from jaxad.report.page import Picture, fragment
from jaxad.run.errors import UserError


def test_report_is_balanced_self_contained_and_in_order(tmp_path):
    path = tmp_path / "report.html"
    html.write_report(path, make_content())
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    assert_self_contained(parsed, text)
    sections = [
        attrs["id"] for tag, attrs in parsed.tags if tag in ("section", "h3") and "id" in attrs
    ]
    assert sections == (
        [
            "summary",
            "threshold",
            "mistakes",
            "extremes",
            "images",
            "good",
            "kinds",
            "maps",
            "training",
            "setup",
        ]
    )
    assert {f"case-{number}" for number in range(16)} <= set(parsed.ids)
    assert list(tmp_path.iterdir()) == [path]


def test_pixel_curves_have_a_section_and_pro_ends_at_its_limit():
    curves = {
        "pixel_roc": ([0, 0.5, 1], [0, 1, 1]),
        "pixel_pr": ([0, 1], [1, 0.5]),
        "pro": ([0, 0.1, 1], [0, 0.8, 1]),
    }
    parsed = Page(html.render_report(make_content(curves=curves, metrics={"aupro_limit": 0.3})))
    assert "pixels" in parsed.ids
    for title in ("ROC of the pixels", "Precision and recall of the pixels"):
        assert title in parsed.text
    assert "Overlap of the regions, to a rate of 0.3" in parsed.text
    assert "pixels" not in Page(html.render_report(make_content())).ids


def test_headline_names_what_is_primary_and_why_figures_are_missing():
    parsed = Page(html.render_report(make_content()))
    assert "0.912 Image AUROC" in parsed.text
    assert "– 1 Pixel AUROC" in parsed.text and "– 2 AUPRO" in parsed.text
    assert parsed.text.count("no image has a mask") == 1  # one footnote for both figures
    assert "primary map mad" in parsed.text and "resolution 32 × 48" in parsed.text
    hovers = [attrs.get("title") for tag, attrs in parsed.tags if tag == "span"]
    assert "no mask for mad" in hovers


def test_threshold_is_told_with_its_origin_and_worth():
    parsed = Page(html.render_report(make_content()))
    assert "over a score of 3.5 ." in parsed.text
    assert "from 40 good training images" in parsed.text
    assert "rate of 1 %" in parsed.text
    assert "smallest rate that can be held is 2.5 %" in parsed.text
    # Scores 1 and 3 of the defective are under 3.5; 4, 6, ..., 14 of the good are over it.
    assert "6 of 8 (75.0 %) defective" in parsed.text
    assert "6 of 8 (75.0 %) good" in parsed.text


def test_a_cross_fitted_threshold_tells_its_promise_and_the_odd_images():
    odd = [{"path": "train/<good>/7.png", "score": 9.0}]
    crossed = CALIBRATION | {
        "method": "cross_fitted",
        "held_out_rejected": 3,
        "promised_false_positive_rate": 0.0976,
        "promised_interval": [0.028, 0.20],
        "odd_images": odd,
        "odd_limit": 8.0,
    }
    parsed = Page(html.render_report(make_content(calibration=crossed)))
    assert "each scored by a model that was trained without it" in parsed.text
    assert "3 exceed it, so 9.8 % of new good ones" in parsed.text
    assert "95 times in 100 the rate is between 2.8 % and 20 %" in parsed.text
    assert "1 of 40 score over 8" in parsed.text and "train/<good>/7.png" in parsed.text
    assert "./odd_images.csv" in parsed.addresses
    # Three exceed the threshold, and one is odd: an ordinary image sets it.
    assert "sets the threshold" not in parsed.text


def test_an_odd_image_that_sets_the_threshold_is_shown_with_what_it_hides():
    odd = [{"path": "train/<good>/7.png", "score": 14.5}]
    calibration = CALIBRATION | {
        "image_threshold": 14.6,
        "held_out_rejected": 0,
        "odd_images": odd,
        "odd_limit": 8.0,
    }
    cases = make_cases()
    rows = [case.row._replace(decision=case.score > 14.6) for case in cases]
    picture = np.full((9, 16, 3), 200, np.uint8)
    content = make_content(
        calibration=calibration,
        scores=rows,
        odd={"train/<good>/7.png": picture},
        folder="my runs/a",
    )
    text = html.render_report(content)
    parsed = Page(text)
    assert_self_contained(parsed, text)
    assert "just over the score of train/<good>/7.png" in parsed.text
    # Defective ones score 1, 3, ..., 15; accepted and over 8 are 9, 11 and 13.
    assert "score 8 at most, and 3 of the missed defects score higher" in parsed.text
    (shown,) = (one for one in parsed.images if one["alt"] == "training image train/<good>/7.png")
    np.testing.assert_allclose(pixels_of(shown), picture, atol=3)
    assert "jaxad evaluate --workdir='my runs/a' --threshold=" in parsed.text
    # By hand, the odd images set nothing.
    by_hand = calibration | {"set_by_hand": "14.6", "calibrated_threshold": 14.7}
    parsed = Page(html.render_report(make_content(calibration=by_hand, folder="my runs/a")))
    assert "sets the threshold" not in parsed.text
    assert "jaxad evaluate --workdir='my runs/a' --threshold=auto brings it back" in parsed.text


@pytest.mark.parametrize(("asked", "warned"), [("3.5", False), ("recall:0.9", True)])
def test_a_threshold_by_hand_is_called_so(asked, warned):
    by_hand = CALIBRATION | {"set_by_hand": asked, "calibrated_threshold": 2.25}
    parsed = Page(html.render_report(make_content(calibration=by_hand)))
    assert f"set by hand (evaluate.image_threshold={asked})" in parsed.text
    assert "The calibrated threshold is 2.25" in parsed.text
    assert "from 40 good training images" not in parsed.text
    assert ("expect less on new ones" in parsed.text) == warned


def test_mistakes_come_worst_first_and_lead_to_their_cards():
    text = html.render_report(make_content())
    section = text[text.index('<section id="mistakes"') : text.index('<section id="extremes"')]
    tiles = re.findall(r'<a class="tile" href="#case-(\d+)"[^>]*?( hidden)?>', section)
    assert [int(number) for number, hidden in tiles if not hidden] == [1, 3, 14, 12, 10, 8, 6, 4]
    # The others are there for thresholds that the script tries.
    assert len(tiles) == 16
    parsed = Page(text)
    assert "Missed defects: 2 " in parsed.text and "False alarms: 6 " in parsed.text
    images = text[text.index('<section id="images"') : text.index('<section id="kinds"')]
    numbers = [int(n) for n in re.findall(r'id="case-(\d+)"', images)]
    assert numbers == [*range(15, 0, -2), *range(14, -1, -2)]


def test_mistakes_beyond_the_cases_shown_are_counted():
    scores = [case.row for case in make_cases()]
    text = html.render_report(make_content(scores=scores, cases=make_cases()[1:5]))
    parsed = Page(text)
    assert "False alarms: 6, 1 shown" in parsed.text and "Missed defects: 2 " in parsed.text
    assert "16 test images: 8 good, 8 defective. 4 of them are shown" in Page(text).text


@pytest.mark.parametrize(
    "changes, absent, present",
    [
        ({"cases": []}, ["mistakes", "images", "good", "extremes"], "0.912"),
        ({"history": []}, [], "closed form"),
        ({"metrics": {}, "calibration": {}, "curves": {}}, ["kinds", "maps"], "not calibrated"),
        ({"metrics": {**METRICS, "undefined": None, "per_defect": {}}}, ["kinds"], "–"),
        (
            {
                "cases": make_cases(decided=False, masks=False),
                "calibration": {"image_threshold": None, "reason": "all images were trained on."},
            },
            [],
            "No threshold: all images were trained on.",
        ),
        ({"cases": make_cases(shape=(20, 90, 1))}, [], "Mistakes"),
        ({"cases": make_cases(1, shape=(28, 28, 1))}, ["extremes"], "Missed defects"),
        ({"cases": make_cases()[1:2]}, ["good", "extremes"], "False alarms: none"),
        ({"cases": make_cases(2, shape=(300, 500, 3))}, ["extremes"], "Mistakes"),
    ],
)
def test_pages_of_incomplete_runs(changes, absent, present):
    text = html.render_report(make_content(**changes))
    parsed = Page(text)
    assert_self_contained(parsed, text)
    assert not set(absent) & set(parsed.ids)
    assert present in parsed.text
    assert "nan" not in re.findall(r"\w+", parsed.text)


def test_without_a_threshold_no_image_is_called_right_or_wrong():
    content = make_content(
        cases=make_cases(decided=False), calibration={"image_threshold": None, "reason": "why"}
    )
    parsed = Page(html.render_report(content))
    assert "Hardest images" in parsed.text and "No threshold: why" in parsed.text
    classes = {attrs.get("class") for _, attrs in parsed.tags}
    assert not classes & {"badge found", "badge missed", "badge passed", "badge false-alarm"}
    assert "no calibrated heat-map scale" in parsed.text


def test_names_from_outside_are_escaped():
    case = make_cases(1)[0]
    nasty = Case(**{**vars(case), "path": NASTY, "defect": NASTY, "label": 1})
    metrics = {
        **METRICS,
        "primary_map": NASTY,
        "protocol": NASTY,
        "maps": {NASTY: {"image_auroc": 0.5, NASTY: 1.0}},
        "per_defect": {NASTY: {"count": 1, "image_auroc": 0.5}},
        "undefined": {"aupro": NASTY},
    }
    content = make_content(
        title=NASTY,
        metrics=metrics,
        cases=[nasty],
        notes=[NASTY],
        config={NASTY: {NASTY: NASTY}},
        history=[{"step": 1, NASTY: 1.0}, {"step": 2, NASTY: 2.0}],
        calibration={"image_threshold": None, "reason": NASTY},
    )
    text = html.render_report(content)
    assert_self_contained(Page(text), text)
    assert text.lower().count("<script") == 2 and "&lt;script&gt;" in text


def test_a_protocol_is_told_in_words_with_its_figures_and_what_it_left_out():
    judged = {"pixel_auroc_per_image_mean": 0.8125, "per_defect": {"scratch": 0.75, NASTY: None}}
    metrics = {
        **METRICS,
        "protocol": "vae_compare",
        "protocol_statement": f"What is judged, and how {NASTY}.",
        "protocol_departures": ["evaluate.smoothing is 2."],
        "protocol_figures": judged,
        "protocol_maps": {"mad": judged, "ssim": {"pixel_auroc_per_image_mean": None}},
        "protocol_counts": {"images": 8, "images_of_one_class": 1},
        "undefined": {"protocol_maps.ssim.pixel_auroc_per_image_mean": "no image has both"},
    }
    text = html.render_report(make_content(metrics=metrics))
    parsed = Page(text)
    assert_self_contained(parsed, text)
    for part in ("What is judged", "smoothing is 2", "0.8125", "0.7500", "images of one class: 1"):
        assert part in parsed.text, part
    assert "Pixel AUROC per image, mean" in parsed.text and "no image has both" in text
    # The library's own protocol is told in words; its figures stand above.
    own = html.render_report(make_content(metrics=metrics | {"protocol": "jaxad"}))
    assert "What is judged" in own and "images of one class" not in own
    assert "What is judged" not in html.render_report(make_content())


def test_a_path_that_is_not_unicode_is_written(tmp_path):
    case = make_cases(1)[0]
    content = make_content(cases=[Case(**{**vars(case), "path": "\udcff.png"})])
    html.write_report(tmp_path / "r.html", content)
    assert "?.png" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_heat_maps_on_the_page_share_the_calibrated_scale():
    cases = [
        Case(**{**vars(case), "heat": np.full((32, 48), value)})
        for case, value in zip(make_cases(3), (0.0, 2.0, 4.0), strict=True)
    ]
    parsed = Page(html.render_report(make_content(cases=cases)))
    for number, value in enumerate((0.0, 2.0, 4.0)):
        layer = pixels_of(parsed.stored[f"h{number}"], mode="RGBA")
        # WebP keeps flat pictures as they are; what is invisible may have any colour.
        assert (layer == layer[0, 0]).all() and layer[0, 0, 3] == (255 if value else 0)
        if value:
            expected = figures.heat_map(np.full((1, 1), value), low=0.0, high=4.0)
            np.testing.assert_array_equal(layer[0, 0, :3], expected[0, 0])


@pytest.mark.parametrize(
    "threshold, mark", [(1.0, 'mark" style="left:25.0%"'), (3.0, 'mark left" style="left:75.0%"')]
)
def test_the_colour_bar_marks_the_threshold(threshold, mark):
    bar = fragment("parts", "colour_bar", Scale(0.0, 4.0, threshold))
    assert f'<i class="{mark}' in bar and f"pixel threshold {threshold:g}<" in bar
    # At the ends and outside of the scale there is nothing to mark.
    for scale in (Scale(0.0, 4.0), Scale(0.0, 4.0, 4.0), Scale(0.0, 4.0, -1.0)):
        assert "mark" not in fragment("parts", "colour_bar", scale)


def test_gauges_show_score_and_threshold_between_all_scores():
    text = html.render_report(make_content())
    gauges = re.findall(
        r'<div class="gauge"><i style="width:(.*?)%"></i><u style="left:(.*?)%">', text
    )
    # Scores go from 0 to 15, the threshold is 3.5; each image has one card.
    expected = [(f"{100 * n / 15:.1f}", "23.3") for n in range(16)]
    assert sorted(gauges) == sorted(expected)
    one = html.render_report(make_content(cases=make_cases(1)))
    assert 'class="gauge' not in one


def test_templates_let_no_text_through_unescaped():
    files = list((pathlib.Path(page.__file__).parent / "templates").glob("*.html.j2"))
    assert len(files) >= 5
    for file in files:
        assert not re.search(r"\bsafe\b|\bautoescape\b", file.read_text(encoding="utf-8")), file


def test_images_carry_their_size_and_decode_late():
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    learned = Learned(origin="images", images=images, reconstructions=images)
    parsed = Page(html.render_report(make_content(learned=learned)))
    assert len(parsed.images) == 4
    for attrs in parsed.images:
        assert attrs["loading"] == "lazy" and attrs["decoding"] == "async"
        drawn = pixels_of(attrs)
        assert drawn.shape[:2] == (int(attrs["height"]), int(attrs["width"]))


def test_flat_images_are_exact_and_others_small():
    flat = np.full((64, 64, 3), (46, 204, 113), np.uint8)
    uri = Picture(flat, "").uri
    assert uri.startswith("data:image/webp;base64,")
    np.testing.assert_array_equal(pixels_of({"src": uri}), flat)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)
    uri = Picture(noise, "").uri
    assert len(uri) < 4 / 3 * noise.size  # without loss, base64 would be longer than that


def test_a_failed_write_leaves_the_old_page(tmp_path):
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    with pytest.raises(UserError, match=r"report\.html"):
        html.write_report(folder / "report.html", make_content(cases=[]))
    assert folder.read_text() == "not a folder"


def test_pages_are_the_same_for_the_same_content():
    assert html.render_report(make_content()) == html.render_report(make_content())


def test_verdicts():
    rows = [
        ScoreRow("p", n, "d", 0.5, decision) for n in (0, 1) for decision in (None, False, True)
    ]
    assert [row.verdict for row in rows] == [
        None,
        "passed",
        "false alarm",
        None,
        "missed",
        "found",
    ]
    assert ScoreRow("p", 1, "d", 0.5).decision is None
