"""Thresholds and the heat-map scale, from good images that the model has not seen.

Either these were held out of training (``data.holdout``), or every good image is scored by a model
that was trained on the other folds (``data.calibration=cross_fitted``); thresholds then hold for
the final model, which is trained on all of them, since it errs no more than the folds' models do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxad.data.digests import check_unchanged, contents_of
from jaxad.data.table import Sample, SampleTable
from jaxad.evaluation.coarse import joined_with_coarse
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.thresholds import (
    conformal_threshold,
    labelled_threshold,
    odd_limit,
    parse_by_hand,
    pixel_threshold,
    region_threshold,
)
from jaxad.evaluation.unseen import calibration_images, score_unseen
from jaxad.models import architecture
from jaxad.run import schema
from jaxad.run.errors import UserError
from jaxad.run.files import write_csv
from jaxad.run.folder import RunFolder
from jaxad.run.lists import listed_paths
from jaxad.run.text import printable
from jaxad.training.inputs import FEWEST_TO_CROSS_FIT

LARGE_MAP = 2**20
"""Pixels of a map from which on predicted regions have a threshold of their own."""


def uncalibrated(detector: Detector, *, held_out: int, reason: str) -> dict[str, Any]:
    """What calibration.json holds when there is nothing to set a threshold from.

    Args:
      detector: the trained model.
      held_out: number of good images that it was to be set from.
      reason: why there is no threshold, as a clause that goes on from "no threshold:".
    """
    return {
        **_settings(detector),
        "method": None,
        "held_out": held_out,
        "smallest_false_positive_rate": None,
        "promised_false_positive_rate": None,
        "promised_interval": None,
        "held_out_rejected": None,
        "calibrated_threshold": None,
        "image_threshold": None,
        "set_by_hand": "",
        "pixel_threshold": None,
        "region_threshold": None,
        "heat_map_low": None,
        "heat_map_high": None,
        "odd_limit": None,
        "odd_images": [],
        "joined": None,
        "trained_on": None,
        "reason": reason,
    }


def _settings(detector: Detector) -> dict[str, Any]:
    """What a calibration belongs to: it is of no use with other settings."""
    options = detector.config.evaluate
    model = detector.config.model
    detection_only = architecture(model.name).options.detection_only()
    return {
        "checkpoint": detector.step,
        # As JSON gives it back, which knows no tuples: it is compared with what was saved.
        "model": schema.parse(json.dumps({key: model.options[key] for key in detection_only})),
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "smoothing": options.smoothing,
        "region_mask": detector.regions and detector.regions.sha256,
        "coarse": detector.coarse and detector.coarse.sha256,
        "false_positive_rate": options.image_false_positive_rate,
        "pixel_false_positive_rate": options.pixel_false_positive_rate,
    }


def calibrate(
    run: RunFolder, detector: Detector, table: SampleTable | None, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Derives thresholds and scale from good images that the model that scores them has not seen.

    Args:
      run: where the models of cross-fitting are.
      detector: the trained model.
      table: where the images are found; None where there are none.
      record: data.json, which names them.

    Returns:
      What calibration.json holds. Without such images the thresholds and the scale are None, with
      a ``reason``.

    Raises:
      UserError: an image is gone, cannot be read or is another one than in training, or training
        has not finished.
    """
    names = calibration_images(record)
    if table is None or not names:
        return uncalibrated(detector, held_out=0, reason=_why_none(detector, record))
    by_name = {table.relative(s): s for s in table.train_good()}
    missing = [name for name in names if name not in by_name]
    if missing:
        what = "training image" if record.get("folds") else "held-out image"
        raise UserError(
            f"the {what} {missing[0]} is no longer in {table.root}; restore it, or train again"
        )
    samples = [by_name[name] for name in names]
    now = contents_of(table, samples, hashed=bool(record.get("sha256")))
    check_unchanged(record, now, run=run.path)
    known = record.get("pixels", {}) if record["root"] == table.root else {}
    seen = score_unseen(run, detector, samples, record, [known.get(name) for name in names])
    seen, joined = joined_with_coarse(detector, seen, samples, record)
    options = detector.config.evaluate
    threshold = conformal_threshold(seen.scores, options.image_false_positive_rate)
    # A joined pixel exceeds a threshold where either model's does, so they share the rate.
    over = pixel_threshold(seen.pixels, options.pixel_false_positive_rate / seen.models)
    low = float(np.median(seen.pixels))
    limit = odd_limit(seen.scores)
    odd = [i for i in np.argsort(-seen.scores, kind="stable") if seen.scores[i] > limit]
    return {
        **_settings(detector),
        "method": "cross_fitted" if record.get("folds") else "held_out",
        "held_out": len(names),
        "smallest_false_positive_rate": 1.0 / (len(names) + 1),
        "promised_false_positive_rate": threshold.promised,
        "promised_interval": list(threshold.interval),
        "held_out_rejected": threshold.rejected,
        "calibrated_threshold": threshold.value,
        "image_threshold": threshold.value,
        "set_by_hand": "",
        "pixel_threshold": over,
        "region_threshold": (
            region_threshold(seen.peaks, options.image_false_positive_rate)
            if seen.map_pixels >= LARGE_MAP
            else None
        ),
        # Half-way up the scale a pixel is called defective: what is normal stays dark.
        "heat_map_low": low,
        "heat_map_high": low + 2.0 * max(over - low, 1e-12),
        "odd_limit": limit,
        "odd_images": [
            {"path": printable(names[i]), "score": float(f"{seen.scores[i]:.9g}")} for i in odd
        ],
        "joined": joined,
        **_region_digest(detector, samples),
        "trained_on": {
            "brightness": [float(seen.brightness.min()), float(seen.brightness.max())],
            "height": [int(seen.sizes[:, 0].min()), int(seen.sizes[:, 0].max())],
            "width": [int(seen.sizes[:, 1].min()), int(seen.sizes[:, 1].max())],
        },
        "reason": None,
    }


def _region_digest(detector: Detector, samples: Sequence[Sample]) -> dict[str, str]:
    """Of the region masks of a folder that belong to the images of a calibration."""
    if detector.regions is None or detector.regions.every is not None:
        return {}
    return {"region_masks_sha256": detector.regions.digest([sample.path for sample in samples])}


def _of_these_regions(
    detector: Detector,
    table: SampleTable,
    record: Mapping[str, Any],
    calibration: Mapping[str, Any],
) -> bool:
    """Whether the region masks of a folder are those that a calibration was made with."""
    if "region_masks_sha256" not in calibration:
        return True
    by_name = {table.relative(sample): sample for sample in table.train_good()}
    samples = [by_name[name] for name in calibration_images(record) if name in by_name]
    digest = calibration["region_masks_sha256"]
    return _region_digest(detector, samples) == {"region_masks_sha256": digest}


def _why_none(detector: Detector, record: Mapping[str, Any]) -> str:
    if detector.config.data.calibration == "cross_fitted" or detector.model.fit is not None:
        count = len(record["training"])
        if count < FEWEST_TO_CROSS_FIT:
            return (
                f"cross-fitting needs at least {FEWEST_TO_CROSS_FIT} good training images, and "
                f"there are {count}"
            )
    return (
        "no good training image was held out (data.holdout=0), so there is nothing to set a "
        "threshold from"
    )


def saved_calibration(run: RunFolder, detector: Detector) -> dict[str, Any] | None:
    """The run's calibration.json; None when it is missing or of other settings."""
    if not run.calibration.exists():
        return None
    saved = run.read_json(run.calibration)
    fitting = all(saved.get(key) == value for key, value in _settings(detector).items())
    return saved if fitting else None


def calibration_of(run: RunFolder, detector: Detector, table: SampleTable) -> dict[str, Any]:
    """The run's calibration.json, made anew when it is missing or of other settings."""
    calibration = saved_calibration(run, detector)
    record = run.read_json(run.data)
    if calibration is None or not _of_these_regions(detector, table, record, calibration):
        calibration = calibrate(run, detector, table, record)
        save_calibration(run, calibration)
    return calibration


def save_calibration(run: RunFolder, calibration: Mapping[str, Any]) -> None:
    """Writes calibration.json, and odd_images.csv: the good images that are worth a look.

    Behind these the table names the images that the run was trained without, so that a training
    that leaves out the whole table does not take them in again.
    """
    rows = [odd | {"limit": calibration["odd_limit"]} for odd in calibration.get("odd_images", [])]
    excluded = listed_paths(run.read_config().data.exclude, key="data.exclude")
    rows += [{"path": path, "excluded": "before"} for path in excluded]
    write_csv(run.odd_images, ["path", "score", "limit", "excluded"], rows)
    run.write_json(run.calibration, calibration)


def with_threshold_by_hand(
    calibration: Mapping[str, Any],
    asked: str,
    *,
    scores: Float[np.ndarray, " n"] | None = None,
    labels: Bool[np.ndarray, " n"] | None = None,
) -> dict[str, Any]:
    """The calibration with the image threshold of ``evaluate.image_threshold``.

    Args:
      calibration: what calibration.json holds, with this or another threshold.
      asked: the key's value; empty or ``"auto"`` brings the calibrated threshold back.
      scores: of labelled images; None where there are none.
      labels: whether these are anomalous.

    Raises:
      UserError: a rate on labelled images, and there are none.
    """
    by_hand = parse_by_hand(asked)
    calibrated = calibration.get("calibrated_threshold", calibration["image_threshold"])
    if by_hand is None:
        value = calibrated
    elif by_hand.kind == "score":
        value = by_hand.value
    elif scores is not None and labels is not None:
        value = labelled_threshold(by_hand, scores, labels)
    elif calibration.get("set_by_hand") == asked:
        value = calibration["image_threshold"]
    else:
        raise UserError(
            f"evaluate.image_threshold={asked} is set on labelled images; run `jaxad evaluate` "
            "with it on a data set that has test images, or give a score"
        )
    return {
        **calibration,
        "calibrated_threshold": calibrated,
        "image_threshold": value,
        "set_by_hand": asked if by_hand else "",
    }
