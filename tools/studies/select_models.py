"""Whether drawn defects rank models as real ones do, and what choosing by them costs.

    python tools/studies/select_models.py --output=docs/results/select_cpu.json --work=DIR \
        --data bottle=mvtec_ad/bottle transistor=mvtec_ad/transistor

On every data set `jaxad.select` ranks models by good training images alone; then the same fitted
models judge the real test images (at most 200, spread evenly over the kinds). The table gives, for
all models and for those without pretrained weights, the rank correlation (Spearman) of both figures
over all scores of all models, and over models, each by its config's own score; the image AUROC by
real defects of what was chosen, of the best there is, and the points between them; and the same
points for the row of the highest figure, whatever the usual order. An interrupted study goes on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

import jaxad
from jaxad import metrics
from jaxad.data.images import spread
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import run_table
from jaxad.report.tables import format_value
from jaxad.run.environment import describe, processor_name
from jaxad.run.files import write_json
from jaxad.selection.candidates import CANDIDATES
from jaxad.selection.ranking import Row, choose, rank
from jaxad.selection.records import RESULT, TRIAL, SelectionFolder, read_record
from jaxad.selection.trial import Split
from jaxad.training.inputs import decode

MOST = 200
PRETRAINED = ("feature_pca", "restore:pretrained")
GROUPS = {"all": lambda name: True, "no weights": lambda name: not name.startswith(PRETRAINED)}

Real = Mapping[str, Mapping[str, float]]
"""Candidate -> score -> AUROC on real test images."""


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


def run_on(root: str, folder: SelectionFolder, models: Sequence[str]) -> None:
    """Selects on one data set, and has the models judge its real defects."""
    candidates = [one for one in CANDIDATES if one.name in models]
    found = jaxad.select(root, folder.path, minutes=600, configs=candidates)
    file = folder.path / "real.json"
    real = json.loads(file.read_text()) if file.exists() else {}
    for candidate in dict.fromkeys(row.candidate for row in found.rows):
        if candidate not in real:
            real[candidate] = real_figures(found.folder, candidate)
            write_json(file, real)


def splits_of(folder: SelectionFolder) -> list[Split]:
    """Which defect was drawn on which image; without the images, which a ranking does not need."""
    trial = read_record(folder.trial, TRIAL)
    assert trial is not None
    return [
        Split(
            one["seed"],
            tuple(one["left_out"]),
            np.zeros((len(one["left_out"]), 1, 1, 1), np.uint8),
            np.array(one["drawn_on"]),
            tuple(one["kinds"]),
            np.zeros((len(one["kinds"]), 1, 1, 1), np.uint8),
            np.zeros((len(one["kinds"]), 1, 1), bool),
        )
        for one in trial["splits"]
    ]


def ranked(folder: SelectionFolder, real: Real) -> dict[str, list[Row]]:
    """The ranking of each group of models that were judged by real defects too."""
    splits, found = splits_of(folder), {}
    flattered = [one.name for one in CANDIDATES if one.trained_on_drawn_defects]
    read = lambda name: read_record(folder.result(name), RESULT)
    for group, belongs in GROUPS.items():
        names = [one.name for one in CANDIDATES if one.name in real and belongs(one.name)]
        results = [result for name in names if (result := read(name))]
        found[group] = rank(results, splits, flattered=flattered)
    return found


def summary(data: str, group: str, rows: Sequence[Row], real: Real) -> dict[str, Any]:
    """One line of the table, figures in percent."""
    actual = [100 * real[row.candidate][row.score] for row in rows]
    own = [i for i, row in enumerate(rows) if row.own]

    def correlation(places: Sequence[int]) -> float | None:
        drawn, by_real = [rows[i].value for i in places], [actual[i] for i in places]
        if min(len(set(drawn)), len(set(by_real))) < 2:
            return None
        return float(stats.spearmanr(drawn, by_real).statistic)

    chosen, best = rows.index(choose(rows)), int(np.argmax(actual))
    name = lambda i: f"{rows[i].candidate} {rows[i].score}"
    return {
        "data": data,
        "models": group,
        "count": len(own),
        "scores": len(rows),
        "correlation_of_scores": correlation(range(len(rows))),
        "correlation_of_models": correlation(own),
        "chosen": name(chosen),
        "chosen_auroc": actual[chosen],
        "best": name(best),
        "best_auroc": actual[best],
        "points_below": actual[best] - actual[chosen],
        "points_below_by_figure_alone": actual[best] - actual[0],
        "median_auroc": float(np.median(actual)),
        "models_not_clearly_behind": len({r.candidate for r in rows if not r.clearly_behind}),
        "seconds": sum({row.candidate: row.seconds for row in rows}.values()),
    }


def record_of(row: Row, real: Real) -> dict[str, Any]:
    """A row of the ranking with its figure by real defects."""
    kept = ("candidate", "map", "score", "own", "kinds", "value", "low", "high", "behind_low",
            "behind_high", "pixel_auroc", "seconds", "milliseconds")  # fmt: skip
    return {name: getattr(row, name) for name in kept} | {"real": real[row.candidate][row.score]}


def table_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    out = [
        "| data | models | rank correlation: scores, models | chosen | image AUROC | best there is "
        "| points below | by the figure alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in lines:
        correlations = ", ".join(
            format_value(one[f"correlation_of_{what}"], digits=2) for what in ("scores", "models")
        )
        out.append(
            f"| {one['data']} | {one['models']} | {correlations} | `{one['chosen']}` | "
            f"{one['chosen_auroc']:.1f} | `{one['best']}` {one['best_auroc']:.1f} | "
            f"{one['points_below']:.1f} | {one['points_below_by_figure_alone']:.1f} |"
        )
    return "\n".join(out)


def main() -> None:
    """Reads the command line, prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="of the selections")
    parser.add_argument("--models", nargs="+", default=[one.name for one in CANDIDATES],
                        help="that are tried, by the names of tables")  # fmt: skip
    parser.add_argument("--rank-only", action="store_true", help="what was judged before")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    lines, rows = [], {}
    for named in arguments.data:
        data, _, root = named.partition("=")
        folder = SelectionFolder(arguments.work / data)
        if not arguments.rank_only:
            run_on(root, folder, arguments.models)
        real = json.loads((folder.path / "real.json").read_text())
        found = ranked(folder, real)
        lines += [summary(data, group, of, real) for group, of in found.items()]
        rows[data] = [record_of(row, real) for row in found["all"]]
        made = {"processor": processor_name(), "commit": describe(0)["commit"]}
        values = {**made, "summary": lines, "rows": rows}
        write_json(arguments.output, values)
    print(table_of(lines), flush=True)


if __name__ == "__main__":
    main()
