"""Float TIFFs of every width against Pillow and against bytes written by hand."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxad.evaluation.float_tiff import read_float_tiff
from jaxad.run.errors import UserError


def plain_tiff(values, *, order="<", deflate=False, strips=2):
    """A TIFF of floats by the book: header, strips, one directory."""
    values = np.asarray(values)
    big = values.astype(values.dtype.newbyteorder(order))
    rows = -(-values.shape[0] // strips)
    parts = [big[i : i + rows].tobytes() for i in range(0, len(big), rows)]
    parts = [zlib.compress(p) for p in parts] if deflate else parts
    at, offsets, body = 8, [], b""
    for part in parts:
        offsets.append(at + len(body))
        body += part
    lists = at + len(body)
    body += struct.pack(f"{order}{strips}I", *offsets)
    body += struct.pack(f"{order}{strips}I", *map(len, parts))
    tags = [
        (256, 4, 1, values.shape[1]),
        (257, 4, 1, values.shape[0]),
        (258, 3, 1, 8 * values.itemsize),
        (259, 3, 1, 8 if deflate else 1),
        (262, 3, 1, 1),
        (273, 4, strips, lists if strips > 1 else offsets[0]),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, strips, lists + 4 * strips if strips > 1 else len(parts[0])),
        (339, 3, 1, 3),
    ]
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        field = struct.pack(order + "HH", value, 0) if short else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, count) + field
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at + len(body))
    return header + body + directory + b"\0" * 4


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("strips", [1, 2, 3])
def test_floats_of_every_width(tmp_path, dtype, order, deflate, strips):
    values = np.random.default_rng(0).normal(30, 3, (7, 5)).astype(dtype)
    path = tmp_path / "map.tiff"
    path.write_bytes(plain_tiff(values, order=order, deflate=deflate, strips=strips))
    read = read_float_tiff(path)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)
    if dtype == "f4" and order == "<":  # the writer above is right where Pillow reads the same
        np.testing.assert_array_equal(np.asarray(Image.open(path)), values)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"])
def test_files_of_pillow(tmp_path, compression):
    values = np.random.default_rng(1).normal(size=(40, 30)).astype("f4")
    path = tmp_path / "map.tiff"
    Image.fromarray(values).save(path, compression=compression)
    np.testing.assert_array_equal(read_float_tiff(path), values)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("form", [{"tile": (16, 16)}, {"bigtiff": True, "compression": "zlib"}])
def test_tiles_and_large_files(tmp_path, dtype, form):
    values = np.random.default_rng(2).normal(size=(20, 33)).astype(dtype)
    tifffile.imwrite(tmp_path / "map.tiff", values, **form)
    np.testing.assert_array_equal(read_float_tiff(tmp_path / "map.tiff"), values)


def test_pixels_that_are_not_there_are_not_read_as_zeros(tmp_path):
    path = tmp_path / "map.tiff"
    whole = plain_tiff(np.ones((4, 5), "f8"), strips=2)
    height = struct.pack("<HHII", 257, 4, 1, 4)
    length = struct.pack("<I", 80)  # of the second strip
    for old, new in (
        (height, struct.pack("<HHII", 257, 4, 1, 10**6)),  # of which four rows are there
        (2 * length, length + struct.pack("<I", 0)),
    ):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(UserError, match=r"map\.tiff cannot be read as an anomaly map"):
            read_float_tiff(path)


def test_integers(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "map.tiff")
    np.testing.assert_array_equal(read_float_tiff(tmp_path / "map.tiff"), values)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_bad_files_are_named(tmp_path):
    path = tmp_path / "map.tiff"
    values = np.ones((4, 5), "f2")
    whole = plain_tiff(values)
    for content in (b"", b"text", whole[:40], whole[:8] + b"\xff" * 60, b"II*\0" + b"\0" * 4):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"map\.tiff cannot be read as an anomaly map"):
            read_float_tiff(path)
    with pytest.raises(UserError, match=r"nowhere\.tiff cannot be read"):
        read_float_tiff(tmp_path / "nowhere.tiff")
    values[2, 3] = np.nan
    path.write_bytes(plain_tiff(values))
    with pytest.raises(UserError, match="holds nan at row 2, column 3"):
        read_float_tiff(path)
    Image.fromarray(np.zeros((3, 4, 3), "u1")).save(path)
    with pytest.raises(UserError, match="has 3 channels; an anomaly map has one"):
        read_float_tiff(path)


def test_what_inflates_beyond_its_pixels_is_refused(tmp_path):
    path = tmp_path / "map.tiff"
    whole = plain_tiff(np.zeros((64, 64), "f2"), deflate=True, strips=1)
    strip, bomb = zlib.compress(bytes(64 * 64 * 2)), zlib.compress(bytes(2**26), 9)
    assert strip in whole
    # Behind the file, where the strip's offset is made to point.
    at = len(whole)
    for tag, value in ((273, at), (279, len(bomb))):
        place = whole.index(struct.pack("<HHI", tag, 4, 1)) + 8
        whole = whole[:place] + struct.pack("<I", value) + whole[place + 4 :]
    path.write_bytes(whole + bomb)
    with pytest.raises(UserError, match=r"map\.tiff inflates to more than the pixels"):
        read_float_tiff(path)


def test_a_map_may_not_claim_more_than_an_image(tmp_path):
    path = tmp_path / "map.tiff"
    strip = bytes(20000 * 2)
    # All of its rows are one and the same strip.
    path.write_bytes(plain_tiff(np.frombuffer(strip, "f2")[None], strips=1))
    content = path.read_bytes().replace(
        struct.pack("<HHII", 257, 4, 1, 1), struct.pack("<HHII", 257, 4, 1, 20000)
    )
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"map\.tiff"):
        read_float_tiff(path)
