"""``jaxad select``: what it prints."""

from __future__ import annotations

import argparse

from jaxad.run.text import say


def run(arguments: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Selects, and prints the ranking and the command to go on with.

    Args:
      arguments: ``root``, ``workdir``, ``minutes``, ``configs``, ``name``, ``category``, ``seed``.
      overrides: config key -> text.

    Raises:
      UserError: as of :func:`jaxad.select`.
    """
    from jaxad.run.environment import keep_freed_memory

    keep_freed_memory()
    from jaxad.report.tables import format_metrics_table
    from jaxad.selection.page import best_of_each
    from jaxad.selection.select import select

    for flag in ("name", "category"):
        if value := getattr(arguments, flag):
            overrides = {f"data.{flag}": value, **overrides}
    found = select(
        arguments.root,
        arguments.workdir,
        minutes=arguments.minutes,
        configs=[config for words in arguments.configs for config in words.split()],
        overrides=overrides,
        seed=arguments.seed,
    )
    lines = [
        {**row._asdict(), "clear": "yes" if row.clearly_behind else "no"}
        for row in best_of_each(found.rows)
    ]
    headings = {
        "candidate": "model", "score": "score", "value": "AUROC, drawn defects", "low": "from",
        "high": "to", "clear": "clearly behind",
    }  # fmt: skip
    say(format_metrics_table(lines, headings))
    for name, why in found.left_out.items():
        say(f"not judged: {name}: {why}")
    say(f"chosen: {found.chosen.score} of {found.chosen.candidate}")
    say(f"next: {found.command}")
    say(f"page: {found.folder.report}")
