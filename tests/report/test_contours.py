"""Outlines of regions as paths: filled, a path gives its region back."""

import re

import numpy as np
import pytest

from jaxad.report import contours
from jaxad.report.contours import outline_path


def filled(path, shape):
    """The region inside a path, by the even-odd rule along rows of pixels' centres."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for loop in path.split("z")[:-1]:
        start, *steps = re.findall(r"[Mhv][-\d ]+", loop)
        x0, y0 = x, y = [int(number) for number in start[1:].split()]
        points = [(x, y)]
        for step in steps:
            x, y = (x + int(step[1:]), y) if step[0] == "h" else (x, y + int(step[1:]))
            points.append((x, y))
        assert points[-1][0] == x0 or points[-1][1] == y0  # what "z" draws is straight
        for (xa, ya), (xb, yb) in zip(points, [*points[1:], points[0]], strict=True):
            assert xa == xb or ya == yb
            if xa == xb:
                crossings[min(ya, yb) : max(ya, yb), xa] += 1
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (40, 30)])
def test_a_filled_path_is_its_region(share, shape):
    mask = np.random.default_rng(3).random(shape) < share
    np.testing.assert_array_equal(filled(outline_path(mask), shape), mask)


def test_rings_have_two_contours_in_few_steps():
    mask = np.zeros((8, 9), bool)
    mask[1:7, 1:8] = True
    mask[3:5, 3:5] = False
    path = outline_path(mask)
    assert path.count("M") == 2 and path.count("z") == 2
    assert path == "M1 1h7v6h-7v-5zM3 5h2v-2h-2v1z"  # "z" draws the last side


def test_ragged_regions_are_coarser_and_hold_the_region(monkeypatch):
    monkeypatch.setattr(contours, "_MOST_LETTERS", 400)
    mask = np.random.default_rng(0).random((45, 61)) < 0.2
    path = outline_path(mask)
    assert len(path) <= 400
    inside = filled(path, (64, 64))[:45, :61]
    assert inside[mask].all()
