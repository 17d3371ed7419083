"""The page of a prediction: decisions about new images, whose truth nobody knows yet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxad.report import gallery
from jaxad.report.charts import Chart
from jaxad.report.content import Scale, ScoreRow
from jaxad.report.gallery import Shown
from jaxad.report.histogram import score_histogram
from jaxad.report.page import Cell, Section, Table, fragment, page
from jaxad.report.threshold import hidden_by_odd, told
from jaxad.run.files import write_text

LISTED = 50
"""Most files that the page names in each of its lists."""

_TILES = {
    "images": "images",
    "rejected": "rejected",
    "accepted": "accepted",
    "undecided": "without a decision",
    "unreadable": "that cannot be read",
}


@dataclass(frozen=True, kw_only=True)
class PredictionsContent:
    """Everything on the page of a prediction.

    Attributes:
      title: heading of the page.
      facts: what predictions.json says of the whole call.
      counts: of ``images``, ``rejected``, ``accepted``, ``undecided`` and ``unreadable``.
      complete: all images were judged.
      calibration: what calibration.json of the run holds.
      scale: of the heat maps.
      scores: every image that was judged.
      shown: those with pictures.
      unlike: images whose brightness or size the training images do not have, with what is odd.
      unreadable: files that cannot be read, with why.
      links: ``odd_images`` and ``report`` of the run, relative to the page; empty where there is no
        such file.
    """

    title: str
    facts: Mapping[str, Any]
    counts: Mapping[str, int]
    complete: bool
    calibration: Mapping[str, Any]
    scale: Scale
    scores: Sequence[ScoreRow]
    shown: Sequence[Shown] = ()
    unlike: Sequence[tuple[str, str]] = ()
    unreadable: Sequence[tuple[str, str]] = ()
    links: Mapping[str, str] = field(default_factory=lambda: {"odd_images": "", "report": ""})


def write_predictions_page(path: str | os.PathLike, content: PredictionsContent) -> None:
    """Writes the page of a prediction, atomically.

    Raises:
      UserError: the file cannot be written.
    """
    write_text(path, render_predictions(content))


def render_predictions(content: PredictionsContent) -> str:
    """The page as a string."""
    threshold = content.calibration.get("image_threshold")
    shown, rows = content.shown, content.scores
    cards = gallery.cards(shown, rows, content.scale, threshold=threshold, panels="prho")
    unlike = "Unlike the training images"
    sections = [
        Section("summary", "Summary", _summary(content)),
        Section("threshold", "Threshold", _threshold(content)),
        Section("extremes", "Most and least anomalous", gallery.extremes(shown)),
        Section("images", "Images", cards),
        Section("unlike", unlike, _files(content.unlike, "What is odd")),
        Section("unreadable", "Not readable", _files(content.unreadable, "Why")),
        Section("setup", "Setup", _setup(content)),
    ]
    return page(content.title, sections, live=gallery.live(shown, rows, threshold))


def _summary(content: PredictionsContent) -> str:
    # What there is none of is no news, but for the decisions.
    kept = ("images", "rejected", "accepted") if "image_threshold" in content.facts else ()
    tiles = [
        (title, content.counts.get(key, 0))
        for key, title in _TILES.items()
        if content.counts.get(key) or key in kept
    ]
    judged = len(content.scores) + len(content.unreadable)
    return fragment(
        "predictions",
        "summary",
        tiles,
        judged=judged,
        total=content.counts.get("images", judged),
        complete=content.complete,
        unlike=len(content.unlike),
        shown=len(content.shown),
        scored=len(content.scores),
        threshold=content.calibration.get("image_threshold") is not None,
    )


def _threshold(content: PredictionsContent) -> str:
    verdicts = Counter(row.verdict for row in content.scores)
    threshold = content.calibration.get("image_threshold")
    drawn = []
    if content.scores:
        svg = score_histogram(
            [row.score for row in content.scores],
            None,
            threshold=threshold,
            leads=gallery.leads_to(content.shown),
        )
        drawn.append(Chart("Scores of the images", svg))
    decided = threshold is not None and bool(content.scores)
    return fragment(
        "run",
        "threshold",
        **told(content.calibration),
        verdicts=[(name, verdicts[name]) for name in gallery.VERDICTS[1]] if decided else [],
        own_scale=content.calibration.get("heat_map_low") is None and content.shown,
        drawn=drawn,
        run={"folder": "", **content.links},
        between=hidden_by_odd(content.scores, content.calibration),
        fresh=True,
    )


def _files(files: Sequence[tuple[str, str]], heading: str) -> str:
    if not files:
        return ""
    rows = [[Cell(path), Cell(words)] for path, words in files[:LISTED]]
    table = Table(["File", heading], rows, kind="settings files")
    return fragment("predictions", "files", table, len(files), len(rows))


def _setup(content: PredictionsContent) -> str:
    rows = [(key, str(value)) for key, value in content.facts.items()]
    table = Table(["Key", "Value"], rows, kind="settings")
    return fragment("run", "setup", [("This prediction", table)])
