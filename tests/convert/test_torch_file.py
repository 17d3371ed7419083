"""PyTorch's files, read with numpy: right numbers, and no code is ever run."""

from __future__ import annotations

import collections
import io
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxad.convert.families import family
from jaxad.convert.mapping import plan_mapping
from jaxad.convert.pickles import TORCH
from jaxad.convert.torch_file import OLD_MAGIC, LazyTensor, read_torch_file
from jaxad.run.errors import UserError
from jaxad.run.pickles import read_pickle

FLOATS = np.arange(6, dtype=np.float32)


class Global:
    """Pickles as a bare name; the rest is written by hand below."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Reduce:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Stored:
    """Pickles as a persistent id."""

    def __init__(self, *identity):
        self.identity = identity


class Pickler(pickle._Pickler):
    """Writes names without importing what they name."""

    def persistent_id(self, value):
        return value.identity if isinstance(value, Stored) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Reduce):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def pickled(value) -> bytes:
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
STORAGE = Global("torch", "FloatStorage")
ORDERED = Reduce(Global("collections", "OrderedDict"))


def stored(key="0", count=6, kind=STORAGE):
    return Stored("storage", kind, key, "cpu", count)


def tensor(storage=None, offset=0, shape=(2, 3), strides=(3, 1)):
    return Reduce(REBUILD, storage or stored(), offset, shape, strides, False, ORDERED)


def write(path: pathlib.Path, data: bytes, blocks=None, byteorder=b"little", **options):
    """A file as torch.save lays it out."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", byteorder)
        for key, block in ({"0": FLOATS} if blocks is None else blocks).items():
            archive.writestr(f"archive/data/{key}", block.tobytes())
    return path


@pytest.mark.parametrize("name", ["tensors.pth", "tensors_old.pth"])
def test_all_kinds_of_tensors_are_pytorchs(files, values, name):
    """Views, shared blocks, transposes, scalars, empty ones, every dtype; both formats."""
    found = read_torch_file(files / name)
    expected = {k.removeprefix("tensors/"): v for k, v in values.items() if "tensors/" in k}
    assert set(found) == set(expected)
    for key, value in expected.items():
        array = found[key].read()
        assert array.shape == found[key].shape == value.shape, key
        assert key in ("bfloat16", array.dtype.name) or array.dtype == value.dtype
        np.testing.assert_array_equal(array.astype(value.dtype), value)


def test_a_training_checkpoint_is_read_without_its_optimisers_blocks(files):
    found = read_torch_file(files / "mae.pth")
    assert found["epoch"] == 7 and found["scaler"]["scale"] == 65536.0
    assert found["args"]["betas"] == (0.9, 0.95)
    assert isinstance(found["model"]["cls_token"], LazyTensor)


def test_a_hand_made_file_is_read(tmp_path):
    """So that what the tests below change in it is what is refused."""
    path = write(tmp_path / "x.pth", pickled({"w": tensor(strides=(1, 2))}))
    expected = FLOATS.reshape(3, 2).T
    np.testing.assert_array_equal(read_torch_file(path)["w"].read(), expected)


class Runs:
    """What Python's own unpickler would run."""

    def __init__(self, mark: pathlib.Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


MARK = "the-mark-of-code"
REQUESTS = {
    "os.system": Reduce(Global("posix", "system"), f"touch {MARK}"),
    "eval": Reduce(Global("builtins", "eval"), f"open('{MARK}', 'w')"),
    "python2": Reduce(Global("__builtin__", "eval"), f"open('{MARK}', 'w')"),
    "getattr": Reduce(Global("builtins", "getattr"), Global("collections", "OrderedDict"), "pop"),
    "nested": Reduce(Reduce(Global("functools", "partial"), Global("posix", "system")), MARK),
    "within": tensor(offset=Reduce(Global("posix", "system"), f"touch {MARK}")),
    "load": Reduce(Global("torch.serialization", "load"), MARK),
    "dotted": Reduce(Global("collections", "OrderedDict.__class__"), MARK),
    "alias": Reduce(Global("torch._utils", "_rebuild_tensor_v2.__globals__"), MARK),
    "numpy": Reduce(Global("numpy._core.multiarray", "scalar"), "f8", b"12345678"),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("old", [False, True])
def test_a_name_that_weights_do_not_need_is_refused_by_name(tmp_path, monkeypatch, name, old):
    monkeypatch.chdir(tmp_path)
    data = pickled({"w": tensor(), "x": REQUESTS[name]})
    path = tmp_path / "evil.pth"
    if old:
        start = OLD_MAGIC + pickled(1001) + pickled({"little_endian": True})
        path.write_bytes(start + data + pickled([]))
    else:
        write(path, data)
    with pytest.raises(UserError, match=r"evil\.pth asks .*; refused, nothing was run"):
        read_torch_file(path)
    assert not (tmp_path / MARK).exists()


def test_the_name_is_in_the_sentence(tmp_path):
    path = tmp_path / "evil.pth"
    write(path, pickle.dumps({"w": Runs(tmp_path / MARK)}, protocol=2))
    with pytest.raises(UserError, match=r"asks to run posix\.system; refused, nothing was run"):
        read_torch_file(path)
    pickle.loads(pickle.dumps(Runs(tmp_path / MARK)))
    assert (tmp_path / MARK).exists(), "this pickle does run code where it is let"


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_a_harmful_pickle_is_refused(tmp_path, protocol):
    path = write(tmp_path / "x.pth", pickle.dumps({"w": Runs(tmp_path / MARK)}, protocol))
    with pytest.raises(UserError, match=r"posix\.system"):
        read_torch_file(path)
    assert not (tmp_path / MARK).exists()


INSTRUCTIONS = {
    "INST": b"(S'touch x'\niposix\nsystem\n.",
    "OBJ": b"(cposix\nsystem\nS'touch x'\no.",
    "known INST": b"(icollections\nOrderedDict\n.",
    "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "EXT": b"\x80\x02\x82\x01)R.",
    "PERSID": b"P0\n.",
    "frozenset": b"\x80\x04(K\x01\x91.",
    "state of a class": b"\x80\x02ccollections\nOrderedDict\n}X\x0c\x00\x00\x00__setstate__K\x01sb.",
    "state of a function": b"\x80\x02ctorch._utils\n_rebuild_parameter\n}b.",
    "call of a storage": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "call of a value": b"\x80\x02K\x01)R.",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_instruction_that_weights_do_not_need_is_refused(name):
    with pytest.raises(UserError, match="refused, nothing was run"):
        read_pickle(INSTRUCTIONS[name], TORCH, source="x.pth")


def test_state_that_replaces_methods_changes_nothing():
    """A state dict's attributes (`_metadata`) are read over, whatever they are called."""
    data = b"\x80\x02ccollections\nOrderedDict\n)R}X\x06\x00\x00\x00updateK\x01sb."
    value, end = read_pickle(data, TORCH, source="x")
    assert value == {} and type(value) is dict and end == len(data)
    assert collections.OrderedDict().update is not None


DAMAGED = {
    "weird id": Stored("storage", STORAGE, 0, "cpu", 6),
    "id of another kind": Stored("module", STORAGE, "0", "cpu", 6),
    "id without a type": Stored("storage", "FloatStorage", "0", "cpu", 6),
    "id of a function": Stored("storage", REBUILD, "0", "cpu", 6),
    "id that is a string": Stored("storage"),
    "view of a view": Stored("storage", STORAGE, "0", "cpu", 6, ("1", 0, 3)),
    "no storage": Reduce(REBUILD, "0", 0, (2,), (1,), False, ORDERED),
    "few arguments": Reduce(REBUILD, stored()),
    "text as shape": tensor(shape="ab"),
    "fractions as shape": tensor(shape=(2.5, 1)),
    "other strides": tensor(strides=(1,)),
    "parameter of nothing": Reduce(Global("torch._utils", "_rebuild_parameter"), 1, True, ORDERED),
    "odd pairs": Reduce(Global("collections", "OrderedDict"), [1, 2]),
    "tuple as key": {(1, 2): 3},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_pickle_that_is_no_state_dict_is_damaged(tmp_path, name):
    path = write(tmp_path / "x.pth", pickled({"w": DAMAGED[name]}))
    with pytest.raises(UserError, match=r"x\.pth is damaged"):
        read_torch_file(path)


CLAIMS = {
    "beyond the block": tensor(shape=(3, 3)),
    "offset": tensor(offset=1),
    "negative offset": tensor(offset=-1),
    "negative stride": tensor(strides=(3, -1)),
    "negative shape": tensor(shape=(-2, -3)),
    "repeated": tensor(shape=(10**12, 3), strides=(0, 1)),
    "a stride of 2^62": tensor(shape=(1, 3), strides=(2**62, 1)),
    "a stride of 2^70": tensor(shape=(1, 3), strides=(2**70, 1)),
    "nothing, 2^70 times": tensor(shape=(2**70, 0), strides=(1, 1)),
    "huge": tensor(stored(count=2**60), shape=(2**60,), strides=(1,)),
    "not all of the block": tensor(stored(count=3), shape=(3,), strides=(1,)),
    "another entry": tensor(stored(key="../data.pkl")),
    "no entry": tensor(stored(key="1")),
    "negative count": tensor(stored(count=-6)),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_tensor_claims_is_checked_before_it_is_read(tmp_path, name):
    path = write(tmp_path / "x.pth", pickled({"w": CLAIMS[name]}))
    with pytest.raises(UserError, match=r"x\.pth is damaged"):
        read_torch_file(path)["w"].read()


def test_a_truncated_file_is_said_to_be(tmp_path, files):
    for name in ("timm_vit.pth", "timm_vit_old.pth"):
        whole = (files / name).read_bytes()
        for share in (0.2, 0.5, 0.9, 0.999):
            path = tmp_path / name
            path.write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(UserError, match="is damaged"):
                {key: tensor.read() for key, tensor in read_torch_file(path).items()}


def test_an_archive_that_claims_several_disks_is_damaged(tmp_path, files):
    data = (files / "timm_vit.pth").read_bytes()
    end = data.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 7)  # of the end of a large archive
    (tmp_path / "x.pth").write_bytes(data[:end] + locator + data[end:])
    with pytest.raises(UserError, match=r"x\.pth is damaged"):
        read_torch_file(tmp_path / "x.pth")


def test_a_flipped_bit_in_a_block_is_found(tmp_path, files):
    """By the checksums of the zip archive."""
    data = bytearray((files / "timm_vit.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        {key: value.read() for key, value in read_torch_file(tmp_path / "x.pth").items()}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "no file of torch.save"),
        (b"<!DOCTYPE html>", "not a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (pickle.dumps({"a": 1}), "no file of torch.save"),
    ],
)
def test_files_of_another_kind_are_told_apart(tmp_path, content, reason):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_torch_file(tmp_path / "x.pth")


def test_zip_archives_of_another_kind_are_told_apart(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(UserError, match=r"no data\.pkl"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled({}))
        archive.writestr("x/constants.pkl", pickled(()))
    with pytest.raises(UserError, match="TorchScript"):
        read_torch_file(path)
    write(path, pickled({}), byteorder=b"big")
    with pytest.raises(UserError, match="big-endian"):
        read_torch_file(path)
    write(path, pickled([1, 2]))
    with pytest.raises(UserError, match="a list, not a dict"):
        read_torch_file(path)


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    """A small file could hold a pickle of any size; PyTorch never compresses."""
    path = write(tmp_path / "x.pth", b"0" * 10**6, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is compressed"):
        read_torch_file(path)


def test_an_old_file_with_a_wrong_count_is_damaged(tmp_path, files):
    data = bytearray((files / "tensors_old.pth").read_bytes())
    place = bytes(data).rindex(struct.pack("<q", 24))
    data[place : place + 8] = struct.pack("<q", 2**50)
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(UserError, match="is not all there"):
        read_torch_file(tmp_path / "x.pth")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    try:
        read_pickle(data, TORCH, source="x")
    except UserError as error:
        assert str(error).startswith("x ")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_a_real_pickle_is_read_or_refused(data):
    whole = bytearray(pickled({"model": {"w": tensor()}, "epoch": 3, "list": [1, (2.0, "x")]}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(whole), TORCH, source="x")
    except UserError as error:
        assert str(error).startswith("x ")


def test_a_pickle_that_holds_itself_ends(tmp_path):
    """A dict within itself, and lists that double at every level."""
    itself = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."
    path = write(tmp_path / "x.pth", itself)
    assert set(read_torch_file(path)) == {"a"}
    value: list = []
    for _ in range(100):
        value = [value, value]
    path = write(tmp_path / "y.pth", pickled({"w": tensor(), "z": value}))
    assert set(read_torch_file(path)) == {"w", "z"}
    start = OLD_MAGIC + pickled(1001) + pickled({"little_endian": True})
    (tmp_path / "z.pth").write_bytes(start + pickled({"z": value}) + pickled([]))
    assert set(read_torch_file(tmp_path / "z.pth")) == {"z"}


def test_a_very_long_or_odd_key_gives_a_readable_sentence(tmp_path, files):
    """Its middle is left out, and what a terminal would act on is escaped."""
    for key in ("k" * 10**6, "\x1b[2J", ""):
        path = write(tmp_path / "x.pth", pickled({key: tensor()}))
        with pytest.raises(UserError) as failure:
            plan_mapping(read_torch_file(path), family("mae"), source="x.pth")
        sentence = str(failure.value)
        assert "keys that have no place: " in sentence and "\x1b" not in sentence
        assert len(sentence) < 4000
    path = write(tmp_path / "x.pth", pickled({"k" * 10**6: tensor(offset=1)}))
    with pytest.raises(UserError, match=r"tensor k{50}\.\.\.k{50} \(1000000 characters\)"):
        read_torch_file(path)["k" * 10**6].read()
