"""Files that hold many images, each image with a path of its own: ``mnist.npz::train/123``.

A path of this kind goes wherever an image's path goes: the decoder opens it, the cache keys it by
the file that holds it. What stands before ``::`` is the container, what stands behind it a member:

* ``.npz``: ``train/123`` or ``test/123``, a row of the array of that split;
* IDX (``train-images-idx3-ubyte``, with or without ``.gz``) and CIFAR's batches (``data_batch_1``,
  ``test_batch``, with or without ``.bin``): the row;
* ``.zip``: the name of a file in it;
* a folder that TensorFlow Datasets prepared: ``train/123``, the row in its own order;
* a folder of shards that jaxad wrote (:mod:`jaxad.data.shards`): ``/train/good/000.png``, the path
  that the file had.

Arrays are read once and kept; members of a zip file and of shards are read one at a time.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from jaxad.data.cifar import read_binary, read_pickled
from jaxad.data.files import member_path, remembered
from jaxad.data.limits import BUDGET, check_packed, open_image
from jaxad.data.shards import is_shards, open_shards
from jaxad.data.table import SPLITS
from jaxad.data.tensorflow import import_tensorflow_datasets
from jaxad.run.errors import UserError

_NPZ_KEYS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))
_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801
_STEP = 4096
"""Packed bytes that are inflated in one step: to 80 MB at most, by the densest method of zip."""


class Labelled(NamedTuple):
    """Images of one size with their classes.

    Attributes:
      images: ``(n, h, w)`` gray or ``(n, h, w, 3)``, uint8.
      labels: ``(n,)`` class numbers; empty where the file holds none.
    """

    images: UInt8[np.ndarray, "n h w *c"]
    labels: Int[np.ndarray, " n"]


def open_member(container: str, member: str) -> Image.Image:
    """Opens one image of a container.

    Raises:
      UserError: the container is of no known kind, is damaged, or has no such member.
    """
    if container.lower().endswith(".zip"):
        content = _unzipped(container, member)
        return open_image(io.BytesIO(content), member_path(container, member))
    if _holds_shards(container):
        return open_shards(container).open(member)
    split, _, row = member.rpartition("/")
    arrays = read_arrays(container)
    if split not in arrays or not row.isdecimal() or int(row) >= len(arrays[split].images):
        raise UserError(f"{container} holds no {member!r}")
    return Image.fromarray(arrays[split].images[int(row)])


def read_arrays(container: str | os.PathLike) -> Mapping[str, Labelled]:
    """Reads all images of a container that holds arrays.

    Args:
      container: anything but a zip file, see the module's text.

    Returns:
      ``"train"`` and ``"test"`` -> images, or ``""`` -> images where a file holds one split.

    Raises:
      UserError: the container is of no known kind, or damaged.
    """
    return _arrays(os.fspath(container))


def zip_members(container: str | os.PathLike) -> list[str]:
    """Returns the names of the files in a zip file.

    Raises:
      UserError: it cannot be read.
    """
    archive, _ = _zip(os.fspath(container))
    return [entry.filename for entry in archive.infolist() if not entry.is_dir()]


def read_idx(file: str | os.PathLike) -> np.ndarray:
    """Reads a file in MNIST's IDX format, packed by gzip or not.

    Returns:
      uint8, ``(n, h, w)`` for images and ``(n,)`` for labels.

    Raises:
      UserError: it is no IDX file of bytes, or its size contradicts its header.
    """
    opener = gzip.open if str(file).endswith(".gz") else open
    try:
        with opener(file, "rb") as stream:
            magic = int.from_bytes(stream.read(4), "big")
            if magic not in (_IDX_IMAGES, _IDX_LABELS):
                raise UserError(f"{file} is no IDX file of images or labels")
            shape = tuple(int.from_bytes(stream.read(4), "big") for _ in range(magic & 0xFF))
            size = math.prod(shape)
            check_packed(file, os.path.getsize(file), size)
            with BUDGET.holding(size):
                # One byte more than the header says shows that there are more.
                values = np.frombuffer(stream.read(size + 1), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if values.size != size:
        found = "more" if values.size > size else values.size
        raise UserError(f"{file} should hold {shape} bytes, its content is {found}")
    try:
        return values.reshape(shape)
    except ValueError:  # one side is zero, and the others are more than numpy can multiply
        raise UserError(f"{file} claims the shape {shape} and holds nothing") from None


def _unzipped(container: str, member: str) -> bytes:
    """The content of a file in a zip file, as far as its header says, in small steps.

    Raises:
      UserError: there is no such file, or it is a decompression bomb.
    """
    archive, lock = _zip(container)
    try:
        entry = archive.getinfo(member)
    except KeyError as error:
        raise UserError(f"{container} holds no {member!r}") from error
    check_packed(member_path(container, member), entry.compress_size, entry.file_size)
    content = bytearray()
    with lock, BUDGET.holding(entry.file_size), archive.open(entry) as stream:
        # In one step zipfile would inflate first and cut to the size of the header then.
        while part := stream.read(_STEP):
            content += part
    return bytes(content)


@remembered(8)
def _zip(container: str) -> tuple[zipfile.ZipFile, threading.Lock]:
    """An open zip file and the lock that its readers take."""
    try:
        return zipfile.ZipFile(container), threading.Lock()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{container} is no zip file that can be read: {error}") from error


@remembered(32)
def _holds_shards(container: str) -> bool:
    return os.path.isdir(container) and is_shards(container)


@remembered(16)
def _arrays(container: str) -> Mapping[str, Labelled]:
    name = os.path.basename(container)
    if os.path.isdir(container):
        return _tensorflow_datasets(container)
    if name.endswith(".npz"):
        return _npz(container)
    if "idx3-ubyte" in name:
        return {"": Labelled(_with_pixels(read_idx(container), container), np.zeros(0, np.int64))}
    if name.endswith(".bin"):
        return {"": Labelled(*read_binary(container))}
    if name.startswith(("data_batch", "test_batch")):
        return {"": Labelled(*read_pickled(container))}
    raise UserError(f"{container} is no file of images that is known")


def _npz(container: str) -> dict[str, Labelled]:
    try:
        with np.load(container, allow_pickle=False) as file:
            for names in _NPZ_KEYS:
                pairs = {split: [name.format(split) for name in names] for split in SPLITS}
                if all(key in file for pair in pairs.values() for key in pair):
                    return {
                        split: _checked(
                            _array(file, images, container),
                            _array(file, labels, container),
                            container,
                        )
                        for split, (images, labels) in pairs.items()
                    }
            found = ", ".join(file.files)
    except UserError:
        raise
    except Exception as error:
        # A damaged file makes numpy and zipfile raise nearly anything.
        raise UserError(f"{container} cannot be read, it may be damaged: {error}") from error
    raise UserError(
        f"{container} holds {found}; expected are train_images, train_labels, test_images, "
        "test_labels (or x_train, y_train, x_test, y_test)"
    )


def _array(file: np.lib.npyio.NpzFile, key: str, container: str) -> np.ndarray:
    """One array of an npz file, once its header agrees with what the zip file says of it.

    Raises:
      UserError: it is a decompression bomb, cut off, or packed as numpy never packs.
    """
    archive = file.zip
    assert archive is not None  # it is open
    entry = archive.getinfo(f"{key}.npy")
    what = f"{container}: {entry.filename}"
    check_packed(what, entry.compress_size, entry.file_size)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{what} is packed by another method than numpy's; save it again")
    with archive.open(entry) as stream:
        format = np.lib.format
        first = format.read_magic(stream) == (1, 0)
        read_header = format.read_array_header_1_0 if first else format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        size, there = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
    if size > there:
        raise UserError(f"{what} claims {size} bytes for the shape {shape} and has {there}")
    with BUDGET.holding(size):
        return file[key]


def _checked(images: np.ndarray, labels: np.ndarray, container: str) -> Labelled:
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    right = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    labels = np.asarray(labels).reshape(-1)
    if images.dtype != np.uint8 or not right or len(labels) != len(images):
        raise UserError(
            f"{container} holds images {images.dtype} {images.shape} and {len(labels)} labels; "
            "expected are uint8 images (n, h, w) or (n, h, w, 3) and n labels"
        )
    return Labelled(_with_pixels(images, container), labels.astype(np.int64))


def _with_pixels(images: np.ndarray, container: str) -> np.ndarray:
    """A header of sixteen bytes may claim billions of images without a pixel."""
    if 0 in images.shape[1:]:
        raise UserError(f"{container} holds images of {images.shape[1:]} pixels, which are none")
    return images


def _tensorflow_datasets(container: str) -> dict[str, Labelled]:
    tfds = import_tensorflow_datasets(container)
    builder = tfds.builder_from_directory(container)
    found: dict[str, Labelled] = {}
    for split in SPLITS:
        if split not in builder.info.splits:
            raise UserError(f"{container} has no split {split!r}")
        rows = builder.as_dataset(split=split, shuffle_files=False).batch(1024)
        parts = [(part["image"], part["label"]) for part in tfds.as_numpy(rows)]
        images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
        found[split] = _checked(images, labels, container)
    return found
