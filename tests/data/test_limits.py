"""Files that claim, or inflate to, more than they may: refused by their headers, or while inflating."""

import contextlib
import gzip
import io
import struct
import threading
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxad.data import limits
from jaxad.data.containers import read_arrays
from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.images import decode, image_dimensions
from jaxad.data.limits import Budget, limit_images
from jaxad.data.mask_levels import levels_of
from jaxad.data.masks import read_mask
from jaxad.run.errors import UserError
from jaxad.run.settings import Data

MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    """Every test may set one; the next has the default again."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setattr(limits, "_limit_megapixels", limits._limit_megapixels)


@contextlib.contextmanager
def frugal():
    """What is done within must not take the memory of the bombs, 64 MiB and more."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MEGABYTE, peak


def png(width, height, *, rows=1, bits=8):
    """Of black rows, of which some are missing."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(rows * (1 + width * bits // 8)), 9)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiled(tile):
    """A TIFF of 16 x 16 pixels in one tile of that side."""
    content = zlib.compress(bytes(16))
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile),
            (324, 8), (325, len(content))]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = struct.pack("<I", 8 + len(content))
    return b"II*\0" + start + content + struct.pack("<H", len(tags)) + directory + bytes(4)


READERS = {
    "decode": lambda path: decode(path, channels=3),
    "dimensions": image_dimensions,
    "mask": read_mask,
    "range": lambda path: resolve_range_16bit([path], "percentiles"),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "content", [png(30000, 30000), png(30000, 30000, bits=16), tiled(30000)], ids=range(3)
)
def test_an_image_is_refused_by_its_header(read, content, tmp_path):
    path = tmp_path / "a.img"
    path.write_bytes(content)
    sentence = r"a\.img.* claims more than the 178 megapixels of data\.limit_megapixels"
    with frugal(), pytest.raises(UserError, match=sentence):
        READERS[read](path)


def test_the_limit_is_the_configs(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (110, 100)).save(path)
    assert Data().limit_megapixels == limits._limit_megapixels == 178
    limit_images(0.011)
    assert decode(path, channels=1).shape == (100, 110, 1)
    limit_images(0.01)
    with pytest.raises(UserError, match=r"a\.png claims more than the 0\.01 megapixels"):
        decode(path, channels=1)


def test_the_limit_may_be_above_pillows(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("L", (110, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # it would refuse twice as many
    with pytest.raises(UserError, match=r"a\.png claims more than"):
        image_dimensions(path)
    limit_images(0.02)
    assert image_dimensions(path) == (100, 110)


def test_postscript_is_no_image(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path, format="EPS")
    with pytest.raises(UserError, match="not an image in a format that is read"):
        decode(path, channels=3)


def test_memory_that_is_lacking_is_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)

    def lacking(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", lacking)
    with pytest.raises(UserError, match=r"a\.png is too large for the memory"):
        decode(path, channels=3)


@pytest.mark.parametrize("lying", [False, True])
def test_a_file_in_a_zip_is_inflated_as_far_as_its_header_says(lying, tmp_path):
    limit_images(0.1)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a.png", bytes(64 * MEGABYTE))
    if lying:
        content = path.read_bytes()
        size = struct.pack("<I", 64 * MEGABYTE)
        assert content.count(size) == 2
        path.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    with frugal(), pytest.raises(UserError, match="damaged" if lying else "a decompression bomb"):
        decode(f"{path}::a.png", channels=3)


def npz(path, shape, there):
    """Arrays of zeros whose headers claim a shape."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ("x_train", "x_test", "y_train", "y_test"):
            header = io.BytesIO()
            claimed = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, claimed)
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(there))


@pytest.mark.parametrize(
    "there, sentence", [(64 * MEGABYTE, "decompression bomb"), (1000, "claims 67108864 bytes")]
)
def test_an_array_is_refused_by_its_headers(there, sentence, tmp_path):
    limit_images(0.1)
    npz(tmp_path / "a.npz", (64, 1024, 1024), there)
    with frugal(), pytest.raises(UserError, match=rf"a\.npz: x_train\.npy .*{sentence}"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "shape, there, sentence",
    [
        ((64, 1024, 1024), 64 * MEGABYTE, "decompression bomb"),
        ((1, 2, 3), 64 * MEGABYTE, "its content is more"),
        ((2**32 - 1,) * 3, 6, "decompression bomb"),
    ],
)
def test_idx_is_inflated_as_far_as_its_header_says(shape, there, sentence, tmp_path):
    limit_images(0.1)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, *shape) + bytes(there)))
    with frugal(), pytest.raises(UserError, match=sentence):
        read_arrays(path)


@pytest.mark.parametrize("mode, ending", [("1", "png"), ("RGB", "png"), ("F", "tif"), ("L", "jpg")])
def test_a_mask_takes_what_is_set_aside_for_it(mode, ending, tmp_path, monkeypatch):
    """Pixels, their levels, and what counts them: not the array of its pixels alone."""
    side, held = 1000, []
    picture = Image.new("RGB", (side, side))
    picture.paste((200, 200, 200), (1, 1, side - 1, side - 1))
    picture.convert(mode).save(tmp_path / f"mask.{ending}")
    holding = limits.BUDGET.holding
    monkeypatch.setattr(limits.BUDGET, "holding", lambda size: held.append(size) or holding(size))
    tracemalloc.start()  # which counts NumPy's memory, not Pillow's
    levels_of(tmp_path / f"mask.{ending}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(held) == 1 and peak <= held[0] == 25 * side**2


def test_readers_wait_for_one_another():
    budget, order = Budget(10), []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with budget.holding(6):
            inside.set()
            leave.wait()
            order.append("first")

    def second():
        with budget.holding(5):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    with budget.holding(4):  # for which there is room
        order.append("third")
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["third", "first", "second"]
    with budget.holding(1000):  # alone
        pass
