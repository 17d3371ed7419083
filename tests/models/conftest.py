"""Golden values of tests/golden/make_golden*.py."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

FOLDER = pathlib.Path(__file__).parent.parent / "golden"
# PyTorch's names within a layer, and Flax's.
LEAVES = {
    "Conv2d": {"weight": "kernel", "bias": "bias"},
    "ConvTranspose2d": {"weight": "kernel", "bias": "bias"},
    "BatchNorm2d": {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
    },
}
STATISTICS = ("mean", "var")


class Golden:
    """One case of a file of tests/golden/make_golden.py, PyTorch's layouts brought to Flax's."""

    def __init__(self, architecture: str, case: str):
        with np.load(FOLDER / f"{architecture}.npz") as file:
            self._arrays = {
                name.removeprefix(f"{case}/"): file[name]
                for name in file.files
                if name.startswith(f"{case}/")
            }
        self._layers = json.loads(str(self._arrays["layers"]))
        self.images = self._arrays["images"]

    def section(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of ``name/*``, by the rest of their names."""
        start = f"{name}/"
        return {k.removeprefix(start): v for k, v in self._arrays.items() if k.startswith(start)}

    def activations(self, name: str) -> dict[str, np.ndarray]:
        """Layer -> output, the layers named as in Flax (``down.0`` is ``down_0``)."""
        return {layer.replace(".", "_"): output for layer, output in self.section(name).items()}

    def tree(self, section: str) -> dict:
        """Parameters or their gradients as a nested dict in Flax's names and layouts."""
        leaves = dict(self._leaf(name, value) for name, value in self.section(section).items())
        return unflatten_dict({p: v for p, v in leaves.items() if p[-1] not in STATISTICS})

    def statistics(self, section: str) -> dict:
        """Running statistics, likewise."""
        leaves = dict(self._leaf(name, value) for name, value in self.section(section).items())
        return unflatten_dict({p: v for p, v in leaves.items() if p[-1] in STATISTICS})

    def _leaf(self, name: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        layer, _, leaf = name.rpartition(".")
        if not layer:
            return (name,), value
        kind = self._layers[layer]
        path = [layer.replace(".", "_")]
        for inner, flax in ((".conv3", "Conv_0"), (".conv1", "Conv_1")):
            if layer.endswith(inner):
                path = [layer.removesuffix(inner).replace(".", "_"), flax]
        if kind == "Conv2d" and value.ndim == 4:  # (o, i, h, w)
            value = value.transpose(2, 3, 1, 0)
        elif kind == "ConvTranspose2d" and value.ndim == 4:  # (i, o, h, w), and turned around
            value = value.transpose(2, 3, 0, 1)[::-1, ::-1].copy()
        return (*path, LEAVES[kind][leaf]), value


@pytest.fixture(scope="session")
def golden():
    """``(architecture, case) -> Golden``."""
    return Golden


def read_case(architecture: str, case: str) -> dict[str, np.ndarray]:
    """The arrays of a case; kernels stored as a grid of int8 are multiplied out."""
    with np.load(FOLDER / f"{architecture}.npz") as file:
        values = {
            k.removeprefix(f"{case}/"): file[k] for k in file.files if k.startswith(f"{case}/")
        }
    for name in [n for n in values if n.endswith(".int8")]:
        stem = name.removesuffix(".int8")
        values[stem] = values.pop(name) * values.pop(f"{stem}.scale")
    return values


@pytest.fixture(scope="session")
def golden_values():
    """``(architecture, case) -> {name: array}``, as stored."""
    return read_case
