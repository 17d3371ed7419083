"""Predictions as a notebook shows them: a table with small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxad.report.page import Picture, fragment


class NotebookRow(NamedTuple):
    """One image.

    Attributes:
      name: of the image.
      verdict: in words; empty without one.
      score: of the image; None where it cannot be read.
      components: number of predicted defects; None where that is not known.
      notes: or why the image cannot be read.
      shown: its map; None for no picture.
    """

    name: str
    verdict: str
    score: float | None
    components: int | None
    notes: str
    shown: Picture | None


def predictions_table(
    rows: Sequence[NotebookRow], *, threshold: float | None, more: int = 0
) -> str:
    """A table of predictions as HTML.

    Args:
      rows: one per image.
      threshold: of the image score; None without one.
      more: images that are not shown.
    """
    return str(fragment("notebook", "predictions", threshold, rows, more))
