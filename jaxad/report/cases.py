"""Keeps a few evaluated images on disk, so that pages over several runs can show them again."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxad.report.content import Case
from jaxad.run.errors import UserError

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
    """Reads what :func:`save_cases` wrote; empty where there is no such file.

    Raises:
      UserError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = {name: stored[name] for name in stored.files}
        return [_case(values, i) for i in range(int(values["count"]))]
    except Exception as error:
        # Damage makes zipfile and numpy raise nearly anything, and types that do not fit too.
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}); run `jaxad evaluate` again") from error


def _case(values: Mapping[str, np.ndarray], number: int) -> Case:
    fields: dict[str, Any] = {name: values.get(f"{number}.{name}") for name in _VALUES + _ARRAYS}
    fields |= {name: fields[name].item() for name in _VALUES if fields[name] is not None}
    return Case(**fields)
