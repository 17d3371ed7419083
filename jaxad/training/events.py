"""TensorBoard events of a run."""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from jaxad.errors import UserError


class Events:
    """An event file, written record by record: no thread that could fail unheard."""

    def __init__(self, folder: pathlib.Path, *, first_step: int):
        """Starts a file; TensorBoard forgets what an earlier one says about later steps.

        Raises:
          UserError: it cannot be written.
        """
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._append(file_version="brain.Event:2")
        start = SessionLog(status=SessionLog.START)
        self._append(step=first_step + 1, session_log=start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars.

        Raises:
          UserError: the disk is full.
        """
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(step=step, summary=Summary(value=scalars))

    def _append(self, **fields: Any) -> None:
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        record = length + _checksum(length) + data + _checksum(data)
        try:
            # Unbuffered: what could not be written is not tried again when the process ends.
            with self._path.open("ab", buffering=0) as file:
                file.write(record)
        except OSError as error:
            raise UserError(f"{self._path} could not be written: {error.strerror}") from error


def _checksum(data: bytes) -> bytes:
    """Of the TFRecord format: CRC-32C, rotated and shifted."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
