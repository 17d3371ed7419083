"""``jaxad select``: what it prints."""

from __future__ import annotations

from collections.abc import Mapping

from jaxad.report.tables import format_metrics_table
from jaxad.run.text import say
from jaxad.selection.page import best_of_each
from jaxad.selection.select import select


def run(
    root: str,
    workdir: str,
    overrides: Mapping[str, str],
    *,
    minutes: float,
    configs: list[str],
    seed: int,
) -> None:
    """Selects, and prints the ranking and the command to go on with.

    Raises:
      UserError: as of :func:`jaxad.select`.
    """
    found = select(root, workdir, minutes=minutes, configs=configs, overrides=overrides, seed=seed)
    lines = [
        {
            "model": row.candidate,
            "score": row.score,
            "auroc": row.value,
            "low": row.low,
            "high": row.high,
            "clear": "yes" if row.clearly_behind else "no",
        }
        for row in best_of_each(found.rows)
    ]
    headings = {
        "model": "model", "score": "score", "auroc": "AUROC, drawn defects", "low": "from",
        "high": "to", "clear": "clearly behind",
    }  # fmt: skip
    say(format_metrics_table(lines, headings))
    for name, why in found.left_out.items():
        say(f"not judged: {name}: {why}")
    say(f"chosen: {found.chosen.score} of {found.chosen.candidate}")
    say(f"next: {found.command}")
    say(f"page: {found.folder.report}")
