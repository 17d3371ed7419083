"""Thresholds and the heat-map scale, from good images that the model has not seen.

Either these were held out of training (``data.holdout``), or every good image is scored by a model
that was trained on the other folds (``data.calibration=cross_fitted``); thresholds then hold for
the final model, which is trained on all of them, since it errs no more than the folds' models do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxad.data.digests import check_unchanged, contents_of
from jaxad.data.images import image_dimensions
from jaxad.data.pipeline import Images
from jaxad.data.streamed import StreamedImages
from jaxad.data.table import Sample, SampleTable
from jaxad.data.tiled import Photographs
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.thresholds import (
    conformal_threshold,
    labelled_threshold,
    odd_limit,
    parse_by_hand,
    pixel_threshold,
    region_threshold,
)
from jaxad.models import architecture
from jaxad.models.base import Unseen
from jaxad.run.errors import UserError
from jaxad.run.files import write_csv
from jaxad.run.folder import RunFolder
from jaxad.run.lists import listed_paths
from jaxad.run.progress import Progress
from jaxad.run.text import printable
from jaxad.training.inputs import FEWEST_TO_CROSS_FIT, open_images, open_photographs

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
        "model": json.loads(json.dumps({key: model.options[key] for key in detection_only})),
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "smoothing": options.smoothing,
        "region_mask": detector.regions and detector.regions.sha256,
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
    seen = _score(run, detector, samples, record, [known.get(name) for name in names])
    options = detector.config.evaluate
    threshold = conformal_threshold(seen.scores, options.image_false_positive_rate)
    over = pixel_threshold(seen.pixels, options.pixel_false_positive_rate)
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


def calibration_images(record: Mapping[str, Any]) -> list[str]:
    """The names of the good images that thresholds are set from, by data.json; may be empty."""
    return record["training"] if record.get("folds") else record["holdout"]


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


class _Seen(NamedTuple):
    """What ``n`` good images gave.

    Attributes:
      scores: primary scores.
      pixels: of the primary map, of all images; evenly chosen ones where all take too much memory.
      brightness: mean over the pixels that the model sees, in [0, 1].
      sizes: original heights and widths.
      peaks: the highest pixels of the primary map.
      map_pixels: of the largest map.
    """

    scores: Float[np.ndarray, " n"]
    pixels: Float[np.ndarray, " m"]
    brightness: Float[np.ndarray, " n"]
    sizes: Int[np.ndarray, "n size"]
    peaks: Float[np.ndarray, " n"]
    map_pixels: int


def _score(
    run: RunFolder,
    detector: Detector,
    samples: Sequence[Sample],
    record: Mapping[str, Any],
    known: Sequence[str | None],
) -> _Seen:
    """Runs each image through a model that has not seen it, in batches.

    Streamed images are held against digests of their pixels in training, where they are known.
    """
    data = detector.config.data
    range_16bit, folds = tuple(record["range_16bit"]), record.get("folds") or []
    photographs = open_photographs(samples, data, range_16bit)
    images: Images | Photographs
    if photographs is None:
        images = open_images(list(samples), data, range_16bit)
        if isinstance(images, StreamedImages):
            images.digests.update({row: digest for row, digest in enumerate(known) if digest})
        height, width = images.shape[1:3]
    else:
        images = photographs
        parts = [image_dimensions(sample.path, crop=data.region) for sample in samples]
        height, width = max((detector.map_size(size) for size in parts), key=math.prod)
    stride = _stride(len(samples), height, width, detector.config.evaluate.memory_limit_mb)
    scores, peaks = (np.empty(len(samples), np.float32) for _ in range(2))
    brightness = np.empty(len(samples))
    pixels = []
    done = 0
    with Progress("image", len(samples)) as progress:
        inside = detector.inside_of([sample.path for sample in samples])
        for (places, of_map, of_score), shown in _unseen(run, detector, images, folds, inside):
            maps = np.asarray(of_map[detector.primary_map])
            scores[places] = of_score[detector.primary_score]
            brightness[places] = shown.mean(axis=(1, 2, 3)) / 255.0
            judged = [
                _judged(detector, samples[place].path, values)
                for place, values in zip(places, maps, strict=True)
            ]
            peaks[places] = [values.max() for values in judged]
            pixels.append(np.concatenate(judged)[::stride])
            done += len(places)
            progress.update(done, "calibration")
    sizes = np.array([image_dimensions(sample.path) for sample in samples])
    return _Seen(scores, np.concatenate(pixels), brightness, sizes, peaks, height * width)


def _judged(
    detector: Detector, path: str, values: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, " k"]:
    """The pixels of a map that are judged."""
    region = None if detector.regions is None else detector.regions.of(path)
    return values.ravel() if region is None else values[region.at(values.shape)]


def _unseen(
    run: RunFolder,
    detector: Detector,
    images: Images | Photographs,
    folds: list[int],
    inside: Bool[np.ndarray, "n h w"] | None,
) -> Iterator[tuple[Unseen, UInt8[np.ndarray, "b h w c"]]]:
    """What a model that has not seen it says of each image, and the images (of photographs small).

    Args:
      run: where the models of cross-fitting are, if the model does not leave images out itself.
      detector: the trained model.
      images: held-out ones, or all that it was trained on.
      folds: of each, where they are all; empty where they were held out.
      inside: what is judged of each; None: all.
    """
    numbers = np.array(folds or [0] * len(images))
    at_once = 1 if isinstance(images, Photographs) else detector.batch_size
    leaves_out = detector.model.left_out is not None and not run.has_folds(folds)
    if folds and leaves_out and not isinstance(images, Photographs):
        for unseen in detector.left_out(images, numbers, inside):
            yield unseen, np.asarray(images[unseen.places])
        return
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        unaware = detector.of_fold(run, int(number)) if folds else detector
        for batch in np.array_split(rows, -(-len(rows) // at_once)):
            if isinstance(images, Photographs):
                (output,) = unaware.batches(images.subset(batch))
                shown = np.asarray(output.overview)
            else:
                shown = np.asarray(images[batch])
                judged = None if inside is None else inside[batch]
                (output,) = unaware.batches(shown, inside=judged)
            yield Unseen(batch, output.maps, output.scores), shown


def _stride(count: int, height: int, width: int, limit_mb: int) -> int:
    """Every how many pixels are kept, so that they fit into memory; no column more than others."""
    stride = max(1, math.ceil(4 * count * height * width / (limit_mb * 2**20 or 1)))
    while math.gcd(stride, width) > 1:
        stride += 1
    return stride


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
