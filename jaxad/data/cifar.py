"""The batches of CIFAR-10, of the binary and of the python version (pickles, read as data)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxad.run.errors import UserError
from jaxad.run.pickles import BadPickleError, Global, Vocabulary, read_pickle, short

RECORD = 1 + 3 * 32 * 32
"""Bytes of an image in the binary version: its label, then a plane for each colour."""

_ARRAY = "numpy.ndarray"
_WHOLE_NUMBERS = re.compile(r"[iu][1248]")


def read_binary(file: str) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"]]:
    """Reads ``data_batch_1.bin`` and its like: images and labels.

    Raises:
      UserError: the size of the file does not fit.
    """
    content = np.fromfile(file, np.uint8)
    if content.size == 0 or content.size % RECORD:
        raise UserError(
            f"{file} has {content.size} bytes, not a multiple of {RECORD}: this is not a batch of "
            "CIFAR-10's binary version"
        )
    records = content.reshape(-1, RECORD)
    return _images(records[:, 1:]), records[:, 0].astype(np.int64)


def read_pickled(file: str) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"]]:
    """Reads ``data_batch_1`` and its like, written by any version of Python: images and labels.

    Raises:
      UserError: the file is damaged, of another kind, or asks for something to be run.
    """
    with open(file, "rb") as stream:
        batch, _ = read_pickle(stream.read(), _BATCH, source=file)
    # Python 2 wrote plain strings, Python 3 writes either.
    batch = {_text(key): value for key, value in batch.items()} if isinstance(batch, dict) else {}
    data, labels = (_values(batch.get(name)) for name in ("data", "labels"))
    if data.dtype != np.uint8 or data.shape != (len(labels), 3072) or labels.dtype.kind not in "iu":
        raise UserError(f"{file} is no batch of CIFAR-10: it lacks its data or its labels")
    return _images(data), labels.astype(np.int64)


def _images(rows: UInt8[np.ndarray, "n 3072"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    """Rows are 1024 bytes of red, of green, of blue."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _text(key: Any) -> Any:
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _values(found: Any) -> np.ndarray:
    """An array's note as an array; a list of whole numbers too, nothing for anything else."""
    if isinstance(found, _Array) and found.values is not None:
        return found.values
    if isinstance(found, list) and all(type(v) is int and abs(v) < 2**63 for v in found):
        return np.array(found, np.int64)
    return np.zeros(0)


@dataclass
class _Number:
    """A dtype that a pickle asks for: whole numbers, nothing else."""

    code: str


@dataclass
class _Array:
    """An array that a pickle asks for; its values come with its state."""

    values: np.ndarray | None = None


def _number(code: Any, *_: Any) -> _Number:
    if not isinstance(code, str) or not _WHOLE_NUMBERS.fullmatch(code):
        raise BadPickleError(f"an array of {short(code)}, not of whole numbers")
    return _Number(code)


def _array(kind: Any, *_: Any) -> _Array:
    if kind != Global(_ARRAY):
        raise BadPickleError(f"an array that is a {short(kind)}")
    return _Array()


def _bytes(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise BadPickleError("bytes of something else than text")
    return text.encode("latin-1")


def _change(target: Any, state: Any) -> bool:
    match target, state:
        case _Number(), (int(), "<" | "|" | "=", None, None, None, -1, -1, 0):
            return True
        case _Array(None), (int(), tuple(shape), _Number(code), bool(by_columns), bytes(content)):
            pass
        case _Array(None), (int(), tuple(shape), _Number(code), bool(by_columns), str(text)):
            content = text.encode("latin-1")  # the only strings that Python 2 had
        case _:
            return False
    values = np.frombuffer(content, np.dtype(f"<{code}"))
    target.values = values.reshape(shape, order="F" if by_columns else "C")
    return True


_BATCH = Vocabulary(
    names={
        "numpy.core.multiarray._reconstruct": _array,
        "numpy._core.multiarray._reconstruct": _array,
        _ARRAY: None,
        "numpy.dtype": _number,
        "_codecs.encode": _bytes,
    },
    change=_change,
    persistent=None,
    advice="A batch of CIFAR-10 needs no such thing: get it anew from the data set's page",
)
