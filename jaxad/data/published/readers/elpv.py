"""ELPV: solar cells with the probability, by expert vote, that a cell is defective."""

from __future__ import annotations

import importlib.util
import pathlib
from collections import Counter

from jaxad.data.published.readers.pool import pool_table
from jaxad.data.table import GOOD, SampleTable
from jaxad.run.errors import UserError

PROBABILITIES = ("0", "1/3", "2/3", "1")
"""By thirds; those above 0 as ``data.anomalous`` names them."""

_KINDS = (GOOD, "p33", "p67", "p100")

# Where labels.csv lies: the package itself, a checkout of it, the data alone.
_PLACES = ("", "data", "elpv_dataset/data", "src/elpv_dataset/data")


def read_elpv(
    root: pathlib.Path, category: str, *, anomalous: str = ",".join(PROBABILITIES[1:])
) -> SampleTable:
    """Reads the data set.

    Cells of probability 0 are good. The data has no split: see
    :mod:`jaxad.data.published.readers.pool`. Cells of one module may be in both parts, since the
    data does not say from which they are.

    Args:
      root: folder of the data, of the package or of a checkout of it.
      category: ``"mono"`` or ``"poly"`` for cells of one type; ``""`` for all.
      anomalous: which probabilities count as anomalous, such as ``"2/3,1"``. Cells of the other
        probabilities above 0 are left out: they are neither surely good nor called anomalous.

    Raises:
      UserError: the data is not there or not as published, or an option is unknown.
    """
    chosen = [word.strip() for word in anomalous.split(",") if word.strip()]
    if not chosen or not set(chosen) <= set(PROBABILITIES[1:]):
        raise UserError(
            f"data.anomalous for elpv is a list of {', '.join(PROBABILITIES[1:])}, separated by "
            f"commas; got {anomalous!r}"
        )
    base = _find(root)
    kinds, missing = {}, []
    left_out: Counter[str] = Counter()
    for path, thirds, cell in _labels(base / "labels.csv"):
        if category not in ("", cell):
            continue
        if thirds and PROBABILITIES[thirds] not in chosen:
            left_out[PROBABILITIES[thirds]] += 1
        elif not (base / path).is_file():
            missing.append(path)
        else:
            kinds[path] = _KINDS[thirds]
    if not kinds:
        raise UserError(f"{base} has a labels.csv, but none of its images ({missing[:1]})")
    table = pool_table(base, kinds, name="elpv", category=category)
    notes = [
        f"anomalous are the cells with a defect probability of {', '.join(chosen)} "
        "(data.anomalous); good are those of 0"
    ]
    if left_out:
        counts = ", ".join(f"{n} of {text}" for text, n in sorted(left_out.items()))
        notes.append(f"left out are the cells of other probabilities: {counts}")
    if missing:
        notes.append(f"{len(missing)} images of labels.csv are missing, first {missing[0]}")
    return table.with_notes(notes)


def installed_elpv() -> pathlib.Path:
    """Returns the folder of the installed package elpv-dataset; nothing of it is imported.

    Raises:
      UserError: it is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "elpv is not installed; `pip install elpv-dataset`, or set data.root to its folder"
        )
    return pathlib.Path(next(iter(spec.submodule_search_locations)))


def _find(root: pathlib.Path) -> pathlib.Path:
    for place in _PLACES:
        if (root / place / "labels.csv").is_file():
            return root / place
    raise UserError(
        f"{root} holds no labels.csv, nor does a folder data in it: this is not elpv; "
        "`pip install elpv-dataset` brings it"
    )


def _labels(file: pathlib.Path) -> list[tuple[str, int, str]]:
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            path, probability, cell = fields
            thirds = 3 * float(probability)
        except ValueError as error:
            raise UserError(f"{file}, line {number}: expected are image, probability, type") from (
                error
            )
        if abs(thirds - round(thirds)) > 1e-3 or not 0 <= round(thirds) <= 3:
            raise UserError(f"{file}, line {number}: {probability} is none of 0, 1/3, 2/3, 1")
        rows.append((path, round(thirds), cell))
    return rows
