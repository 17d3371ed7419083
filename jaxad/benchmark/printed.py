"""The tables that the five papers print, as data: to stand beside metrics measured here.

One JSON file per paper in ``printed_tables``, transcribed by hand and machine from the papers' own
texts. Nothing in them is corrected: where a printed number cannot be right, a *slip* beside it
says so. A table in print that gives two or three numbers per cell is as many tables here, with
the same number.

A file is ``{"paper": {key, title, authors, year, source, protocol}, "tables": [...]}`` and a table

``id``, ``number``, ``title``
    ``number`` as printed ("Table II").
``data``
    the data set, as ``data.name``.
``keys``
    of the config, that the paper's experiment sets for all columns; may be missing.
``metric``
    ``key`` (a metric of metrics.json or of a protocol, or ``"counts"``), ``printed`` (its name
    there), ``unit`` (``"fraction"`` or ``"percent"``), ``decimals``, ``definition``.
``columns``
    ``name`` as printed, ``own`` (a method of the paper itself, not one it compares with),
    ``config`` (ours that stands for it), ``map`` (of ours, where it is not the primary one),
    ``keys`` (of the config, of a method that the paper compares with),
    ``weights`` (that the authors start from),
    ``source`` (whence the paper took it), ``note``.
``rows``
    ``printed``, ``category`` (as ``data.category``; ``"mean"`` where only a mean is printed),
    ``values`` per column (null where none is printed), ``std`` where printed, ``group``.
``means``
    ``printed``, ``over`` (the categories), ``values``, ``std``, ``decimals`` of each.
``slips``
    ``kind``: ``"mean"`` (``column``, ``group``, ``figure``, ``printed``, ``computed``: a mean that
    its own column contradicts by more than rounding), ``"count"`` or ``"text"``; and ``text``.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxad.run import schema
from jaxad.run.errors import UserError, did_you_mean

_FOLDER = pathlib.Path(__file__).parent / "printed_tables"

Table = Mapping[str, Any]


@functools.cache
def load_papers() -> dict[str, dict[str, Any]]:
    """Reads all files.

    Returns:
      paper's key (``"vt_adl"``) -> the file's content, in alphabetical order. Not to be changed.
    """
    files = sorted(_FOLDER.glob("*.json"))
    return {file.stem: schema.parse(file.read_text(encoding="utf-8")) for file in files}


def paper_tables() -> dict[str, Table]:
    """Returns all tables by their ids."""
    return {table["id"]: table for paper in load_papers().values() for table in paper["tables"]}


def get_table(table_id: str) -> Table:
    """Returns one table.

    Raises:
      UserError: there is none of this id.
    """
    tables = paper_tables()
    if table_id not in tables:
        raise UserError(f"no printed table {table_id!r}{did_you_mean(table_id, tables)}")
    return tables[table_id]


def paper_of(table: Table) -> Mapping[str, Any]:
    """Returns the paper (``title``, ``authors``, ``source``, ``protocol`` ...) of a table."""
    return next(p["paper"] for p in load_papers().values() if table in p["tables"])


def divisor_of(table: Table) -> float:
    """Returns what the table's numbers are divided by to be fractions."""
    return 100.0 if table["metric"]["unit"] == "percent" else 1.0
