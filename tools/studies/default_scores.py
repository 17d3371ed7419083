"""Which map and reduction decides about images: every score of every run, compared over data sets.

    python tools/studies/default_scores.py --output=docs/results/default_scores_cpu.md \
        --results docs/results/small_cpu.json docs/results/variational_cpu.json \
                  docs/results/transformers_cpu.json

Reads what `collect_results.py` gathered. The rule: a model's default is the score that its paper
or its config names, unless on three data sets or more another has a higher mean image AUROC by 0.03
and is not lower by more than 0.01 on any. Figures below chance count as chance. Only sets of parts
and surfaces with defects count, not one-class sets such as CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from jaxad.report.tables import markdown_table

FEWEST_SETS = 3
SMALLEST_GAIN = 0.03
LARGEST_LOSS = 0.01
SHOWN = 5
"""Scores in the table of a model, beside its default."""

Scores = dict[str, dict[str, float]]
"""Score -> data set -> image AUROC."""


def main() -> None:
    """Reads the command line, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--results", nargs="+", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.md")
    arguments = parser.parse_args()
    scores, defaults = read(arguments.results)
    rows = [verdict(name, scores[name], defaults[name]) for name in sorted(scores)]
    parts = [f"# {arguments.output.stem}", markdown_table(rows, list(rows[0]))]
    for name in sorted(scores):
        parts.append(f"## `{name}`")
        table = details(scores[name], defaults[name])
        parts.append(markdown_table(table, list(table[0])))
    text = "\n\n".join(parts) + "\n"
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


def read(files: list[pathlib.Path]) -> tuple[dict[str, Scores], dict[str, str]]:
    """Config -> its scores, and the score that decided when it was run."""
    scores: dict[str, Scores] = defaultdict(lambda: defaultdict(dict))
    defaults = {}
    for file in files:
        for run in json.loads(file.read_text(encoding="utf-8"))["runs"]:
            defaults[run["config"]] = run["metrics"]["primary_score"]
            for name, metrics in run["metrics"]["scores"].items():
                scores[run["config"]][name][run["data"]] = metrics["image_auroc"]
    several = {name for name, found in scores.items() if len(found[defaults[name]]) > 1}
    return {name: scores[name] for name in several}, defaults


def verdict(name: str, scores: Scores, default: str) -> Mapping[str, Any]:
    """The best other score of a model by its mean, and whether the rule takes it."""
    scores = {n: {d: max(value, 0.5) for d, value in on.items()} for n, on in scores.items()}
    before = scores[default]
    gains = {
        other: [found[data] - before[data] for data in before]
        for other, found in scores.items()
        if other != default
    }
    allowed = [o for o, gain in gains.items() if min(gain) >= -LARGEST_LOSS]
    best = max(allowed or gains, key=lambda other: sum(gains[other]))
    gain = gains[best]
    enough = len(before) >= FEWEST_SETS
    taken = enough and best in allowed and mean(gain) >= SMALLEST_GAIN
    return {
        "config": f"`{name}`",
        "data sets": len(before),
        "score so far": f"`{default}`",
        "mean": f"{mean(before.values()):.3f}",
        "best other": f"`{best}`",
        "its mean": f"{mean(scores[best].values()):.3f}",
        "smallest and largest gain": f"{min(gain):+.3f} {max(gain):+.3f}",
        "changed": "yes" if taken else "no",
    }


def details(scores: Scores, default: str) -> list[Mapping[str, Any]]:
    """The best scores of a model with their figures on each data set."""
    order = sorted(scores, key=lambda name: -mean(scores[name].values()))
    shown = order[:SHOWN] + [default] * (default not in order[:SHOWN])
    return [
        {
            "score": f"`{name}`" + (" (so far)" if name == default else ""),
            **{data: f"{value:.3f}" for data, value in sorted(scores[name].items())},
            "mean": f"{mean(scores[name].values()):.3f}",
        }
        for name in shown
    ]


def mean(values: Any) -> float:
    """Of numbers."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    main()
