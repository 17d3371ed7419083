"""The images of a report: cards with all panels, and tiles that lead to them."""

from __future__ import annotations

from collections.abc import Sequence

from jaxad.report import figures
from jaxad.report.content import Case, ReportContent, Scale, ScoreRow, is_missing, verdict
from jaxad.report.page import breakable, colour_bar, enlargeable, escape, picture
from jaxad.report.tables import format_score

# A case with its number among the cases given; the number is its anchor.
Numbered = Sequence[tuple[int, Case]]


def badge(row: ScoreRow) -> str:
    """A word on the decision, coloured by its worth; only the label where there is no decision."""
    word = verdict(row.label, row.decision)
    if word is None:
        return f'<span class="badge">{"defective" if row.label else "good"}</span>'
    return f'<span class="badge {word.replace(" ", "-")}">{word}</span>'


def _tiles(cases: Numbered, scale: Scale) -> str:
    """Small pictures that lead to the full cards."""
    cells = []
    for number, case in cases:
        small = figures.fit(case.image, side=128, smooth=True)
        heat = figures.fit(case.heat, side=128, smooth=False)
        coloured = figures.overlay(small, heat, low=scale.low, high=scale.high)
        cells.append(
            f'<a class="tile" href="#case-{number}"><div class="pair">'
            f"{picture(small, alt='photograph')}{picture(coloured, alt='heat map')}</div>"
            f"{badge(case.row)} {format_score(case.score)} "
            f'<div class="path">{escape(case.defect)} · {escape(_name(case.path))}</div></a>'
        )
    return f'<div class="tiles">{"".join(cells)}</div>' if cells else ""


def _name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def mistakes(content: ReportContent, numbered: Numbered, scale: Scale) -> tuple[str, str, str]:
    """The section of missed defects and false alarms, the worst first.

    Args:
      content: of the report; its scores tell how many mistakes there are in all.
      numbered: the cases with their anchors' numbers.
      scale: of the heat maps.

    Returns:
      (anchor, heading, body): without a threshold, the images closest to a mistake; no body
      without cases.
    """
    defective = sorted((one for one in numbered if one[1].label), key=lambda one: one[1].score)
    good = sorted((one for one in numbered if not one[1].label), key=lambda one: -one[1].score)
    if not any(case.decision is not None for _, case in numbered):
        groups = (
            ("Defective images with the lowest scores", defective[:6]),
            ("Good images with the highest scores", good[:6]),
        )
        body = "".join(_group(heading, cases, scale) for heading, cases in groups if cases)
        return "mistakes", "Hardest images", body
    every = [verdict(row.label, row.decision) for row in content.rows]
    body = ""
    for heading, word, cases in (
        ("Missed defects", "missed", defective),
        ("False alarms", "false alarm", good),
    ):
        wrong = [one for one in cases if verdict(one[1].label, one[1].decision) == word]
        total = every.count(word)
        shown = f", {len(wrong)} shown" if len(wrong) < total else ""
        body += _group(f"{heading}: {total or 'none'}{shown}", wrong, scale)
    return "mistakes", "Mistakes", body


def _group(heading: str, cases: Numbered, scale: Scale) -> str:
    return f"<h3>{escape(heading)}</h3>{_tiles(cases, scale)}"


def extremes(numbered: Numbered, scale: Scale, *, count: int = 6) -> str:
    """The images of the highest and of the lowest scores, whatever their label."""
    # Of a dozen images or fewer, the sections around this one show all that there is.
    if len(numbered) <= 2 * count:
        return ""
    order = sorted(numbered, key=lambda one: one[1].score)
    most = _group("Highest scores", order[: -count - 1 : -1], scale)
    return most + _group("Lowest scores", order[:count], scale)


def cards(cases: Numbered, content: ReportContent, scale: Scale, *, by_kind: bool) -> str:
    """Full cards, in the order given, under the colour bar that they share.

    Args:
      cases: with their anchors' numbers; grouped by kind already when ``by_kind``.
      content: of the report.
      scale: of the heat maps.
      by_kind: gives each kind of defect a heading with its count.
    """
    if not cases:
        return ""
    scores = [row.score for row in content.rows]
    threshold = content.calibration.get("image_threshold")
    limits = (min(scores), max(scores), threshold)
    parts = [colour_bar(scale)]
    if not by_kind:
        parts.append('<p class="muted">Highest score first.</p>')
    kind = None
    for number, case in cases:
        if by_kind and case.defect != kind:
            kind = case.defect
            total = sum(1 for row in content.rows if row.label and row.defect == kind)
            shown = sum(1 for _, one in cases if one.defect == kind)
            many = f"{shown} of {total}" if shown < total else str(total)
            parts.append(f'<h3>{escape(kind)} <span class="muted">{many}</span></h3>')
        parts.append(_card(number, case, scale, limits))
    return "".join(parts)


def _card(number: int, case: Case, scale: Scale, limits) -> str:
    cells = []
    height, width = case.image.shape[:2]
    for panel in figures.panels(case, scale):
        alt = f"{panel.caption} of {_name(case.path)}"
        if panel.pixels is None:
            shape = f"aspect-ratio:{width}/{height}"
            inner = f'<div class="empty" style="{shape}">{escape(panel.why)}</div>'
        else:
            sharp = panel.caption not in ("photograph", "reconstruction")
            inner = enlargeable(picture(panel.pixels, alt=alt, sharp=sharp), alt=alt)
        cells.append(f"<figure><figcaption>{panel.caption}</figcaption>{inner}</figure>")
    return (
        f'<article class="case" id="case-{number}"><div class="info">{badge(case.row)}'
        f"<b>{format_score(case.score)}</b>{_gauge(case, limits)}{escape(case.defect)}"
        f'<div class="path">{breakable(case.path)}</div></div>{"".join(cells)}</article>'
    )


def _gauge(case: Case, limits) -> str:
    """The score between the lowest and highest of the test images, and the threshold on it."""
    low, high, threshold = limits
    if not high > low:
        return ""

    def share(value):
        return min(max(100 * (value - low) / (high - low), 0), 100)

    mark = ""
    if not is_missing(threshold):
        mark = f'<u style="left:{share(threshold):.1f}%"></u>'
    over = " over" if case.decision else ""
    return f'<div class="gauge{over}"><i style="width:{share(case.score):.1f}%"></i>{mark}</div>'
