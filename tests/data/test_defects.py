"""Drawn defects: where they lie, what they change, and that masks say so."""

from __future__ import annotations

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from jaxad.cli.main import main
from jaxad.data.defects import shapes
from jaxad.data.defects.draw import draw_defect, draw_defects
from jaxad.data.defects.foreground import find_foregrounds, otsu_threshold
from jaxad.data.defects.kinds import KINDS
from jaxad.data.defects.ranges import Ranges

SIDE = 48
COUNT = 6


@pytest.fixture(scope="module")
def images():
    """Ragged discs of structured surface on a plain background."""
    rng = np.random.default_rng(0)
    made = np.full((COUNT, SIDE, SIDE, 3), 225, np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for image in made:
        surface = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2) * 500
        disc = np.hypot(y - 24, x - 24 + rng.integers(-2, 3)) < 17
        colour = np.clip(90 + surface[..., None] + [40, 0, -30], 0, 255)
        image[disc] = colour[disc].astype(np.uint8)
    return made


@pytest.fixture(scope="module")
def foregrounds(images):
    return find_foregrounds(images)


@pytest.fixture(scope="module")
def drawn(images, foregrounds):
    """Each kind on every image."""
    return {kind: draw_defects(images, foregrounds, [kind] * COUNT, seed=3) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_seen_where_its_mask_is_and_nowhere_else(kind, drawn, images, foregrounds):
    defective, masks = drawn[kind]
    change = np.abs(np.float32(defective) - images).max(axis=-1) / 255
    assert (masks.any(axis=(1, 2))).mean() >= 0.8
    assert not (masks & ~foregrounds).any()
    assert (change[~foregrounds] == 0).all()
    for one, mask in zip(change, masks, strict=True):
        if mask.any():
            assert mask.sum() >= Ranges().least_area
            # Smoothed by 1.5 pixels each pixel of the mask changes by Ranges.visible.
            assert ndimage.gaussian_filter(one, 1.5)[mask].min() >= 0.03 - 1 / 255
            # Beyond the mask and its soft edge hardly anything changed: what is left is invisible.
            away = ~ndimage.binary_dilation(mask, iterations=3)
            assert ndimage.gaussian_filter(one, 1.5)[away].max(initial=0) < 0.06
        else:
            assert (one == 0).all()


def test_the_same_seed_draws_the_same_and_another_does_not(images, foregrounds, drawn):
    again = draw_defects(images, foregrounds, ["stain"] * COUNT, seed=3)
    for one, other in zip(again, drawn["stain"], strict=True):
        np.testing.assert_array_equal(one, other)
    different, _ = draw_defects(images, foregrounds, ["stain"] * COUNT, seed=4)
    assert (different != drawn["stain"][0]).any(axis=(1, 2, 3)).all()


def test_kinds_may_be_mixed_and_each_row_depends_on_its_own_kind_alone(images, foregrounds, drawn):
    kinds = ["stain", "patch"] * (COUNT // 2)
    mixed, masks = draw_defects(images, foregrounds, kinds, seed=3)
    for row, kind in enumerate(kinds):
        np.testing.assert_array_equal(mixed[row], drawn[kind][0][row])
        np.testing.assert_array_equal(masks[row], drawn[kind][1][row])


@pytest.mark.parametrize("kind", ["patch", "copy", "warp", "blur", "missing"])
def test_what_shows_what_was_there_is_no_defect(kind):
    flat = np.full((2, SIDE, SIDE, 3), 120, np.uint8)
    everywhere = np.ones((2, SIDE, SIDE), bool)
    defective, masks = draw_defects(flat, everywhere, [kind] * 2)
    assert not masks.any()
    np.testing.assert_array_equal(defective, flat)


def test_gray_images_stay_gray(images, foregrounds):
    gray = np.repeat(images[..., :1], 3, axis=-1)
    defective, masks = draw_defects(gray, foregrounds, ["stain"] * COUNT)
    assert masks.any()
    assert (np.ptp(defective, axis=-1) == 0).all()


def test_inside_a_compiled_program_as_alone(images, foregrounds, drawn):
    unit = jnp.float32(images[:2]) / 255
    keys = jnp.stack([jax.random.fold_in(jax.random.key(3), row) for row in range(2)])
    draw = functools.partial(draw_defect, kind="copy")
    arguments = (unit, unit[::-1], foregrounds[:2], foregrounds[:2][::-1])
    together = jax.jit(jax.vmap(draw))(keys, *arguments)
    np.testing.assert_array_equal(together.mask, drawn["copy"][1][:2])
    np.testing.assert_allclose(together.image * 255, drawn["copy"][0][:2], atol=0.51)


@pytest.mark.parametrize("shape", ["blob", "rectangle", "cloud", "scratch"])
def test_shapes_lie_at_their_centre_and_scale_with_their_size(shape):
    make = getattr(shapes, shape)
    keys = jax.random.split(jax.random.key(0), 16)
    centre = jnp.array([40.0, 60.0])

    def areas(size):
        masks = jax.vmap(lambda key: make(key, centre, jnp.float32(size), (96, 128)))(keys)
        assert masks.min() >= 0
        assert masks.max() <= 1
        y, x = np.mgrid[:96, :128]
        weight = np.asarray(masks).mean(axis=0)
        middle = [float((weight * axis).sum() / weight.sum()) for axis in (y, x)]
        np.testing.assert_allclose(middle, centre, atol=size / 4)
        assert (np.hypot(y - 40, x - 60)[weight > 0] < size * 1.3 + 2).all()
        return np.asarray(masks).sum(axis=(1, 2))

    small, large = areas(16.0).mean(), areas(32.0).mean()
    power = np.log2(large / small)
    # A line grows with its length, a surface with its square; edges and noise blur it.
    assert abs(power - (1 if shape == "scratch" else 2)) < 0.35
    if shape == "rectangle":
        np.testing.assert_allclose(areas(24.0), 24**2, rtol=0.02)
    if shape == "blob":
        assert 0.8 < areas(24.0).mean() / (np.pi * 12**2) < 1.3


def test_the_object_is_found(images, foregrounds):
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = np.hypot(y - 24, x - 24) < 17
    for found in foregrounds:
        assert (found & disc).sum() / (found | disc).sum() > 0.8


def test_a_texture_is_foreground_everywhere():
    texture = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 1), dtype=np.uint8)
    assert find_foregrounds(texture).all()
    assert find_foregrounds(np.full((3, 32, 32, 3), 80, np.uint8)).all()


def test_a_stripe_at_the_edge_is_no_object(images):
    striped = images.copy()
    striped[:, :1] = 20
    assert not find_foregrounds(striped)[:, :1].any()


def test_otsu_as_scikit_image():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(40, 9, 500), rng.normal(140, 20, 300)])
    assert otsu_threshold(values) == pytest.approx(threshold_otsu(values), abs=1e-9)
    assert otsu_threshold(np.full(9, 2.0)) == 2.0


def test_bad_ranges_and_kinds(images, foregrounds):
    with pytest.raises(ValueError, match="size is a range"):
        Ranges(size=(0.2, 0.1))
    with pytest.raises(ValueError, match="at most 1"):
        Ranges(contrast=(0.5, 1.5))
    with pytest.raises(ValueError, match=r"at most 0\.3"):
        Ranges(displacement=(0.1, 0.5))
    with pytest.raises(ValueError, match="One kind an image"):
        draw_defects(images, foregrounds, ["stain"])
    with pytest.raises(ValueError, match="stain"):
        draw_defects(images, foregrounds, ["spot"] * COUNT)


def test_the_command_writes_a_sheet(images, tmp_path, capsys):
    (tmp_path / "good").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "good" / f"{number}.png")
    sheet = tmp_path / "sheet.png"
    command = ["data", "defects", f"--root={tmp_path}", f"--sheet={sheet}"]
    assert main([*command, f"--config.data.image_size={SIDE},{SIDE}"]) == 0
    assert f"defects drawn on {COUNT} good images" in capsys.readouterr().out
    with Image.open(io.BytesIO(sheet.read_bytes())) as picture:
        assert picture.size == (8 + COUNT * (SIDE + 8), 8 + (1 + len(KINDS)) * (18 + SIDE + 8))
    assert main(command[:-1]) == 2
    assert "needs --root" in capsys.readouterr().err
