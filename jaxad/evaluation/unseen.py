"""What good images give that the model has not seen: held-out ones, or each by its fold's model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxad.data.images import image_dimensions
from jaxad.data.pipeline import Images
from jaxad.data.streamed import StreamedImages
from jaxad.data.table import Sample
from jaxad.data.tiled import Photographs
from jaxad.evaluation.detector import Detector
from jaxad.models.base import Unseen
from jaxad.run.folder import RunFolder
from jaxad.run.progress import Progress
from jaxad.training.inputs import open_images, open_photographs


def calibration_images(record: Mapping[str, Any]) -> list[str]:
    """The names of the good images that thresholds are set from, by data.json; may be empty."""
    return record["training"] if record.get("folds") else record["holdout"]


class Seen(NamedTuple):
    """What ``n`` good images gave.

    Attributes:
      scores: primary scores.
      pixels: of the primary map, of all images; evenly chosen ones where all take too much memory.
      brightness: mean over the pixels that the model sees, in [0, 1].
      sizes: original heights and widths.
      peaks: the highest pixels of the primary map.
      map_pixels: of the largest map.
      models: how many models' pixels these are; a pixel that is judged is the highest of theirs.
    """

    scores: Float[np.ndarray, " n"]
    pixels: Float[np.ndarray, " m"]
    brightness: Float[np.ndarray, " n"]
    sizes: Int[np.ndarray, "n size"]
    peaks: Float[np.ndarray, " n"]
    map_pixels: int
    models: int = 1


def score_unseen(
    run: RunFolder,
    detector: Detector,
    samples: Sequence[Sample],
    record: Mapping[str, Any],
    known: Sequence[str | None],
) -> Seen:
    """Runs each image through a model that has not seen it, in batches.

    Streamed images are held against digests of their pixels in training, where they are known.
    """
    data = detector.config.data
    range_16bit, folds = tuple(record["range_16bit"]), record.get("folds") or []
    photographs = open_photographs(samples, data, range_16bit, grid=detector.grid)
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
    return Seen(scores, np.concatenate(pixels), brightness, sizes, peaks, height * width)


def _judged(
    detector: Detector, path: str, values: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, " k"]:
    """The pixels of a map that are judged."""
    region = detector.region_of(path)
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
