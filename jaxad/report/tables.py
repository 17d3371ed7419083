"""Metrics as text, for a terminal or in Markdown, and how single numbers are printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from jaxad.report.content import is_known

MISSING = "–"

# The keys of metrics.json in the order in which tables show them.
METRIC_TITLES = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "aupro": "AUPRO",
    "au_spro": "AU-sPRO",
    "image_f1_max": "Best image F1 on the test set",
    "image_pr_auc_trapezoid": "Image PR-AUC (trapezoid)",
    "image_fpr95": "Image FPR at 95\u00a0% recall",
    "pixel_f1_max": "Best pixel F1 on the test set",
    "pixel_fpr95": "Pixel FPR at 95\u00a0% recall",
    "pixel_auroc_per_image_mean": "Pixel AUROC per image, mean",
    "pixel_auroc_per_image_std": "Pixel AUROC per image, std",
    "pixel_auroc_mean_over_kinds": "Pixel AUROC per image, mean over kinds",
    "pro_as_released": "Pixel AUROC (released as PRO)",
}

Columns = Sequence[str] | Mapping[str, str]


def metric_title(key: str) -> str:
    """The heading of a column: a known metric's name, else the key with its underscores opened."""
    return METRIC_TITLES.get(key, key.replace("_", " ").capitalize())


def format_value(value: Any, *, digits: int = 4) -> str:
    """A value as tables print it: fixed decimals, "–" for None and NaN, text unchanged."""
    if not is_known(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral) or not isinstance(value, Real):
        return str(value)
    number = float(value)
    fixed = number == 0 or 1e-3 <= abs(number) < 1e4
    return f"{number:.{digits}f}" if fixed else f"{number:.{digits}g}"


def format_score(value: float | None) -> str:
    """A score, threshold or map value in its raw units: four significant digits."""
    return f"{value:.4g}" if is_known(value) else MISSING


def format_seconds(seconds: float | None) -> str:
    """A duration for people: "0.8 s", "42 s", "3 min 20 s", "2 h 05 min"."""
    if not is_known(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _cells(rows: Sequence[Mapping[str, Any]], columns: Columns):
    titles = (
        columns if isinstance(columns, Mapping) else {key: metric_title(key) for key in columns}
    )
    body = [[format_value(row.get(key)) for key in titles] for row in rows]
    # A column of numbers stays right-aligned although some of them are undefined.
    numeric = [
        any(isinstance(row.get(key), Real) for row in rows)
        and all(isinstance(row.get(key), Real) or row.get(key) is None for row in rows)
        for key in titles
    ]
    return list(titles.values()), body, numeric


def _width(text: str) -> int:
    """Terminal columns a text takes: East Asian wide characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def format_metrics_table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Rows as a plain-text table for the terminal, numbers aligned to the right.

    Args:
      rows: one mapping per line; a key that is absent, None or NaN prints "–".
      columns: the keys to print, in order; a mapping gives each its heading.

    Returns:
      Heading, rule and lines joined by newlines, without trailing blanks.
    """
    titles, body, numeric = _cells(rows, columns)
    # A path or name with a line break must not tear its row apart.
    body = [[" ".join(cell.split()) for cell in line] for line in body]
    widths = [max(map(_width, column)) for column in zip(titles, *body, strict=True)]

    def line(cells):
        padded = map(_pad, cells, widths, numeric)
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(titles), rule, *map(line, body)])


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """The same table in GitHub's Markdown; arguments as in ``format_metrics_table``."""
    titles, body, numeric = _cells(rows, columns)

    def line(cells):
        safe = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
        return "| " + " | ".join(safe) + " |"

    rule = "| " + " | ".join("---:" if right else "---" for right in numeric) + " |"
    return "\n".join([line(titles), rule, *map(line, body)])
