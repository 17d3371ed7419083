"""Keys and thresholds that a run keeps although no test image measures them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jaxad.data.region_mask import keep_region_mask
from jaxad.evaluation.calibration import calibration_of, with_threshold_by_hand
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import run_table
from jaxad.evaluation.open_keys import override_detection
from jaxad.run.coarse import keep_coarse
from jaxad.run.files import together
from jaxad.run.folder import RunFolder


def keep_keys(
    workdir: str | os.PathLike,
    overrides: Mapping[str, Any],
    *,
    checkpoint: str = "last",
    data_root: str | None = None,
) -> dict[str, Any]:
    """Changes keys of a run as :func:`jaxad.evaluate` does, where no test image measures it.

    Args:
      workdir: the run folder.
      overrides: as of :func:`jaxad.evaluate`, like the next.
      checkpoint: which thresholds are calibrated for.
      data_root: where the good images are now.

    Returns:
      What calibration.json holds.

    Raises:
      UserError: as of :func:`jaxad.evaluate`; a threshold is asked for as a rate on labelled
        images.
    """
    run = RunFolder(workdir)
    detector = Detector.load(workdir, checkpoint=checkpoint, overrides=overrides)
    with together():
        table = run_table(detector.config, data_root)
        asked = detector.config.evaluate.image_threshold
        calibration = with_threshold_by_hand(calibration_of(run, detector, table), asked)
        write_keys(run, overrides)
        run.write_json(run.calibration, calibration)
    return calibration


def write_keys(run: RunFolder, overrides: Mapping[str, Any]) -> None:
    """Writes keys into the run's config, and copies what they name into the run folder.

    Raises:
      UserError: a key or value is wrong, or a file cannot be read or written.
    """
    config = override_detection(run.read_config(), overrides)
    run.write_config(keep_coarse(run, keep_region_mask(run, config)))
