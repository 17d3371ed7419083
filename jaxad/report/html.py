"""The report of one run: a single self-contained page, mistakes before successes.

The order is the reader's: how good is it, where is the threshold and what is it worth, what went
wrong, then every defective image given, the extremes, the good images, the tables, what the model
learned, the training, the settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.data.region import in_words
from jaxad.report import charts, gallery, learned
from jaxad.report.content import (
    ReportContent,
    common_scale,
    is_missing,
    verdict,
)
from jaxad.report.page import escape, figure, page, table
from jaxad.report.tables import (
    METRIC_TITLES,
    format_score,
    format_value,
    metric_title,
)
from jaxad.run.files import write_text

_HEADLINE = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "image_f1_max")
_FACTS = (
    "primary_map",
    "primary_score",
    "protocol",
    "checkpoint",
    "resolution",
    "region",
    "mask_rule",
    "method",
)


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
    # Anchors follow the order of the cases given, so that tiles and cards agree.
    numbered = list(enumerate(content.cases))
    defective = [(n, case) for n, case in numbered if case.label]
    good = [(n, case) for n, case in numbered if not case.label]
    defective.sort(key=lambda one: (one[1].defect, -one[1].score))
    good.sort(key=lambda one: -one[1].score)
    sections = [
        ("summary", "Summary", _summary(content)),
        ("protocol", "Protocol", _protocol(content.metrics)),
        ("threshold", "Threshold", _threshold(content)),
        gallery.mistakes(content, numbered, scale),
        ("defective", "Defective images", gallery.cards(defective, content, scale, by_kind=True)),
        ("extremes", "Most and least anomalous", gallery.extremes(numbered, scale)),
        ("good", "Good images", gallery.cards(good, content, scale, by_kind=False)),
        ("pixels", "Pixels", _pixel_curves(content.metrics, content.curves)),
        ("kinds", "Kinds of defects", _kinds(content.metrics)),
        ("maps", "All maps and scores", _maps(content.metrics)),
        *learned.sections(content.learned),
        ("training", "Training", _training(content)),
        ("setup", "Setup", _setup(content)),
    ]
    return page(content.title, [one for one in sections if one[2]], lead=_lead(content.metrics))


def _lead(metrics: Mapping[str, Any]) -> str:
    known = [key for key in _FACTS if not is_missing(metrics.get(key))]
    facts = "".join(
        f"<div><dt>{key.replace('_', ' ')}</dt><dd>{escape(_plain(key, metrics[key]))}</dd></div>"
        for key in known
    )
    return f'<dl class="facts">{facts}</dl>'


def _plain(key: str, value: Any) -> str:
    """A setting as people write it: (256, 256) -> "256 × 256"."""
    if key == "region":
        return in_words(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, int) for one in value):
        return " × ".join(map(str, value))
    return value if isinstance(value, str) else format_value(value)


def _summary(content: ReportContent) -> str:
    metrics, undefined = content.metrics, content.metrics.get("undefined") or {}
    reasons: list[str] = []
    tiles = []
    for key in _HEADLINE:
        mark = ""
        if is_missing(metrics.get(key)) and undefined.get(key):
            reason = str(undefined[key])
            if reason not in reasons:
                reasons.append(reason)
            mark = f"<sup>{reasons.index(reason) + 1}</sup>"
        value = format_value(metrics.get(key), digits=3)
        tiles.append(f"<div><b>{value}{mark}</b><span>{metric_title(key)}</span></div>")
    parts = [f'<div class="headline">{"".join(tiles)}</div>']
    if reasons:
        items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
        parts.append(f'<ol class="footnotes">{items}</ol>')
    parts += [f'<p class="note">{escape(note)}</p>' for note in content.notes]
    if content.rows:
        parts.append(f"<p>{_counts(content)}</p>")
    if not is_missing(metrics.get("image_f1_max")):
        parts.append(
            '<p class="muted">F1-max is an oracle: its threshold was chosen on these test images. '
            "What the calibrated threshold gives stands in the next section.</p>"
        )
    return "".join(parts)


def _protocol(metrics: Mapping[str, Any]) -> str:
    """The protocol in words, and its figures where they are not those of the summary."""
    statement = metrics.get("protocol_statement")
    if not statement:
        return ""
    parts = [f"<p><b>{escape(metrics['protocol'])}</b>. {escape(statement)}</p>"]
    parts += [f'<p class="note">{escape(one)}</p>' for one in metrics["protocol_departures"]]
    if metrics["protocol"] == "jaxad":
        return "".join(parts)
    parts.append(_figures_table(metrics, "protocol_maps", "Map", metrics.get("primary_map")))
    kinds = metrics["protocol_figures"].get("per_defect")
    if kinds:
        rows = [[escape(kind), figure(value)] for kind, value in kinds.items()]
        parts.append(table(["Kind", "Mean over its images"], rows))
    counts = ", ".join(
        f"{escape(key.replace('_', ' '))}: {number}"
        for key, number in metrics["protocol_counts"].items()
    )
    return "".join(parts) + (
        f'<p class="muted">{counts[:1].upper()}{counts[1:]}. All other figures on this page are by '
        "the protocol jaxad: pixels pooled over all test images, maps as they are.</p>"
    )


def _counts(content: ReportContent) -> str:
    rows = content.rows
    bad = sum(1 for row in rows if row.label)
    kinds = len({row.defect for row in rows if row.label})
    of_kinds = f" of {kinds} kinds" if kinds > 1 else ""
    text = f"{len(rows)} test images: {len(rows) - bad} good, {bad} defective{of_kinds}."
    if len(content.cases) < len(rows):
        text += f" {len(content.cases)} of them are shown below; scores.csv lists all."
    return text


def _percent(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f}\u00a0%)" if whole else "")


def _threshold(content: ReportContent) -> str:
    calibration, rows = content.calibration, content.rows
    threshold = calibration.get("image_threshold")
    parts = [f"<p>{_origin(calibration)}</p>"]
    outcome = dict.fromkeys(("found", "missed", "false alarm", "passed"), 0)
    for row in rows:
        if row.decision is not None:
            outcome[verdict(row.label, row.decision)] += 1
    bad, fine = outcome["found"] + outcome["missed"], outcome["false alarm"] + outcome["passed"]
    if bad or fine:
        parts.append(
            f"<p>On the test images it rejects <b>{_percent(outcome['found'], bad)}</b> defective "
            f"ones and <b>{_percent(outcome['false alarm'], fine)}</b> good ones.</p>"
        )
    regions = content.metrics.get("regions")
    if regions:
        parts.append(
            f"<p>The pixel threshold finds <b>{_percent(regions['found'], regions['regions'])}</b> "
            "defect regions, by one pixel at least, and covers "
            f"{100 * regions['coverage']:.1f}\u00a0% of a region on average. Of the normal pixels "
            f"{100 * (regions['false_positive_rate'] or 0.0):.2g}\u00a0% exceed it.</p>"
        )
    if calibration.get("heat_map_low") is None and content.cases:
        parts.append(
            '<p class="note">There is no calibrated heat-map scale: the scale on this page spans '
            "the images shown, and differs from that of other runs.</p>"
        )
    drawn = []
    if rows:
        good = [row.score for row in rows if not row.label]
        defective = [row.score for row in rows if row.label]
        svg = charts.score_histogram(good, defective, threshold=threshold)
        drawn.append(charts.Chart("Scores of the test images", svg))
    drawn += _curves(content.curves, outcome, bad, fine)
    return "".join(parts) + _figures(drawn)


def _origin(calibration: Mapping[str, Any]) -> str:
    """Sentences: what the threshold is, and from which images."""
    threshold = calibration.get("image_threshold")
    if is_missing(threshold):
        reason = calibration.get("reason") or "this run was not calibrated"
        return f"<b>No threshold:</b> {escape(str(reason).rstrip('.'))}."
    held_out, rate = calibration.get("held_out"), calibration.get("false_positive_rate")
    text = f"An image is rejected over a score of <b>{format_score(threshold)}</b>."
    if held_out is not None:
        text += (
            f" The threshold comes from <b>{held_out}</b> good training images that were held out "
            "of training; no test image took part in it."
        )
    if rate is not None:
        text += f" It is set for a false-positive rate of {100 * rate:.3g}\u00a0%."
    smallest = calibration.get("smallest_false_positive_rate")
    if smallest is not None and rate is not None and smallest > rate:
        text += (
            " With so few images the smallest rate that can be held is "
            f"{100 * smallest:.3g}\u00a0%: hold out more to set the threshold finer."
        )
    pixel = calibration.get("pixel_threshold")
    if not is_missing(pixel):
        text += f" Pixels over {format_score(pixel)} form the predicted region."
    return text


def _curves(curves, outcome: Mapping[str, int], bad: int, fine: int) -> list[charts.Chart]:
    drawn = []
    found, alarms = outcome["found"], outcome["false alarm"]
    if "roc" in curves:
        marker = (alarms / fine, found / bad) if bad and fine else None
        labels = {"x_label": "false-positive rate", "y_label": "true-positive rate"}
        svg = charts.curve(*curves["roc"], **labels, marker=marker, diagonal=True)
        drawn.append(charts.Chart("ROC of the images", svg))
    if "pr" in curves:
        marker = (found / bad, found / (found + alarms)) if bad and found + alarms else None
        svg = charts.curve(*curves["pr"], x_label="recall", y_label="precision", marker=marker)
        drawn.append(charts.Chart("Precision and recall of the images", svg))
    return drawn


def _pixel_curves(metrics: Mapping[str, Any], curves) -> str:
    """ROC, precision and recall of all pixels, and the PRO curve as far as AUPRO integrates."""
    drawn = []
    rate = "false-positive rate of pixels"
    if "pixel_roc" in curves:
        svg = charts.curve(
            *curves["pixel_roc"], x_label=rate, y_label="true-positive rate", diagonal=True
        )
        drawn.append(charts.Chart("ROC of the pixels", svg))
    if "pixel_pr" in curves:
        svg = charts.curve(*curves["pixel_pr"], x_label="recall", y_label="precision")
        drawn.append(charts.Chart("Precision and recall of the pixels", svg))
    if "pro" in curves:
        limit = metrics.get("aupro_limit") or 1.0
        svg = charts.curve(
            *curves["pro"], x_label=rate, y_label="mean region overlap", diagonal=True, limit=limit
        )
        drawn.append(charts.Chart(f"Overlap of the regions, to a rate of {limit:g}", svg))
    return _figures(drawn)


def _figures(drawn: Sequence[charts.Chart]) -> str:
    cells = "".join(
        f"<figure><figcaption>{escape(chart.title)}</figcaption>{chart.svg}</figure>"
        for chart in drawn
    )
    return f'<div class="charts">{cells}</div>' if drawn else ""


def _figures_table(
    metrics: Mapping[str, Any], group: str, heading: str, primary: str | None = None
) -> str:
    """A group of rows of metrics.json as a table: known metrics first, undefined ones with why."""
    rows, undefined = metrics[group], metrics.get("undefined") or {}
    present = dict.fromkeys(
        key for row in rows.values() for key, value in row.items() if not isinstance(value, Mapping)
    )
    keys = [key for key in present if key not in METRIC_TITLES]
    keys += [key for key in METRIC_TITLES if key in present]
    cells = []
    for name, row in rows.items():
        line = [escape(name)]
        for key in keys:
            why = undefined.get(f"{group}.{name}.{key}") or undefined.get(key, "")
            line.append(figure(row.get(key), why=why))
        cells.append(line)
    marked = list(rows).index(primary) if primary in rows else None
    return table([heading, *(escape(metric_title(key)) for key in keys)], cells, marked=marked)


def _kinds(metrics: Mapping[str, Any]) -> str:
    kinds = metrics.get("per_defect")
    if not kinds:
        return ""
    drawn = []
    for key in ("image_auroc", "pixel_auroc", "aupro"):
        values = {name: row.get(key) for name, row in kinds.items()}
        if not all(map(is_missing, values.values())):
            drawn.append(charts.Chart(metric_title(key), charts.defect_bars(values)))
    return _figures_table(metrics, "per_defect", "Kind") + _figures(drawn)


def _maps(metrics: Mapping[str, Any]) -> str:
    parts = [
        _figures_table(metrics, group, heading, metrics.get(f"primary_{heading.lower()}"))
        for group, heading in (("maps", "Map"), ("scores", "Score"))
        if metrics.get(group)
    ]
    if parts:
        parts.append('<p class="muted">Bold: the primary one.</p>')
    return "".join(parts)


def _training(content: ReportContent) -> str:
    drawn = charts.history_charts(content.history)
    return _figures(drawn) or "<p>Fitted in closed form: there are no training steps.</p>"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _setup(content: ReportContent) -> str:
    parts = []
    for title, tree in (
        ("Configuration", content.config),
        ("Environment", content.environment),
        ("Calibration", content.calibration),
    ):
        if tree:
            rows = [(escape(key), escape(value)) for key, value in _flatten(tree)]
            body = table(["Key", "Value"], rows, kind="settings")
            parts.append(f"<details><summary>{title}</summary>{body}</details>")
    return "".join(parts)
