"""``jaxad benchmark``: what its options mean."""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.cli.status import FAILED_PARTS
from jaxad.run.errors import UserError
from jaxad.run.text import say


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    """Runs the command.

    Args:
      arguments: ``configs``, ``categories``, ``seeds``, ``workdir``, ``paper``, ``variant``,
        ``weights``, ``parallel``, ``failures_since``.
      overrides: config key -> text.

    Returns:
      1 where a cell failed, else 0.

    Raises:
      UserError: a mistake in the options.
    """
    from jaxad.run.environment import keep_freed_memory

    keep_freed_memory()
    from jaxad.benchmark.grid import benchmark
    from jaxad.benchmark.papers import Plan, plan, with_weights

    # A quoted list and separate words are the same to a user.
    configs = [config for words in arguments.configs for config in words.split()]
    categories = _words(arguments.categories)
    papers = _words(arguments.paper)
    weights = _weights(arguments.weights)
    try:
        seeds = [int(seed) for seed in _words(arguments.seeds)]
    except ValueError:
        raise UserError(
            f"--seeds takes whole numbers such as 0,1,2, not {arguments.seeds}"
        ) from None
    if papers:
        planned = plan(
            papers,
            variant=arguments.variant,
            configs=configs,
            categories=categories,
            overrides=overrides,
            weights=weights,
            own_only=arguments.columns == "own",
        )
    elif not configs:
        raise UserError("jaxad benchmark needs --configs, or --paper with the id of a table")
    elif arguments.variant:
        raise UserError("--variant is for --paper; write it after the config: vqvae:small")
    else:
        planned = Plan(
            configs=tuple(configs),
            categories=tuple(categories),
            overrides=overrides,
            own_overrides=with_weights(configs, overrides, weights),
        )
    since = arguments.failures_since or time.time()
    if arguments.parallel != 1:
        from jaxad.benchmark.workers import run_workers

        run_workers(_command(arguments, overrides, since), arguments.parallel)
    rows = benchmark(
        planned.configs,
        planned.categories,
        seeds,
        arguments.workdir,
        overrides=planned.overrides,
        own_overrides=planned.own_overrides,
        papers=planned.papers,
        variant=planned.variant,
        failures_since=since,
    )
    _show(pathlib.Path(arguments.workdir), papers, rows)
    return FAILED_PARTS if any(row["error"] for row in rows) else 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _weights(words: Sequence[str]) -> dict[str, str]:
    """Name of a config -> folder."""
    pairs = [word.partition("=") for word in words]
    for word, (name, _, folder) in zip(words, pairs, strict=True):
        if not (name and folder):
            raise UserError(f"--weights takes CONFIG=DIR such as vit_vae=DIR, not {word!r}")
    return {name: folder for name, _, folder in pairs}


def _command(
    arguments: argparse.Namespace, overrides: Mapping[str, str], since: float
) -> list[str]:
    """The same command for one process."""
    words = ["benchmark", f"--failures-since={since!r}"]
    for name in ("categories", "seeds", "workdir", "paper", "variant", "columns"):
        words.append(f"--{name}={getattr(arguments, name)}")
    words += [f"--config.{key}={value}" for key, value in overrides.items()]
    words += ["--weights", *arguments.weights] if arguments.weights else []
    return [*words, "--configs", *arguments.configs] if arguments.configs else words


def _show(root: pathlib.Path, papers: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    from jaxad.benchmark.tables import odd_notes, shown_table
    from jaxad.report.tables import format_metrics_table

    for paper in papers:
        say((root / f"table_{paper}.md").read_text(encoding="utf-8"))
    if not papers:
        say(format_metrics_table(*shown_table(rows)))
    for note in odd_notes(rows):
        say(f"note: {note}")
    for row in rows:
        if row["error"]:
            say(f"{row['folder']}: {row['error']}")
    tables = ", ".join([f"{root}/table_{paper}.md" for paper in papers] + [f"{root}/results.md"])
    say(f"tables: {tables}, page: {root}/report.html")
