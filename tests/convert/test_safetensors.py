"""Headers of .safetensors files that lie about what follows them: one sentence each."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from jaxad.convert.reading import open_weights
from jaxad.run.errors import UserError

FIRST = np.arange(4, dtype=np.float32)
SECOND = np.arange(16, dtype=np.uint8)


def write(path, dtype="F32", shape=(4,), offsets=(16, 32), *, size=32):
    """A file of two tensors, the second as its header says."""
    header = {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": dtype, "shape": [*shape], "data_offsets": [*offsets]},
    }
    text = json.dumps(header).encode()
    content = (FIRST.tobytes() + SECOND.tobytes() + bytes(16))[:size]
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("dtype, kind", [("F32", np.float32), ("BF16", ml_dtypes.bfloat16)])
def test_tensors_are_read(path, dtype, kind):
    values = SECOND.view(kind)
    state = open_weights(write(path, dtype, values.shape)).state
    np.testing.assert_array_equal(state["a"].read(), FIRST)
    np.testing.assert_array_equal(state["b"].read(), values)


@pytest.mark.parametrize(
    "offsets",
    [(8, 24), (0, 16), (0, 32), (20, 36), (32, 16), (16, 48), (16, 2**62), (2**63, 2**63 + 16)],
    ids=str,
)
def test_tensors_that_overlap_leave_gaps_or_lie_behind_the_end(path, offsets):
    with pytest.raises(UserError, match="is damaged, or no safetensors file"):
        open_weights(write(path, offsets=offsets))


@pytest.mark.parametrize("shape", [(8,), (3,), (-4,), (2**40,), (2**33, 2**33), (0,)], ids=str)
def test_shapes_that_do_not_fit_their_bytes(path, shape):
    with pytest.raises(UserError, match="is damaged, or no safetensors file"):
        open_weights(write(path, shape=shape))


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_files_that_are_too_short_or_too_long(path, size):
    with pytest.raises(UserError, match="is damaged, or no safetensors file"):
        open_weights(write(path, size=size))


@pytest.mark.parametrize("dtype, shape", [("F8_E4M3", (16,)), ("F8_E5M2", (16,)), ("F4", (32,))])
def test_numbers_of_a_kind_that_is_not_read(path, dtype, shape):
    """Only where they are asked for: a file may hold others beside the weights."""
    state = open_weights(write(path, dtype, shape)).state
    np.testing.assert_array_equal(state["a"].read(), FIRST)
    with pytest.raises(UserError, match=rf"holds b as {dtype}, which is not read; .* as F32"):
        state["b"].read()


def test_a_tensor_without_numbers_and_with_sides_beyond_all_measure(path):
    header = {"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(UserError, match="is damaged: a: array is too big"):
        open_weights(path).state["a"].read()
