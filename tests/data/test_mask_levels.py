"""From which level on a mask marks: numbers and colours from one, soft outlines from half."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxad.data.mask_levels import levels_of
from jaxad.data.masks import read_mask
from jaxad.data.sixteen_bit import mend_planes
from jaxad.run.errors import UserError

DRAWN = np.zeros((96, 120), np.uint8)
DRAWN[20:53, 31:77] = 255
DRAWN[70:75, 90:96] = 255


def png_16bit(values):
    """A PNG of 16 bits a channel, which Pillow cannot write but for gray."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )  # fmt: skip


def through_jpeg(quality):
    stream = io.BytesIO()
    Image.fromarray(DRAWN).save(stream, "JPEG", quality=quality)
    return Image.open(stream)


SOFT = {
    "saved as JPEG and then as PNG": lambda: through_jpeg(75),
    "saved as bad JPEG and then as TIFF": lambda: through_jpeg(25),
    "resampled with ringing": lambda: Image.fromarray(
        DRAWN.repeat(3, axis=0).repeat(3, axis=1)
    ).resize((120, 96), Image.Resampling.LANCZOS),
    "enlarged": lambda: Image.fromarray(DRAWN[::3, ::3]).resize(
        (120, 96), Image.Resampling.BICUBIC
    ),
}


@pytest.mark.parametrize("how", SOFT)
@pytest.mark.parametrize("ending", ["png", "tiff", "webp", "jpg"])
def test_levels_in_between_count_from_half(how, ending, tmp_path):
    picture = SOFT[how]()
    path = tmp_path / f"mask.{ending}"
    picture.save(path)
    assert (np.asarray(picture) > 0).sum() > 1.03 * (DRAWN > 0).sum()  # what zero would mark
    found = levels_of(path)
    outline = np.asarray(picture) >= 128 if how == "enlarged" else DRAWN > 0
    assert (read_mask(path) != outline).sum() < 0.02 * outline.sum()
    assert found.dim is not None and set(np.unique(found.values)) == {0, 255}


def test_deep_and_float_masks_likewise(tmp_path):
    soft = np.asarray(SOFT["resampled with ringing"]())
    Image.fromarray(soft.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(soft.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    (tmp_path / "colour.png").write_bytes(png_16bit(np.stack([soft.astype(int) * 257] * 3, -1)))
    for name in ("deep.png", "float.tiff", "colour.png"):
        assert levels_of(tmp_path / name).dim is not None, name
        np.testing.assert_array_equal(read_mask(tmp_path / name), soft >= 128, err_msg=name)


NUMBERS = {
    "one after the other": np.repeat(np.arange(12, dtype=np.uint8), 4),
    "cells that touch": np.arange(48, dtype=np.uint8).reshape(8, 6).repeat(5, 0).repeat(5, 1),
    "cracks of one pixel": np.eye(30, dtype=np.uint8)[::3].repeat(3, 0) * 0,
}
NUMBERS["one after the other"] = np.where(
    np.arange(48) % 4 < 3, NUMBERS["one after the other"], 0
).astype(np.uint8) * np.ones((9, 1), np.uint8)
for _number in range(9):
    NUMBERS["cracks of one pixel"][3 * _number] = _number + 1


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("deep", [False, True])
def test_numbers_of_defects_all_count(kind, deep, tmp_path):
    numbers = NUMBERS[kind].astype(np.uint16 if deep else np.uint8)
    Image.fromarray(numbers).save(tmp_path / "mask.png")
    found = levels_of(tmp_path / "mask.png")
    assert found.dim is None
    np.testing.assert_array_equal(found.values > 0, numbers > 0)


def test_numbers_in_a_format_that_may_have_loss(tmp_path):
    numbers = (DRAWN > 0) * np.uint8(3)
    numbers[5:15, 5:15] = 1
    Image.fromarray(numbers).save(tmp_path / "mask.webp", lossless=True)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.webp"), numbers > 0)


def test_what_does_not_count_is_counted(tmp_path):
    soft = np.asarray(SOFT["resampled with ringing"]()).copy()
    soft[2:4, 100:102], soft[88:94, 5:11] = 9, 60
    Image.fromarray(soft).save(tmp_path / "mask.png")
    dim = levels_of(tmp_path / "mask.png").dim
    assert dim.specks >= 2 and dim.largest == 36 and dim.between and not dim.faint
    assert not read_mask(tmp_path / "mask.png")[85:, :20].any()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_of_16_bits_with_small_values(channels, tmp_path):
    values = np.zeros((*DRAWN.shape, channels), np.uint16)
    values[DRAWN > 0] = 1
    if channels % 2 == 0:
        values[..., -1] = 65535
    (tmp_path / "mask.png").write_bytes(png_16bit(values))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), DRAWN > 0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiffs_of_16_bit_colour(order, planar, compression, tmp_path):
    high = np.random.default_rng(0).integers(0, 256, (*DRAWN.shape, 3))
    for name, values in (("image", high * 256 + 7), ("mask", (DRAWN > 0)[..., None] * [0, 1, 2])):
        array = values.astype(np.uint16)
        array = np.moveaxis(array, -1, 0) if planar == "separate" else array
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="rgb", byteorder=order,
                         planarconfig=planar, compression=compression)  # fmt: skip
    with Image.open(tmp_path / "image.tif") as image:
        mend_planes(image)
        np.testing.assert_array_equal(np.asarray(image), high)
    if planar == "separate" and compression:
        with pytest.raises(UserError, match=r"mask\.tif: packed planes of 16 bits are read by"):
            read_mask(tmp_path / "mask.tif")
    else:
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), DRAWN > 0)


def test_orientation_of_16_bit_colour(tmp_path):
    values = np.zeros((*DRAWN.shape, 3), np.uint16)
    values[DRAWN > 0] = 1
    tifffile.imwrite(tmp_path / "mask.tif", values, photometric="rgb",
                     extratags=[(274, 3, 1, 6, True)])  # fmt: skip
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), np.rot90(DRAWN > 0, -1))


def test_no_numbers_and_negative_ones(tmp_path):
    values = np.where(DRAWN > 0, 1.0, -1.0).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "mask.tiff")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tiff"), DRAWN > 0)
    for value in (np.nan, np.inf, -np.inf):
        values[0, 0] = value
        Image.fromarray(values).save(tmp_path / "mask.tiff")
        with pytest.raises(UserError, match=r"mask\.tiff holds values that are no finite numbers"):
            read_mask(tmp_path / "mask.tiff")
