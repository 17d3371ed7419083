"""Thresholds and the heat-map scale, from held-out good images alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxad.data.table import SampleTable
from jaxad.evaluation.detector import Detector
from jaxad.models import architecture
from jaxad.run.errors import UserError
from jaxad.run.files import write_json
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import decode


def threshold_at(values: Float[np.ndarray, " n"], rate: float) -> float:
    """The smallest threshold that at most ``rate`` of good values exceed.

    Args:
      values: scores of good images (or pixels), at least one.
      rate: share that may lie strictly above, in [0, 1).

    Returns:
      One of the values, so that "greater than" rejects at most ``floor(rate * n)`` of them.
    """
    # The small addend undoes rounding: 0.29 * 100 is 28.999...
    allowed = int(np.floor(rate * len(values) + 1e-9))
    return float(np.partition(values, len(values) - 1 - allowed)[len(values) - 1 - allowed])


def uncalibrated(detector: Detector, *, held_out: int, reason: str) -> dict[str, Any]:
    """What calibration.json holds when there is nothing to set a threshold from.

    Args:
      detector: the trained model.
      held_out: number of good training images that were held out.
      reason: why there is no threshold, as a clause that goes on from "no threshold:".
    """
    return {
        **_settings(detector),
        "held_out": held_out,
        "smallest_false_positive_rate": None,
        "image_threshold": None,
        "pixel_threshold": None,
        "heat_map_low": None,
        "heat_map_high": None,
        "reason": reason,
    }


def _settings(detector: Detector) -> dict[str, Any]:
    """What a calibration belongs to: it is of no use with other settings."""
    options = detector.config.evaluate
    model = detector.config.model
    return {
        "checkpoint": detector.step,
        "model": {
            option: model.options[option]
            for option in architecture(model.name).options.detection_only()
        },
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "smoothing": options.smoothing,
        "false_positive_rate": options.image_false_positive_rate,
        "pixel_false_positive_rate": options.pixel_false_positive_rate,
    }


def calibrate(
    detector: Detector, table: SampleTable | None, record: dict[str, Any]
) -> dict[str, Any]:
    """Derives thresholds and scale from the run's held-out good images.

    Args:
      detector: the trained model.
      table: where the held-out images are found; None where there are none.
      record: data.json, which names them.

    Returns:
      What calibration.json holds. Without held-out images the thresholds and the scale are None,
      with a ``reason``.

    Raises:
      UserError: a held-out image is gone or cannot be read.
    """
    names = record["holdout"]
    if table is None or not names:
        return uncalibrated(
            detector,
            held_out=0,
            reason="no good training image was held out (data.holdout=0), so there is nothing "
            "to set a threshold from",
        )
    by_name = {table.relative(s): s for s in table.train_good()}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UserError(
            f"the held-out image {missing[0]} is no longer in {table.root}; "
            "restore it, or train again"
        )
    samples = [by_name[name] for name in names]
    images = decode(samples, detector.config.data, tuple(record["range_16bit"]))
    output = detector(images)
    scores = output.scores[detector.primary_score]
    pixels = output.maps[detector.primary_map].ravel()
    options = detector.config.evaluate
    pixel_threshold = threshold_at(pixels, options.pixel_false_positive_rate)
    low = float(np.median(pixels))
    return {
        **_settings(detector),
        "held_out": len(names),
        "smallest_false_positive_rate": 1.0 / len(names),
        "image_threshold": threshold_at(scores, options.image_false_positive_rate),
        "pixel_threshold": pixel_threshold,
        # Half-way up the scale a pixel is called defective: what is normal stays dark.
        "heat_map_low": low,
        "heat_map_high": low + 2.0 * max(pixel_threshold - low, 1e-12),
        "reason": None,
    }


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
    if calibration is None:
        calibration = calibrate(detector, table, run.read_json(run.data))
        write_json(run.calibration, calibration)
    return calibration
