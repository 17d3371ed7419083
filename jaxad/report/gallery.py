"""The images of a report: cards with all panels, and tiles that lead to them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from jaxad.report import figures
from jaxad.report.content import Case, ReportContent, Scale, ScoreRow, is_known
from jaxad.report.page import Picture, Section, fragment

# A case with its number among the cases given; the number is its anchor.
Numbered = Sequence[tuple[int, Case]]


class _Tile(NamedTuple):
    """A small picture of a case and its heat map, which leads to the card."""

    number: int
    row: ScoreRow
    name: str
    photograph: Picture
    heat: Picture


class _Card(NamedTuple):
    """A case with all its panels.

    Attributes:
      number: of the case.
      row: what is said of it.
      shape: of the image, (h, w, c).
      panels: each with its picture, None where it has no pixels.
      gauge: the score as a percentage of the range of all scores; empty without a range.
      gauge_mark: the threshold likewise.
    """

    number: int
    row: ScoreRow
    shape: tuple[int, ...]
    panels: list[tuple[figures.Panel, Picture | None]]
    gauge: str = ""
    gauge_mark: str = ""


class _Group(NamedTuple):
    """Tiles or cards under a heading."""

    heading: str
    members: Sequence[_Tile | _Card]
    counted: str = ""


def _name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _tiles(heading: str, cases: Numbered, scale: Scale) -> _Group:
    tiles = []
    for number, case in cases:
        small = figures.fit(case.image, side=128, smooth=True)
        heat = figures.fit(case.heat, side=128, smooth=False)
        coloured = figures.overlay(small, heat, low=scale.low, high=scale.high)
        pair = Picture(small, "photograph"), Picture(coloured, "heat map")
        tiles.append(_Tile(number, case.row, _name(case.path), *pair))
    return _Group(heading, tiles)


def mistakes(content: ReportContent, numbered: Numbered, scale: Scale) -> Section:
    """The section of missed defects and false alarms, the worst first.

    Args:
      content: of the report; its scores tell how many mistakes there are in all.
      numbered: the cases with their anchors' numbers.
      scale: of the heat maps.

    Returns:
      Without a threshold, the images closest to a mistake; no body without cases.
    """
    defective = sorted((one for one in numbered if one[1].label), key=lambda one: one[1].score)
    good = sorted((one for one in numbered if not one[1].label), key=lambda one: -one[1].score)
    if not any(case.decision is not None for _, case in numbered):
        hardest = (
            _tiles("Defective images with the lowest scores", defective[:6], scale),
            _tiles("Good images with the highest scores", good[:6], scale),
        )
        groups = [group for group in hardest if group.members]
        return Section("mistakes", "Hardest images", fragment("run", "tiles", groups))
    every = [row.verdict for row in content.rows]
    groups = []
    for heading, word, cases in (
        ("Missed defects", "missed", defective),
        ("False alarms", "false alarm", good),
    ):
        wrong = [one for one in cases if one[1].row.verdict == word]
        total = every.count(word)
        shown = f", {len(wrong)} shown" if len(wrong) < total else ""
        groups.append(_tiles(f"{heading}: {total or 'none'}{shown}", wrong, scale))
    return Section("mistakes", "Mistakes", fragment("run", "tiles", groups))


def extremes(numbered: Numbered, scale: Scale, *, count: int = 6) -> str:
    """The images of the highest and of the lowest scores, whatever their label."""
    # Of a dozen images or fewer, the sections around this one show all that there is.
    if len(numbered) <= 2 * count:
        return ""
    order = sorted(numbered, key=lambda one: one[1].score)
    highest = _tiles("Highest scores", order[: -count - 1 : -1], scale)
    return fragment("run", "tiles", [highest, _tiles("Lowest scores", order[:count], scale)])


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
    limits = (min(scores), max(scores), content.calibration.get("image_threshold"))
    groups = []
    for kind, members in itertools.groupby(cases, lambda one: by_kind and one[1].defect):
        group = [_card(number, case, scale, limits) for number, case in members]
        total = sum(bool(row.label) and row.defect == kind for row in content.rows)
        count = f"{len(group)} of {total}" if len(group) < total else str(total)
        groups.append(_Group(kind or "", group, count))
    return fragment("run", "cards", groups, scale, "" if by_kind else "Highest score first.")


def _card(
    number: int, case: Case, scale: Scale, limits: tuple[float, float, float | None]
) -> _Card:
    panels: list[tuple[figures.Panel, Picture | None]] = []
    for panel in figures.panels(case, scale):
        sharp = panel.caption not in ("photograph", "reconstruction")
        alt = f"{panel.caption} of {_name(case.path)}"
        shown = None if panel.pixels is None else Picture(panel.pixels, alt, sharp)
        panels.append((panel, shown))
    row, shape = case.row, case.image.shape
    low, high, threshold = limits
    if not high > low:
        return _Card(number, row, shape, panels)
    gauge, mark = (
        f"{min(max(100 * (value - low) / (high - low), 0), 100):.1f}" if is_known(value) else ""
        for value in (case.score, threshold)
    )
    return _Card(number, row, shape, panels, gauge, mark)
