"""Keeps a few evaluated images on disk, so that pages over several runs can show them again."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxad.report.content import Case

_ARRAYS = ("image", "heat", "reconstruction", "mask", "predicted")
_VALUES = ("path", "label", "defect", "score", "decision")


def save_cases(path: pathlib.Path, cases: Sequence[Case]) -> None:
    """Writes cases as a compressed ``.npz``; absent arrays and decisions stay absent."""
    stored: dict[str, np.ndarray] = {"count": np.array(len(cases))}
    for i, case in enumerate(cases):
        for name in _VALUES + _ARRAYS:
            value = getattr(case, name)
            if value is not None:
                stored[f"{i}.{name}"] = np.asarray(value)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **stored)


def load_cases(path: pathlib.Path) -> list[Case]:
    """Reads what :func:`save_cases` wrote; empty where there is no such file."""
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as stored:
        values = {name: stored[name] for name in stored.files}
    cases = []
    for i in range(int(values["count"])):
        fields: dict[str, Any] = {name: values.get(f"{i}.{name}") for name in _VALUES + _ARRAYS}
        fields |= {n: fields[n].item() for n in _VALUES if fields[n] is not None}
        cases.append(Case(**fields))
    return cases
