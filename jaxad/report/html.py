"""The report of one run: a single self-contained page, mistakes before successes.

The order is the reader's: how good is it, where is the threshold and what is it worth, what went
wrong, the most and least anomalous images, all images given, the tables, what the model learned,
the training, how it was measured, the settings. Scripts make it a page to work with
(``page.js``): a threshold that moves, filters, order.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.data.crop import crop_in_words
from jaxad.report import charts, gallery, learned
from jaxad.report.charts import Chart
from jaxad.report.content import ReportContent, common_scale, is_known
from jaxad.report.histogram import score_histogram
from jaxad.report.page import Picture, Section, Table, fragment, metric_cell, page
from jaxad.report.tables import METRIC_TITLES, format_value, metric_title
from jaxad.report.threshold import hidden_by_odd, told
from jaxad.run.files import write_text

_HEADLINE = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "au_spro",
             "image_f1_max")  # fmt: skip
_FACTS = {
    "primary_map": "primary map",
    "primary_score": "primary score",
    "protocol": "protocol",
    "checkpoint": "checkpoint",
    "resolution": "resolution",
    "region": "region",
    "mask_rule": "masks resized by",
    "method": "pixel metrics",
}
_TERMS_OF_FACTS = {"primary map": "map", "primary score": "score"}


def write_report(path: str | os.PathLike, content: ReportContent) -> None:
    """Writes the page of one run, atomically.

    Args:
      path: the HTML file.
      content: what to show. Without masks, threshold, history or cases the sections concerned
        say so or are left out.

    Raises:
      UserError: the file cannot be written.
    """
    write_text(path, render_report(content))


def render_report(content: ReportContent) -> str:
    """The page as a string; arguments as in ``write_report``."""
    scale = common_scale(content.calibration, content.cases)
    shown = gallery.shown_cases(content.cases, scale)
    threshold = content.calibration.get("image_threshold")
    training = fragment("run", "training", charts.history_charts(content.history))
    sections = [
        Section("summary", "Summary", _summary(content)),
        Section("threshold", "Threshold", _threshold(content, shown)),
        gallery.mistakes(shown, content.rows),
        Section("extremes", "Most and least anomalous", gallery.extremes(shown)),
        Section("images", "Images", gallery.cards(shown, content.rows, scale, threshold=threshold)),
        Section("kinds", "Kinds of defects", _kinds(content.metrics)),
        Section("pixels", "Pixels", _pixels(content)),
        Section("maps", "All maps and scores", _maps(content.metrics)),
        *learned.sections(content.learned),
        Section("training", "Training", training),
        Section("protocol", "Protocol: how it was measured", _protocol(content.metrics)),
        Section("setup", "Setup", _setup(content)),
    ]
    live = gallery.live(shown, content.rows, threshold)
    return page(content.title, sections, lead=_lead(content.metrics), live=live)


def _lead(metrics: Mapping[str, Any]) -> str:
    facts = {
        title: _plain(key, metrics[key])
        for key, title in _FACTS.items()
        if is_known(metrics.get(key))
    }
    return fragment("run", "lead", facts.items(), _TERMS_OF_FACTS)


def _plain(key: str, value: Any) -> str:
    """A setting as people write it: (256, 256) -> "256 × 256"."""
    if key == "region":
        return crop_in_words(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, int) for one in value):
        return " × ".join(map(str, value))
    return value if isinstance(value, str) else format_value(value)


def _summary(content: ReportContent) -> str:
    metrics, undefined = content.metrics, content.metrics.get("undefined") or {}
    shown = [key for key in _HEADLINE if key != "au_spro" or key in metrics]
    why = {
        key: str(undefined[key])
        for key in shown
        if not is_known(metrics.get(key)) and undefined.get(key)
    }
    reasons = list(dict.fromkeys(why.values()))
    tiles = [
        (
            key,
            metric_title(key),
            format_value(metrics.get(key), digits=3),
            reasons.index(why[key]) + 1 if key in why else None,
        )
        for key in shown
    ]
    defective = [row for row in content.rows if row.label]
    counts = {
        "images": len(content.rows),
        "good": len(content.rows) - len(defective),
        "defective": len(defective),
        "kinds": len({row.defect for row in defective}),
        "shown": len(content.cases),
    }
    chosen_on_test = is_known(metrics.get("image_f1_max"))
    return fragment("run", "summary", tiles, reasons, content.notes, counts, chosen_on_test)


def _protocol(metrics: Mapping[str, Any]) -> str:
    """The protocol in words, and its metrics where they are not those of the summary."""
    if not metrics.get("protocol_statement"):
        return ""
    if metrics["protocol"] == "jaxad":
        return fragment("run", "protocol", metrics, [], "")
    tables = [_metrics_table(metrics, "protocol_maps", "Map", metrics.get("primary_map"))]
    kinds = metrics["protocol_figures"].get("per_defect")
    if kinds:
        rows = [(kind, metric_cell(value)) for kind, value in kinds.items()]
        tables.append(Table(["Kind", "Mean over its images"], rows))
    counts = ", ".join(
        f"{key.replace('_', ' ')}: {number}" for key, number in metrics["protocol_counts"].items()
    )
    return fragment("run", "protocol", metrics, tables, counts[:1].upper() + counts[1:])


def _threshold(content: ReportContent, shown: Sequence[gallery.Shown]) -> str:
    verdicts = Counter(row.verdict for row in content.rows)
    found, alarms = verdicts["found"], verdicts["false alarm"]
    bad, fine = found + verdicts["missed"], alarms + verdicts["passed"]
    drawn = []
    if content.rows:
        svg = score_histogram(
            [row.score for row in content.rows if not row.label],
            [row.score for row in content.rows if row.label],
            threshold=content.calibration.get("image_threshold"),
            leads=gallery.leads_to(shown),
        )
        drawn.append(Chart("Scores of the test images", svg))
    marker = (alarms / fine, found / bad) if bad and fine else None
    axes = ("false-positive rate", "true-positive rate")
    drawn += _curve(
        content, "roc", "ROC of the images", *axes, marker=marker, diagonal=True, kind="roc"
    )
    marker = (found / bad, found / (found + alarms)) if bad and found + alarms else None
    title = "Precision and recall of the images"
    drawn += _curve(content, "pr", title, "recall", "precision", marker=marker, kind="pr")
    return fragment(
        "run",
        "threshold",
        **told(content.calibration),
        outcome={"found": found, "bad": bad, "alarms": alarms, "fine": fine},
        verdicts=[(name, verdicts[name]) for name in gallery.VERDICTS[0]] if bad or fine else [],
        regions=content.metrics.get("regions"),
        own_scale=content.calibration.get("heat_map_low") is None and content.cases,
        drawn=drawn,
        # Beside this page lies the list of odd training images.
        run={"folder": shlex.quote(content.folder), "odd_images": "./odd_images.csv"},
        odd=_odd(content),
        between=hidden_by_odd((row for row in content.rows if row.label), content.calibration),
    )


def _odd(content: ReportContent) -> list[tuple[Mapping[str, Any], Picture]]:
    """The odd training images of which there are pictures."""
    return [
        (one, Picture(content.odd[one["path"]], f"training image {one['path']}"))
        for one in content.calibration.get("odd_images") or []
        if one["path"] in content.odd
    ]


def _curve(
    content: ReportContent, name: str, title: str, x_label: str, y_label: str, **options: Any
) -> list[Chart]:
    """The chart of a curve, none where the content lacks it."""
    if name not in content.curves:
        return []
    x, y = content.curves[name]
    return [Chart(title, charts.curve(x, y, x_label=x_label, y_label=y_label, **options))]


def _pixels(content: ReportContent) -> str:
    """ROC, precision and recall of all pixels, and the PRO curve as far as AUPRO integrates."""
    rate, limit = "false-positive rate of pixels", content.metrics.get("aupro_limit") or 1.0
    roc = ("pixel_roc", "ROC of the pixels", rate, "true-positive rate")
    pr = ("pixel_pr", "Precision and recall of the pixels", "recall", "precision")
    overlap = f"Overlap of the regions, to a rate of {limit:g}"
    drawn = [
        *_curve(content, *roc, diagonal=True),
        *_curve(content, *pr),
        *_curve(content, "pro", overlap, rate, "mean region overlap", diagonal=True, limit=limit),
    ]
    return fragment("parts", "charts", drawn)


def _metrics_table(
    metrics: Mapping[str, Any], group: str, heading: str, primary: str | None = None
) -> Table:
    """A group of rows of metrics.json as a table: known metrics last, undefined ones with why."""
    rows, undefined = metrics[group], metrics.get("undefined") or {}
    present = dict.fromkeys(
        key for row in rows.values() for key, value in row.items() if not isinstance(value, Mapping)
    )
    keys = [key for key in present if key not in METRIC_TITLES]
    keys += [key for key in METRIC_TITLES if key in present]
    why = lambda name, key: undefined.get(f"{group}.{name}.{key}") or undefined.get(key, "")
    cells = [
        [name, *(metric_cell(row.get(key), why=why(name, key)) for key in keys)]
        for name, row in rows.items()
    ]
    marked = list(rows).index(primary) if primary in rows else None
    return Table([heading, *map(metric_title, keys)], cells, marked)


def _kinds(metrics: Mapping[str, Any]) -> str:
    kinds = metrics.get("per_defect")
    if not kinds:
        return ""
    drawn = []
    for key in ("image_auroc", "pixel_auroc", "aupro"):
        values = {name: row.get(key) for name, row in kinds.items()}
        if any(map(is_known, values.values())):
            drawn.append(Chart(metric_title(key), charts.defect_bars(values)))
    return fragment("run", "kinds", _metrics_table(metrics, "per_defect", "Kind"), drawn)


def _maps(metrics: Mapping[str, Any]) -> str:
    tables = [
        _metrics_table(metrics, group, heading, metrics.get(f"primary_{heading.lower()}"))
        for group, heading in (("maps", "Map"), ("scores", "Score"))
        if metrics.get(group)
    ]
    return fragment("run", "maps", tables)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def _setup(content: ReportContent) -> str:
    trees = {
        "Configuration": content.config,
        "Environment": content.environment,
        "Calibration": content.calibration,
    }
    tables = [
        (title, Table(["Key", "Value"], _flatten(tree), kind="settings"))
        for title, tree in trees.items()
        if tree
    ]
    return fragment("run", "setup", tables)
