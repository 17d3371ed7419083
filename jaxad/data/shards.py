"""Record shards that `jaxad data prepare --shards` wrote: any image, without reading the others.

The folder is a data set of TensorFlow Datasets in the ArrayRecord format, written by
:mod:`jaxad.data.published.tfds_builders`, with a table of its samples in ``metadata.json``. It is
read here with ``array_record`` alone: TensorFlow is not imported. Readers keep the positions of the
records, never their content.

An image is called ``FOLDER::/PATH`` where PATH is what its file was called below the folder that
the shards were made of; its mask is ``FOLDER::/PATH#mask``.
"""

from __future__ import annotations

import io
import math
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

from PIL import Image

from jaxad.data.files import member_path, remembered
from jaxad.data.limits import open_image
from jaxad.data.table import SPLITS
from jaxad.run import schema
from jaxad.run.errors import UserError
from jaxad.run.schema import DIGEST, digest_of

INFO, METADATA = "dataset_info.json", "metadata.json"
TABLE_KEY = "jaxad"
PREFIX = "jaxad_"
"""Of the name of every builder of jaxad."""

MASK = "#mask"
"""Behind a member's name: its mask."""


# Every read is of one record, from any thread: nothing is read ahead.
_READ_AT_RANDOM = "readahead_buffer_size:0,max_parallelism:0"


def is_shards(folder: str | os.PathLike) -> bool:
    """Whether a folder holds shards of jaxad, of whatever version."""
    try:
        return schema.parse((pathlib.Path(folder) / INFO).read_text())["name"].startswith(PREFIX)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def shard_digest(folder: str, member: str) -> str | None:
    """The digest of an image's pixels that was written with shards; None elsewhere, or without."""
    return open_shards(folder).digests.get(member.removeprefix("/")) if is_shards(folder) else None


def find_shards(root: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the folders of shards at or below ``root``, as `jaxad data prepare` lays them out."""
    root = pathlib.Path(root)
    if is_shards(root):
        return [root]
    return sorted(p.parent for p in root.glob(f"{PREFIX}*/*/*/{INFO}") if is_shards(p.parent))


def open_shards(folder: str | os.PathLike) -> Shards:
    """Opens a folder of shards; asked again, it gives the same object while nothing has changed.

    Raises:
      UserError: there are none, they are of an older version, or one is missing or damaged.
    """
    folder = os.fspath(folder)
    if not os.path.isfile(os.path.join(folder, INFO)):
        raise UserError(f"{folder} holds no shards of TensorFlow Datasets")
    return _open(folder)


@remembered(32, INFO, METADATA)
def _open(folder: str) -> Shards:
    return Shards(folder)


class Shards:
    """One folder of shards.

    Attributes:
      folder: where they are.
      table: what the builder wrote: ``dataset``, ``category``, ``image_size`` (empty where every
        image has its own), ``channels``, ``range_16bit``, ``notes`` and per split its rows
        ``[path, label, defect, has a mask]``;
        since there are digests also ``pixels``, one per row, and ``validation``, the paths of
        training rows that are kept apart.
      digests: path of an image -> digest of its pixels; empty for shards without.
    """

    def __init__(self, folder: str):
        """Reads the table; the files of records are opened when they are first needed.

        Raises:
          UserError: as of :func:`open_shards`.
        """
        self.folder = folder
        info = _read_json(folder, INFO)
        if not is_shards(folder):
            raise UserError(
                f"{folder} holds {info.get('name')!r} of TensorFlow Datasets, which "
                "`jaxad data prepare --shards` did not write"
            )
        if info.get("fileFormat") != "array_record":
            raise UserError(
                f"{folder} holds shards of an older version of jaxad, which cannot be read at "
                "random; write them again with `jaxad data prepare --shards`"
            )
        try:
            self.table: dict[str, Any] = _read_json(folder, METADATA)[TABLE_KEY]
            self._lengths = {
                split["name"]: [int(n) for n in split["shardLengths"]] for split in info["splits"]
            }
            _check_table(self.table, self._lengths)
            rows = {split: self.table[split] for split in SPLITS}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{folder} is damaged: its table is not whole ({error})") from error
        self._name = info["name"]
        self._rows = {
            path: (split, row)
            for split, samples in rows.items()
            for row, (path, *_) in enumerate(samples)
        }
        pixels = self.table.get("pixels", {})
        self.digests: dict[str, str] = {
            row[0]: digest
            for split in SPLITS
            for row, digest in zip(rows[split], pixels.get(split, ()), strict=False)
        }
        self._readers: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    def open(self, member: str) -> Image.Image:
        """Opens an image or, with :data:`MASK` behind its path, its mask.

        Raises:
          UserError: there is none of this name, or its record is damaged.
        """
        path = member.removeprefix("/")
        feature = "image"
        if path not in self._rows and path.endswith(MASK):
            path, feature = path.removesuffix(MASK), "mask"
        if path not in self._rows:
            raise UserError(f"{self.folder} holds no {member!r}")
        content = self.record(*self._rows[path]).get(feature)
        if not content:
            raise UserError(f"{self.folder}: the record of {path} has no {feature}")
        return open_image(io.BytesIO(content), member_path(self.folder, member))

    def record(self, split: str, row: int) -> dict[str, bytes]:
        """Returns the features of one record that are bytes, images as PNG.

        Raises:
          UserError: its file is missing, cut off or damaged.
        """
        shard = 0
        while row >= self._lengths[split][shard]:
            row -= self._lengths[split][shard]
            shard += 1
        reader, file = self._reader(split, shard)
        try:
            return bytes_features(reader.read([row])[0])
        except (RuntimeError, LookupError, ValueError) as error:
            raise UserError(f"record {row} of {file} is damaged: {error}") from error

    def _reader(self, split: str, shard: int) -> tuple[Any, str]:
        lengths = self._lengths[split]
        file = f"{self._name}-{split}.array_record-{shard:05d}-of-{len(lengths):05d}"
        file = os.path.join(self.folder, file)
        with self._lock:
            reader = self._readers.get((split, shard))
            if reader is None:
                reader = _open_records(file, lengths[shard])
                self._readers[split, shard] = reader
        return reader, file


def _open_records(file: str, length: int) -> Any:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError as error:
        raise UserError("shards need array_record; install jaxad[tf]") from error
    if not os.path.isfile(file):
        raise UserError(f"the shard {file} is missing; write the shards again")
    try:
        reader = ArrayRecordReader(file, options=_READ_AT_RANDOM)
        found = reader.num_records()
    except RuntimeError as error:
        raise UserError(f"the shard {file} is damaged: {error}") from error
    if found != length:
        raise UserError(f"the shard {file} holds {found} of its {length} records; it is damaged")
    return reader


def _check_table(table: dict[str, Any], lengths: dict[str, list[int]]) -> None:
    """Checks what is read of a table, before any of it is used.

    Args:
      table: as of :class:`Shards`.
      lengths: of the files of records, per split; none of a split without images.

    Raises:
      ValueError: a part is of another kind than it should be.
      KeyError: a part is missing.
    """
    if not isinstance(table, dict):
        raise ValueError("it is no object")
    digest = table.pop(DIGEST, None)  # older tables have none
    if digest is not None and digest != digest_of(table):
        raise ValueError("its content is not what was written")
    for key, kind in (("dataset", str), ("category", str), ("image_size", list), ("channels", int),
                      ("range_16bit", list), ("notes", list)):  # fmt: skip
        if not isinstance(table[key], kind):
            raise ValueError(f"{key} is {table[key]!r}")
    low, high = map(float, table["range_16bit"])
    if not 0 <= low < high < math.inf:
        raise ValueError(f"range_16bit is {table['range_16bit']}")
    if not all(isinstance(path, str) for path in table.get("validation", [])):
        raise ValueError("validation is no list of paths")
    for split in SPLITS:
        for row in table[split]:
            if [type(part) for part in row] != [str, int, str, bool]:
                raise ValueError(f"a row of {split} is not [path, label, defect, has a mask]")
        digests = table.get("pixels", {split: []})[split]
        if [type(d) for d in digests] not in ([], [str] * len(table[split])):
            raise ValueError(f"the digests of {split} are not one for each row")
        if sum(lengths.get(split, [])) != len(table[split]):
            raise ValueError(f"{split} has {len(table[split])} rows and another number of records")


def _read_json(folder: str, name: str) -> dict[str, Any]:
    try:
        content = schema.parse((pathlib.Path(folder) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is damaged: {name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{folder} is damaged: {name} holds no object of JSON")
    return content


# A record is a tf.train.Example: features (1) of entries (1) of a key (1) and a value (2), which
# holds bytes (1), floats (2) or integers (3). Three levels of protocol buffers are read faster by
# hand than TensorFlow is imported.
_ENTRIES, _KEY, _VALUE, _BYTES = 1, 1, 2, 1


def bytes_features(record: bytes) -> dict[str, bytes]:
    """Returns the features of a ``tf.train.Example`` that hold one string of bytes.

    Raises:
      ValueError: this is no such message.
    """
    found = {}
    for _, features in _fields(record):
        for number, entry in _fields(features):
            parts = dict(_fields(entry)) if number == _ENTRIES else {}
            for kind, value in _fields(parts.get(_VALUE, b"")):
                if kind == _BYTES:
                    found[bytes(parts[_KEY]).decode()] = bytes(dict(_fields(value)).get(1, b""))
    return found


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length: number and content."""
    message, place = memoryview(message), 0

    def varint() -> int:
        nonlocal place
        number, shift = 0, 0
        while True:
            if place >= len(message):
                raise ValueError("it ends in the middle of a field")
            byte = message[place]
            number |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                return number

    while place < len(message):
        key = varint()
        if key & 7 != 2:
            raise ValueError(f"it holds a field of an unexpected kind ({key & 7})")
        length = varint()
        if place + length > len(message):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, message[place : place + length]
        place += length
