"""Whether drawn defects rank models as real ones do, and what choosing by them costs.

    python tools/studies/select_models.py --output=docs/results/select_cpu.json --work=DIR \
        --data bottle=mvtec_ad/bottle transistor=mvtec_ad/transistor

On every data set `jaxad.select` ranks models by good training images alone; then the same fitted
models judge the real test images (at most 200, spread evenly over the kinds). The table gives the
rank correlation (Spearman) of both figures over all scores of all models and over models, each by
its config's own score, the image AUROC by real defects of what was chosen, the best there is, and
the points between them. An interrupted study goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from scipy import stats

import jaxad
from jaxad import metrics
from jaxad.data.images import spread
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import run_table
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json
from jaxad.selection.candidates import CANDIDATES
from jaxad.selection.ranking import Row
from jaxad.selection.records import SelectionFolder
from jaxad.training.inputs import decode

MOST = 200


def real_figures(folder: SelectionFolder, candidate: str) -> dict[str, float]:
    """Score of a candidate -> AUROC on the real test images, mean over its splits."""
    found: dict[str, list[float]] = {}
    number = 0
    while (run := folder.run(candidate, number)).has_checkpoint():
        detector = Detector.load(run.path)
        samples = spread(list(run_table(detector.config, None).test()), MOST)
        images = decode(
            samples, detector.config.data, tuple(run.read_json(run.data)["range_16bit"])
        )
        labels = [sample.label for sample in samples]
        scores = [output.scores for output in detector.batches(images)]
        for name in scores[0]:
            values = np.concatenate([one[name] for one in scores])
            found.setdefault(name, []).append(metrics.auroc(labels, values))
        number += 1
    return {name: float(np.mean(values)) for name, values in found.items()}


def rows_of(root: str, work: pathlib.Path, count: int) -> dict[str, Any]:
    """What one data set gives."""
    found = jaxad.select(root, work, minutes=600, configs=CANDIDATES[:count])
    cache = work / "real.json"
    real = json.loads(cache.read_text()) if cache.exists() else {}
    for candidate in dict.fromkeys(row.candidate for row in found.rows):
        if candidate not in real:
            real[candidate] = real_figures(found.folder, candidate)
            write_json(cache, real)
    own = {
        one.name: one.settings({}).evaluate.primary_score for one in CANDIDATES if one.name in real
    }
    return {
        "chosen": [found.chosen.candidate, found.chosen.score],
        "real": real,
        "own_scores": own,
        "rows": [_as_record(row) for row in found.rows],
    }


def _as_record(row: Row) -> dict[str, Any]:
    kept = ("candidate", "map", "score", "kinds", "value", "low", "high", "behind_low",
            "behind_high", "pixel_auroc", "seconds", "milliseconds")  # fmt: skip
    return {name: getattr(row, name) for name in kept}


def summary(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """One line of the table, figures in percent."""
    rows, real = found["rows"], found["real"]
    drawn = [row["value"] for row in rows]
    actual = [real[row["candidate"]][row["score"]] for row in rows]
    own = [row for row in rows if found["own_scores"][row["candidate"]] == row["score"]]
    own_actual = [real[row["candidate"]][row["score"]] for row in own]
    candidate, score = found["chosen"]
    chosen = real[candidate][score]
    best = int(np.argmax(actual))
    return {
        "data": name,
        "models": len(own),
        "scores": len(rows),
        "correlation_of_scores": float(stats.spearmanr(drawn, actual).statistic),
        "correlation_of_models": float(
            stats.spearmanr([row["value"] for row in own], own_actual).statistic
        ),
        "chosen": f"{candidate} {score}",
        "chosen_auroc": 100 * chosen,
        "best": f"{rows[best]['candidate']} {rows[best]['score']}",
        "best_auroc": 100 * actual[best],
        "points_below": 100 * (actual[best] - chosen),
        "median_auroc": 100 * float(np.median(actual)),
        "not_clearly_behind": sum(row["behind_low"] <= 0 for row in rows),
        "seconds": sum({row["candidate"]: row["seconds"] for row in rows}.values()),
    }


def table_of(lines: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    out = [
        "| data | scores | rank correlation: scores, models | chosen | image AUROC | best | points "
        "below |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in lines:
        out.append(
            f"| {one['data']} | {one['scores']} of {one['models']} models | "
            f"{one['correlation_of_scores']:.2f}, {one['correlation_of_models']:.2f} | "
            f"`{one['chosen']}` | {one['chosen_auroc']:.1f} | `{one['best']}` "
            f"{one['best_auroc']:.1f} | {one['points_below']:.1f} |"
        )
    return "\n".join(out)


def main() -> None:
    """Reads the command line, prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="of the selections")
    parser.add_argument("--count", type=int, default=len(CANDIDATES), help="of models tried")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    sets: dict[str, Any] = {}
    for named in arguments.data:
        name, _, root = named.partition("=")
        sets[name] = rows_of(root, arguments.work / name, arguments.count)
        lines = [summary(one, found) for one, found in sets.items()]
        write_json(
            arguments.output, {"processor": processor_name(), "summary": lines, "sets": sets}
        )
        print(table_of(lines), flush=True)


if __name__ == "__main__":
    main()
