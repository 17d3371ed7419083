"""A detector of tiles and one of whole photographs as one (``evaluate.coarse``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxad.data.table import Sample
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.joining import Coarse, Ranges
from jaxad.evaluation.unseen import Seen, calibration_images, score_unseen
from jaxad.run.coarse import CoarseRun
from jaxad.run.errors import UserError


def with_coarse(detector: Detector, calibration: Mapping[str, Any]) -> Detector:
    """The detector that judges by both models; the same one where there is no coarse model.

    Args:
      detector: of tiles.
      calibration: what calibration.json holds.

    Raises:
      UserError: there are no good images from which the two could have a common unit.
    """
    if detector.coarse is None:
        return detector
    joined = calibration.get("joined")
    if joined is None:
        raise UserError(
            "evaluate.coarse joins two models by what unseen good images give, and there are none: "
            f"{calibration['reason']}; leave evaluate.coarse empty, or keep some"
        )
    whole = load_coarse(detector, detector.coarse)

    def judge(
        images: UInt8[np.ndarray, "1 h w c"], path: str | None
    ) -> tuple[Float[np.ndarray, "h w"], float]:
        (output,) = whole.batches(images, whole.size_for(1), whole.inside_of([path]))
        (values,) = output.maps[whole.primary_map]
        return values, float(output.scores[whole.primary_score][0])

    own, tiles = Ranges.of_json(joined["coarse"]), Ranges.of_json(joined["tiles"])
    primary = detector.primary_map, detector.primary_score
    return detector.joined_to(Coarse(judge, whole.config.data.image_size, own, tiles, primary))


def load_coarse(detector: Detector, coarse: CoarseRun) -> Detector:
    """The coarse model, which judges the same part of a photograph.

    Args:
      detector: of tiles.
      coarse: the run of the other.

    Raises:
      UserError: its score is of whole images, and a region mask does not reach it.
    """
    whole = Detector.load(coarse.run.path)
    whole.regions = detector.regions
    if detector.regions is not None and ":" not in whole.primary_score:
        raise UserError(
            f"the score {whole.primary_score!r} of evaluate.coarse is of whole images, which "
            "evaluate.region_mask does not reach; train it with a score of its map"
        )
    return whole


def joined_with_coarse(
    detector: Detector, tiles: Seen, samples: Sequence[Sample], record: Mapping[str, Any]
) -> tuple[Seen, dict[str, Any] | None]:
    """What good images give when they are judged by both models.

    Args:
      detector: of tiles.
      tiles: what they give when they are judged by it alone.
      samples: the images.
      record: data.json of its run.

    Returns:
      The scores, peaks and pixels that are joined, and what calibration.json holds of the two
      models' ranges; ``tiles`` and None where there is no coarse model.

    Raises:
      UserError: the coarse model has seen other images.
    """
    if detector.coarse is None:
        return tiles, None
    run = detector.coarse.run
    others = run.read_json(run.data)
    if calibration_images(others) != calibration_images(record):
        raise UserError(
            f"evaluate.coarse {run.path} was not calibrated on the good images that this run is: "
            "train both with the same data.root, seed, data.holdout and data.calibration"
        )
    whole = load_coarse(detector, detector.coarse)
    coarse = score_unseen(run, whole, samples, others, [None] * len(samples))
    rate = detector.config.evaluate.image_false_positive_rate
    both = (tiles, coarse)
    ranges = [Ranges.from_good(one.pixels, one.peaks, one.scores, rate=rate) for one in both]
    count = min(len(one.pixels) for one in both)
    pixels = [
        scale.map.of(_evenly(one.pixels, count)) for one, scale in zip(both, ranges, strict=True)
    ]
    peaks = [scale.map.of(one.peaks) for one, scale in zip(both, ranges, strict=True)]
    scores = [scale.score.of(one.scores) for one, scale in zip(both, ranges, strict=True)]
    seen = tiles._replace(
        scores=np.maximum(*scores),
        peaks=np.maximum(*peaks),
        pixels=np.concatenate(pixels),
        models=2,
    )
    named = zip(("tiles", "coarse"), ranges, strict=True)
    return seen, {name: scale.to_json() for name, scale in named}


def _evenly(values: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, " k"]:
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.int64)]
