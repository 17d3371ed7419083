"""``jaxad export --format=web``: a folder of static files that judges images in the browser.

The folder holds the run as ONNX, a page, and onnxruntime's WebAssembly, which is taken from the
npm package ``onnxruntime-web`` that the user has installed: jaxad carries no copy of it.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from jaxad.evaluation.predict import load_detector
from jaxad.export.onnx_file import file_of
from jaxad.report.figures import colour_table
from jaxad.report.page import integrity, text_page
from jaxad.run.errors import UserError
from jaxad.run.exported import write_exported
from jaxad.run.files import make_folder, write_bytes, write_text

RUNTIME = "node_modules/onnxruntime-web"
"""Where npm puts the package."""

_LOADER, _WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.wasm"
RUNTIME_FILES = (_LOADER, "ort-wasm-simd-threaded.mjs", _WASM)
"""What the page needs of the package's folder ``dist``."""


def export(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    checkpoint: str | int = "last",
    data_root: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    photograph_size: Sequence[int] | None = None,
    runtime: str | os.PathLike = RUNTIME,
) -> dict[str, Any]:
    """Writes the folder.

    Args:
      workdir: the run folder.
      output: the folder, new or of an earlier export.
      checkpoint: ``"last"``, ``"best"`` or a step number.
      data_root: where the training images are now, when they have moved.
      overrides: keys as of :func:`jaxad.evaluate` that take the place of the run's.
      photograph_size: as of :func:`jaxad.export.formats.export`.
      runtime: folder of the npm package ``onnxruntime-web``.

    Returns:
      The content of model.onnx.json.

    Raises:
      UserError: the package is not there, the run cannot be converted, or the folder cannot be
        written.
    """
    parts = runtime_files(runtime)
    predictor = load_detector(
        workdir, checkpoint=checkpoint, data_root=data_root, overrides=overrides
    )
    data, record = file_of(predictor, photograph_size)
    target = pathlib.Path(output)
    make_folder(target / "runtime", what=f"--output {target}")
    for name, content in parts.items():
        write_bytes(target / "runtime" / name, content)
    write_exported(target / "model.onnx", data, record)
    loaded = {"model.onnx": data, f"runtime/{_WASM}": parts[_WASM]}
    script = text_page(
        "detect.js.j2",
        record=record,
        colours=colour_table().tolist(),
        digests={name: hashlib.sha256(content).hexdigest() for name, content in loaded.items()},
    )
    page = text_page(
        "detect.html.j2",
        title=f"{predictor.category}: {record['model']}",
        script=Markup(script),
        digest=integrity(script),
        runtime=_LOADER,
        runtime_digest=integrity(parts[_LOADER]),
    )
    write_text(target / "index.html", page)
    return record


def runtime_files(runtime: str | os.PathLike) -> dict[str, bytes]:
    """The files of the package, by name.

    Raises:
      UserError: says how to get them.
    """
    folder = pathlib.Path(runtime) / "dist"
    missing = [name for name in RUNTIME_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"the format web needs {missing[0]} of the npm package onnxruntime-web in {folder}: "
            "npm install onnxruntime-web, or name its folder with --runtime"
        )
    return {name: (folder / name).read_bytes() for name in RUNTIME_FILES}
