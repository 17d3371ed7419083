"""One page over several runs: their metrics in a table, in bars, and heat maps side by side."""

from __future__ import annotations

import os
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from jaxad.benchmark.tables import METRICS
from jaxad.report import charts, figures
from jaxad.report.charts import Chart
from jaxad.report.content import Case, Scale, common_scale, is_known
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
from jaxad.report.tables import MISSING, format_score, format_seconds, metric_title
from jaxad.run.files import write_text

_DRAWN = ("image_auroc", "pixel_auroc", "aupro")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run on a page that compares runs.

    Attributes:
      name: what the table calls it: the model, or its config.
      about: what it is, what its variants are for, and which of its keys were set otherwise;
        empty for nothing to tell.
      data: name of its data set; empty for none to tell.
      category: of the data set; images are compared within one.
      seed: None where there is none to tell.
      metrics: the content of its ``metrics.json``.
      link: its own report, relative to the comparison page; None for no link.
      seconds: time to train (or to fit), None when unknown.
      cases: some of its test images; images are matched between runs by path.
      scale: its heat-map scale; None takes the range of its cases.
      odd_images: how many of its training images score far above the others.
    """

    name: str
    metrics: Mapping[str, Any]
    about: str = ""
    category: str = ""
    seed: int | None = None
    link: str | None = None
    seconds: float | None = None
    cases: Sequence[Case] = ()
    scale: Scale | None = None
    data: str = ""
    odd_images: int = 0


def write_comparison(
    path: str | os.PathLike,
    runs: Sequence[RunSummary],
    *,
    title: str = "Comparison of models",
    failures: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes the page that compares runs, whole or not at all.

    Args:
      path: the HTML file.
      runs: in the order of the table. Images are matched by path within a category; each run
        keeps its own heat-map scale, because scores of different models have different units.
      title: heading of the page.
      failures: folder and reason of runs that failed, those with an earlier result included.

    Raises:
      UserError: the file cannot be written.
    """
    categories = list(dict.fromkeys(run.category for run in runs))
    asked = _columns(runs)
    known = [one for one in asked if any(is_known(one.of(run)) for run in runs)]
    # Seven more may tell the model, its category, its seed, its time and its decisions.
    columns = (known or asked)[: SORTABLE_COLUMNS - 7]
    absent = [one for one in asked if one not in known] if known else []
    reasons = sorted({why for run in runs for one in absent if (why := one.why_not(run))})
    below = any(one.at_chance(run) for run in runs for one in columns)
    metrics = fragment(
        "runs",
        "metrics",
        _metrics_table(runs, columns),
        below=below,
        by_category=any(categories),
        odd=[(_linked(run), run.odd_images) for run in runs if run.odd_images],
        absent=[one.title for one in absent],
        reasons=reasons,
    )
    several = len(categories) > 1
    means = fragment("runs", "means", _means_table(runs, columns)) if several else ""
    bars_heading = "Per category" if categories != [""] else "In bars"
    about: dict[str, dict[str, None]] = {}
    for run in runs:
        if run.about:
            about.setdefault(run.name, {})[run.about] = None
    shown = {run.link.removesuffix("/report.html") for run in runs if run.link}
    failed = [(folder, reason, folder in shown) for folder, reason in failures]
    sections = [
        Section("failed", "Failed", fragment("runs", "failed", failed) if failed else ""),
        Section("models", "What is compared", fragment("runs", "models", about) if about else ""),
        Section("metrics", "Metrics", metrics),
        Section("means", "Means over categories", means),
        Section("bars", bars_heading, _bars(runs, categories)),
    ]
    for number, category in enumerate(categories):
        images = _images(_first_seeds(run for run in runs if run.category == category))
        heading = f"{category}: the same images" if category else "The same images, side by side"
        sections.append(Section(f"images-{number}" if number else "images", heading, images))
    write_text(path, page(title, sections, lead=fragment("runs", "lead", _tested(runs))))


def _tested(runs: Sequence[RunSummary]) -> list[str]:
    """The data sets with the numbers of their test images, each once."""
    told = []
    for run in runs:
        decided = run.metrics.get("counts") or {}
        name = " ".join(dict.fromkeys(one for one in (run.data, run.category) if one))
        if decided.get("images"):
            good, bad = decided.get("good", 0), decided.get("anomalous", 0)
            name += f": {decided['images']} test images, {good} good and {bad} defective"
        told.append(name.removeprefix(": "))
    return [one for one in dict.fromkeys(told) if one]


def _linked(run: RunSummary) -> Cell:
    """The run's name, leading to its report."""
    if not run.link:
        return Cell(run.name, key=run.name)
    # A relative path that spaces, "#" and "?" in folder names do not break.
    link = urllib.parse.quote(run.link.replace(os.sep, "/"))
    # A first part with a colon would read as a scheme.
    link = link if link.startswith((".", "/")) else f"./{link}"
    return Cell(run.name, key=run.name, link=link)


class _Column(NamedTuple):
    """A metric that runs are compared by, of a protocol of its own where one is named."""

    title: str
    key: str
    protocol: str = ""

    def of(self, run: RunSummary) -> float | None:
        if not self.protocol:
            return run.metrics.get(self.key)
        same = run.metrics.get("protocol") == self.protocol
        return run.metrics["protocol_figures"].get(self.key) if same else None

    def chance(self, run: RunSummary) -> float | None:
        """What guessing gives; None where it is not known."""
        counts = run.metrics.get("counts") or {}
        share = lambda part, whole: counts[part] / counts[whole] if counts.get(whole) else None
        if self.key in ("image_auroc", "pixel_auroc", "pixel_auroc_per_image_mean"):
            return 0.5
        if self.key == "aupro":
            # Of a map without meaning as much of every region is over a threshold as of the rest:
            # the curve is the diagonal, up to the limit that the area is divided by.
            return run.metrics.get("aupro_limit", 0.3) / 2
        if self.key == "image_ap" and "anomalous" in counts:
            return share("anomalous", "images")
        if self.key == "pixel_ap" and "defect_pixels" in counts:
            return share("defect_pixels", "pixels")
        return None

    def at_chance(self, run: RunSummary) -> bool:
        """Whether the metric, as printed, is not better than guessing."""
        value, chance = self.of(run), self.chance(run)
        if not is_known(value) or chance is None:
            return False
        return round(value, 4) <= round(chance, 4)

    def why_not(self, run: RunSummary) -> str:
        """Why a run's metric is undefined."""
        undefined = run.metrics.get("undefined") or {}
        return undefined.get(f"protocol_figures.{self.key}" if self.protocol else self.key, "")


def _columns(runs: Sequence[RunSummary]) -> list[_Column]:
    """Metrics that are asked for: those of every run, then those of protocols."""
    columns = [_Column(metric_title(key), key) for key in METRICS]
    for run in runs:
        protocol = run.metrics.get("protocol", "jaxad")
        for key, value in (run.metrics.get("protocol_figures") or {}).items():
            if protocol != "jaxad" and not isinstance(value, Mapping):
                columns.append(_Column(f"{protocol}: {metric_title(key)}", key, protocol))
    return list(dict.fromkeys(columns))


def _best(runs: Sequence[RunSummary], column: _Column) -> dict[str, float]:
    """Category -> the best value, where there is one that not all runs share."""
    if column.key.endswith("_std"):
        return {}  # no deviation is better than another
    # Compared as printed: models that show the same number share the mark, or none has it.
    found = {
        category: {
            round(value, 4)
            for run in runs
            if run.category == category and is_known(value := column.of(run))
        }
        for category in {run.category for run in runs}
    }
    return {category: max(values) for category, values in found.items() if len(values) > 1}


def _metrics_table(runs: Sequence[RunSummary], columns: Sequence[_Column]) -> Markup:
    best = {column: _best(runs, column) for column in columns}
    leading = {"Model": _linked}
    if any(run.category for run in runs):
        leading["Category"] = lambda run: Cell(run.category, key=run.category)
    if len({run.seed for run in runs}) > 1:
        leading["Seed"] = lambda run: Cell(
            MISSING if run.seed is None else str(run.seed), key=run.seed
        )
    decide = any(is_known(run.metrics.get("image_threshold")) for run in runs)
    rows = []
    for run in runs:
        row = [make(run) for make in leading.values()]
        row.append(Cell(format_seconds(run.seconds), key=run.seconds))
        row += [_threshold(run), _share(run, "defective"), _share(run, "good")] if decide else []
        for column in columns:
            value, most = column.of(run), best[column].get(run.category)
            is_best = is_known(value) and round(value, 4) == most
            cell = metric_cell(value, why=column.why_not(run), best=is_best)
            chance = column.chance(run) if column.at_chance(run) else None
            row.append(cell._replace(chance=chance))
        rows.append(row)
    decisions = ["Threshold", "Defects found", "False alarms"] if decide else []
    headers = [*leading, "Time to train", *decisions, *(column.title for column in columns)]
    upwards = [*range(1, len(leading) + 1)]
    upwards += [headers.index("False alarms")] if decide else []
    return sortable_table(headers, rows, name="sort", smallest_first=upwards)


def _threshold(run: RunSummary) -> Cell:
    value = run.metrics.get("image_threshold")
    return Cell(format_score(value), key=value)


def _share(run: RunSummary, group: str) -> Cell:
    """How many images of a group the run's threshold rejects."""
    decided = run.metrics.get("decisions") or {}
    total, rejected = decided.get(group), decided.get(f"{group}_rejected")
    if not total or not is_known(rejected):
        return Cell(MISSING)
    return Cell(f"{rejected} of {total}", key=rejected / total)


def _by_model(runs: Sequence[RunSummary], column: _Column) -> dict[str, dict[str, list[float]]]:
    """Category -> model -> known values of its runs."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        values = found.setdefault(run.category, {}).setdefault(run.name, [])
        if is_known(value := column.of(run)):
            values.append(value)
    return found


def _means_table(runs: Sequence[RunSummary], columns: Sequence[_Column]) -> Markup:
    """Means over the categories that all models have, of each the mean over its runs."""
    models = list(dict.fromkeys(run.name for run in runs))
    rows = {model: [Cell(model, key=model)] for model in models}
    headers = ["Model"]
    for column in columns:
        by_category = _by_model(runs, column).values()
        common = [one for one in by_category if all(one.get(model) for model in models)]
        headers.append(f"{column.title} ({len(common)})")
        for model in models:
            means = [sum(one[model]) / len(one[model]) for one in common]
            mean = sum(means) / len(means) if means else None
            rows[model].append(metric_cell(mean, why="no category in which every model has it"))
    return sortable_table(headers, list(rows.values()), name="sort-means")


def _bars(runs: Sequence[RunSummary], categories: Sequence[str]) -> str:
    models = list(dict.fromkeys(run.name for run in runs))
    drawn = []
    for key in _DRAWN:
        title = metric_title(key)
        values = _by_model(runs, _Column(title, key))
        if any(one for by_model in values.values() for one in by_model.values()):
            named = {category: values.get(category, {}) for category in categories}
            chance = _Column(title, key).chance(runs[0])
            drawn.append(Chart(title, charts.model_bars(named, models, chance=chance)))
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
    headings = list(zip(map(_linked, runs), scales, strict=True))
    sizes = {
        run.name: " × ".join(map(str, run.cases[0].image.shape[:2])) for run in runs if run.cases
    }
    several = sizes if len(set(sizes.values())) > 1 else {}
    return fragment("runs", "images", headings, rows, MISSING, several)


def _photograph(case: Case) -> Picture:
    """The outlined photograph where there is a mask, the plain one elsewhere."""
    plain, _, _, outlined, _ = figures.panels(case, Scale(0.0, 1.0))
    pixels = plain.drawn if outlined.pixels is None else outlined.pixels
    return Picture(pixels, f"photograph {case.path}")


def _heat_map(case: Case, scale: Scale) -> Picture:
    heat = figures.panels(case, scale)[2]
    return Picture(heat.drawn, f"heat map of {case.path}")
