"""Reads PyTorch's files (.pth, .pt, .bin) with numpy alone; no code of a file is ever run.

Since PyTorch 1.6 such a file is a zip of a pickle and one entry per block of numbers; before, it
was a row of pickles followed by the blocks. Both are read. Blocks are read when their values are
asked for: the optimiser's state in a training checkpoint costs nothing.
"""

from __future__ import annotations

import mmap
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes  # noqa: F401 - gives numpy the dtype bfloat16
import numpy as np

from jaxad.convert.pickles import TORCH, Storage, Tensor
from jaxad.run.errors import UserError
from jaxad.run.pickles import read_pickle
from jaxad.run.text import brief

OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How the files of PyTorch before 1.6 begin."""

LARGEST_PICKLE = 2**28
"""Bytes; the pickles of the largest models have some hundred thousand."""

LARGEST_SIDE = 2**48
"""Of a tensor's shape, strides and offset; numpy counts bytes with 63 bits."""

Reader = Callable[[Storage], np.ndarray]


class LazyTensor:
    """A tensor that is still in the file.

    Attributes:
      shape: of the array that :meth:`read` gives.
    """

    def __init__(self, tensor: Tensor, read_storage: Reader, name: str, source: str):
        self._tensor, self._read_storage = tensor, read_storage
        self._name, self._source = name, source
        self.shape = tensor.shape

    def read(self) -> np.ndarray:
        """The values, read-only; not copied where several tensors share a block.

        Raises:
          UserError: the block is missing or damaged, or smaller than the tensor claims.
        """
        storage, offset, shape, strides = self._tensor
        if storage.numel < 0 or min((offset, *shape, *strides)) < 0:
            raise self._damaged("a negative size")
        if max((0, offset, *shape, *strides)) > LARGEST_SIDE:
            raise self._damaged("a size that no file has")
        size = int(np.prod([1, *shape], dtype=object))
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if size and last >= storage.numel:
            raise self._damaged(f"it ends at number {last} of a block of {storage.numel}")
        # A stride of zero repeats numbers: a small block may claim to be any size.
        if size > storage.numel:
            raise self._damaged(f"its shape {shape} claims more than the block holds")
        block = self._read_storage(storage)
        strides = tuple(step * block.itemsize for step in strides)
        return np.lib.stride_tricks.as_strided(block[offset:], shape, strides, writeable=False)

    def _damaged(self, how: str) -> UserError:
        return UserError(f"{self._source} is damaged: tensor {brief(self._name)}: {how}")


def read_torch_file(path: pathlib.Path) -> dict[str, Any]:
    """Reads a file of ``torch.save``.

    Args:
      path: the file.

    Returns:
      The dict that was saved; nested dicts stay, tensors are :class:`LazyTensor`.

    Raises:
      UserError: the file is of another kind, is damaged, or asks for something to be run.
    """
    with path.open("rb") as file:
        start = file.read(len(OLD_MAGIC))
    if start == OLD_MAGIC:
        value, read_storage = _open_old(path)
    elif _is_zip(path):
        value, read_storage = _open_zip(path)
    elif start.startswith(b"PK"):
        raise UserError(f"{path} is damaged: the end of its zip archive is missing; copy it again")
    else:
        raise UserError(
            f"{path} is no file of torch.save (neither a zip archive nor PyTorch's format of "
            "before 1.6); was it downloaded whole, and not a web page or a pointer of Git LFS?"
        )
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not a dict of weights")
    return _lazy(value, read_storage, str(path), "", 0)


def _lazy(values: Mapping[Any, Any], reader: Reader, source: str, prefix: str, depth: int):
    """Tensors of a dict and of the dicts within it; a pickle may nest itself, weights do not."""
    result = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            value = LazyTensor(value, reader, name, source)
        elif isinstance(value, dict) and depth < 2:
            value = _lazy(value, reader, source, f"{name}.", depth + 1)
        result[key] = value
    return result


def _is_zip(path: pathlib.Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its end claims that it is one of several disks
        return False


def _open_zip(path: pathlib.Path) -> tuple[Any, Reader]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{path} is a zip archive but no file of torch.save: no data.pkl in it")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise UserError(
            f"{path} is a TorchScript program; give a file of torch.save(model.state_dict(), ...)"
        )

    def read(name: str, size: int) -> bytes:
        if name not in entries:
            raise UserError(f"{path} is damaged: it lacks the entry {brief(name)}")
        entry = entries[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
            raise UserError(
                f"{path} is damaged: the entry {brief(name)} has {entry.file_size} bytes, not "
                f"{size}, or is compressed"
            )
        try:
            data = archive.read(entry)
        # Overlapping or truncated entries surface as any of these.
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError,
                NotImplementedError, zlib.error, struct.error) as error:  # fmt: skip
            raise UserError(
                f"{path} is damaged: entry {brief(name)}: {error}; copy it again"
            ) from None
        if len(data) != size:
            raise UserError(
                f"{path} is damaged: the entry {brief(name)} is cut short; copy it again"
            )
        return data

    byteorder = f"{folder}byteorder"
    if byteorder in entries and read(byteorder, entries[byteorder].file_size) != b"little":
        raise UserError(f"{path} was written on a big-endian machine; save it again on another")
    size = entries[pickles[0]].file_size
    if size > LARGEST_PICKLE:
        raise UserError(f"{path} is damaged: its pickle claims {size} bytes")
    value, _ = read_pickle(read(pickles[0], size), TORCH, source=str(path))

    def read_storage(storage: Storage) -> np.ndarray:
        dtype = np.dtype(storage.dtype)
        data = read(f"{folder}data/{storage.key}", storage.numel * dtype.itemsize)
        return np.frombuffer(data, dtype)

    return value, read_storage


def _open_old(path: pathlib.Path) -> tuple[Any, Reader]:
    """Magic number, version, machine, value, keys of the blocks; then each block by its length."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        head = mapped[: min(len(mapped), LARGEST_PICKLE)]
    at = len(OLD_MAGIC)
    parts = []
    for _ in range(4):
        part, at = read_pickle(head, TORCH, source=str(path), start=at)
        parts.append(part)
    _, machine, value, keys = parts
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise UserError(f"{path} was written on a big-endian machine; save it again on another")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UserError(f"{path} is damaged: the list of its blocks is missing")
    itemsizes = _itemsizes(value)
    places, end = {}, os.path.getsize(path)
    with path.open("rb") as file:
        for key in keys:
            file.seek(at)
            length = file.read(8)
            count = struct.unpack("<q", length)[0] if len(length) == 8 else -1
            size = count * itemsizes.get(key, 0)
            if key not in itemsizes or not 0 <= size <= end - at - 8:
                raise UserError(
                    f"{path} is damaged: block {brief(key)!r} is not all there; copy it again"
                )
            places[key] = (at + 8, count)
            at += 8 + size

    def read_storage(storage: Storage) -> np.ndarray:
        place, count = places.get(storage.key, (0, -1))
        if count != storage.numel:
            raise UserError(
                f"{path} is damaged: block {brief(storage.key)!r} is not what it claims to be"
            )
        return np.fromfile(path, np.dtype(storage.dtype), count=count, offset=place)

    return value, read_storage


def _itemsizes(value: Any) -> dict[str, int]:
    """Bytes of a number in each block: the old format says so only where a tensor uses it."""
    found: dict[str, int] = {}
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            found[item.storage.key] = np.dtype(item.storage.dtype).itemsize
        elif isinstance(item, Storage):
            found[item.key] = np.dtype(item.dtype).itemsize
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item
    return found
