"""One page over several runs: their figures in a table, their heat maps side by side."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence

from jaxad.report import figures
from jaxad.report.content import Case, RunSummary, Scale, common_scale, is_missing
from jaxad.report.gallery import badge
from jaxad.report.page import (
    breakable,
    enlargeable,
    escape,
    figure,
    page,
    picture,
    table,
    write_page,
)
from jaxad.report.tables import (
    MISSING,
    format_score,
    format_seconds,
    metric_title,
)

_COMPARED = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")


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
      runs: in the order of the table. Their images are matched by path; each run keeps its own
        heat-map scale, because scores of different models have different units.
      title: heading of the page.
      notes: sentences the reader must not miss.

    Raises:
      UserError: the file cannot be written.
    """
    sections = [("figures", "Figures", _notes(notes) + _figures_table(runs))]
    images = _images(runs)
    if images:
        sections.append(("images", "The same images, side by side", images))
    write_page(path, page(title, sections))


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


def _figures_table(runs: Sequence[RunSummary]) -> str:
    best = {}
    for key in _COMPARED:
        # Compared as printed: models that show the same figure share the mark, or none has it.
        known = [run.metrics.get(key) for run in runs]
        known = {round(value, 4) for value in known if not is_missing(value)}
        best[key] = max(known) if len(known) > 1 else None
    rows = []
    for run in runs:
        undefined = run.metrics.get("undefined") or {}
        cells = [_linked(run), format_seconds(run.seconds)]
        for key in _COMPARED:
            value = run.metrics.get(key)
            cell = figure(value, why=undefined.get(key, ""))
            is_best = not is_missing(value) and round(value, 4) == best[key]
            cells.append(f"<b>{cell}</b>" if is_best else cell)
        rows.append(cells)
    headers = ["Model", "Time to train", *map(metric_title, _COMPARED)]
    return table(headers, rows) + '<p class="muted">Bold: the best of its column.</p>'


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
