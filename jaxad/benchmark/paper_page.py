"""A printed table beside metrics of one's own: differences, means, spread over seeds, slips."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxad.benchmark.printed import Table, divisor_of, paper_of
from jaxad.data.groups import GROUPS, MVTEC_AD
from jaxad.report.page import text_page
from jaxad.report.tables import MISSING, format_value, markdown_table
from jaxad.run.files import write_csv, write_json, write_text


@dataclass(kw_only=True)
class Column:
    """Metrics of one method.

    Attributes:
      name: of the printed column that it stands beside.
      config: as run.
      printed: the table has such a column; False for a baseline of ours.
      values: category -> seed -> metric, as a fraction.
      stds: the same of the standard deviation over images, where the metric has one.
      settings: how it was run, in words.
      errors: why cells are missing, in sentences.
    """

    name: str
    config: str
    printed: bool = True
    values: dict[str, dict[int, float | None]] = field(default_factory=dict)
    stds: dict[str, dict[int, float | None]] = field(default_factory=dict)
    settings: str = ""
    errors: list[str] = field(default_factory=list)


def compare(
    table: Table, columns: Sequence[Column], categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of a printed table beside ours, one per row and column.

    Args:
      table: of :mod:`jaxad.benchmark.printed`.
      columns: ours.
      categories: that fill it.

    Returns:
      Dicts with ``row``, ``over`` (the categories of a mean; None for a single one), ``column``,
      ``config``, ``printed``, ``printed_std`` (over images), ``decimals`` (of the printed number),
      ``ours``, ``seeds``, ``std_over_seeds``, ``std_over_images``, ``difference`` (ours minus
      printed) and ``slip`` (number of the slip, from 1, that annotates the printed number). All
      metrics are fractions. A mean that is printed has one of ours beside it only when all of its
      categories have one; means over what was run follow, computed alike on both sides.
    """
    return [
        _cell(table, column, name, over, source)
        for name, over, source in _row_sources(table, columns, categories)
        for column in columns
    ]


def _row_sources(
    table: Table, columns: Sequence[Column], categories: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...] | None, Mapping[str, Any] | None]]:
    """(name, categories of the mean or None, printed row or None to compute it), in order."""
    by_category = {row["category"]: row for row in table["rows"]}
    for category in categories:
        yield category, None, by_category.get(category, {})
    printed = [(m, tuple(m["over"])) for m in table["means"]]
    if "mean" in by_category:
        printed.append((by_category["mean"], tuple(categories)))
    for mean, over in printed:
        name = mean["printed"] + (f" ({mean['group']})" if mean.get("group") else "")
        yield f"{name}, as printed", over, mean
        if any(_slip(table, mean, column) is not None for column in columns if column.printed):
            yield f"{name}, computed from the rows", over, None
    run = tuple(c for c in categories if any(c in column.values for column in columns))
    if 0 < len(run) < len(categories):
        yield f"mean of the {len(run)} of {len(categories)} run", run, None
    if set(categories) <= set(MVTEC_AD):
        taken = [set(over) for _, over in printed]
        for name, group in GROUPS.items():
            inside = tuple(c for c in run if c in group)
            if inside and len(inside) < len(run) and set(inside) not in taken:
                count = f" ({len(inside)} of {len(group)})" if len(inside) < len(group) else ""
                yield name + count, inside, None


def _cell(
    table: Table,
    column: Column,
    name: str,
    over: tuple[str, ...] | None,
    source: Mapping[str, Any] | None,
) -> dict[str, Any]:
    wanted = over or (name,)
    per_seed = _means_per_seed(column.values, wanted)
    stds = _means_per_seed(column.stds, wanted)
    printed, std, decimals, slip = _printed(table, column, wanted, source)
    ours = float(np.mean(per_seed)) if per_seed else None
    return {
        "row": name,
        "over": list(over) if over else None,
        "column": column.name,
        "config": column.config,
        "printed": printed,
        "printed_std": std,
        "decimals": decimals,
        "ours": ours,
        "seeds": len(per_seed),
        "std_over_seeds": float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else None,
        "std_over_images": float(np.mean(stds)) if stds else None,
        "difference": None if ours is None or printed is None else ours - printed,
        "slip": slip,
    }


def _means_per_seed(
    values: Mapping[str, Mapping[int, float | None]], wanted: Sequence[str]
) -> list[float]:
    """The mean over categories of every seed that has them all."""
    seeds = sorted({seed for category in wanted for seed in values.get(category, {})})
    means = (_mean([values.get(category, {}).get(seed) for category in wanted]) for seed in seeds)
    return [mean for mean in means if mean is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where a value is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _printed(
    table: Table, column: Column, wanted: Sequence[str], source: Mapping[str, Any] | None
) -> tuple[float | None, float | None, int, int | None]:
    """(figure, deviation over images, decimals, number of its slip)."""
    decimals = _decimals(table)
    if not column.printed or source == {}:
        return None, None, decimals, None
    place = [one["name"] for one in table["columns"]].index(column.name)
    if source is None:  # computed from the column, as ours is
        values = {row["category"]: row["values"][place] for row in table["rows"]}
        mean = _mean([values.get(category) for category in wanted])
        if mean is None:
            return None, None, decimals, None
        return mean / divisor_of(table), None, decimals + 1, None
    if "decimals" in source:
        decimals = _decimals(table, source["decimals"][place])

    def fraction(value: float | None) -> float | None:
        # Rounded: 79.6 / 100 is to be the 0.796 that stands there.
        return None if value is None else round(value / divisor_of(table), decimals)

    std = fraction(source["std"][place]) if source.get("std") else None
    return fraction(source["values"][place]), std, decimals, _slip(table, source, column)


def _decimals(table: Table, printed: int | None = None) -> int:
    """Decimals of a printed number as a fraction; by default those of the table."""
    printed = table["metric"]["decimals"] if printed is None else printed
    return printed + round(math.log10(divisor_of(table)))


def _slip(table: Table, mean: Mapping[str, Any], column: Column) -> int | None:
    """Number of the slip that annotates a printed mean of a column, from 1."""
    for number, one in enumerate(table["slips"], start=1):
        same = (one.get("column"), one.get("group")) == (column.name, mean.get("group"))
        if "over" in mean and one["kind"] == "mean" and one["figure"] == "value" and same:
            return number
    return None


def write_table(
    root: pathlib.Path,
    table: Table,
    columns: Sequence[Column],
    categories: Sequence[str],
    *,
    statement: str = "",
) -> None:
    """Writes ``table_ID.md``, ``table_ID.csv`` and ``table_ID.json`` into a folder.

    Args:
      root: the folder.
      table: the printed one.
      columns: ours.
      categories: that fill it.
      statement: the protocol of ours, in words.

    Raises:
      UserError: it cannot be written.
    """
    rows, stem = compare(table, columns, categories), f"table_{table['id']}"
    write_csv(root / f"{stem}.csv", [key for key in rows[0] if key != "over"], rows)
    paper = paper_of(table)
    write_json(
        root / f"{stem}.json",
        {
            "table": {key: table[key] for key in ("id", "number", "title", "data", "metric")},
            "paper": dict(paper),
            "protocol": statement,
            "rows": rows,
            "columns": [
                {"name": c.name, "config": c.config, "settings": c.settings, "errors": c.errors}
                for c in columns
            ],
            "slips": table["slips"],
            "others_as_printed": _others(table, columns),
        },
    )
    write_text(root / f"{stem}.md", _markdown(table, columns, rows, statement=statement))


def _markdown(
    table: Table,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    *,
    statement: str = "",
) -> str:
    """The comparison as a page; ``rows`` as of :func:`compare`."""
    headings = {"row": ""}
    for place, column in enumerate(columns):
        if column.printed:
            headings[f"{place}.printed"] = f"{column.name}, printed"
            headings[f"{place}.ours"] = "ours"
            headings[f"{place}.difference"] = "difference"
        else:
            headings[f"{place}.ours"] = column.name
    lines: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows):
        place = number % len(columns)
        lines.setdefault(row["row"], {"row": row["row"]}).update(
            {
                f"{place}.printed": _printed_text(row),
                f"{place}.ours": _ours_text(row),
                f"{place}.difference": _signed(row["difference"]),
            }
        )
    with_seeds = any(row["std_over_seeds"] is not None for row in rows)
    return text_page(
        "paper.md.j2",
        paper=paper_of(table),
        table=table,
        definition=table["metric"]["definition"].rstrip("."),
        seeds=max(row["seeds"] for row in rows) if with_seeds else None,
        with_images=any(row["std_over_images"] is not None for row in rows),
        with_slips=any(row["slip"] for row in rows),
        compared=markdown_table(list(lines.values()), headings),
        statement=statement,
        columns=[_about(table, column) for column in columns],
        errors=list(dict.fromkeys(error for column in columns for error in column.errors)),
        others=_others_text(table, columns),
    )


def _about(table: Table, column: Column) -> tuple[str, str, list[str]]:
    """How a column of ours was run, and what is to be known of the printed one."""
    notes = {one["name"]: one.get("note") for one in table["columns"] if column.printed}
    facts = [f"`{column.config}`", notes.get(column.name), column.settings or "not run"]
    kind = "ours beside" if column.printed else "baseline"
    return kind, column.name, [fact for fact in facts if fact]


def _printed_text(row: Mapping[str, Any]) -> str:
    if row["printed"] is None:
        return MISSING
    text = f"{row['printed']:.{row['decimals']}f}"
    if row["printed_std"] is not None:
        text += f" ({row['printed_std']:.{row['decimals']}f})"
    return text + (f" [{row['slip']}]" if row["slip"] else "")


def _ours_text(row: Mapping[str, Any]) -> str:
    if row["ours"] is None:
        return MISSING
    text = f"{row['ours']:.4f}"
    if row["std_over_seeds"] is not None:
        text += f" ± {row['std_over_seeds']:.4f}"
    if row["std_over_images"] is not None:
        text += f" ({row['std_over_images']:.2f})"
    return text


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.4f}"


def _others(table: Table, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The columns that no run of ours stands beside, as fractions."""
    beside = {column.name for column in columns if column.printed}
    names = [one["name"] for one in table["columns"]]
    places = {i: name for i, name in enumerate(names) if name not in beside}
    if not places:
        return []
    found = []
    for row in [*table["rows"], *table["means"]]:
        values = {name: row["values"][i] for i, name in places.items()}
        fractions = {k: None if v is None else v / divisor_of(table) for k, v in values.items()}
        found.append({"row": row.get("category") or row["printed"]} | fractions)
    return found


def _others_text(table: Table, columns: Sequence[Column]) -> str:
    """The same as a table in Markdown; empty without one."""
    others = _others(table, columns)
    if not others:
        return ""
    digits = _decimals(table)
    lines = [
        {k: v if k == "row" else format_value(v, digits=digits) for k, v in one.items()}
        for one in others
    ]
    return markdown_table(lines, {key: key if key != "row" else "" for key in others[0]})
