"""Evaluation of a run on its test images: metrics.json, scores.csv, calibration.json, report."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad import metrics
from jaxad.data.masks import read_truth
from jaxad.data.region import stated
from jaxad.data.table import Sample, SampleTable
from jaxad.evaluation.calibration import calibration_of
from jaxad.evaluation.detector import REDUCTIONS, Detector, Findings, override_detection
from jaxad.evaluation.learned import ask
from jaxad.evaluation.names import printable
from jaxad.evaluation.presentation import Curves, Masks, make_case, pictured, present
from jaxad.evaluation.protocols.judging import judge_run
from jaxad.evaluation.resize import at_size
from jaxad.evaluation.streaming import Again, LazyMasks, above, required_mb, stream
from jaxad.report.content import ScoreRow
from jaxad.run import config as config_lib
from jaxad.run.errors import UserError
from jaxad.run.files import write_csv, write_json, write_text
from jaxad.run.folder import RunFolder
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
      overrides: ``evaluate.*`` keys, and of ``model.*`` those that detection alone reads
        (:func:`jaxad.models.detection_keys`), to change; once they have worked they are kept in
        the run's config, for every later evaluation and prediction.

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
    calibration = calibration_of(run, detector, table)
    read = functools.partial(read_masks, config=detector.config)
    if required_mb(detector, samples) > detector.config.evaluate.memory_limit_mb:
        pairs, threshold = map_score_pairs(detector), calibration["pixel_threshold"]
        streamed = stream(detector, images, samples, read, pairs, pixel_threshold=threshold)
        findings, masks = Again(detector, images, streamed.scores), LazyMasks(samples, read)
        figures, curves = streamed.figures, streamed.curves
    else:
        masks, findings = read(samples), detector(images)
        figures, curves = judge_maps(
            detector, findings, samples, masks, pixel_threshold=calibration["pixel_threshold"]
        )
    result = judge(detector, findings.scores, samples, figures)
    result |= judge_run(
        findings, samples, detector.config.evaluate, result, region=detector.config.data.region
    )
    result |= {
        "image_threshold": calibration["image_threshold"],
        "pixel_threshold": calibration["pixel_threshold"],
    }
    if overrides:
        write_text(run.config, config_lib.to_json(override_detection(run.read_config(), overrides)))
    write_json(run.metrics, result)
    rows = score_rows(table, samples, findings.scores[detector.primary_score], calibration)
    write_scores(run, rows)
    case = lambda i: make_case(i, rows[i], detector, calibration, images, findings, masks)
    if isinstance(findings, Again):
        findings.fetch(pictured(rows, detector.config.evaluate.report_images))
    learned = ask(detector, table, record, samples, images, findings)
    present(run, detector.config, calibration, result, rows, case, learned, curves)
    return result


def run_table(run: RunFolder, config: ConfigDict, data_root: str | None) -> SampleTable:
    """The sample table of a run, at its own place or where the data set is now."""
    data = config.data.copy_and_resolve_references()
    if data_root is not None:
        with data.unlocked():
            data.root = data_root
    return open_table(data)


def read_masks(samples: Sequence[Sample], config: ConfigDict) -> Masks:
    """Ground truth at the resolution of the evaluation; None where a defective image has none.

    It is that of the region which the model sees. A defect that lies wholly outside leaves an
    empty mask: the pixels that are there are normal, and the image stays an anomalous one.

    Raises:
      UserError: a mask does not fit its image, or marks a defect on a good one.
    """
    at_model_size = config.evaluate.resolution == "model"
    size = tuple(config.data.image_size) if at_model_size else None
    region = tuple(config.data.region)
    return [read_truth(sample, image_size=size, region=region) for sample in samples]


def map_score_pairs(detector: Detector) -> list[tuple[str, str]]:
    """(map, image score) whose figures stand in metrics.json, the primary ones first."""
    reduction = detector.primary_score.rpartition(":")[2]
    reduction = reduction if reduction in REDUCTIONS else "max"
    pairs = [(name, f"{name}:{reduction}") for name in detector.maps]
    return [(detector.primary_map, detector.primary_score), *pairs]


def judge_maps(
    detector: Detector,
    findings: Findings,
    samples: list[Sample],
    masks: Masks,
    *,
    pixel_threshold: float | None,
) -> tuple[dict[tuple[str, str], dict[str, Any]], Curves]:
    """Figures of every map, and the curves of the primary one, to which the threshold belongs."""
    pairs = map_score_pairs(detector)
    has_masks = any(s.mask is not None for s in samples)
    resized = lambda name: [
        at_size(m, mask) for m, mask in zip(findings.maps[name], masks, strict=True)
    ]
    figures = {
        (map_name, score_name): metrics.evaluate_maps(
            resized(map_name),
            masks if has_masks else None,
            labels=np.array([s.label for s in samples]),
            image_scores=findings.scores[score_name],
            limit=detector.config.evaluate.aupro_limit,
            defects=[s.defect for s in samples],
            threshold=above(pixel_threshold) if (map_name, score_name) == pairs[0] else None,
            memory_limit_mb=math.inf,
        )
        for map_name, score_name in dict.fromkeys(pairs)
    }
    marked = [i for i, mask in enumerate(masks) if mask is not None]
    maps = resized(detector.primary_map)
    try:
        curves = metrics.pixel_curves([maps[i] for i in marked], [masks[i] for i in marked])
    except metrics.UndefinedMetric:
        curves = {}
    return figures, curves


def judge(
    detector: Detector,
    scores: Mapping[str, np.ndarray],
    samples: list[Sample],
    figures: Mapping[tuple[str, str], dict[str, Any]],
) -> dict[str, Any]:
    """All metrics of all maps and scores: the content of metrics.json without the thresholds."""
    options = detector.config.evaluate
    labels = np.array([s.label for s in samples])
    pairs = map_score_pairs(detector)
    primary = figures[pairs[0]]
    per_map = {pair[0]: figures[pair] for pair in pairs[1:]}
    aside = ("method", "counts", "per_defect", "regions", "undefined", "brackets")
    brackets = {
        f"maps.{name}.{k}": v
        for name, one in per_map.items()
        for k, v in one["brackets"].items()
        if not k.startswith("per_defect.")
    }
    return {
        "protocol": options.protocol,
        "checkpoint": detector.step,
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "resolution": options.resolution,
        **stated(detector.config.data.region),
        "smoothing": options.smoothing,
        "mask_rule": "nearest neighbour, above zero is defective",
        "aupro_limit": options.aupro_limit,
        **primary,
        "brackets": primary["brackets"] | brackets,
        "maps": {
            name: {k: v for k, v in one.items() if k not in aside} for name, one in per_map.items()
        },
        "scores": {name: metrics.image_metrics(labels, s)[0] for name, s in scores.items()},
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
    texts = [
        row._asdict()
        | {
            "score": f"{row.score:.9g}",
            "decision": None if row.decision is None else int(row.decision),
        }
        for row in rows
    ]
    write_csv(run.scores, ScoreRow._fields, texts)
