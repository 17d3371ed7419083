"""Exported files: written with a description and digests beside them, read after comparing.

Beside FILE lie FILE.json, which says what it is, and FILE.sha256, the digests of both in the form
that ``sha256sum --check`` takes. The three are written together or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxad.run import schema
from jaxad.run.errors import UserError
from jaxad.run.files import remove_unfinished, together, write_bytes
from jaxad.run.text import printable


class Exported(NamedTuple):
    """An exported file that is as it was written.

    Attributes:
      data: its content, for ``jax.export.deserialize`` or ``onnxruntime.InferenceSession``.
      record: what FILE.json says of it: thresholds, sizes, versions.
    """

    data: bytes
    record: dict[str, Any]


def write_exported(target: pathlib.Path, data: bytes, record: Mapping[str, Any]) -> None:
    """Writes the file, and FILE.json and FILE.sha256 beside it.

    Args:
      target: the file.
      data: its content.
      record: what is to be said of it, plain as JSON gives it back.

    Raises:
      UserError: the output cannot be written; what was there stays.
    """
    text = (json.dumps(record, indent=1) + "\n").encode()
    description, digests = _beside(target)
    contents = {target: data, description: text}
    lines = "".join(map(_line, contents, contents.values()))
    for path in (*contents, digests):  # what a killed call has left
        remove_unfinished(path.absolute().parent, path.name)
    with together():
        for path, content in {**contents, digests: lines.encode()}.items():
            write_bytes(path, content, what=f"--output {path}")


def read_exported(file: str | os.PathLike) -> Exported:
    """Reads a file that ``jaxad export`` wrote, of the format stablehlo or onnx, or of the web's.

    Args:
      file: FILE; FILE.json and FILE.sha256 lie beside it. All three may have been renamed alike.

    Raises:
      UserError: one of the three is missing or cannot be read, or FILE or FILE.json is not what
        was written.
    """
    target = pathlib.Path(file)
    description, digests = _beside(target)
    try:
        contents = {path: path.read_bytes() for path in (target, description)}
        lines = digests.read_bytes().decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be read: {error.strerror}; an exported file is used with "
            "those beside it, .json and .sha256: copy all three"
        ) from None
    for number, (path, content) in enumerate(contents.items()):
        if [_digest(content)] != [line[:64] for line in lines[number : number + 1]]:
            raise UserError(
                f"{path} is damaged: its digest is not that in {digests}; copy it again, or write "
                "it anew with `jaxad export`"
            )
    return Exported(contents[target], schema.parse(contents[description]))


def _beside(target: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    return target.with_name(target.name + ".json"), target.with_name(target.name + ".sha256")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _line(path: pathlib.Path, content: bytes) -> str:
    """As ``sha256sum`` writes it; no name is two lines."""
    return f"{_digest(content)}  {printable(path.name)}\n"
