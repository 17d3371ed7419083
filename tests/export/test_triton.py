"""config.pbtxt against the ONNX file that it describes."""

import json
import re

import onnx
import onnxruntime
import pytest

from jaxad.export.formats import export
from jaxad.export.triton import config_pbtxt

# Triton's model_config.proto and ONNX's TensorProto, by the names of both.
SAME = {"TYPE_BOOL": "BOOL", "TYPE_FP32": "FLOAT", "TYPE_INT64": "INT64", "TYPE_UINT8": "UINT8"}


def parsed(text):
    """{"input" or "output": {name: (type, dims, reshape)}}"""
    found = {}
    for kind, inside in re.findall(
        r"^(input|output) \[\n(.*?)^\]$", text, re.MULTILINE | re.DOTALL
    ):
        found[kind] = {}
        for line in inside.splitlines():
            name, of, dims, reshape = re.fullmatch(
                r'  \{ name: "(\w+)" data_type: (\w+) dims: (\[.*?\])'
                r"( reshape \{ shape: \[\] \})? \},?",
                line,
            ).groups()
            found[kind][name] = (SAME[of], json.loads(dims), bool(reshape))
    return found


@pytest.mark.parametrize("batch", [0, 16])
def test_names_types_and_shapes_are_those_of_the_file(run, tmp_path, batch):
    record = export(run, tmp_path / "model.onnx", format="onnx")
    text = config_pbtxt(record, "waves", batch=batch)
    assert text.startswith(f'name: "waves"\nbackend: "onnxruntime"\nmax_batch_size: {batch}\n')
    assert ("dynamic_batching" in text) == bool(batch)
    graph = onnx.load(tmp_path / "model.onnx").graph
    expected = {}
    for kind, values in (("input", graph.input), ("output", graph.output)):
        expected[kind] = {}
        for value in values:
            tensor = value.type.tensor_type
            sides = [one.dim_value if one.HasField("dim_value") else -1 for one in tensor.shape.dim]
            own = onnx.TensorProto.DataType.Name(tensor.elem_type)
            if not batch:
                expected[kind][value.name] = (own, sides, False)
            elif sides[0] == -1:  # Triton puts the axis of images before the others
                expected[kind][value.name] = (own, sides[1:] or [1], not sides[1:])
    assert parsed(text) == expected
    assert {*expected["output"]} >= {"score", "map", "decision", "mask"}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [*expected["input"]] == [one.name for one in session.get_inputs()]
