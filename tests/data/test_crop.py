"""The region of interest of single files: the same pixels as of a file that was cut beforehand."""

import hashlib
import json
import os

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from jaxad.cli import main as cli
from jaxad.data import cache
from jaxad.data.crop import (
    WHOLE,
    Box,
    box_of,
    check_crop,
    crop_in_words,
    cut,
    put_back,
    size_of_whole,
)
from jaxad.data.datasets import read_table
from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.images import decode, image_dimensions, read_image
from jaxad.data.masks import read_mask, read_mask_levels
from jaxad.data.streamed import StreamedImages
from jaxad.run.config import load_config, load_settings
from jaxad.run.errors import UserError
from jaxad.training.inputs import decode as decode_as_configured

CROP = (0.25, 0.1, 0.75, 0.9)
BOX = np.s_[3:9, 2:14]  # of 12 x 16: 0.1 * 16 = 1.6 and 0.9 * 16 = 14.4 are rounded

shares = st.floats(0, 1, allow_subnormal=False)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@given(shares, shares, shares, shares, st.integers(1, 3000), st.integers(1, 3000))
def test_borders_are_the_nearest_pixels(top, left, bottom, right, height, width):
    if not (top < bottom and left < right):
        top, bottom, left, right = 0.0, 1.0, 0.0, 1.0
    box = box_of((top, left, bottom, right), (height, width))
    for first, last, start, stop, count in (
        (box.top, box.bottom, top, bottom, height),
        (box.left, box.right, left, right, width),
    ):
        assert 0 <= first < last <= count
        assert box.size[0] * box.size[1] == np.empty((height, width), bool)[box.slices].size
        if last - first > 1:
            # The products are of rounded floats: a half may fall to either side.
            assert abs(first - start * count) <= 0.5 + 1e-9
            assert abs(last - stop * count) <= 0.5 + 1e-9
        else:
            assert abs(first - start * count) <= 1 + 1e-9


def test_halves_go_up_and_a_pixel_is_left():
    assert box_of((0.25, 0.5, 0.75, 1.0), (2, 5)) == (1, 3, 2, 5)
    assert box_of((0.0, 0.999, 0.001, 1.0), (10, 10)) == (0, 9, 1, 10)
    assert box_of((0.4, 0.4, 0.6, 0.6), (1, 1)) == (0, 0, 1, 1)
    assert box_of(WHOLE, (7, 9)) == (0, 0, 7, 9)


def test_what_vt_adl_crops_of_mvtec():
    crop = load_config("vt_adl:mvtec").data.region
    assert crop == pytest.approx((19 / 550, 19 / 550, 531 / 550, 531 / 550), abs=1e-15)
    assert size_of_whole(crop, (512, 512)) == (550, 550)
    assert box_of(crop, (550, 550)) == (19, 19, 531, 531)  # exactly, on shards of that size
    for side in (700, 800, 840, 900, 1000, 1024):  # those of MVTec AD
        for border, share in zip(box_of(crop, (side, side)), crop, strict=True):
            assert abs(border - share * side) < 0.5
    assert load_config("vt_adl:paper").data.region == WHOLE  # BTAD is scaled without a crop


@given(shares, shares, st.integers(1, 700))
def test_a_whole_image_whose_crop_has_a_size(start, stop, side):
    start, stop = (start, stop) if stop - start > 0.01 else (0.25, 0.75)
    crop = (start, 0.0, stop, 1.0)
    height, width = size_of_whole(crop, (side, side))
    assert width == side and height >= side - 1
    # Rounding both borders leaves sizes out, by one pixel at most.
    assert abs(box_of(crop, (height, width)).size[0] - side) <= 1


def test_shards_hold_whole_images_from_which_the_crop_is_cut(tmp_path, tiny_data, capsys):
    """VT-ADL's MVTec, smaller: resized to 55 x 55, of which the centre 51 is seen."""
    pytest.importorskip("tensorflow_datasets")
    crop = (2 / 55, 2 / 55, 53 / 55, 53 / 55)
    keys = {"data.root": tiny_data, "data.region": ",".join(map(str, crop)),
            "data.image_size": "51,51"}  # fmt: skip
    command = ["data", "prepare", "--config=pca", f"--shards={tmp_path}"]
    assert cli.main(command + [f"--config.{k}={v}" for k, v in keys.items()]) == 0
    folder = capsys.readouterr().out.strip().rpartition("=")[2]
    data = load_settings("pca", keys | {"data.root": folder}).data
    sample, file = (read_table(root).test()[-1] for root in (folder, tiny_data))
    assert image_dimensions(sample.path) == (55, 55)
    (seen,) = decode_as_configured([sample], data, (0.0, 65535.0))
    published = Image.open(file.path).resize((55, 55), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(seen, np.asarray(published)[2:53, 2:53])
    mask = Image.open(file.mask).resize((55, 55), Image.Resampling.NEAREST)
    found = read_mask(sample.mask, crop=data.region)
    np.testing.assert_array_equal(found, np.asarray(mask)[2:53, 2:53] > 0)
    assert found.any()


def test_cut_and_put_back(picture):
    assert cut(picture, WHOLE) is picture
    inside = cut(picture, CROP)
    np.testing.assert_array_equal(inside, picture[BOX])
    assert inside.base is None  # does not keep the whole image
    whole = put_back(inside[..., 0], box_of(CROP, (12, 16)), (12, 16), outside=7)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole[BOX], inside[..., 0])
    whole[BOX] = 7
    assert (whole == 7).all()
    assert put_back(picture[..., 0], Box(0, 0, 12, 16), (12, 16), outside=0).base is picture


@pytest.mark.parametrize("kind", ["colour", "gray", "transparent", "palette", "16 bit", "float"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_a_file_cut_beforehand(tmp_path, picture, kind, channels):
    deep = picture[..., 0].astype(np.uint16) * 257
    array = {
        "colour": picture,
        "gray": picture[..., 0],
        "transparent": np.dstack([picture, picture[..., :1]]),
        "palette": picture[..., 0],
        "16 bit": deep,
        "float": deep.astype(np.float32) / 65535,
    }[kind]
    name = "a.tif" if kind == "float" else "a.png"

    def image(part):
        result = Image.fromarray(part)
        if kind == "palette":
            result.putpalette([b for i in range(256) for b in (i, 255 - i, i // 2)])
        return result

    image(array).save(tmp_path / name)
    image(np.ascontiguousarray(array[BOX])).save(tmp_path / f"cut_{name}")
    for size in ((4, 5), (6, 12), (20, 30)):  # smaller, as it is, larger
        options = {"image_size": size, "channels": channels}
        found = read_image(tmp_path / name, **options, crop=CROP)
        np.testing.assert_array_equal(found, read_image(tmp_path / f"cut_{name}", **options))
    assert image_dimensions(tmp_path / name) == (12, 16)
    assert image_dimensions(tmp_path / name, crop=CROP) == (6, 12)


def test_the_crop_is_of_the_upright_image(tmp_path, picture):
    exif = Image.Exif()
    exif[274] = 6  # stored lying: to be turned by 90 degrees clockwise
    path = save(tmp_path / "a.png", picture, exif=exif)
    upright = np.rot90(picture, -1)
    np.testing.assert_array_equal(decode(path, channels=3), upright)
    assert image_dimensions(path, crop=(0, 0, 0.5, 0.25)) == (8, 3)
    found = read_image(path, image_size=(8, 3), channels=3, crop=(0, 0, 0.5, 0.25))
    np.testing.assert_array_equal(found, upright[:8, :3])
    mask = save(tmp_path / "m.png", np.uint8(picture[..., 0] > 128) * 255, exif=exif)
    found = read_mask(mask, expected_size=(16, 12), crop=(0, 0, 0.5, 0.25))
    np.testing.assert_array_equal(found, upright[:8, :3, 0] > 128)


def test_masks_are_cut_before_they_are_resized(tmp_path, picture):
    path = save(tmp_path / "m.png", np.where(picture[..., 0] > 200, picture[..., 0], 0))
    before = save(tmp_path / "c.png", np.asarray(Image.open(path))[BOX])
    for size in (None, (4, 5), (20, 30)):
        found = read_mask(path, image_size=size, crop=CROP, expected_size=(12, 16))
        np.testing.assert_array_equal(found, read_mask(before, image_size=size))
    np.testing.assert_array_equal(read_mask_levels(path, crop=CROP), read_mask_levels(before))
    with pytest.raises(UserError, match="a mask must have the size of its image"):
        read_mask(path, expected_size=(6, 12), crop=CROP)
    # The file tells what its levels mean, not the part: here nothing but 0 and 1 is left of it.
    levels = np.zeros((12, 16), np.uint8)
    levels[5, 5], levels[0, 0] = 1, 200
    assert read_mask_levels(save(tmp_path / "l.png", levels), crop=CROP).max() == 1


def test_percentiles_are_of_the_pixels_that_are_seen(tmp_path):
    values = np.full((12, 16), 60000, np.uint16)  # a bright fixture around the part
    values[BOX] = np.arange(1000, 1072).reshape(6, 12)
    path = save(tmp_path / "a.png", values)
    assert resolve_range_16bit([path], "percentiles")[1] == 60000
    assert resolve_range_16bit([path], "percentiles", crop=CROP) == (1000, 1071)
    assert resolve_range_16bit([path], "12", crop=CROP) == (0, 4095)


def test_the_cache_keeps_crops_apart_and_finds_what_it_has(tmp_path, picture):
    paths = [str(save(tmp_path / f"{i}.png", picture + np.uint8(i))) for i in range(3)]
    options = {"image_size": (6, 8), "channels": 3}
    folder = tmp_path / "c"

    def names(**crop):
        images = cache.prepare_images(paths, **options, **crop, cache_dir=folder, memory_limit_mb=0)
        return images, {name.removesuffix(".npy") for name in os.listdir(folder)}

    _, whole = names()
    # What it is where there are no crops, so that files of whole images are found.
    files = [(p, os.stat(p).st_mtime_ns, os.stat(p).st_size) for p in paths]
    text = json.dumps([cache._PIXELS_VERSION, files, {**options, "range_16bit": (0.0, 65535.0)}])
    assert whole == {hashlib.sha256(text.encode()).hexdigest()[:32]}
    assert names(crop=WHOLE)[1] == names(crop=(0, 0, 1, 1))[1] == whole
    images, both = names(crop=CROP)
    assert len(both) == 2 and names(crop=list(CROP))[1] == both
    assert len(names(crop=(0.25, 0.1, 0.75, 0.91))[1]) == 3
    expected = [read_image(p, **options, crop=CROP) for p in paths]
    np.testing.assert_array_equal(images, expected)
    streamed = StreamedImages(paths, **options, crop=CROP)
    np.testing.assert_array_equal(streamed[np.array([2, 0])], np.stack(expected)[[2, 0]])


@pytest.mark.parametrize(
    "text",
    ["0,0,0,1", "0.5,0,0.5,1", "0.9,0,0.1,1", "0,0.9,1,0.1", "-0.1,0,1,1", "0,0,1,1.01",
     "10,10,500,500"],
)  # fmt: skip
def test_no_part_of_an_image_is_refused_in_one_sentence(text):
    with pytest.raises(UserError, match=r"data\.region must be \(top, left, bottom, right\)"):
        check_crop(load_settings("pca", {"data.region": text}).data.region)


def test_what_is_no_crop_at_all():
    with pytest.raises(UserError, match=r"'data.region' takes 4 numbers"):
        load_config("pca", {"data.region": "0.1,0.9"})
    for text in ("centre", "0.5"):
        with pytest.raises(UserError, match=r"takes numbers such as 0.0,0.0,1.0,1.0, not"):
            load_config("pca", {"data.region": text})
    nan = float("nan")
    for crop in ((nan, 0, 1, 1), (0, 0, nan, 1), (0, 0, 1)):
        with pytest.raises(UserError, match=r"data\.region must be"):
            box_of(crop, (10, 10))
    check_crop(load_settings("pca", {"data.region": "0,0.25,1,0.75"}).data.region)
    assert (
        crop_in_words((0, 19 / 550, 1, 0.75))
        == "0 to 100 % of the height, 3.45 to 75 % of the width"
    )
