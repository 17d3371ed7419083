"""Files and values of tests/golden/make_golden_convert.py, and weights drawn as it draws them."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from golden.drawn_weights import draw

from jaxad.convert import layout

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "convert"


@pytest.fixture(scope="session")
def files() -> pathlib.Path:
    """The folder of files that the PyTorch projects wrote."""
    return FOLDER


@pytest.fixture(scope="session")
def values() -> dict[str, np.ndarray]:
    """What their networks make of them."""
    with np.load(FOLDER / "values.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def full_size(values) -> dict[str, dict[str, tuple[int, ...]]]:
    """Network -> key -> shape, of the public networks."""
    with np.load(FOLDER.parent / "backbones.npz") as file:
        found = json.loads(str(values["full_size"])) | json.loads(str(file["keys"]))
    return {name: {k: tuple(v) for k, v in keys.items()} for name, keys in found.items()}


INVERSES = {
    layout.CONV: lambda kernel: [kernel.transpose(3, 2, 0, 1)],
    layout.LINEAR: lambda kernel: [kernel.T],
    layout.SPLIT_QKV: lambda kernel: np.split(kernel.T, 3),
    layout.SPLIT_QKV_BIAS: lambda bias: np.split(bias, 3),
    layout.VECTOR: lambda vector: [vector],
    layout.TOKENS: lambda tokens: [tokens],
}


@pytest.fixture(scope="session")
def to_torch():
    """``(rule, Flax's array) -> list of PyTorch's arrays``."""
    return lambda rule, array: INVERSES[rule](array)


class Array:
    """A tensor as the readers give it."""

    def __init__(self, array: np.ndarray):
        self._array, self.shape = array, array.shape

    def read(self) -> np.ndarray:
        return self._array


@pytest.fixture(scope="session")
def as_state():
    """``{key: array} -> state dict``."""
    return lambda arrays: {key: Array(array) for key, array in arrays.items()}


@pytest.fixture(scope="session")
def draw_weights():
    """``{key: shape} -> {key: array}``, the values of the golden networks."""
    return lambda shapes: {key: draw(key, shape) for key, shape in shapes.items()}
