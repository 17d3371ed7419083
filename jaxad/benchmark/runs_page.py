"""One page over several runs: their figures in a table, in bars, and heat maps side by side."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping, Sequence

from jaxad.report import charts, figures
from jaxad.report.content import Case, RunSummary, Scale, common_scale, is_missing
from jaxad.report.gallery import badge
from jaxad.report.page import (
    breakable,
    enlargeable,
    escape,
    figure,
    page,
    picture,
    sortable_table,
    table,
)
from jaxad.report.style import MODEL_COLOURS, SORTABLE_COLUMNS
from jaxad.report.tables import (
    MISSING,
    format_score,
    format_seconds,
    metric_title,
)
from jaxad.run.files import write_text

_COMPARED = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
_DRAWN = ("image_auroc", "pixel_auroc", "aupro")


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
    sections = [("figures", "Figures", _notes(notes) + _figures_table(runs))]
    categories = list(dict.fromkeys(run.category for run in runs))
    if len(categories) > 1:
        sections.append(("means", "Means over categories", _means_table(runs)))
    bars = _bars(runs, categories)
    if bars:
        sections.append(("bars", "Per category" if categories != [""] else "In bars", bars))
    for number, category in enumerate(categories):
        images = _images(_first_seeds(run for run in runs if run.category == category))
        if images:
            heading = "The same images, side by side"
            if category:
                heading = f"{category}: the same images"
            sections.append((f"images-{number}" if number else "images", heading, images))
    write_text(path, page(title, sections))


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _address(link: str) -> str:
    """A relative path as a link that spaces, "#" and "?" in folder names do not break."""
    quoted = urllib.parse.quote(link.replace(os.sep, "/"))
    # A first part with a colon would read as a scheme.
    return escape(quoted if quoted.startswith((".", "/")) else f"./{quoted}")


def _linked(run: RunSummary) -> str:
    name = escape(run.name)
    return f'<a href="{_address(run.link)}">{name}</a>' if run.link else name


def _columns(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Figures that some run has, with their headings."""
    columns = _all_columns(runs)
    known = {key: title for key, title in columns.items() if _is_known(runs, key)}
    # Four more columns may tell the model, its category, its seed and its time.
    return dict(list((known or columns).items())[: SORTABLE_COLUMNS - 4])


def _is_known(runs: Sequence[RunSummary], key: str) -> bool:
    return any(not is_missing(_value(run, key)) for run in runs)


def _all_columns(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Figures that are asked for: those of every run, then those of protocols."""
    columns = {key: metric_title(key) for key in _COMPARED}
    for run in runs:
        for name, value in (run.metrics.get("protocol_figures") or {}).items():
            key = f"{run.metrics['protocol']}: {name}"
            if run.metrics["protocol"] != "jaxad" and not isinstance(value, Mapping):
                columns[key] = f"{run.metrics['protocol']}: {metric_title(name)}"
    return columns


def _left_out(runs: Sequence[RunSummary]) -> str:
    """One line that names the figures which no run has, and why."""
    columns = _all_columns(runs)
    absent = [key for key in columns if not _is_known(runs, key)]
    if not absent or len(absent) == len(columns):
        return ""
    undefined = (run.metrics.get("undefined") or {} for run in runs)
    reasons = {one[_name_of(key)] for one in undefined for key in absent if _name_of(key) in one}
    names = ", ".join(escape(columns[key]) for key in absent)
    why = f" ({escape('; '.join(sorted(reasons)))})" if reasons else ""
    return f'<p class="muted">No run has {names}{why}.</p>'


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
    """Category -> the best figure, where there is one that not all runs share."""
    best: dict[str, float] = {}
    if key.endswith("_std"):
        return best  # no deviation is better than another
    for category in {run.category for run in runs}:
        # Compared as printed: models that show the same figure share the mark, or none has it.
        known = [_value(run, key) for run in runs if run.category == category]
        known = {round(value, 4) for value in known if not is_missing(value)}
        if len(known) > 1:
            best[category] = max(known)
    return best


def _figures_table(runs: Sequence[RunSummary]) -> str:
    columns = _columns(runs)
    best = {key: _best(runs, key) for key in columns}
    with_category = any(run.category for run in runs)
    with_seed = len({run.seed for run in runs}) > 1
    rows, keys = [], []
    for run in runs:
        undefined = run.metrics.get("undefined") or {}
        cells, key = [_linked(run)], [run.name]
        if with_category:
            cells.append(escape(run.category))
            key.append(run.category)
        if with_seed:
            cells.append(MISSING if run.seed is None else str(run.seed))
            key.append(run.seed)
        cells.append(format_seconds(run.seconds))
        key.append(run.seconds)
        for column in columns:
            value = _value(run, column)
            cell = figure(value, why=undefined.get(_name_of(column), ""))
            is_best = not is_missing(value) and round(value, 4) == best[column].get(run.category)
            cells.append(f"<b>{cell}</b>" if is_best else cell)
            key.append(value)
        rows.append(cells)
        keys.append(key)
    leading = ["Model", *(["Category"] if with_category else []), *(["Seed"] if with_seed else [])]
    headers = [*leading, "Time to train", *map(escape, columns.values())]
    upwards = range(1, len(leading) + 1)
    within = "its column within a category" if with_category else "its column"
    table = sortable_table(headers, rows, keys, name="sort", smallest_first=upwards)
    legend = (
        f"Bold: the best of {within}. A heading sorts by its column; the first restores the order."
    )
    return f'{table}<p class="muted">{legend}</p>{_left_out(runs)}'


def _by_model(runs: Sequence[RunSummary], key: str) -> dict[str, dict[str, list[float]]]:
    """Category -> model -> known figures of its runs."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        figures_of = found.setdefault(run.category, {}).setdefault(run.name, [])
        value = _value(run, key)
        if not is_missing(value):
            figures_of.append(value)
    return found


def _means_table(runs: Sequence[RunSummary]) -> str:
    """Means over the categories that all models have, of each the mean over its runs."""
    columns, models = _columns(runs), list(dict.fromkeys(run.name for run in runs))
    rows: dict[str, list[str]] = {model: [escape(model)] for model in models}
    keys: dict[str, list[object]] = {model: [model] for model in models}
    shared = {}
    for column in columns:
        by_category = _by_model(runs, column).values()
        common = [one for one in by_category if all(one.get(model) for model in models)]
        shared[column] = len(common)
        for model in models:
            means = [sum(one[model]) / len(one[model]) for one in common]
            mean = sum(means) / len(means) if means else None
            keys[model].append(mean)
            rows[model].append(figure(mean, why="no category in which every model has it"))
    heads = [f"{escape(title)} ({shared[key]})" for key, title in columns.items()]
    return sortable_table(
        ["Model", *heads], list(rows.values()), list(keys.values()), name="sort-means"
    ) + (
        '<p class="muted">In parentheses: over how many categories, those in which every model '
        "has the figure.</p>"
    )


def _bars(runs: Sequence[RunSummary], categories: Sequence[str]) -> str:
    models = list(dict.fromkeys(run.name for run in runs))
    drawn = ""
    for key in _DRAWN:
        values = _by_model(runs, key)
        if any(one for by_model in values.values() for one in by_model.values()):
            named = {category: values.get(category, {}) for category in categories}
            svg = charts.model_bars(named, models)
            title = escape(metric_title(key))
            drawn += f"<figure><figcaption>{title}</figcaption>{svg}</figure>"
    if not drawn:
        return ""
    legend = "".join(
        f'<span><svg viewBox="0 0 12 12" aria-hidden="true"><rect width="12" height="12" '
        f'class="m{place % len(MODEL_COLOURS)}"/></svg>{escape(model)}</span>'
        for place, model in enumerate(models)
    )
    counts = [
        sum(r.category == c and r.name == m for r in runs) for c in categories for m in models
    ]
    note = ""
    if max(counts) > 1:
        note = '<p class="muted">Bars: means over runs; lines: from the lowest to the highest.</p>'
    return f'<div class="legend">{legend}</div><div class="charts wide">{drawn}</div>{note}'


def _first_seeds(runs) -> list[RunSummary]:
    """One run of each model: pictures of every seed would fill the page with near copies."""
    first: dict[str, RunSummary] = {}
    for run in runs:
        first.setdefault(run.name, run)
    return list(first.values())


def _images(runs: Sequence[RunSummary]) -> str:
    by_path = [{case.path: case for case in run.cases} for run in runs]
    paths = list(dict.fromkeys(path for cases in by_path for path in cases))
    if not paths:
        return ""
    scales = [run.scale or common_scale({}, run.cases) for run in runs]
    rows = []
    for path in paths:
        first = next(cases[path] for cases in by_path if path in cases)
        cells = [_photograph(first)]
        for cases, scale in zip(by_path, scales, strict=True):
            cells.append(_result(cases[path], scale) if path in cases else MISSING)
        rows.append(cells)
    headers = ["Photograph, defect outlined", *map(_linked, runs)]
    body = table(headers, rows, kind="versus")
    return (
        '<p class="muted">Each model has one heat-map scale for all images; black is at its '
        f"lower end, pale yellow at its upper end.</p>{body}"
    )


def _photograph(case: Case) -> str:
    shown = figures.panels(case, Scale(0.0, 1.0))
    # The outlined photograph where there is a mask, the plain one elsewhere.
    pixels = shown[3].pixels if shown[3].pixels is not None else shown[0].pixels
    alt = f"photograph {case.path}"
    return (
        enlargeable(picture(pixels, alt=alt, sharp=True), alt=alt)
        + f'{escape(case.defect)}<div class="path">{breakable(case.path)}</div>'
    )


def _result(case: Case, scale: Scale) -> str:
    heat = figures.panels(case, scale)[2].pixels
    alt = f"heat map of {case.path}"
    return (
        enlargeable(picture(heat, alt=alt, sharp=True), alt=alt)
        + f"{badge(case.row)} {format_score(case.score)}"
    )
