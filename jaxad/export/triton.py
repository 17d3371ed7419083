"""The settings of an exported ONNX file in a model repository of NVIDIA Triton, also by KServe.

``config.pbtxt`` says what a model takes and gives, and how requests become batches; its fields are
those of Triton's ``model_config.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {
    "bool": "TYPE_BOOL",
    "float32": "TYPE_FP32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}


def config_pbtxt(record: Mapping[str, Any], name: str, *, batch: int = 16) -> str:
    """The content of ``NAME/config.pbtxt``; the file itself is ``NAME/1/model.onnx``.

    Args:
      record: of the export, as it stands in FILE.onnx.json.
      name: of the model, and of its folder in the repository.
      batch: how many images Triton may judge at once; it gathers requests whose images have the
        same size. It leaves out ``box``, which has no axis of images. 0: requests are judged one by
        one as they come, each with as many images as it likes, and all results are there.
    """
    outputs = {
        key: value
        for key, value in record["outputs"].items()
        if not batch or value["shape"][:1] == ["batch"]
    }
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {batch}",
        *_described("input", {record["input"]["name"]: record["input"]}, batch),
        *_described("output", outputs, batch),
    ]
    if batch:
        lines.append("dynamic_batching { max_queue_delay_microseconds: 5000 }")
    return "\n".join(lines) + "\n"


def _described(kind: str, values: Mapping[str, Mapping[str, Any]], batch: int) -> list[str]:
    lines = [f"{kind} ["]
    for name, value in values.items():
        sides = [side if isinstance(side, int) else -1 for side in value["shape"]]
        # Of what is gathered, Triton adds the axis of images itself; of a number for each image
        # nothing is left but that axis, which it writes as one number and takes away again.
        sides = sides[1:] if batch else sides
        alone = batch and not sides
        text = f"dims: {sides or [1]}" + (" reshape { shape: [] }" if alone else "")
        lines.append(f'  {{ name: "{name}" data_type: {_TYPES[value["dtype"]]} {text} }},')
    return [*lines[:-1], lines[-1].rstrip(","), "]"]
