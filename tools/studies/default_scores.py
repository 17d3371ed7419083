"""Which map and reduction decides about images: every score of every run, compared over data sets.

    python tools/studies/default_scores.py --output=docs/results/default_scores_cpu.md \
        --results docs/results/small_cpu.json docs/results/variational_cpu.json \
                  docs/results/transformers_cpu.json docs/results/small_sets_cpu.json \
        --before cae:small=l2*ssim:top1 vit_vae:small=mad*ssim:top1

Reads what `collect_results.py` gathered; several seeds of a data set count as their mean. The rule:
a model's default is the score that its config names, or named (``--before``), unless on three data
sets or more another has a higher mean image AUROC by 0.03 and is not lower by more than 0.01 on
any; of several such, one of the same map comes first. Figures below chance count as chance. Only
sets of parts and surfaces with defects count, not one-class sets such as CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxad.report.tables import markdown_table
from jaxad.run.config import load_settings

FEWEST_SETS = 3
SMALLEST_GAIN = 0.03
LARGEST_LOSS = 0.01
CHANCE = 0.5
SHOWN = 5
"""Scores in the table of a model, beside its default."""

Scores = dict[str, dict[str, float]]
"""Score -> data set -> image AUROC."""


def main() -> None:
    """Reads the command line, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--results", nargs="+", required=True, type=pathlib.Path)
    parser.add_argument("--before", nargs="*", default=[], metavar="CONFIG=SCORE",
                        help="defaults that are questioned, if not the config's")  # fmt: skip
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.md")
    arguments = parser.parse_args()
    scores = read(arguments.results)
    before = dict(pair.split("=", 1) for pair in arguments.before)
    named = lambda name: before.get(name) or load_settings(name).evaluate.primary_score
    defaults = {name: named(name) for name in scores}
    rows = [verdict(name, scores[name], defaults[name]) for name in sorted(scores)]
    parts = [f"# {arguments.output.stem}", markdown_table(rows, list(rows[0]))]
    for name in sorted(scores):
        parts.append(f"## `{name}`")
        table = details(scores[name], defaults[name])
        parts.append(markdown_table(table, list(table[0])))
    text = "\n\n".join(parts) + "\n"
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


def read(files: list[pathlib.Path]) -> dict[str, Scores]:
    """Config -> its scores on each data set, a mean over seeds; configs of several sets."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for file in files:
        for run in json.loads(file.read_text(encoding="utf-8"))["runs"]:
            of_config = found.setdefault(run["config"], {})
            for name, metrics in run["metrics"]["scores"].items():
                each = of_config.setdefault(name, {}).setdefault(run["data"], [])
                each.append(max(metrics["image_auroc"], CHANCE))
    scores: dict[str, Scores] = {}
    for config, of_config in found.items():
        sets = set.union(*map(set, of_config.values()))
        if len(sets) > 1:  # scores that not every run has cannot be a default
            scores[config] = {
                name: {data: mean(values) for data, values in on.items()}
                for name, on in of_config.items()
                if set(on) == sets
            }
    return scores


def verdict(name: str, scores: Scores, default: str) -> Mapping[str, Any]:
    """The best other score of a model by its mean, and whether the rule takes it."""
    before = scores[default]
    gains = {
        other: [found[data] - before[data] for data in before]
        for other, found in scores.items()
        if other != default
    }
    allowed = [o for o, gain in gains.items() if min(gain) >= -LARGEST_LOSS]
    passing = [o for o in allowed if mean(gains[o]) >= SMALLEST_GAIN]
    same_map = [o for o in passing if o.rpartition(":")[0] == default.rpartition(":")[0]]
    best = max(same_map or passing or allowed or gains, key=lambda other: sum(gains[other]))
    gain = gains[best]
    taken = len(before) >= FEWEST_SETS and best in passing
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
