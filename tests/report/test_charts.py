import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxad.report import axes, charts
from jaxad.report.axes import Axis
from jaxad.report.histogram import score_histogram


def parse(svg):
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        for name in ("x", "y", "width", "height", "x1", "x2", "y1", "y2", "cx", "cy"):
            if name in element.attrib:
                assert math.isfinite(float(element.attrib[name])) or element is root
    return root


def bars(root, kind):
    return [one for one in root.iter("rect") if one.attrib["class"] == kind]


def texts(root):
    return [one.text for one in root.iter("text")]


@pytest.mark.parametrize(
    "low, high", [(0, 1), (-3, 12345), (1e-9, 3e-9), (5, 5.0001), (-1e6, -1e5), (0, 7e12)]
)
def test_linear_ticks_are_few_round_and_inside(low, high):
    axis = Axis(low, high)
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 7
    assert all(low - 1e-9 * (high - low) <= tick <= high * (1 + 1e-9) + 1e-12 for tick in ticks)
    steps = np.diff(ticks)
    mantissa = steps[0] / 10 ** np.floor(np.log10(steps[0] * 1.0000001))
    # Differences of large ticks cancel digits: 5 ± 0.0001 leaves about ten of them.
    np.testing.assert_allclose(min(abs(mantissa - np.array([1, 2, 5, 10]))), 0, atol=1e-6)


@pytest.mark.parametrize("low, high", [(1, 1000), (2, 9), (1e-5, 1e7), (30, 700)])
def test_log_ticks_are_inside(low, high):
    ticks = Axis(low, high, True).ticks()
    assert len(ticks) >= 2 and ticks == sorted(ticks)
    assert all(low <= tick <= high for tick in ticks)


def test_axis_places_values_and_stops_at_its_ends():
    axis = Axis(1.0, 100.0, True)
    assert axis.unit(10.0) == pytest.approx(0.5)
    assert axis.unit(0.0) == 0.0 and axis.unit(1e9) == 1.0
    assert Axis(0.0, 2.0).x(0.0) == axes.LEFT and Axis(0.0, 2.0).y(2.0) == axes.TOP
    single = Axis.around([3.0])
    assert single.low < 3.0 < single.high
    assert Axis.around([]) == Axis(0.0, 1.0)


@pytest.mark.parametrize(
    "value, text",
    [(0.0, "0"), (1500.0, "1500"), (20000.0, "20k"), (3.5e6, "3.5M"), (1e-5, "1e-5")],
)
def test_tick_text(value, text):
    assert axes.tick_text(value) == text


def test_used_entries_name_the_whole_and_the_optimiser_comes_last():
    columns = ("learning_rate", "codes_used", "codes_unused", "range", "gradient_norm", "loss")
    history = [
        dict(zip(("step", *columns), (n, 1, 5 - n, 3 + n, 2, 1, 9), strict=True)) for n in (1, 2)
    ]
    assert [chart.title for chart in charts.history_charts(history)] == [
        "loss",
        "codes used, of 8",
        "range",
        "learning rate",
        "gradient norm",
    ]


def test_history_pairs_training_and_held_out_and_ignores_bad_cells():
    history = [
        {"step": "10", "loss": "900", "kl": "-1"},
        {"step": "20", "loss": "nan", "kl": "1", "validation_loss": "700"},
        {"step": "30", "loss": "", "kl": "2", "note": "text", "validation_loss": "20"},
        {"step": "40", "loss": "10", "kl": "3"},
    ]
    drawn = charts.history_charts(history)
    assert [chart.title for chart in drawn] == ["loss", "kl"]
    loss, kl = (parse(chart.svg) for chart in drawn)
    lines = {line.attrib["class"]: line.attrib["points"].split() for line in loss.iter("polyline")}
    assert len(lines["first"]) == 2 and len(lines["second"]) == 2
    assert {"training images", "held-out images", "step"} <= set(texts(loss))
    assert "training images" not in texts(kl)
    # The loss spans a factor of 90: its axis is logarithmic, so 20 lies well above the bottom.
    height = axes.BOTTOM - float(lines["second"][1].split(",")[1])
    assert height > 0.1 * (axes.BOTTOM - axes.TOP)


def test_history_of_one_row_none_and_many():
    assert charts.history_charts([]) == []
    (chart,) = charts.history_charts([{"epoch": 1, "loss": 0.5}])
    assert "<circle" in chart.svg and "epoch" in texts(parse(chart.svg))
    (chart,) = charts.history_charts([{"loss": float(value)} for value in range(5000)])
    assert len(re.findall(r"\d,\d", chart.svg)) <= 301
    points = next(parse(chart.svg).iter("polyline")).attrib["points"].split()
    assert float(points[-1].split(",")[1]) < float(points[0].split(",")[1])


def test_histogram_counts_every_image_and_no_bar_straddles_the_threshold():
    rng = np.random.default_rng(1)
    good, bad, threshold = rng.normal(10, 1, 70), rng.normal(14, 2, 30), 12.0
    root = parse(score_histogram(good, bad, threshold=threshold))
    for kind, scores in (("good", good), ("bad", bad)):
        titles = [bar.find("title").text for bar in bars(root, kind)]
        assert sum(int(title.split()[0]) for title in titles) == scores.size
        over = 0
        for title in titles:
            low, high = map(float, re.search(r"score (\S+) to (\S+)", title).groups())
            assert low >= threshold or high <= threshold
            over += int(title.split()[0]) if low >= threshold else 0
        assert over == (scores > threshold).sum()
    (mark,) = (one for one in root.iter("line") if one.attrib["class"] == "threshold")
    share = (float(mark.attrib["x1"]) - axes.LEFT) / (axes.RIGHT - axes.LEFT)
    assert 0.2 < share < 0.6
    assert "threshold 12" in texts(root)
    assert {"70 good", "30 defective", "images", "image score"} <= set(texts(root))


def test_one_image_is_no_images():
    for scores, words in (([1.0], "1 image"), ([1.0, 2.0], "2 images")):
        chart = score_histogram(scores, None, threshold=None)
        assert f">{words}<" in chart and "1 images" not in chart


@pytest.mark.parametrize("count", [1, 3, 7, 50, 4000])
def test_the_counts_of_a_histogram_have_an_axis(count):
    root = parse(score_histogram([1.0] * count + [2.0], [1.5] * (count // 2 + 1), threshold=None))
    ticks = [
        (int(one.text), float(one.attrib["y"]) - 4)
        for one in root.iter("text")
        if one.text.isdecimal() and float(one.attrib["x"]) < axes.LEFT
    ]
    counts = [number for number, _ in ticks]
    assert counts.count(0) == 1 and len(ticks) >= 3
    (zero,) = (y for number, y in ticks if not number)
    highest = next(
        bar for bar in bars(root, "good") if bar.find("title").text.startswith(f"{count} ")
    )
    unit = float(highest.attrib["height"]) / count
    for number, y in ticks:
        assert abs(abs(zero - y) - number * unit) < 0.6
    places = sorted(y for _, y in ticks)
    assert min(np.diff(places)) > 10  # labels do not run into one another


@pytest.mark.parametrize(
    "good, bad, threshold",
    [
        ([], [], None),
        ([1.0], [], None),
        ([], [2.0], 2.0),
        ([0.0, 0.0], [0.0], 0.0),
        ([-5.0], [1e9], None),
        ([0.1, 0.2, 0.3], [0.2, 500.0], 0.25),
        ([np.nan, 1.0], [np.inf], None),
    ],
)
def test_histogram_of_awkward_scores(good, bad, threshold):
    root = parse(score_histogram(good, bad, threshold=threshold))
    finite = int(np.isfinite(good).sum())
    total = sum(int(bar.find("title").text.split()[0]) for bar in bars(root, "good"))
    assert total == finite and f"{finite} good" in texts(root)
    assert any(one.attrib["class"] == "threshold" for one in root.iter("line")) == (
        threshold is not None
    )


def test_curve_goes_from_corner_to_corner_and_marks_the_point():
    x = np.linspace(0, 1, 1000)
    root = parse(charts.curve(x, x**0.2, x_label="a<b", y_label="c&d", marker=(0.25, 0.5)))
    points = next(root.iter("polyline")).attrib["points"].split()
    assert len(points) <= 301
    assert points[0] == f"{axes.LEFT},{axes.BOTTOM}" and points[-1] == f"{axes.RIGHT},{axes.TOP}"
    (marker,) = root.iter("circle")
    assert float(marker.attrib["cx"]) == pytest.approx(Axis(0.0, 1.0).x(0.25))
    assert {"a<b", "c&d"} <= set(texts(root))


def test_curve_is_cut_at_its_limit_and_interpolated_there():
    root = parse(
        charts.curve([0, 0.2, 0.6, 1], [0, 0.5, 0.9, 1], x_label="x", y_label="y", limit=0.3)
    )
    (line,) = root.iter("polyline")
    points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    assert len(points) == 3
    # A quarter of the way from 0.5 to 0.9, at the right end of the axis.
    assert points[-1] == pytest.approx((axes.RIGHT, Axis(0.0, 1.0).y(0.6)), abs=0.1)
    assert "0.3" in texts(root) and "0.6" in texts(root)


def test_curve_that_ends_before_its_limit_is_left_as_it_is():
    root = parse(charts.curve([0, 0.1], [0, 1], x_label="x", y_label="y", limit=0.3))
    points = next(root.iter("polyline")).attrib["points"].split()
    assert len(points) == 2


def test_defect_bars_are_in_proportion_and_undefined_ones_say_so():
    root = parse(charts.defect_bars({"<i>": 0.25, "b" * 40: 1.0, "none": None, "nan": np.nan}))
    lengths = [float(bar.attrib["width"]) for bar in bars(root, "bar")]
    assert len(lengths) == 2 and lengths[1] == pytest.approx(4 * lengths[0], abs=0.2)
    assert texts(root).count("–") == 2 and "<i>" in texts(root)
