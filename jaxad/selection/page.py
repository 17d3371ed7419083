"""The page of a selection: what to take and why, the ranking, drawn defects, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxad.data.defects.kinds import KINDS
from jaxad.evaluation.calibration import calibrate
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.prediction import make_case
from jaxad.report import figures
from jaxad.report.content import Case, Scale, ScoreRow, common_scale
from jaxad.report.page import (
    Cell,
    Picture,
    Section,
    Table,
    fragment,
    page,
    sortable_table,
)
from jaxad.report.tables import MISSING, format_score, format_seconds, format_value
from jaxad.run.files import write_csv, write_text
from jaxad.run.text import printable
from jaxad.run.variants import about_config
from jaxad.selection.ranking import CONFIDENCE, Row
from jaxad.selection.records import SelectionFolder
from jaxad.selection.trial import Trial
from jaxad.training.inputs import open_table

LISTED = 40
"""Rows of the long table."""
SHOWN = 4
"""Pictures of a kind of defect, and of good images."""

LIMITS = (
    "The defects are drawn, not yours. The page says which model finds such changes on your "
    "images; a real defect may be fainter, of another kind, or one that no drawing has, such as a "
    "part that is missing as a whole or in the wrong place.",
    "The figures are no promise for real defects: they rank models, and say nothing of how many "
    "defects will be found.",
    "Where models are not clearly apart, the choice between them is close to chance; take the "
    "faster one, or collect some defective images.",
    "Twenty images of real defects, with as many good ones, tell more than this page: put them "
    "into test/KIND and compare the first models by jaxad benchmark.",
)


def write_page(
    folder: SelectionFolder,
    trial: Trial,
    rows: Sequence[Row],
    chosen: Row,
    reasons: Sequence[str],
    left_out: Mapping[str, str],
    command: str,
) -> None:
    """Writes report.html and ranking.csv.

    Args:
      folder: of the selection.
      trial: what was judged on.
      rows: the ranking.
      chosen: one of them.
      reasons: why it was chosen, in sentences.
      left_out: candidate -> why it was not judged.
      command: to go on with.

    Raises:
      UserError: a file cannot be written, or the chosen run cannot be read.
    """
    _write_table(folder, rows, chosen)
    every = [[_label(row), row.map, row.score, _of(row.value), _interval(row)] for row in rows]
    headers = ("Model", "Map", "Score", "AUROC", "Interval")
    first = every[:LISTED]
    listed = fragment("select", "every", Table(headers, first), len(every), len(first))
    absent = Table(("Model", "Why"), [[name, why] for name, why in left_out.items()], kind="files")
    sections = [
        Section("chosen", "What to take", _chosen(trial, rows, chosen, reasons, command)),
        Section("ranking", "Ranking", _ranking(rows) + listed),
        Section("kinds", "Kinds of drawn defects", _kinds(rows)),
        Section("drawn", "Drawn defects", _drawn(folder, trial, chosen)),
        Section("limits", "What this cannot tell", fragment("select", "limits", LIMITS)),
        Section("absent", "Not judged", fragment("select", "absent", absent) if left_out else ""),
    ]
    facts = [
        ("folder", printable(trial.root)),
        ("good images", str(trial.images)),
        ("left out", " + ".join(str(len(split.good)) for split in trial.splits)),
        ("drawn defects", str(sum(len(split.drawn) for split in trial.splits))),
        ("models judged", str(len({row.candidate for row in rows}))),
    ]
    title = "Which model for these images"
    lead = fragment("select", "lead", facts)
    write_text(folder.report, page(title, sections, lead=lead))


def _write_table(folder: SelectionFolder, rows: Sequence[Row], chosen: Row) -> None:
    """The whole ranking as csv."""
    kinds = list(rows[0].kinds)
    columns = ["place", "chosen", "model", "height", "width", "map", "score", "auroc", "auroc_low",
               "auroc_high", "behind", "behind_low", "behind_high", "pixel_auroc", "seconds",
               "milliseconds", *kinds]  # fmt: skip
    write_csv(
        folder.ranking,
        columns,
        (
            {
                **row._asdict(),
                "place": place,
                "chosen": int(row is chosen),
                "model": row.candidate,
                "height": row.image_size[0],
                "width": row.image_size[1],
                "auroc": row.value,
                "auroc_low": row.low,
                "auroc_high": row.high,
                **row.kinds,
            }
            for place, row in enumerate(rows, start=1)
        ),
    )


def best_of_each(rows: Sequence[Row]) -> list[Row]:
    """The first row of every candidate, in the order of the ranking."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.candidate, row)
    return list(first.values())


def _chosen(
    trial: Trial, rows: Sequence[Row], chosen: Row, reasons: Sequence[str], command: str
) -> str:
    tiles = [
        ("AUROC, drawn defects", _of(chosen.value)),
        ("its interval", f"{chosen.low:.2f} to {chosen.high:.2f}"),
        ("pixel AUROC", _of(chosen.pixel_auroc)),
        ("ms an image", f"{chosen.milliseconds:.0f}"),
    ]
    notes = []
    others = [row.candidate for row in best_of_each(rows) if not row.clearly_behind]
    others = [name for name in others if name != chosen.candidate]
    if others:
        notes.append(
            f"The ranking is not clear: {_listed(others)} "
            f"{'is' if len(others) == 1 else 'are'} not clearly behind on these defects."
        )
    if chosen.value < 0.7:
        notes.append(
            "No model finds these defects well. Look at the pictures below: if they are fainter "
            "than what matters to you, the ranking still tells something; if not, expect little."
        )
    if trial.faint:
        hidden = _listed([f"{kind} ({count})" for kind, count in trial.faint.items()])
        notes.append(f"Left out, since they could mostly not be seen on these images: {hidden}.")
    about = about_config(chosen.config) if not chosen.config.endswith(".py") else ""
    size = " × ".join(map(str, chosen.image_size))
    # A line an argument, which a shell takes as it stands.
    lines = command.replace(" --", " \\\n  --")
    return fragment(
        "select", "chosen", _short(chosen.config), chosen.score, size, tiles, about, reasons,
        notes, lines,
    )  # fmt: skip


def _ranking(rows: Sequence[Row]) -> str:
    headers = ["Model", "Score", "AUROC", "Interval", "Behind the first", "Pixel AUROC",
               "Time to judge", "ms an image"]  # fmt: skip
    cells = []
    for row in best_of_each(rows):
        behind = MISSING
        if row is not rows[0]:
            low, high = 100 * row.behind_low, 100 * row.behind_high
            behind = f"{100 * row.behind:.1f} [{low:.1f}, {high:.1f}]"
        cells.append(
            [
                Cell(_label(row), key=row.candidate, best=not row.clearly_behind),
                Cell(row.score, key=row.score),
                Cell(_of(row.value), key=row.value, best=not row.clearly_behind),
                Cell(_interval(row), key=row.low),
                Cell(behind, key=row.behind),
                Cell(_of(row.pixel_auroc), key=row.pixel_auroc),
                Cell(format_seconds(row.seconds), key=row.seconds),
                Cell(f"{row.milliseconds:.0f}", key=row.milliseconds),
            ]
        )
    shown = sortable_table(headers, cells, name="sort", smallest_first=(1, 4, 6, 7))
    return fragment("select", "ranking", shown, round(100 * CONFIDENCE))


def _kinds(rows: Sequence[Row]) -> str:
    first = best_of_each(rows)
    headers = ["Kind", *(_label(row) for row in first)]
    body: list[list[str | Cell]] = []
    for kind in rows[0].kinds:
        most = max(round(row.kinds[kind], 3) for row in first)
        cells = [
            Cell(_of(row.kinds[kind]), row.kinds[kind], best=round(row.kinds[kind], 3) == most)
            for row in first
        ]
        body.append([f"{kind}: {KINDS[kind].about}", *cells])
    return fragment("select", "kinds", Table(headers, body))


def _drawn(folder: SelectionFolder, trial: Trial, chosen: Row) -> str:
    """Some defects of each kind, and the map of the chosen model."""
    split = trial.splits[0]
    run = folder.run(chosen.candidate, 0)
    keys = {"evaluate.primary_map": chosen.map, "evaluate.primary_score": chosen.score}
    detector = Detector.load(run.path, overrides=keys)
    table = open_table(detector.config.data)
    calibration = calibrate(run, detector, table, run.read_json(run.data))
    own = split.at(chosen.image_size)
    kinds = np.array(split.kinds)
    groups = []
    for kind in dict.fromkeys(split.kinds):
        of_kind = np.flatnonzero(kinds == kind)
        places = of_kind[np.linspace(0, len(of_kind) - 1, min(SHOWN, len(of_kind))).astype(int)]
        cases = _cases(
            detector, own.drawn[places], own.masks[places], calibration,
            [(split.names[own.base[i]], kind) for i in places],
        )  # fmt: skip
        groups.append((f"{kind}: {KINDS[kind].about}", cases))
    good = np.linspace(0, len(own.good) - 1, min(SHOWN, len(own.good))).astype(int)
    names = [(split.names[i], "good") for i in good]
    groups.append(("good images", _cases(detector, own.good[good], None, calibration, names)))
    scale = common_scale(calibration, [case for _, cases in groups for case in cases])
    shown = [(heading, [_pictures(case, scale) for case in cases]) for heading, cases in groups]
    return fragment("select", "drawn", shown)


def _cases(
    detector: Detector,
    images: np.ndarray,
    masks: np.ndarray | None,
    calibration: Mapping[str, Any],
    named: Sequence[tuple[str, str]],
) -> list[Case]:
    """The images with what the detector says of them."""
    output = detector(images, detector.size_for(len(images)))
    threshold = calibration["image_threshold"]
    cases = []
    for i, (path, kind) in enumerate(named):
        score = float(output.scores[detector.primary_score][i])
        row = ScoreRow(
            printable(path), int(kind != "good"), kind, score,
            None if threshold is None else score > threshold,
        )  # fmt: skip
        mask = None if masks is None else masks[i]
        heat, rebuilt = output.maps[detector.primary_map][i], output.reconstruction[i]
        cases.append(make_case(row, images[i], heat, rebuilt, mask, calibration))
    return cases


def _pictures(case: Case, scale: Scale) -> tuple[Picture, Picture, str]:
    """The outlined photograph, the heat map, and what stands under them."""
    plain, _, heat, outlined, _ = figures.panels(case, scale)
    pixels = plain.drawn if outlined.pixels is None else outlined.pixels
    what = f"{case.defect} on {case.path}"
    verdict = f", {case.row.verdict}" if case.row.verdict else ""
    return (
        Picture(pixels, f"photograph, {what}"),
        Picture(heat.drawn, f"heat map, {what}"),
        f"{format_score(case.score)}{verdict}",
    )


def _label(row: Row) -> str:
    """The model and its size."""
    return f"{_short(row.config)} {row.image_size[0]} × {row.image_size[1]}"


def _short(config: str) -> str:
    """A config's name, of a file without its folders."""
    return config.rpartition("/")[2]


def _of(value: float) -> str:
    return format_value(value, digits=3)


def _interval(row: Row) -> str:
    return f"[{row.low:.3f}, {row.high:.3f}]"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
