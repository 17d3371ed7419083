"""Decoder, resizer and masks, each format against values that are known beforehand."""

import contextlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from jaxad.data.deep_range import resolve_range_16bit, stated_bits
from jaxad.data.images import FULL_RANGE, decode, image_dimensions, read_image, resize
from jaxad.data.masks import read_mask
from jaxad.data.notes import page_notes, range_notes
from jaxad.run.errors import UserError


def _save(path, array, mode=None, **options):
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    image.save(path, **options)
    return path


@pytest.fixture
def colour():
    """A non-square picture whose every pixel differs."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "ppm"])
def test_colour_is_read_exactly(tmp_path, colour, extension):
    path = _save(tmp_path / f"a.{extension}", colour)
    np.testing.assert_array_equal(decode(path, channels=3), colour)


def test_gray_of_colour_is_the_601_luma(tmp_path, colour):
    path = _save(tmp_path / "a.png", colour)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    # One gray level: Pillow works in 16-bit fixed point and rounds.
    np.testing.assert_allclose(decode(path, channels=1)[..., 0], luma, atol=1)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray_is_repeated_to_colour(tmp_path, mode):
    array = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    path = _save(tmp_path / "a.png", array, mode)
    np.testing.assert_array_equal(decode(path, channels=3), np.repeat(array[..., None], 3, -1))
    np.testing.assert_array_equal(decode(path, channels=1), array[..., None])


def test_palette_gives_colours_not_indices(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        decode(tmp_path / "a.png", channels=3), [[[10, 20, 30], [200, 100, 50]]]
    )


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key"])
def test_transparency_shows_white(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "RGBA":
        Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)).save(path)
    elif kind == "LA":
        Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8)).save(path)
    elif kind == "palette":
        image = Image.new("P", (2, 1))
        image.putpalette([7, 7, 7, 9, 9, 9])
        image.putpixel((1, 0), 1)
        image.save(path, transparency=0)
    else:
        Image.fromarray(np.array([[7, 9]], np.uint8)).save(path, transparency=7)
    for channels in (1, 3):
        values = decode(path, channels=channels)
        np.testing.assert_array_equal(values[0, :, 0], [255, 9])


def test_half_transparency_is_a_mean(tmp_path):
    Image.fromarray(np.array([[[0, 100, 200, 128]]], np.uint8)).save(tmp_path / "a.png")
    alpha = 128 / 255
    expected = alpha * np.array([0, 100, 200]) + (1 - alpha) * 255
    # One gray level for the rounding of the composite.
    np.testing.assert_allclose(decode(tmp_path / "a.png", channels=3)[0, 0], expected, atol=1)


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red: no cyan, no black
    image.save(tmp_path / "a.tif")
    image.save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", channels=3)[0, 0], [255, 0, 0])
    # A few levels for JPEG.
    np.testing.assert_allclose(
        decode(tmp_path / "a.jpg", channels=3)[8, 8].astype(int), [255, 0, 0], atol=4
    )


UPRIGHT = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip
"""Rotations written out in numpy, after the EXIF standard's definitions."""

GRAY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
ORIENTED = {
    "L": GRAY,
    "RGB": np.stack([GRAY, GRAY + 7, 255 - GRAY], axis=-1),
    "16 bit": GRAY.astype(np.uint16),
    "float": GRAY.astype(np.float32) / 255,
}
FORMS = [("png", None), ("webp", None), ("tif", None), ("tif", "tiff_lzw"),
         ("tif", "tiff_adobe_deflate"), ("tif", "packbits")]  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ORIENTED)
def test_orientation_is_one_for_pixels_sizes_and_masks(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    array = ORIENTED[kind]
    expected = UPRIGHT[orientation](array)
    deep = kind == "16 bit"
    for extension, compression in FORMS:
        if (extension, kind) in (("png", "float"), ("webp", "float"), ("webp", "16 bit")):
            continue  # no such files
        options = {"tif": {"compression": compression}, "webp": {"lossless": True}}
        path = tmp_path / f"{compression}.{extension}"
        Image.fromarray(array).save(path, exif=exif, **options.get(extension, {}))
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "a")
        for place in (path, f"{tmp_path}/a.zip::a"):
            values = decode(place, channels=3, range_16bit=(0.0, 255.0) if deep else FULL_RANGE)
            read = np.rint(255 * expected) if kind == "float" else expected
            np.testing.assert_array_equal(values if kind == "RGB" else values[..., 0], read)
            size = image_dimensions(place)
            assert size == expected.shape[:2]
        drawn = np.where(array > np.median(array), array.max(), 0).astype(array.dtype)
        Image.fromarray(drawn).save(path, exif=exif, **options.get(extension, {}))
        marked = read_mask(path, expected_size=size)
        upright = UPRIGHT[orientation](drawn)
        np.testing.assert_array_equal(marked, upright.reshape(*size, -1).max(axis=-1) > 0)


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_uses_the_given_range(tmp_path, extension):
    array = np.array([[0, 1000, 4095, 65535]], np.uint16)
    path = _save(tmp_path / f"a.{extension}", array)
    full = decode(path, channels=1)[0, :, 0]
    np.testing.assert_array_equal(full, np.rint(array[0] / 65535 * 255))
    twelve = decode(path, channels=3, range_16bit=(0.0, 4095.0))
    assert twelve.shape == (1, 4, 3)
    np.testing.assert_array_equal(twelve[0, :, 2], [0, round(1000 / 4095 * 255), 255, 255])


def test_big_endian_16_bit_tiff(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), np.array([257, 65535], ">u2").tobytes())
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", channels=1)[0, :, 0], [1, 255])


def test_float_tiff(tmp_path):
    path = _save(tmp_path / "a.tif", np.array([[0.0, 0.5, 1.0]], np.float32))
    np.testing.assert_array_equal(decode(path, channels=1)[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize("values", [[0.0, 1.5], [-0.1, 1.0], [np.nan, 0.5]])
def test_float_outside_unit_interval_is_named(tmp_path, values):
    path = _save(tmp_path / "a.tif", np.array([values], np.float32))
    with pytest.raises(UserError, match=r"a\.tif holds float values"):
        decode(path, channels=1)


def test_32_bit_integers_beyond_16_bits_are_named(tmp_path):
    path = _save(tmp_path / "a.tif", np.array([[0, 70000]], np.int32))
    with pytest.raises(UserError, match="integer values from 0 to 70000"):
        decode(path, channels=1)


def _png_16bit_colour(path, array):
    """Pillow cannot write 16-bit colour, so the chunks are put together here."""
    import struct
    import zlib

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_16_bit_colour_is_read_at_full_range_and_named_otherwise(tmp_path):
    array = np.array([[[0, 32768, 65535], [300, 600, 40000]]], np.uint16)
    _png_16bit_colour(tmp_path / "a.png", array)
    # One gray level: high bytes against exact scaling.
    np.testing.assert_allclose(decode(tmp_path / "a.png", channels=3), array / 257, atol=1)
    with pytest.raises(UserError, match="16-bit colour"):
        decode(tmp_path / "a.png", channels=3, range_16bit=(0.0, 4095.0))


def test_range_specs(tmp_path):
    values = np.arange(1000, 2000, dtype=np.uint16).reshape(10, 100)
    deep = _save(tmp_path / "deep.png", values)
    flat = _save(tmp_path / "flat.png", np.zeros((2, 2), np.uint8))
    assert resolve_range_16bit([deep], "full") == FULL_RANGE
    assert resolve_range_16bit([flat, deep], "12") == (0.0, 4095.0)
    assert resolve_range_16bit([flat, deep], 11) == (0.0, 2047.0)
    assert resolve_range_16bit([flat], "percentiles") == FULL_RANGE
    assert resolve_range_16bit([flat], "12") == (0.0, 4095.0)
    low, high = resolve_range_16bit([flat, deep], "percentiles")
    # The percentile lies on a value, numpy interpolates between two: at most one apart.
    np.testing.assert_allclose([low, high], np.percentile(values, [0.1, 99.9]), atol=1)


def test_the_depth_that_a_file_states_is_its_range(tmp_path):
    values = np.array([[0, 2048, 4095]], np.uint16)
    paths = [_save(tmp_path / f"{i}.tif", values, tiffinfo={281: 4095}) for i in range(2)]
    assert stated_bits(paths) == 12
    assert resolve_range_16bit(paths, "full") == (0.0, 4095.0)
    assert resolve_range_16bit(paths, "16") == FULL_RANGE
    other = _save(tmp_path / "other.tif", values)
    assert resolve_range_16bit([*paths, other], "full") == FULL_RANGE


@pytest.mark.parametrize("spec", ["12", "percentiles"])
def test_16_bit_colour_has_no_other_range_whatever_the_training_images(tmp_path, spec):
    _png_16bit_colour(tmp_path / "a.png", np.full((2, 2, 3), 4000, np.uint16))
    with pytest.raises(UserError, match="16-bit colour can only be read"):
        resolve_range_16bit([tmp_path / "a.png"], spec)
    assert (
        "16 of 256 levels; save them as 8-bit" in range_notes([tmp_path / "a.png"], FULL_RANGE)[0]
    )


@pytest.mark.parametrize(
    ("most", "dtype", "levels", "bits"),
    [(4095, np.uint16, 16, 12), (1023, np.uint16, 4, 10), (255, np.int32, 1, 8)],
)
def test_images_that_use_a_small_part_of_their_range_are_told(tmp_path, most, dtype, levels, bits):
    path = _save(tmp_path / "a.tif", np.array([[0, most]], dtype))
    (note,) = range_notes([path], FULL_RANGE)
    assert f"sees {levels} of 256 levels; data.range_16bit={bits}" in note
    assert range_notes([path], resolve_range_16bit([path], bits)) == []
    assert range_notes([path], resolve_range_16bit([path], "percentiles")) == []
    flat = _save(tmp_path / "flat.png", np.zeros((2, 2), np.uint8))
    assert range_notes([flat, tmp_path / "missing.png"], FULL_RANGE) == []


@pytest.mark.parametrize("extension", ["tif", "webp"])
def test_pages_behind_the_first_are_told(tmp_path, extension):
    pages = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (10, 200)]
    path, one = tmp_path / f"a.{extension}", tmp_path / f"b.{extension}"
    pages[0].save(path, save_all=True, append_images=pages[1:], lossless=True)
    pages[0].save(one)
    assert (decode(path, channels=1) == 10).all()
    (note,) = page_notes([one, path, tmp_path / "missing.png"])
    assert note.startswith("1 of 3 files that were looked at") and path.name in note
    assert page_notes([one]) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "colour key"])
def test_what_alpha_hides_altogether_is_refused_or_shown(tmp_path, channels, mode):
    if mode == "colour key":
        _save(tmp_path / "a.png", np.full((1, 2), 9, np.uint8), transparency=9)
    else:
        colours = np.full((1, 2, len(mode)), 9, np.uint8)
        colours[..., -1] = 0
        _save(tmp_path / "a.png", colours)
    with pytest.raises(UserError, match=r"a\.png is transparent everywhere.*data\.alpha=ignore"):
        decode(tmp_path / "a.png", channels=channels)
    shown = decode(tmp_path / "a.png", channels=channels, alpha="ignore")
    np.testing.assert_array_equal(shown, np.full((1, 2, channels), 9))
    read = read_image(tmp_path / "a.png", image_size=(2, 4), channels=channels, alpha="ignore")
    assert (read == 9).all()


def test_percentiles_of_a_constant_image_stay_a_range(tmp_path):
    path = _save(tmp_path / "a.png", np.full((4, 4), 500, np.uint16))
    low, high = resolve_range_16bit([path], "percentiles")
    assert low < high
    decode(path, channels=1, range_16bit=(low, high))


@pytest.mark.parametrize("spec", ["half", "7", "17", "-3", ""])
def test_bad_range_spec(spec):
    with pytest.raises(UserError, match="range_16bit"):
        resolve_range_16bit([], spec)


def test_bit_depth_that_an_image_exceeds(tmp_path):
    path = _save(tmp_path / "a.png", np.array([[5000]], np.uint16))
    with pytest.raises(UserError, match="5000, more than the 12 bits"):
        resolve_range_16bit([path], "12")


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_shrinks_with_area_means(channels):
    """An antialiased filter must average: a fine checkerboard becomes mid-gray, not 0 or 255."""
    board = (np.indices((64, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = resize(np.repeat(board[..., None], channels, -1), (8, 12))
    assert small.shape == (8, 12, channels)
    assert small.dtype == np.uint8
    np.testing.assert_allclose(small.astype(int), 127.5, atol=4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 255))
def test_resize_keeps_constants_and_shapes(height, width, value):
    out = resize(np.full((9, 13, 1), value, np.uint8), (height, width))
    assert out.shape == (height, width, 1)
    assert (out == value).all()


def test_read_image_is_decode_then_resize(tmp_path, colour):
    path = _save(tmp_path / "a.png", colour)
    np.testing.assert_array_equal(
        read_image(path, image_size=(3, 4), channels=3), resize(decode(path, channels=3), (3, 4))
    )
    assert read_image(path, image_size=(5, 7), channels=3).shape == (5, 7, 3)


def _jpeg_bytes():
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"this is text\n", "not an image"),
        (_jpeg_bytes()[:1500], "may be damaged"),
    ],
)
def test_bad_files_end_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (lambda: decode(path, channels=3), lambda: read_mask(path)):
        with pytest.raises(UserError, match=message) as raised:
            read()
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_lossless_files(tmp_path, extension, share):
    rng = np.random.default_rng(0)
    path = _save(tmp_path / f"a.{extension}", rng.integers(0, 255, (32, 32, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError):
        decode(path, channels=3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_never_end_in_another_error(tmp_path_factory, data):
    content = bytearray(_jpeg_bytes()[:2000])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.jpg"
    path.write_bytes(bytes(content))
    # Some damage is decodable (a quantisation table, say); any other exception fails the test.
    with contextlib.suppress(UserError):
        assert decode(path, channels=3).dtype == np.uint8


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        decode(tmp_path / "no.png", channels=3)
    with pytest.raises(UserError, match=str(tmp_path)):
        decode(tmp_path, channels=3)


def test_channels_are_checked(tmp_path, colour):
    with pytest.raises(UserError, match=r"data\.channels"):
        decode(_save(tmp_path / "a.png", colour), channels=4)
