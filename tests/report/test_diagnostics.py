import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scipy.stats import entropy

from jaxad.report import axes, diagnostics, learned
from jaxad.report.content import Learned


def page_of(named, images):
    """The section of diagnostics."""
    made = Learned(origin="images", images=images, reconstructions=images, diagnostics=named)
    return learned.sections(made)[-1].body


KINDS = [
    ("scalar", np.float32(0.5)),
    ("counts", np.arange(4)),
    ("vector", np.linspace(-1, 1, 5)),
    ("matrix", np.eye(3)),
    ("categories", np.zeros((2, 3, 4), np.int32)),
    ("categories", np.zeros((2, 3, 4), bool)),
    ("maps", np.zeros((2, 3, 4), np.float32)),
    ("pictures", np.zeros((7, 3, 4, 1), np.uint8)),
    ("pictures", np.zeros((2, 3, 4, 3), np.float32)),
]


@pytest.mark.parametrize("kind, values", KINDS, ids=lambda one: one if isinstance(one, str) else "")
def test_kinds_follow_shape_type_and_name(kind, values):
    name = "code_counts" if kind == "counts" else "thing"
    assert diagnostics.kind_of(name, np.asarray(values), images=2) == kind
    if kind == "counts":
        assert diagnostics.kind_of("codes", values, images=2) == "vector"


@pytest.mark.parametrize(
    "values, reason",
    [
        (np.zeros((3, 4, 4)), "of shape (3, 4, 4)"),  # neither maps of two images nor pictures
        (np.zeros((2, 4, 4, 2), np.uint8), "of shape (2, 4, 4, 2)"),
        (np.zeros((2, 4, 4, 3), np.int32), "type int32"),
        (np.zeros((1, 1, 1, 1, 1)), "no kind that the report draws"),
        (np.array(["a"]), "not of numbers"),
        (np.array([1.0, np.nan]), "not finite"),
        (np.zeros((0, 3)), "is empty"),
        (np.array([1, -1]), "negative counts"),
    ],
)
def test_what_cannot_be_drawn_is_named(values, reason):
    with pytest.raises(ValueError, match="the diagnostic 'x_counts'") as caught:
        diagnostics.kind_of("x_counts", values, images=2)
    assert reason in str(caught.value)


def bar_heights(svg):
    """Pixels above (or, negative, below) the zero line of every bar, by their left edges."""
    path = next(one for one in ElementTree.fromstring(svg).iter("path")).attrib["d"]
    parts = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)h([\d.]+)V([\d.]+)z", path)
    assert "".join(f"M{x} {a}V{b}h{w}V{c}z" for x, a, b, w, c in parts) == path
    return {float(x): float(a) - float(b) for x, a, b, _, _ in parts}


def test_bars_are_proportional_to_their_values_on_both_sides_of_zero():
    values = np.array([2.0, 0.0, -1.0, 4.0])
    heights = bar_heights(diagnostics.bars(values, label="a", x_label="b"))
    width = (axes.RIGHT - axes.LEFT) / 4
    assert list(heights) == [axes.LEFT, axes.LEFT + 2 * width, axes.LEFT + 3 * width]
    # The whole height stands for the range from -1 to 4; pixels are written with one decimal.
    unit = (axes.BOTTOM - axes.TOP) / 5
    np.testing.assert_allclose(list(heights.values()), [2 * unit, -unit, 4 * unit], atol=0.11)


def test_many_bars_keep_the_largest_and_nothing_is_drawn_of_zeros():
    values = np.zeros(10_001)
    values[[3, 9_000]] = (5.0, -5.0)
    heights = bar_heights(diagnostics.bars(values, label="a", x_label="b"))
    assert len(heights) == 2 and math.isclose(sum(heights.values()), 0.0, abs_tol=0.11)
    empty = diagnostics.bars(np.zeros(3), label="a", x_label="b")
    assert "<path" not in empty and ElementTree.fromstring(empty) is not None


def test_use_of_entries_is_sorted_counted_and_its_perplexity_that_of_scipy():
    counts = np.array([0, 3, 9, 0, 1, 3])
    chart = diagnostics.use_of_entries("code counts", counts)
    expected = np.exp(entropy(counts))
    assert chart.title == (f"code counts: 4 of 6 used, 2 unused, perplexity {expected:.1f}")
    heights = list(bar_heights(chart.svg).values())
    assert heights == sorted(heights, reverse=True) and len(heights) == 4
    np.testing.assert_allclose(diagnostics.perplexity(counts.astype(float)), expected, rtol=1e-12)
    assert diagnostics.perplexity(np.zeros(3)) == 0.0
    assert diagnostics.perplexity(np.full(7, 2.0)) == pytest.approx(7.0)


def test_every_category_has_one_colour_of_its_own_the_frequent_ones_the_most_distinct():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.full(5000, 77), rng.permutation(300), np.full(900, -1)])
    values = values.reshape(2, 50, 62)
    colours = diagnostics.category_colours(values)
    assert colours.shape == (2, 50, 62, 3) and colours.dtype == np.uint8
    codes = colours.reshape(-1, 3).astype(int) @ [65536, 256, 1]
    pairs = set(zip(values.ravel().tolist(), codes.tolist(), strict=True))
    assert len(pairs) == len({value for value, _ in pairs}) == 301
    assert len({code for _, code in pairs}) == 301
    assert dict(pairs)[77] == 0x0072B2 and dict(pairs)[-1] == 0xE69F00


def test_every_kind_is_on_the_page_under_its_name():
    images = np.zeros((2, 16, 16, 3), np.uint8)
    named = {f"{kind}_{n}": np.asarray(values) for n, (kind, values) in enumerate(KINDS)}
    named["<b>_counts"] = np.arange(3)
    html = page_of(named, images)
    for name in named:
        assert name.replace("_", " ").replace("<b>", "&lt;b&gt;") in html
    assert "<b>" not in html
    # Four maps of two images, with their photographs, a matrix, and nine pictures.
    assert html.count("<img") == 3 * 2 * 2 + 1 + 7 + 2
    assert html.count("<svg") == 3


def test_long_lists_of_pictures_are_cut_and_say_so():
    values = np.zeros((40, 2, 2, 1), np.uint8)
    html = page_of({"items": values}, np.zeros((1, 2, 2, 1), np.uint8))
    assert html.count("<img") == 32 and "The first 32 of 40." in html


def test_pictures_are_clipped_to_eight_bits():
    values = np.array([-0.5, 0.0, 0.5, 1.0, 2.0], np.float32).reshape(1, 1, 5, 1)
    assert diagnostics.to_pixels(values).ravel().tolist() == [0, 0, 128, 255, 255]
    whole = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert diagnostics.to_pixels(whole) is whole
