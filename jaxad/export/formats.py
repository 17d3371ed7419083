"""``jaxad export`` in any of its formats."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.run.errors import UserError

FORMATS = {
    "stablehlo": ("jaxad.evaluation.export", "export"),
    "onnx": ("jaxad.export.onnx_file", "export"),
    "web": ("jaxad.export.web", "export"),
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
    photograph_size: Sequence[int] | None = None,
    runtime: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Writes a run's detector to a file, and a description beside it.

    Args:
      workdir: the run folder.
      output: the file; of the format web, the folder.
      format: of :data:`FORMATS`.
      checkpoint: ``"last"``, ``"best"`` or a step number.
      data_root: where the training images are now, when they have moved; they are read only if
        the run has no calibration yet.
      overrides: keys as of :func:`jaxad.evaluate` that take the place of the run's.
      photograph_size: (height, width) of the photographs that the file of a run with tiles takes;
        None: of those that it was trained on, where they have one size.
      runtime: of the format web alone: folder of the npm package onnxruntime-web.

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
            f"the format {format} needs the package onnx: pip install 'jaxad[onnx]'"
        ) from error
    own = {} if runtime is None else {"runtime": runtime}
    if own and format != "web":
        raise UserError(f"the format {format} needs no runtime; leave --runtime out")
    return write(
        workdir,
        output,
        checkpoint=checkpoint,
        data_root=data_root,
        overrides=overrides,
        photograph_size=photograph_size,
        **own,
    )
