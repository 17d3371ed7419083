"""How many folds a model that leaves images out in closed form should have.

    python tools/studies/left_out.py --output=docs/results/left_out_cpu.json \
        --data bottle=mvtec_ad/bottle screw=mvtec_ad/screw

Fits a config to all good images of each data set, and gives for every number of folds (0: as many
as images) the threshold of good images, the false alarms and the recall on the test images. Beside
them stand the false-positive rate that is promised and the numbers of false alarms that the promise
allows for in 95 of 100 cases, and what the test images alone would allow for: the recall at the
threshold that as many good test images exceed as are promised (``best``; nobody can choose it).
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
from scipy import stats

import jaxad
from jaxad.data.split import split_folds
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import read_inputs
from jaxad.evaluation.thresholds import conformal_threshold
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json
from jaxad.training.inputs import prepare_inputs

RATE = 0.05


def rows_of(name: str, root: str, config: str, folds: list[int]) -> list[dict[str, Any]]:
    """One row per number of folds."""
    with tempfile.TemporaryDirectory() as folder:
        run = jaxad.train(jaxad.load_config(config, {"data.root": root}), folder)
        detector = Detector.load(folder)
        test = read_inputs(run, detector.config, None)
        tested = detector(test.images).scores[detector.primary_score]
        images = prepare_inputs(detector.config, closed_form=True).train
    label = np.array([bool(sample.label) for sample in test.samples])
    good, bad = tested[~label], tested[label]
    rows = []
    for count in folds:
        begun, scores = time.process_time(), np.empty(len(images))
        dealt = split_folds(len(images), folds=count or len(images), seed=0)
        for unseen in detector.left_out(images, dealt):
            scores[unseen.places] = unseen.scores[detector.primary_score]
        found = conformal_threshold(scores, RATE)
        k, n = found.rejected, len(scores)
        low, high = stats.betabinom.interval(0.95, len(good), k + 1, n - k)
        best = np.sort(good)[::-1][min(round(found.promised * len(good)), len(good) - 1)]
        rows.append(
            {
                "data": name,
                "config": config,
                "good_images": n,
                "folds": len(np.unique(dealt)),
                "mean_score": float(scores.mean()),
                "mean_of_good_test_images": float(good.mean()),
                "threshold": found.value,
                "promised": found.promised,
                "false_alarms": int(np.sum(good > found.value)),
                "good_test_images": len(good),
                "allowed": [int(low), int(high)],
                "found": int(np.sum(bad > found.value)),
                "defective": len(bad),
                "best": int(np.sum(bad > best)),
                "processor_seconds": time.process_time() - begun,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Reads the command line, prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--configs", nargs="+", default=["feature_pca"])
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--folds", nargs="+", type=int, default=[5, 10, 20, 50])
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for named in arguments.data:
        name, _, root = named.partition("=")
        for config in arguments.configs:
            rows += rows_of(name, root, config, arguments.folds)
            write_json(arguments.output, {"processor": processor_name(), "rows": rows})


if __name__ == "__main__":
    main()
