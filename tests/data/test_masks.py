"""What a mask calls defective, however it is stored, and what does not fit its image."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxad.data.crop import WHOLE, cut
from jaxad.data.images import image_dimensions
from jaxad.data.masks import (
    count_vanishing,
    read_counted_truth,
    read_mask,
    read_mask_levels,
    read_truth,
    resize_mask,
    shrink_mask,
)
from jaxad.data.table import Sample
from jaxad.run.errors import UserError


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


SQUARE = np.zeros((8, 8), np.uint8)
SQUARE[2:5, 3:6] = 1


def test_any_value_above_zero_counts(tmp_path):
    for name, array in {
        "one": SQUARE,
        "deep": SQUARE.astype(np.uint16),
        "full": SQUARE * 255,
    }.items():
        path = save(tmp_path / f"{name}.png", array)
        np.testing.assert_array_equal(read_mask(path), SQUARE > 0)


def test_palette_by_colour(tmp_path):
    image = Image.fromarray(1 - SQUARE)
    image = image.convert("L")
    image.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white here
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), SQUARE > 0)


def test_one_bit_and_rgba(tmp_path):
    save(tmp_path / "a.png", SQUARE * 255, "1")
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0] = 255  # red everywhere, but visible only in the square
    rgba[..., 3] = SQUARE * 255
    save(tmp_path / "b.png", rgba)
    for name in ("a.png", "b.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), SQUARE > 0)


def test_jpeg_noise_does_not_count(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[13:37, 21:50] = 255
    path = save(tmp_path / "a.jpg", mask, quality=75)
    assert (read_mask(path) != (mask > 0)).mean() < 0.005


@pytest.mark.parametrize("level", [1, 100, 255])
def test_jpegs_of_few_levels_start_at_half_of_their_highest(tmp_path, level):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = level
    path = save(tmp_path / "a.jpg", mask, quality=95)
    np.testing.assert_array_equal(read_mask(path), mask > 0)
    assert not read_mask(save(tmp_path / "b.jpg", mask * 0)).any()


def test_size_of_the_image_is_checked(tmp_path):
    path = save(tmp_path / "a.png", SQUARE)
    with pytest.raises(UserError, match=r"a\.png is 8 x 8 .* 8 x 9"):
        read_mask(path, expected_size=(8, 9))


@pytest.fixture
def image(tmp_path):
    return str(save(tmp_path / "image.png", np.zeros((8, 12, 3), np.uint8)))


def test_what_is_true_of_a_sample(image, tmp_path):
    marked = np.zeros((8, 12), np.uint8)
    marked[2:5, 3:6] = 1
    mask = str(save(tmp_path / "mask.png", marked))
    empty = str(save(tmp_path / "empty.png", marked * 0))
    defect = Sample(image, "test", "hole", mask)
    np.testing.assert_array_equal(read_truth(defect), marked > 0)
    small = read_truth(defect, image_size=(4, 6))
    np.testing.assert_array_equal(small, resize_mask(marked > 0, (4, 6)))
    half = (0.0, 0.0, 1.0, 0.5)
    np.testing.assert_array_equal(read_truth(defect, crop=half), marked[:, :6] > 0)
    # Outside of what is seen the pixels are normal, and so are all of a good image.
    assert not read_truth(defect, crop=(0.0, 0.5, 1.0, 1.0)).any()
    for good in (Sample(image, "test", "good"), Sample(image, "test", "good", empty)):
        for options, size in (({}, (8, 12)), ({"image_size": (4, 6)}, (4, 6)),
                              ({"crop": half}, (8, 6))):  # fmt: skip
            found = read_truth(good, **options)
            assert found.shape == size and found.dtype == bool and not found.any()
    assert read_truth(Sample(image, "test", "hole")) is None


def test_masks_that_contradict_their_image_are_refused(image, tmp_path):
    mask = str(save(tmp_path / "mask.png", np.ones((8, 12), np.uint8)))
    with pytest.raises(UserError, match=r"mask\.png marks a defect on .*image\.png, which is in"):
        read_truth(Sample(image, "test", "good", mask))
    other = str(save(tmp_path / "other.png", np.ones((12, 8), np.uint8)))
    assert image_dimensions(image) == (8, 12)
    for read in (read_mask, read_mask_levels):
        with pytest.raises(UserError, match=r"other\.png is 12 x 8 .* is 8 x 12"):
            read(other, expected_size=(8, 12))
    with pytest.raises(UserError, match="a mask must have the size of its image"):
        read_truth(Sample(image, "test", "hole", other), image_size=(4, 4))


@pytest.fixture
def dots():
    """Twelve defects of 3 x 3 pixels, eleven rows and nine columns apart."""
    mask = np.zeros((40, 60), bool)
    for row in range(2):
        for column in range(6):
            mask[11 * row + 3 : 11 * row + 6, 9 * column + 1 : 9 * column + 4] = True
    return mask


def components(mask):
    return ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.mark.parametrize("size", [(7, 10), (10, 60), (40, 9), (20, 30), (3, 12)])
def test_no_defect_vanishes_when_a_mask_shrinks(dots, size):
    nearest, truth = resize_mask(dots, size), shrink_mask(dots, size)
    assert truth.components == 12 >= truth.vanishing
    assert (truth.vanishing == 0) == (truth.enlarged == 1)
    # What nearest neighbour shows stays, and each added pixel lies on a defect.
    assert truth.mask[nearest].all()
    added = np.argwhere(truth.mask & ~nearest)
    assert len(added) <= truth.vanishing
    step = np.array(dots.shape) / size
    for place in added:
        top, left = np.floor(place * step).astype(int)
        bottom, right = np.ceil((place + 1) * step).astype(int)
        assert dots[top:bottom, left:right].any()
    if size in ((7, 10), (20, 30)):  # coarse enough to lose some, fine enough to tell them apart
        assert components(nearest) + truth.vanishing == 12
    if size != (3, 12):  # at twice that size all are seen, but some touch
        larger = np.minimum(truth.enlarged * np.array(size), dots.shape)
        assert components(resize_mask(dots, tuple(map(int, larger)))) == 12


def test_what_is_counted_of_defects_that_vanish(dots, tmp_path):
    at_model_size = shrink_mask(dots, (7, 10))
    assert at_model_size.vanishing > 0
    assert count_vanishing(dots, [(7, 10), (80, 120)]) == (12, (at_model_size.vanishing, 0))
    assert shrink_mask(np.zeros((9, 9), bool), (3, 3)).components == 0
    place = str(save(tmp_path / "mask.png", np.uint8(dots)))
    image = str(save(tmp_path / "image.png", np.zeros((40, 60), np.uint8)))
    sample = Sample(image, "test", "hole", place)
    for crop in (WHOLE, (0.0, 0.0, 1.0, 0.5)):
        truth = read_counted_truth(sample, image_size=(7, 10), crop=crop)
        expected = shrink_mask(cut(dots, crop), (7, 10))
        np.testing.assert_array_equal(truth.mask, expected.mask)
        assert truth[1:] == expected._replace(marked=12 * 9 / 2400)[1:]  # of all of it
    np.testing.assert_array_equal(read_mask(place, image_size=(7, 10)), at_model_size.mask)
