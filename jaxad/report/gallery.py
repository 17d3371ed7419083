"""The images of a page: cards with all panels, tiles that lead to them, and what filters them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxad.report.content import Case, Scale, ScoreRow, is_known
from jaxad.report.histogram import GROUPS, Bar
from jaxad.report.live import gauge_range, live_data
from jaxad.report.page import Live, Section, fragment
from jaxad.report.pictures import Stored, store

PANELS = {
    "p": "photograph",
    "r": "reconstruction",
    "h": "heat map",
    "t": "ground truth",
    "o": "predicted region",
}
"""The panels of a card, by the letter of their picture in the store, with their captions."""

VERDICTS = (("found", "missed", "false alarm", "passed"), ("rejected", "accepted"))
"""What decisions are worth: about labelled images, about new ones."""


class Shown(NamedTuple):
    """An image on a page.

    Attributes:
      number: names its pictures and its card.
      row: what is said of it.
      stored: its pictures.
      absent: panel -> why it has no picture.
      link: the picture at full size, relative to the page; empty without one.
      notes: sentences on it.
    """

    number: int
    row: ScoreRow
    stored: Stored
    absent: Mapping[str, str]
    link: str = ""
    notes: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The file's."""
        return self.row.path.replace("\\", "/").rsplit("/", 1)[-1]


class _Card(NamedTuple):
    """An image with its panels.

    Attributes:
      shown: the image.
      panels: letter, caption, and why there is no picture (empty where there is one).
      gauge: the score as a percentage of the range of all scores; empty without a range.
      gauge_mark: the threshold likewise.
    """

    shown: Shown
    panels: Sequence[tuple[str, str, str]]
    gauge: str = ""
    gauge_mark: str = ""


class _Group(NamedTuple):
    """Tiles or cards under a heading.

    Attributes:
      heading: text.
      members: of the group.
      counted: how many, in words.
      anchor: of the heading; empty for none.
      live: the verdict whose images the group holds, when it follows the threshold.
    """

    heading: str
    members: Sequence[Shown] | Sequence[_Card]
    counted: str = ""
    anchor: str = ""
    live: str = ""


def shown_cases(cases: Sequence[Case], scale: Scale) -> list[Shown]:
    """The cases with their pictures; their numbers follow the order given."""
    return [shown_case(number, case, scale) for number, case in enumerate(cases)]


def shown_case(
    number: int, case: Case, scale: Scale, *, link: str = "", notes: Sequence[str] = ()
) -> Shown:
    """A case with its pictures.

    Args:
      number: names its pictures and its card.
      case: of any size.
      scale: of the heat maps.
      link: the picture at full size, relative to the page; empty without one.
      notes: sentences on it.
    """
    absent = {}
    if case.reconstruction is None:
        absent["r"] = "none from this method"
    if case.mask is None or not case.mask.any():
        absent["t"] = "no mask" if case.label else "good: no defect"
    if case.predicted is None:
        absent["o"] = "no threshold"
    return Shown(number, case.row, store(case, scale), absent, link, notes)


def mistakes(shown: Sequence[Shown], rows: Sequence[ScoreRow]) -> Section:
    """The section of missed defects and false alarms, the worst first.

    Args:
      shown: the images on the page.
      rows: every image; they tell how many mistakes there are in all.

    Returns:
      Without a threshold, the images closest to a mistake; no body without images.
    """
    defective = sorted((one for one in shown if one.row.label), key=lambda one: one.row.score)
    good = sorted((one for one in shown if not one.row.label), key=lambda one: -one.row.score)
    if all(one.row.decision is None for one in shown):
        hardest = (
            _Group("Defective images with the lowest scores", defective[:6]),
            _Group("Good images with the highest scores", good[:6]),
        )
        groups = [group for group in hardest if group.members]
        return Section("mistakes", "Hardest images", fragment("gallery", "tiles", groups))
    every = Counter(row.verdict for row in rows)
    groups = []
    for heading, word, images in (
        ("Missed defects", "missed", defective),
        ("False alarms", "false alarm", good),
    ):
        wrong, total = sum(one.row.verdict == word for one in images), every[word]
        counted = f"{total or 'none'}" + (f", {wrong} shown" if wrong < total else "")
        groups.append(_Group(f"{heading}:", images, counted, live=word))
    return Section("mistakes", "Mistakes", fragment("gallery", "tiles", groups))


def extremes(shown: Sequence[Shown], *, count: int = 6) -> str:
    """The most anomalous and the most normal images by their scores, whatever their label."""
    # Of a dozen images or fewer, the cards show all that there is.
    if len(shown) <= 2 * count:
        return ""
    order = sorted(shown, key=lambda one: one.row.score)
    groups = [
        _Group("Most anomalous: the highest scores", order[: -count - 1 : -1]),
        _Group("Most normal: the lowest scores", order[:count]),
    ]
    return fragment("gallery", "tiles", groups)


def cards(
    shown: Sequence[Shown],
    rows: Sequence[ScoreRow],
    scale: Scale,
    *,
    threshold: float | None,
    panels: str = "prhto",
) -> str:
    """Full cards under the colour bar that they share: each kind of defect, then good images.

    Args:
      shown: the images on the page.
      rows: every image.
      scale: of the heat maps.
      threshold: of the images' scores.
      panels: letters of those that a card has.
    """
    if not shown:
        return ""
    limits = (*gauge_range([row.score for row in rows]), threshold)
    kind_of = lambda one: one.row.defect if one.row.label else ""
    order = sorted(shown, key=lambda one: (not one.row.label, kind_of(one), -one.row.score))
    groups = []
    for kind, members in itertools.groupby(order, kind_of):
        made = [_card(one, limits, panels) for one in members]
        labelled = made[0].shown.row.label is not None
        total = sum((row.defect if row.label else "") == kind for row in rows)
        count = f"{len(made)} of {total}" if len(made) < total else str(total)
        heading = kind or ("Good images" if labelled else "")
        groups.append(_Group(heading, made, count, "" if kind or not labelled else "good"))
    verdicts = VERDICTS[shown[0].row.label is None]
    kinds = list(dict.fromkeys(one.row.defect for one in order if one.row.defect))
    return fragment("gallery", "cards", groups, scale, verdicts, kinds, len(shown), "t" in panels)


def _card(one: Shown, limits: tuple[float, float, float | None], panels: str) -> _Card:
    drawn = [(letter, PANELS[letter], one.absent.get(letter, "")) for letter in panels]
    low, high, threshold = limits
    if not high > low:
        return _Card(one, drawn)
    gauge, mark = (
        f"{min(max(100 * (value - low) / (high - low), 0), 100):.1f}" if is_known(value) else ""
        for value in (one.row.score, threshold)
    )
    return _Card(one, drawn, gauge, mark)


def live(shown: Sequence[Shown], rows: Sequence[ScoreRow], threshold: float | None) -> Live:
    """What makes a page of images one to work with: the slider, the store, the script's data.

    Args:
      shown: the images on the page.
      rows: every image.
      threshold: of the images' scores; None without one.
    """
    data = live_data(rows, threshold)
    steps = [step for step, *_ in data["steps"]]
    place = steps.index(threshold) if threshold in steps else len(steps) - 1
    return Live(data, fragment("gallery", "extra", shown, threshold, len(steps), place))


def leads_to(shown: Sequence[Shown]) -> Callable[[Bar], str]:
    """Where a bar of the histogram leads: to the card of its highest score, where it has one."""

    def lead(bar: Bar) -> str:
        inside = [
            one
            for one in shown
            if bar.low <= one.row.score < bar.high
            and (bar.group not in GROUPS or bool(one.row.label) == (bar.group == "defective"))
        ]
        if not inside:
            return ""
        return f"#case-{max(inside, key=lambda one: one.row.score).number}"

    return lead
