"""Verdict and score on a picture: in its size, clear of what is outlined."""

import numpy as np
import pytest

from jaxad.report.labels import label


@pytest.mark.parametrize("decision", [True, False, None])
def test_a_label_darkens_a_corner_and_nothing_else(decision):
    picture = np.full((240, 320, 3), 200, np.uint8)
    drawn = label(picture, 0.123456, decision)
    assert drawn is picture  # which may be half a gigabyte
    changed = (drawn != 200).any(2)
    assert changed[:16, :40].mean() > 0.95  # edges of letters may have any gray
    assert not changed[120:].any() and not changed[:, 200:].any()


def test_a_label_goes_where_fewest_outlined_pixels_are():
    picture = np.full((240, 320, 3), 200, np.uint8)
    outlined = np.zeros((240, 320), bool)
    outlined[:100, :100] = True
    changed = (label(picture.copy(), 1.0, True, outlined) != 200).any(2)
    assert not changed[:, :160].any() and changed[:16, -40:].any()
    outlined[:] = True
    assert (label(picture, 1.0, True, outlined) != 200).any(2)[:16, :40].mean() > 0.95


def test_a_picture_without_room_stays_as_it_is():
    for shape in ((24, 32, 3), (400, 60, 3), (1, 1, 3)):
        picture = np.full(shape, 90, np.uint8)
        np.testing.assert_array_equal(label(picture.copy(), 0.5, True), picture)


def test_large_pictures_have_larger_words():
    sizes = []
    for side in (300, 1200):
        changed = (label(np.zeros((side, side, 3), np.uint8), 0.5, True) != 0).any(2)
        sizes.append(np.ptp(np.flatnonzero(changed.any(1))))
    assert 2.5 < sizes[1] / sizes[0] < 5
