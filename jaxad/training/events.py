"""TensorBoard events of a run.

Written here rather than by a library: one scalar summary is a few bytes of protocol buffers in
a TFRecord, and the libraries that write them import a deep-learning framework or keep a thread
whose failure (a full disk) nobody hears of.
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import time

from jaxad.run.files import explaining_writes
from jaxad.training.history import Row

# Field numbers of tensorflow/core/util/event.proto and framework/summary.proto.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION_LOG = 1, 2, 3, 5, 7
_SUMMARY_VALUE, _TAG, _SIMPLE_VALUE = 1, 1, 2
_STATUS, _START = 1, 1
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5


class Events:
    """An event file, written record by record."""

    def __init__(self, folder: pathlib.Path, *, first_step: int):
        """Starts a file; TensorBoard forgets what an earlier one says about later steps.

        Raises:
          UserError: it cannot be written.
        """
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._append(_bytes(_FILE_VERSION, b"brain.Event:2"))
        start = _key(_STATUS, _VARINT) + _varint(_START)
        self._append(_number(_STEP, first_step + 1) + _bytes(_SESSION_LOG, start))

    def write(self, step: int, values: Row) -> None:
        """Writes scalars.

        Raises:
          UserError: the disk is full.
        """
        summary = b""
        for name, value in values.items():
            scalar = _key(_SIMPLE_VALUE, _FLOAT) + struct.pack("<f", value)
            summary += _bytes(_SUMMARY_VALUE, _bytes(_TAG, name.encode()) + scalar)
        self._append(_number(_STEP, step) + _bytes(_SUMMARY, summary))

    def _append(self, fields: bytes) -> None:
        event = _key(_WALL_TIME, _DOUBLE) + struct.pack("<d", time.time()) + fields
        length = struct.pack("<Q", len(event))
        record = length + _checksum(length) + event + _checksum(event)
        # Unbuffered: what could not be written is not tried again when the process ends.
        with explaining_writes(str(self._path)), self._path.open("ab", buffering=0) as file:
            file.write(record)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _number(field: int, number: int) -> bytes:
    return _key(field, _VARINT) + _varint(number)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(content)) + content


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # the Castagnoli polynomial
        table.append(value)
    return table


_TABLE = _crc_table()


def _checksum(data: bytes) -> bytes:
    """Of the TFRecord format: CRC-32C, rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
