"""Evaluation of a run on its test images: metrics.json, scores.csv, calibration.json, report."""

from __future__ import annotations

import csv
import functools
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad import config as config_lib, metrics
from jaxad.data.images import image_dimensions, read_mask
from jaxad.data.table import Sample, SampleTable
from jaxad.errors import UserError
from jaxad.evaluation.calibration import calibration_of
from jaxad.evaluation.detector import REDUCTIONS, Detector, Findings, override_evaluation
from jaxad.evaluation.judging import judge_run
from jaxad.evaluation.learned import ask
from jaxad.evaluation.names import printable
from jaxad.evaluation.presentation import Masks, make_case, present
from jaxad.evaluation.resize import at_size
from jaxad.report.content import ScoreRow
from jaxad.run_folder import RunFolder, write_json, write_text
from jaxad.training.inputs import decode, open_table


def evaluate(
    workdir: str | os.PathLike,
    *,
    checkpoint: str = "last",
    data_root: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluates a run on the test images of its data set.

    Args:
      workdir: the run folder.
      checkpoint: ``"last"``, ``"best"`` or a step number.
      data_root: where the data set is now, when it has moved since training.
      overrides: ``evaluate.*`` keys to change; once they have worked they are kept in the run's
        config, for every later evaluation and prediction.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: it is no run folder, the data set has no test image, or a file cannot be read.
    """
    run = RunFolder(workdir)
    detector = Detector.load(workdir, checkpoint=checkpoint, overrides=overrides)
    table = run_table(run, detector.config, data_root)
    samples = list(table.test())
    if not samples:
        raise UserError(
            f"{table.root} holds no test images, so there is nothing to evaluate; "
            "`jaxad predict` scores any images"
        )
    record = run.read_json(run.data)
    images = decode(samples, detector.config.data, tuple(record["range_16bit"]))
    masks = read_masks(samples, detector.config)
    calibration = calibration_of(run, detector, table)
    findings = detector(images)
    result = judge(detector, findings, samples, masks)
    result |= judge_run(findings, samples, detector.config.evaluate, result)
    result |= {
        "image_threshold": calibration["image_threshold"],
        "pixel_threshold": calibration["pixel_threshold"],
    }
    if overrides:
        write_text(
            run.config, config_lib.to_json(override_evaluation(run.read_config(), overrides))
        )
    write_json(run.metrics, result)
    rows = score_rows(table, samples, findings.scores[detector.primary_score], calibration)
    write_scores(run, rows)
    case = lambda i: make_case(i, rows[i], detector, calibration, images, findings, masks)
    learned = ask(detector, table, record, samples, images, findings)
    present(run, detector.config, calibration, result, rows, case, learned)
    return result


def run_table(run: RunFolder, config: ConfigDict, data_root: str | None) -> SampleTable:
    """The sample table of a run, at its own place or where the data set is now."""
    data = config.data.copy_and_resolve_references()
    if data_root is not None:
        with data.unlocked():
            data.root = data_root
    return open_table(data)


def read_masks(samples: list[Sample], config: ConfigDict) -> Masks:
    """Ground truth at the resolution of the evaluation; None where a defective image has none.

    Raises:
      UserError: a mask does not fit its image, or marks a defect on a good one.
    """
    at_model_size = config.evaluate.resolution == "model"
    masks: Masks = []
    for sample in samples:
        dimensions = image_dimensions(sample.path)
        size = tuple(config.data.image_size) if at_model_size else dimensions
        if sample.mask is not None:
            mask = read_mask(sample.mask, image_size=size, expected_size=dimensions)
            if mask.any() and not sample.label:
                raise UserError(
                    f"{sample.mask} marks a defect on {sample.path}, which is in a folder of good "
                    "images; empty the mask, or move the image to its kind of defect"
                )
            masks.append(mask)
        else:
            masks.append(None if sample.label else np.zeros(size, bool))
    return masks


def judge(
    detector: Detector, findings: Findings, samples: list[Sample], masks: Masks
) -> dict[str, Any]:
    """All metrics of all maps and scores: the content of metrics.json without the thresholds."""
    options = detector.config.evaluate
    labels = np.array([s.label for s in samples])
    kinds = [s.defect for s in samples]
    reduction = detector.primary_score.rpartition(":")[2]
    reduction = reduction if reduction in REDUCTIONS else "max"
    has_masks = any(s.mask is not None for s in samples)

    @functools.cache
    def figures(map_name: str, score_name: str) -> dict[str, Any]:
        maps = [at_size(m, mask) for m, mask in zip(findings.maps[map_name], masks, strict=True)]
        return metrics.evaluate_maps(
            maps,
            masks if has_masks else None,
            labels=labels,
            image_scores=findings.scores[score_name],
            limit=options.aupro_limit,
            defects=kinds,
        )

    primary = figures(detector.primary_map, detector.primary_score)
    per_map = {name: figures(name, f"{name}:{reduction}") for name in findings.maps}
    per_score = {
        name: metrics.image_metrics(labels, scores)[0] for name, scores in findings.scores.items()
    }
    return {
        "protocol": options.protocol,
        "checkpoint": detector.step,
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "resolution": options.resolution,
        "smoothing": options.smoothing,
        "mask_rule": "nearest neighbour, above zero is defective",
        "aupro_limit": options.aupro_limit,
        **primary,
        "maps": {
            name: {k: v for k, v in one.items() if k not in ("counts", "per_defect", "undefined")}
            for name, one in per_map.items()
        },
        "scores": per_score,
    }


def score_rows(
    table: SampleTable, samples: list[Sample], scores: np.ndarray, calibration: Mapping[str, Any]
) -> list[ScoreRow]:
    """One row per test image, in the table's order."""
    threshold = calibration["image_threshold"]
    return [
        ScoreRow(
            path=printable(table.relative(sample)),
            label=sample.label,
            defect=sample.defect,
            score=float(score),
            decision=None if threshold is None else bool(score > threshold),
        )
        for sample, score in zip(samples, scores, strict=True)
    ]


def write_scores(run: RunFolder, rows: list[ScoreRow]) -> None:
    """Writes scores.csv: path, label, defect, score, decision (1 = rejected, empty = none)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(ScoreRow._fields)
    for row in rows:
        decision = "" if row.decision is None else int(row.decision)
        writer.writerow([row.path, row.label, row.defect, f"{row.score:.9g}", decision])
    write_text(run.scores, buffer.getvalue())
