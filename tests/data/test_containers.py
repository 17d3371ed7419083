"""Paths into files of many images, and what damaged or hostile files end in."""

import os
import pickle
import struct
import tempfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from jaxad.data.cache import prepare_images
from jaxad.data.cifar import read_pickled
from jaxad.data.containers import open_member, read_arrays
from jaxad.data.datasets import find_images
from jaxad.data.files import file_of, member_path, split_member
from jaxad.data.images import decode, image_dimensions, read_image
from jaxad.run.errors import UserError


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 5), ("test", 3)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (n, 9, 7, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(n)
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz", arrays


def test_a_member_is_an_image_like_any_other(npz):
    file, arrays = npz
    path = member_path(file, "test/2")
    assert path == f"{file}::test/2"
    np.testing.assert_array_equal(decode(path, channels=3), arrays["x_test"][2])
    assert image_dimensions(path) == (9, 7)
    assert read_image(path, image_size=(4, 4), channels=1).shape == (4, 4, 1)
    assert (split_member(path), file_of(path)) == ((str(file), "test/2"), str(file))
    assert file_of(file) == str(file)
    assert find_images([path]) == [path]


def test_a_file_whose_name_has_the_separator_is_a_file(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    odd = tmp_path / "a.png::1.png"
    Image.new("L", (5, 4)).save(odd)
    assert split_member(odd) is None
    assert image_dimensions(odd) == (4, 5)
    with pytest.raises(UserError, match="does not exist"):
        decode(tmp_path / "b.png::1", channels=1)


def test_the_cache_takes_members_and_notices_a_changed_container(npz, tmp_path):
    file, arrays = npz
    paths = [member_path(file, f"train/{i}") for i in range(5)]
    options = {"image_size": (9, 7), "channels": 3, "memory_limit_mb": 0, "cache_dir": tmp_path}
    images = prepare_images(paths, **options)
    np.testing.assert_array_equal(images, arrays["x_train"])
    changed = {**arrays, "x_train": 255 - arrays["x_train"]}
    np.savez(file, **changed)
    os.utime(file, ns=(1, 1))
    np.testing.assert_array_equal(prepare_images(paths, **options), changed["x_train"])


def test_members_that_are_not_there(npz):
    file, _ = npz
    assert decode(member_path(file, "train/0"), channels=3).any()
    for member in ("train/5", "train/x", "valid/0"):
        with pytest.raises(UserError, match=f"holds no '{member}'"):
            decode(member_path(file, member), channels=3)


def test_zip_members(tmp_path):
    picture = np.arange(60, dtype=np.uint8).reshape(6, 10)
    Image.fromarray(picture).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "deep/a.png")
        archive.writestr("deep/b.png", b"no image")
    path = member_path(tmp_path / "a.zip", "deep/a.png")
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], picture)
    with pytest.raises(UserError, match="not an image"):
        decode(member_path(tmp_path / "a.zip", "deep/b.png"), channels=1)
    with pytest.raises(UserError, match="holds no"):
        decode(member_path(tmp_path / "a.zip", "a.png"), channels=1)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.zip", b"PK\x03\x04 cut", "no zip file"),
        ("a.npz", b"PK\x03\x04 cut", "may be damaged"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0\0\x02\0\0\0\x04\0\0\0\x04abc", "should hold"),
        ("train-images-idx3-ubyte", b"", "no IDX file"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\xff\xff\xff\xff" + bytes(8), "which are none"),
        ("train-images-idx3-ubyte.gz", b"\x1f\x8b\x08 cut", "cannot be read|no IDX"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 8 + bytes(4), "holds nothing"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8, "holds nothing"),
        ("data_batch_1.bin", b"12345", "not a multiple of 3073"),
        ("data_batch_1", b"\x80\x02}.", "no batch of CIFAR-10"),
        ("other.dat", b"1", "no file of images that is known"),
    ],
)  # fmt: skip
def test_damaged_containers(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_member(str(tmp_path / name), "0")


def test_npz_of_something_else(tmp_path):
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    with pytest.raises(UserError, match="holds weights; expected are train_images"):
        read_arrays(tmp_path / "a.npz")
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "b.npz", **dict.fromkeys(keys, np.zeros((2, 3, 3))))
    with pytest.raises(UserError, match="expected are uint8 images"):
        read_arrays(tmp_path / "b.npz")


class Asks:
    """Pickles as a call, perhaps with a state, of what Python's own unpickler would run."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


RECONSTRUCT = np.zeros(0).__reduce__()[0]
NO_STATE = (3, "|", None, None, None, -1, -1, 0)


def dtype_as(code: str, state: tuple) -> Asks:
    return Asks(np.dtype, (code, False, True), state)


def array_of(dtype, shape=(1,), content=b"\x41" * 8, kind=np.ndarray) -> Asks:
    """What numpy writes for an array; a buffer of addresses where it is of objects."""
    return Asks(RECONSTRUCT, (kind, (0,), b"b"), (1, shape, dtype, False, content))


REFUSED = {
    "a function": (Asks(os.mkdir, ("was-here",)), r"asks to run posix\.mkdir; refused"),
    "objects": (array_of(np.dtype("O8")), "an array of 'O8', not of whole numbers"),
    "objects that are denied": (array_of(dtype_as("O8", NO_STATE)), "an array of 'O8'"),
    "a state of objects": (
        array_of(dtype_as("u8", (3, "|", None, None, None, -1, -1, 63))), "asks to change Number"),
    "a state of fields": (
        array_of(dtype_as("u8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 0))),
        "is damaged|asks to change Number"),
    "a state of another type": (
        array_of(dtype_as("u8", (3, "|", (np.dtype("O"), (1,)), None, None, -1, -1, 0))),
        "is damaged|asks to change Number"),
    "fields": (array_of(np.dtype([("a", "u1")])), "an array of 'V1'"),
    "a subclass": (array_of(np.dtype("u1"), kind=np.matrix), r"asks to run numpy.*matrix"),
    "more than its content": (array_of(np.dtype("u1"), shape=(2**40, 3072)), "is damaged"),
    "a negative shape": (array_of(np.dtype("u1"), shape=(-2, -4)), "is damaged"),
    "fractions": (array_of(np.dtype("f8")), "an array of 'f8'"),
    "a state of an older kind": (
        Asks(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("u1"), 0, b"a")),
        "asks to change Array"),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", REFUSED)
def test_a_pickle_of_anything_but_a_batch_is_refused(tmp_path, monkeypatch, name, protocol):
    """By one sentence; nothing is run, and no memory is taken for an array of objects."""
    monkeypatch.chdir(tmp_path)
    asked, words = REFUSED[name]
    for content in ({b"data": asked, b"labels": [1]}, {b"data": b"x", "x": asked}, asked):
        (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(UserError, match=words) as refused:
            read_arrays(tmp_path / "test_batch")
        text = str(refused.value)
        assert text.startswith(str(tmp_path / "test_batch")) and "\n" not in text
    assert not (tmp_path / "was-here").exists()


def named_again(call: bytes, *, times: int) -> bytes:
    """A text of 100 KB that is remembered, and named in many calls of three times two bytes."""
    return (b"\x80\x02X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00X\x06\x00\x00\x00latin1"
            b"q\x01](" + call * times + b"e.")  # fmt: skip


def test_a_pickle_that_grows_is_refused_before_it_takes_memory(tmp_path):
    """Each call would copy what was remembered: 300 KB would become 2 GB."""
    file = tmp_path / "data_batch_1"
    file.write_bytes(named_again(b"c_codecs\nencode\nh\x00h\x01\x86R", times=20_000))
    tracemalloc.start()
    with pytest.raises(UserError, match="makes far more of its content than there is"):
        read_pickled(str(file))
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_a_pickle_whose_keys_have_one_hash_is_refused(tmp_path):
    """A dict of them is filled in quadratic time: hours for a megabyte."""
    keys = [(2**61 - 1) * k for k in range(1, 5)]
    assert len({hash(key) for key in keys}) == 1
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(dict.fromkeys(keys), protocol=2))
    with pytest.raises(UserError, match="a huge number as a key"):
        read_pickled(str(tmp_path / "data_batch_1"))


class Python2(pickle._Pickler):
    """Writes strings and bytes as Python 2 did, and so the batches of the data set's page."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        content = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch[str] = dispatch[bytes] = save_string


def test_a_batch_of_python_2(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
    batch = {"batch_label": "testing batch 1 of 1", "labels": [3, 8, 8, 0], "data": data,
             "filenames": ["domestic_cat_s_000907.png"] * 4}  # fmt: skip
    with open(tmp_path / "test_batch", "wb") as stream:
        Python2(stream, 2).dump(batch)
    with open(tmp_path / "test_batch", "rb") as stream:  # as the data set's page reads it
        assert pickle.load(stream, encoding="bytes")[b"labels"] == batch["labels"]
    found = read_arrays(tmp_path / "test_batch")[""]
    np.testing.assert_array_equal(found.labels, batch["labels"])
    for plane in range(3):
        expected = data[:, 1024 * plane : 1024 * (plane + 1)].reshape(4, 32, 32)
        np.testing.assert_array_equal(found.images[..., plane], expected)


@pytest.mark.parametrize(
    "batch", [[1], {"labels": [1]}, {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
              {"data": np.zeros((1, 3072), np.int8), "labels": [1]},
              {"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]},
              {"data": np.zeros((1, 3072), np.uint8), "labels": [2**70]}]
)  # fmt: skip
def test_a_batch_without_its_parts(tmp_path, batch):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(UserError, match="no batch of CIFAR-10"):
        read_arrays(tmp_path / "test_batch")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_of_a_batch_is_read_or_refused(data):
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": np.array([1])}
    whole = bytearray(pickle.dumps(batch, protocol=2))
    for _ in range(data.draw(st.integers(1, 4))):
        # Among the instructions before and after the pixels.
        place = data.draw(st.integers(-260, 259))
        whole[place] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile() as file:
        file.write(whole)
        file.flush()
        try:
            read_pickled(file.name)
        except UserError as error:
            assert str(error).startswith(file.name)
