"""``jaxad export`` in any of its formats."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from jaxad.run.errors import UserError

FORMATS = {
    "stablehlo": ("jaxad.evaluation.export", "export"),
    "onnx": ("jaxad.export.onnx_file", "export"),
}
"""Name of a format -> the module and function that write it."""


def export(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    format: str = "stablehlo",
    checkpoint: str | int = "last",
    data_root: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a run's detector to a file, and a description beside it.

    Args:
      workdir: the run folder.
      output: the file.
      format: of :data:`FORMATS`.
      checkpoint: ``"last"``, ``"best"`` or a step number.
      data_root: where the training images are now, when they have moved; they are read only if
        the run has no calibration yet.
      overrides: keys as of :func:`jaxad.evaluate` that take the place of the run's.

    Returns:
      The content of FILE.json.

    Raises:
      UserError: there is no such format, its package is not installed, or as of the function that
        writes it.
    """
    if format not in FORMATS:
        raise UserError(f"the format {format!r} is none of {', '.join(FORMATS)}")
    module, function = FORMATS[format]
    try:
        write = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise UserError(
            "the format onnx needs the package onnx: pip install 'jaxad[onnx]'"
        ) from error
    return write(workdir, output, checkpoint=checkpoint, data_root=data_root, overrides=overrides)
