"""Held out or cross-fitted: how far thresholds and what they decide hang on the split.

    python tools/studies/calibration.py --output=docs/results/calibration_cpu.json \
        --data bottle=mvtec_ad/bottle transistor=mvtec_ad/transistor

Fits a closed-form config with several seeds of the split, twice each: a tenth of the good images
held out, the threshold at the largest score that 5 % of them may exceed (``before``: the rule until
cross-fitting came); and cross-fitted on all of them (``after``). Per data set and method it gives
the smallest and largest threshold over the seeds, the false alarms and the recall on the test
images, the false-positive rate that is promised, and the number of false alarms that the promise
allows for in 95 of 100 cases (beta-binomial). A data set that the output holds is not measured
again. The table goes beside the JSON file as .md.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

import jaxad
from jaxad.evaluation.calibration import calibration_of
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import read_inputs
from jaxad.report.tables import markdown_table
from jaxad.run import environment
from jaxad.run.files import write_json
from jaxad.training.inputs import prepare_inputs

METHODS = ("before", "after")


class Outcome(NamedTuple):
    """One seed of one method on one data set.

    Attributes:
      threshold: of the image score.
      good: number of good images that it comes from.
      rejected: how many of these exceed it.
      alarms: good test images over it.
      fine: good test images.
      found: defective test images over it.
      bad: defective test images.
    """

    threshold: float
    good: int
    rejected: int
    alarms: int
    fine: int
    found: int
    bad: int

    @property
    def promised(self) -> float:
        """The expected false-positive rate."""
        return (self.rejected + 1) / (self.good + 1)

    @property
    def allowed(self) -> tuple[int, int]:
        """False alarms among the good test images that the promise allows for."""
        k, n = self.rejected, self.good
        low, high = stats.betabinom.interval(0.95, self.fine, k + 1, n - k)
        return int(low), int(high)


def main() -> None:
    """Reads the command line, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default="pca", help="in closed form (default: pca)")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default 5)")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")
    arguments = parser.parse_args()
    measured: list[dict[str, Any]] = []
    if arguments.output.exists():
        measured = json.loads(arguments.output.read_text(encoding="utf-8"))["measured"]
    for named in arguments.data:
        name, _, root = named.partition("=")
        for method in METHODS:
            what = {"config": arguments.config, "data": name, "method": method}
            if any(what.items() <= found.items() for found in measured):
                continue
            outcomes = [one(arguments.config, root, s, method) for s in range(arguments.seeds)]
            measured.append(what | {"seeds": [outcome._asdict() for outcome in outcomes]})
            described = environment.describe(0)
            machine = {k: described[k] for k in ("versions", "platform", "processor", "devices")}
            record = {"made_by": "tools/studies/calibration.py", "machine": machine}
            write_json(arguments.output, record | {"measured": measured})
            print(summary(name, method, outcomes), flush=True)
    rows = [
        {"config": f"`{found['config']}`"}
        | summary(found["data"], found["method"], [Outcome(**seed) for seed in found["seeds"]])
        for found in measured
    ]
    table = markdown_table(rows, list(rows[0]))
    print(table)
    arguments.output.with_suffix(".md").write_text(
        f"# {arguments.output.stem}\n\n{table}\n", encoding="utf-8"
    )


def one(config: str, root: str, seed: int, method: str) -> Outcome:
    """Fits and judges one run."""
    keys: dict[str, Any] = {"data.root": root, "seed": seed, "train.devices": 1}
    if method == "before":
        keys |= {"data.holdout": 0.1, "data.calibration": "held_out"}
    with tempfile.TemporaryDirectory() as folder:
        run = jaxad.train(jaxad.load_config(config, keys), folder)
        detector = Detector.load(folder)
        test = read_inputs(run, detector.config, None)
        score = detector.primary_score
        if method == "before":
            held_out = np.sort(detector(prepare_inputs(detector.config).holdout).scores[score])
            rejected = int(0.05 * len(held_out) + 1e-9)
            threshold, good = float(held_out[-1 - rejected]), len(held_out)
        else:
            calibration = calibration_of(run, detector, test.table)
            threshold, good = calibration["image_threshold"], calibration["held_out"]
            rejected = calibration["held_out_rejected"]
        over = detector(test.images).scores[score] > threshold
    label = np.array([bool(sample.label) for sample in test.samples])
    counts = (over & ~label).sum(), (~label).sum(), (over & label).sum(), label.sum()
    return Outcome(threshold, good, rejected, *map(int, counts))


def summary(name: str, method: str, outcomes: list[Outcome]) -> Mapping[str, Any]:
    """A row of the table."""
    first = outcomes[0]
    thresholds = [one.threshold for one in outcomes]
    within = sum(one.allowed[0] <= one.alarms <= one.allowed[1] for one in outcomes)
    return {
        "data": name,
        "method": method,
        "good images": first.good,
        "threshold": f"{min(thresholds):.4g} to {max(thresholds):.4g}",
        "largest / smallest": f"{max(thresholds) / min(thresholds):.2f}",
        "false alarms": _range([one.alarms for one in outcomes], first.fine),
        "recall": _range([one.found for one in outcomes], first.bad),
        "promised": f"{100 * first.promised:.1f} %",
        "allowed alarms": f"{first.allowed[0]} to {first.allowed[1]}",
        "seeds within": f"{within} of {len(outcomes)}",
    }


def _range(counts: list[int], whole: int) -> str:
    """As 2 to 7 of 20 (18 %), the mean in percent."""
    return f"{min(counts)} to {max(counts)} of {whole} ({100 * np.mean(counts) / whole:.1f} %)"


if __name__ == "__main__":
    main()
