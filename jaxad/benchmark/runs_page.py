"""One page over several runs: their metrics in a table, in bars, and heat maps side by side."""

from __future__ import annotations

import os
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from jaxad.report import charts, figures
from jaxad.report.charts import Chart
from jaxad.report.content import Case, Scale, common_scale, is_missing
from jaxad.report.page import (
    SORTABLE_COLUMNS,
    Cell,
    Picture,
    Section,
    fragment,
    metric_cell,
    page,
    sortable_table,
)
from jaxad.report.tables import MISSING, format_seconds, metric_title
from jaxad.run.files import write_text

_COMPARED = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
_DRAWN = ("image_auroc", "pixel_auroc", "aupro")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run on a page that compares runs.

    Attributes:
      name: what the table calls it: the model, or its config.
      category: of the data set; images are compared within one.
      seed: None where there is none to tell.
      metrics: the content of its ``metrics.json``.
      link: its own report, relative to the comparison page; None for no link.
      seconds: time to train (or to fit), None when unknown.
      cases: some of its test images; images are matched between runs by path.
      scale: its heat-map scale; None takes the range of its cases.
    """

    name: str
    metrics: Mapping[str, Any]
    category: str = ""
    seed: int | None = None
    link: str | None = None
    seconds: float | None = None
    cases: Sequence[Case] = ()
    scale: Scale | None = None


def write_comparison(
    path: str | os.PathLike,
    runs: Sequence[RunSummary],
    *,
    title: str = "Comparison of models",
    notes: Sequence[str] = (),
) -> None:
    """Writes the page that compares runs, atomically.

    Args:
      path: the HTML file.
      runs: in the order of the table. Images are matched by path within a category; each run
        keeps its own heat-map scale, because scores of different models have different units.
      title: heading of the page.
      notes: sentences the reader must not miss.

    Raises:
      UserError: the file cannot be written.
    """
    categories = list(dict.fromkeys(run.category for run in runs))
    metrics = fragment(
        "runs",
        "metrics",
        notes,
        _metrics_table(runs),
        by_category=any(categories),
        left_out=_left_out(runs),
    )
    means = fragment("runs", "means", _means_table(runs)) if len(categories) > 1 else ""
    bars_heading = "Per category" if categories != [""] else "In bars"
    sections = [
        Section("metrics", "Metrics", metrics),
        Section("means", "Means over categories", means),
        Section("bars", bars_heading, _bars(runs, categories)),
    ]
    for number, category in enumerate(categories):
        images = _images(_first_seeds(run for run in runs if run.category == category))
        heading = f"{category}: the same images" if category else "The same images, side by side"
        sections.append(Section(f"images-{number}" if number else "images", heading, images))
    write_text(path, page(title, sections))


def _address(link: str) -> str:
    """A relative path as a link that spaces, "#" and "?" in folder names do not break."""
    quoted = urllib.parse.quote(link.replace(os.sep, "/"))
    # A first part with a colon would read as a scheme.
    return quoted if quoted.startswith((".", "/")) else f"./{quoted}"


def _linked(run: RunSummary) -> Cell:
    return Cell(run.name, key=run.name, link=_address(run.link) if run.link else "")


def _columns(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Metrics that some run has, with their headings."""
    columns = _all_columns(runs)
    known = {key: title for key, title in columns.items() if _is_known(runs, key)}
    # Four more columns may tell the model, its category, its seed and its time.
    return dict(list((known or columns).items())[: SORTABLE_COLUMNS - 4])


def _is_known(runs: Sequence[RunSummary], key: str) -> bool:
    return any(not is_missing(_value(run, key)) for run in runs)


def _all_columns(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Metrics that are asked for: those of every run, then those of protocols."""
    columns = {key: metric_title(key) for key in _COMPARED}
    for run in runs:
        for name, value in (run.metrics.get("protocol_figures") or {}).items():
            key = f"{run.metrics['protocol']}: {name}"
            if run.metrics["protocol"] != "jaxad" and not isinstance(value, Mapping):
                columns[key] = f"{run.metrics['protocol']}: {metric_title(name)}"
    return columns


def _left_out(runs: Sequence[RunSummary]) -> str:
    """One line that names the metrics which no run has, and why."""
    columns = _all_columns(runs)
    absent = [key for key in columns if not _is_known(runs, key)]
    if not absent or len(absent) == len(columns):
        return ""
    undefined = (run.metrics.get("undefined") or {} for run in runs)
    reasons = {one[_name_of(key)] for one in undefined for key in absent if _name_of(key) in one}
    why = f" ({'; '.join(sorted(reasons))})" if reasons else ""
    return f"No run has {', '.join(columns[key] for key in absent)}{why}."


def _name_of(key: str) -> str:
    """A column's name in the list of what is undefined."""
    return key if ": " not in key else f"protocol_figures.{key.split(': ')[1]}"


def _value(run: RunSummary, key: str) -> float | None:
    protocol, _, name = key.rpartition(": ")
    if not protocol:
        return run.metrics.get(key)
    same = run.metrics.get("protocol") == protocol
    return run.metrics["protocol_figures"].get(name) if same else None


def _best(runs: Sequence[RunSummary], key: str) -> dict[str, float]:
    """Category -> the best value, where there is one that not all runs share."""
    best: dict[str, float] = {}
    if key.endswith("_std"):
        return best  # no deviation is better than another
    for category in {run.category for run in runs}:
        # Compared as printed: models that show the same number share the mark, or none has it.
        known = [_value(run, key) for run in runs if run.category == category]
        known = {round(value, 4) for value in known if not is_missing(value)}
        if len(known) > 1:
            best[category] = max(known)
    return best


def _metrics_table(runs: Sequence[RunSummary]) -> Markup:
    columns = _columns(runs)
    best = {key: _best(runs, key) for key in columns}
    leading = {"Model": _linked}
    if any(run.category for run in runs):
        leading["Category"] = lambda run: Cell(run.category, key=run.category)
    if len({run.seed for run in runs}) > 1:
        leading["Seed"] = lambda run: Cell(
            MISSING if run.seed is None else str(run.seed), key=run.seed
        )
    rows = []
    for run in runs:
        undefined = run.metrics.get("undefined") or {}
        row = [make(run) for make in leading.values()]
        row.append(Cell(format_seconds(run.seconds), key=run.seconds))
        for column in columns:
            value = _value(run, column)
            row.append(
                metric_cell(
                    value,
                    why=undefined.get(_name_of(column), ""),
                    best=not is_missing(value)
                    and round(value, 4) == best[column].get(run.category),
                )
            )
        rows.append(row)
    return sortable_table(
        [*leading, "Time to train", *columns.values()],
        rows,
        name="sort",
        smallest_first=range(1, len(leading) + 1),
    )


def _by_model(runs: Sequence[RunSummary], key: str) -> dict[str, dict[str, list[float]]]:
    """Category -> model -> known values of its runs."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        values = found.setdefault(run.category, {}).setdefault(run.name, [])
        value = _value(run, key)
        if not is_missing(value):
            values.append(value)
    return found


def _means_table(runs: Sequence[RunSummary]) -> Markup:
    """Means over the categories that all models have, of each the mean over its runs."""
    columns, models = _columns(runs), list(dict.fromkeys(run.name for run in runs))
    rows = {model: [Cell(model, key=model)] for model in models}
    headers = ["Model"]
    for column, title in columns.items():
        by_category = _by_model(runs, column).values()
        common = [one for one in by_category if all(one.get(model) for model in models)]
        headers.append(f"{title} ({len(common)})")
        for model in models:
            means = [sum(one[model]) / len(one[model]) for one in common]
            mean = sum(means) / len(means) if means else None
            rows[model].append(metric_cell(mean, why="no category in which every model has it"))
    return sortable_table(headers, list(rows.values()), name="sort-means")


def _bars(runs: Sequence[RunSummary], categories: Sequence[str]) -> str:
    models = list(dict.fromkeys(run.name for run in runs))
    drawn = []
    for key in _DRAWN:
        values = _by_model(runs, key)
        if any(one for by_model in values.values() for one in by_model.values()):
            named = {category: values.get(category, {}) for category in categories}
            drawn.append(Chart(metric_title(key), charts.model_bars(named, models)))
    if not drawn:
        return ""
    most = max(Counter((run.category, run.name) for run in runs).values())
    colours = len(charts.MODEL_COLOURS)
    return fragment("runs", "bars", models, colours, drawn, with_whiskers=most > 1)


def _first_seeds(runs: Iterable[RunSummary]) -> list[RunSummary]:
    """One run of each model: pictures of every seed would fill the page with near copies."""
    first: dict[str, RunSummary] = {}
    for run in runs:
        first.setdefault(run.name, run)
    return list(first.values())


def _images(runs: Sequence[RunSummary]) -> str:
    by_path = [{case.path: case for case in run.cases} for run in runs]
    first = {case.path: case for run in reversed(runs) for case in run.cases}
    if not first:
        return ""
    scales = [run.scale or common_scale({}, run.cases) for run in runs]
    rows = []
    for path in dict.fromkeys(path for cases in by_path for path in cases):
        results = [
            (_heat_map(cases[path], scale), cases[path].row) if path in cases else None
            for cases, scale in zip(by_path, scales, strict=True)
        ]
        rows.append((_photograph(first[path]), first[path].row, results))
    return fragment("runs", "images", list(map(_linked, runs)), rows, MISSING)


def _photograph(case: Case) -> Picture:
    """The outlined photograph where there is a mask, the plain one elsewhere."""
    plain, _, _, outlined, _ = figures.panels(case, Scale(0.0, 1.0))
    shown = plain.pixels if outlined.pixels is None else outlined.pixels
    return Picture(shown, f"photograph {case.path}", sharp=True)


def _heat_map(case: Case, scale: Scale) -> Picture:
    return Picture(figures.panels(case, scale)[2].pixels, f"heat map of {case.path}", sharp=True)
