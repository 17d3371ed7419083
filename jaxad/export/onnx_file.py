"""``jaxad export --format=onnx``: a run as one file for onnxruntime and other runtimes.

Inside are the preprocessing (the region of interest, the antialiased resizing from any size, the
model's own normalisation), the model, smoothing, the image score and the thresholds. What the run
says of itself stands in the file's metadata, and in FILE.json beside it; FILE.sha256 holds digests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, helper

import jaxad
from jaxad.evaluation.export import (
    LARGEST,
    checked_target,
    described,
    program_of,
)
from jaxad.evaluation.export_view import size_of_photographs, view_of
from jaxad.evaluation.predict import Predictor, load_detector
from jaxad.export import arithmetic, control, indexing, products, shapes
from jaxad.export.graph import Graph, described as described_value
from jaxad.export.lowering import BATCH, NotConvertible, Value, lower
from jaxad.export.preprocessing import preprocess
from jaxad.run.errors import UserError
from jaxad.run.exported import write_exported

OPSET = 18
"""Of ONNX's operators; onnxruntime has it since 1.14."""

_IR_VERSION = 8  # the oldest with this opset

INPUT = "image"
"""Name of the only input: ``(batch, height, width, 3)`` uint8, red before green before blue."""

FREE = ("height", "width")
"""The names of sides that an image may have as it likes."""

RULES = (arithmetic, control, indexing, products, shapes)
"""The modules whose rules :mod:`jaxad.export.lowering` knows once they are imported."""


def export(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    checkpoint: str | int = "last",
    data_root: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    photograph_size: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Writes a run's detector to one ONNX file.

    Arguments are those of :func:`jaxad.export.formats.export`.

    Returns:
      The content of FILE.json.

    Raises:
      UserError: it is no run folder, a key is wrong, the model cannot be converted or is too large
        for the format, or the output cannot be written.
    """
    target = checked_target(output)
    predictor = load_detector(
        workdir, checkpoint=checkpoint, data_root=data_root, overrides=overrides
    )
    data, record = file_of(predictor, photograph_size)
    write_exported(target, data, record)
    return record


def file_of(
    predictor: Predictor, photograph_size: Sequence[int] | None
) -> tuple[bytes, dict[str, Any]]:
    """The content of the file, and that of FILE.json.

    Args:
      predictor: the run.
      photograph_size: as of :func:`jaxad.export.formats.export`.

    Raises:
      UserError: the model cannot be converted, is too large for the format, or as of
        :func:`jaxad.evaluation.export_view.size_of_photographs`.
    """
    size = size_of_photographs(predictor, photograph_size)
    name = predictor.detector.config.model.name
    try:
        model, outputs = _model_of(predictor, size)
    except NotConvertible as error:
        raise UserError(f"the model {name!r} cannot be written as ONNX: {error}") from error
    own = {
        **_of_run(predictor),
        "format": f"ONNX, opset {OPSET}",
        "input": {"name": INPUT, "shape": [BATCH, *(size or FREE), 3], "dtype": "uint8"},
        "outputs": outputs,
    }
    of_file = ("sha256", "bytes")
    described_run = {k: v for k, v in described(predictor, b"").items() if k not in of_file}
    helper.set_model_props(
        model, {key: _text(value) for key, value in {**described_run, **own}.items()}
    )
    size = model.ByteSize()
    if size > LARGEST:
        raise UserError(f"the model takes {size / 1e9:.1f} GB; an ONNX file holds at most 2 GB")
    data = model.SerializeToString()
    return data, {**described(predictor, data), **own}


def _of_run(predictor: Predictor) -> dict[str, Any]:
    """What programs without jaxad need to know beside what every format says."""
    config, calibration = predictor.detector.config, predictor.calibration
    record = predictor.run.read_json(predictor.run.data)
    return {
        "image_size": list(config.data.image_size),
        "channels": config.data.channels,
        "range_16bit": list(predictor.range_16bit),
        "heat_map_low": calibration["heat_map_low"],
        "heat_map_high": calibration["heat_map_high"],
        "weights": record.get("weights"),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _model_of(
    predictor: Predictor, size: tuple[int, int] | None
) -> tuple[ModelProto, dict[str, Any]]:
    """The model with preprocessing; name -> shape and dtype of its outputs."""
    graph = Graph()
    if size is None:
        found, box = _of_images(graph, predictor)
    else:
        found, box = _of_photographs(graph, predictor, size)
    found["box"] = Value((4,), np.dtype(np.int64), (4,), box)
    outputs, record = [], {}
    for name, value in found.items():
        graph.output(name, value.name)
        outputs.append(described_value(name, value.dtype, value.shape))
        sides = [side if isinstance(side, int) else str(side) for side in value.shape]
        record[name] = {"shape": sides, "dtype": value.dtype.name}
    described_input = described_value(INPUT, np.uint8, (BATCH, *(size or FREE), 3))
    model = helper.make_model(
        graph.finish(predictor.detector.config.model.name, [described_input], outputs),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="jaxad",
        producer_version=jaxad.__version__,
    )
    return model, record


def _of_images(graph: Graph, predictor: Predictor) -> tuple[dict[str, Value], str]:
    """The results of images of any size, and what was seen of them."""
    detector = predictor.detector
    shape = detector.model.image_shape
    seen, box = preprocess(
        graph,
        INPUT,
        size=shape[:2],
        channels=shape[2],
        region=detector.config.data.region,
    )
    return lower(program_of(predictor, None), graph, {seen: (shape, np.dtype(np.uint8))}), box


def _of_photographs(
    graph: Graph, predictor: Predictor, size: tuple[int, int]
) -> tuple[dict[str, Value], str]:
    """Likewise of photographs of one size, whose tiles are cut and resized by the program."""
    inputs = {INPUT: ((*size, 3), np.dtype(np.uint8))}
    found = lower(program_of(predictor, size), graph, inputs)
    return found, graph.integers(*view_of(predictor, size).box)
