"""Masks at map size, against write-ups of what the public codes do, with Pillow and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy import ndimage

from jaxad.data.masks import read_mask, read_mask_levels, resize_mask
from jaxad.evaluation.protocols.masks import MASK_RESIZINGS


def blob(size=(40, 56), *, rows=(9, 22), columns=(13, 30), level=255):
    mask = np.zeros(size, np.uint8)
    mask[slice(*rows), slice(*columns)] = level
    return mask


def antialiased(values, size):
    """The mask as it leaves an antialiased bilinear resize of the 8-bit picture, in [0, 1]."""
    picture = Image.fromarray(values, mode="L").resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(picture).astype(np.float32) / np.float32(255)


def floored(values, size):
    """Min-max, then a cast to whole numbers, in float32 as the public code computes it."""
    mask = antialiased(values, size)
    if mask.max() == mask.min():
        return np.zeros(size, bool)  # there 0 / 0, one class, skipped
    return ((mask - mask.min()) / (mask.max() - mask.min())).astype(np.int8) == 1


def weighed_by_four(values, size):
    """Bilinear between the four pixels around each centre, by SciPy's interpolation."""
    axes = [
        np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        for old, new in zip(values.shape, size, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(values.astype(np.float64), grid, order=1)


MASKS = {
    "blob": blob(),
    "gray": blob(level=90),
    "gray beside white": np.maximum(blob(level=100), blob(rows=(25, 35), columns=(2, 50))),
    "thin": blob(rows=(17, 18)),
    "pixel": blob(rows=(11, 12), columns=(50, 51)),
    "empty": blob(level=0),
    "full": np.full((40, 56), 255, np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8),
}
SIZES = [(16, 16), (20, 28), (40, 56), (64, 90)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MASKS)
def test_the_floor_keeps_what_is_fully_white(name, size):
    found = MASK_RESIZINGS["full_after_min_max"].apply(MASKS[name], size)
    np.testing.assert_array_equal(found, floored(MASKS[name], size))
    if name in ("empty", "full"):
        assert not found.any()
    else:
        assert found.any()  # the maximum itself, however gray


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MASKS)
def test_above_zero_keeps_the_rim(name, size):
    found = MASK_RESIZINGS["above_zero"].apply(MASKS[name], size)
    np.testing.assert_array_equal(found, antialiased(MASKS[name], size) > 0)
    assert not (MASK_RESIZINGS["full_after_min_max"].apply(MASKS[name], size) & ~found).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MASKS)
def test_without_antialiasing_thin_defects_can_fall_between(name, size):
    found = MASK_RESIZINGS["above_zero_not_antialiased"].apply(MASKS[name], size)
    exact = weighed_by_four(MASKS[name], size)
    # Weights of 1 / 2048 on both axes move a value by at most 255 / 2048; rounding to whole
    # levels puts the border at one half.
    certain = np.abs(exact - 0.5) > 0.125
    np.testing.assert_array_equal(found[certain], (exact > 0.5)[certain])
    if name in ("blob", "gray", "thin", "full"):
        assert certain.all()


def test_a_thin_defect_is_seen_or_not_by_its_rule():
    """One column of 64, at a quarter of the size: between the pixels that bilinear weighs."""
    mask = blob((64, 64), rows=(0, 64), columns=(4, 5))
    found = {name: rule.apply(mask, (16, 16)) for name, rule in MASK_RESIZINGS.items()}
    assert not found["above_zero_not_antialiased"].any()
    assert found["above_zero"].sum() == 2 * 16  # the antialiasing spreads it over two columns
    assert found["full_after_min_max"].sum() == 16  # and one of them is the maximum


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), h=st.integers(1, 30), w=st.integers(1, 30))
def test_nearest_is_the_rule_that_reads_masks(seed, h, w, tmp_path_factory):
    rng = np.random.default_rng(seed)
    values = rng.choice(np.array([0, 0, 1, 7, 255], np.uint8), (h, w))
    values[0, 0] = 255  # of 0 and 1 alone another rule below holds
    path = tmp_path_factory.getbasetemp() / "mask.png"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_mask_levels(path), values)
    size = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
    found = MASK_RESIZINGS["nearest"].apply(values, size)
    np.testing.assert_array_equal(found, resize_mask(read_mask(path), size))
    # Beyond what the protocols' rule leaves, reading keeps a pixel of every defect.
    assert read_mask(path, image_size=size)[found].all()


@pytest.mark.parametrize("rule", MASK_RESIZINGS)
def test_at_its_own_size_a_white_mask_is_itself(rule):
    mask = blob()
    np.testing.assert_array_equal(MASK_RESIZINGS[rule].apply(mask, mask.shape), mask > 0)


def test_masks_of_two_levels_are_black_and_white(tmp_path):
    """However they are stored, what counts is what read_mask calls defective."""
    inside = blob() > 0
    pictures = {
        "one_bit.png": Image.fromarray(inside),
        "zero_one.png": Image.fromarray(inside.astype(np.uint8)),
        "sixteen_bit.png": Image.fromarray(inside.astype(np.uint16) * 3),
        "lossy.jpg": Image.fromarray(inside.astype(np.uint8) * 255),
        "red.png": Image.fromarray(
            np.stack([inside * 255, inside * 0, inside * 0], -1).astype("u1")
        ),
        "transparent.png": Image.fromarray(
            np.stack([np.full(inside.shape, 255)] * 3 + [inside * 255], -1).astype("u1")
        ),
        "palette.png": Image.fromarray(inside.astype(np.uint8) * 255).convert("P"),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        values = read_mask_levels(tmp_path / name)
        assert set(np.unique(values)) == {0, 255}, name
        np.testing.assert_array_equal(values > 0, read_mask(tmp_path / name), err_msg=name)


def test_gray_levels_are_kept(tmp_path):
    levels = np.arange(40 * 6, dtype=np.uint8).reshape(40, 6).repeat(2, axis=0).repeat(2, axis=1)
    for mode in ("L", "LA", "RGB"):
        Image.fromarray(levels).convert(mode).save(tmp_path / "mask.png")
        np.testing.assert_array_equal(read_mask_levels(tmp_path / "mask.png"), levels)
