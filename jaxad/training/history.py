"""What a run tells while it trains: history.csv.

history.csv holds only what the seed determines, so that two runs can be compared byte by byte;
speeds go to the events and the progress line.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np

from jaxad.run.errors import UserError
from jaxad.run.files import csv_line, explaining_writes, read_csv, sync, write_csv, write_text
from jaxad.training.step import StepMetrics

Row = Mapping[str, int | float]
"""Column of history.csv -> value."""

TextRow = dict[str, str]
"""The same as it stands in the file, without empty cells."""


def check_finite(
    values: Mapping[str, SupportsFloat], *, step: int, where: str = "on training images"
) -> None:
    """Stops a run whose loss has left the numbers, before a checkpoint of it is written.

    Args:
      values: terms of the loss by name, with ``loss`` and ``gradient_norm``, which follow from
        them, so they are named only when every term is finite.
      step: the number of steps taken.
      where: what the values are means of.

    Raises:
      UserError: a value is not finite; names it and the step.
    """
    consequences = {"loss": 1, "gradient_norm": 2}
    for name in sorted(values, key=lambda name: consequences.get(name, 0)):
        if not math.isfinite(float(values[name])):
            raise UserError(
                f"training stopped at step {step}: {name!r} is {float(values[name])} {where}; "
                "lower train.learning_rate or set train.gradient_clip, and use a new --workdir"
            )


def summarise_steps(steps: list[StepMetrics], *, first_step: int) -> dict[str, int | float]:
    """Averages the steps since the last row.

    Args:
      steps: metrics on the host, one per step.
      first_step: number of the first of them (counted from 1).

    Returns:
      Column -> value. A vector of counts (codes or memory items used) becomes three columns:
      how many entries were used, how many were not, and the perplexity of their use. A sum that
      is one number is averaged over the steps.

    Raises:
      UserError: a value is not finite; says which term, at which step.
    """
    for offset, step in enumerate(steps):
        check_finite(step.means, step=first_step + offset)
    row: dict[str, int | float] = {
        name: float(np.mean([s.means[name] for s in steps], dtype=np.float64))
        for name in steps[0].means
    }
    row |= {name: float(value) for name, value in steps[-1].scalars.items()}
    for name in steps[0].sums:
        counts = np.sum([s.sums[name] for s in steps], axis=0, dtype=np.float64)
        if not counts.ndim:
            row[name] = float(counts) / len(steps)
            continue
        share = counts / max(counts.sum(), 1.0)
        entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)))
        row[f"{name}_used"] = int(np.sum(counts > 0))
        row[f"{name}_unused"] = int(np.sum(counts == 0))
        row[f"{name}_perplexity"] = float(np.exp(entropy))
    return row


def read_history(path: pathlib.Path, timing: Mapping[str, Any] | None = None) -> list[TextRow]:
    """Reads history.csv.

    Args:
      path: of the file; it may be missing.
      timing: what timing.json holds, whose digest of the rows up to its step is compared.

    Returns:
      Column -> text of a number, by row; an empty cell is left out.

    Raises:
      UserError: a row is damaged, or not what was written.
    """
    rows = read_csv(path)
    advice = "restore it from a copy, or remove it to go on without the rows so far"
    last = 0
    for number, row in enumerate(rows, start=1):
        wrong = next((name for name, text in row.items() if not _is_number(text)), None)
        if wrong is not None:
            raise UserError(
                f"{path} is damaged (row {number}: {wrong!r} is {row[wrong]!r}, no finite number); "
                f"{advice}"
            )
        step = row.get("step", "")
        if not step.isdecimal() or int(step) <= last:
            raise UserError(
                f"{path} is damaged (row {number}: the step is {step!r} after {last}); {advice}"
            )
        last = int(step)
    written = timing.get("history") if timing and path.exists() else None
    if timing and written and written != digest_of(rows, up_to_step=timing["steps"]):
        raise UserError(f"{path} is damaged (its rows are not what was written); {advice}")
    return rows


def digest_of(rows: Sequence[TextRow], *, up_to_step: int) -> str:
    """SHA-256 of the rows up to and with a step, whatever columns other rows have."""
    counted = [row for row in rows if int(row["step"]) <= up_to_step]
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


class History:
    """Rows of history.csv; on resuming, rows after the restored step are dropped."""

    def __init__(
        self, path: pathlib.Path, *, up_to_step: int, timing: Mapping[str, Any] | None = None
    ):
        """Reads the rows written so far, up to and with ``up_to_step``; see `read_history`."""
        self._path = path
        self.rows: list[TextRow] = []
        if up_to_step > 0:
            complete = read_history(path, timing)
            self.rows = [row for row in complete if int(row["step"]) <= up_to_step]
        self._write_all()

    def append(self, row: Row) -> None:
        """Adds a row; a new column rewrites the file, otherwise one line is appended."""
        text = {name: _number(value) for name, value in row.items()}
        new_columns = [name for name in text if self.rows and name not in self._columns()]
        self.rows.append(text)
        if new_columns or len(self.rows) == 1:
            self._write_all()
            return
        with explaining_writes(str(self._path)), self._path.open("a", newline="") as file:
            file.write(csv_line(text.get(name) for name in self._columns()))

    def sync(self) -> None:
        """Waits until all rows are on the disk."""
        if self._path.exists():
            sync(self._path)

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _write_all(self) -> None:
        if self.rows:
            write_csv(self._path, self._columns(), self.rows)
        elif self._path.exists():
            write_text(self._path, "")


def _number(value: int | float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"
