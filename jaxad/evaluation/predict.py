"""Scores, decisions and maps for any images: ``jaxad.load_detector(workdir).predict(images)``."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from jaxad.data.crop import Box, box_of, cut, put_back
from jaxad.data.datasets import find_images
from jaxad.data.images import decode, resize
from jaxad.data.limits import limit_images
from jaxad.evaluation.calibration import (
    calibrate,
    calibration_images,
    save_calibration,
    saved_calibration,
    uncalibrated,
    with_threshold_by_hand,
)
from jaxad.evaluation.connected_components import Component, find_components
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import run_table
from jaxad.evaluation.resize import resize_map
from jaxad.evaluation.thresholds import predicted_pixels
from jaxad.evaluation.trained_range import notes_on
from jaxad.report.content import Scale
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder

ImageLike = str | os.PathLike | np.ndarray
"""An image file, a folder of images, or pixels: uint8 ``(h, w)``, ``(h, w, 1)``, ``(h, w, 3)``."""

_MOST_READERS = 8
"""Each holds one image at its original size."""


class Maximum(NamedTuple):
    """The highest pixel of a map: column, row and value."""

    x: int
    y: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run says about one image.

    Attributes:
      path: the file; None for an array.
      size: original (height, width); None when the file cannot be read.
      box: what the model saw of it, in original pixels (``data.region``).
      score: image score, larger = more anomalous; None when the file cannot be read.
      decision: True = rejected (the score exceeds the image threshold); None without a threshold.
      model_map: ``(h, w)`` float32, the primary map at the size that the model sees.
      pixel_threshold: of the run; None without one.
      notes: sentences on brightness or size outside what was trained: scores of such images do not
        mean what they mean of others.
      error: why the file cannot be read, as a sentence; None when it can.
    """

    path: str | None
    size: tuple[int, int] | None = None
    box: Box | None = None
    score: float | None = None
    decision: bool | None = None
    model_map: Float[np.ndarray, "h w"] | None = field(default=None, repr=False)
    pixel_threshold: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None

    @functools.cached_property
    def map(self) -> Float[np.ndarray, "H W"]:
        """The primary map at the original size, float32, raw values; made on first use.

        Outside the box, of which nothing is known, it has its own smallest value.
        """
        _, box, size = self._require_read()
        return put_back(self._seen, box, size, outside=self._seen.min())

    @functools.cached_property
    def _seen(self) -> Float[np.ndarray, "i j"]:
        """The map of the box."""
        model_map, box, _ = self._require_read()
        return resize_map(model_map, box.size)

    @property
    def mask(self) -> Bool[np.ndarray, "H W"] | None:
        """The predicted defects, at the original size; None without a threshold.

        An accepted image has none; a rejected one has the pixels over the pixel threshold or, where
        there are none, its highest hundredth. None of them lies outside the box.
        """
        _, box, size = self._require_read()
        inside = predicted_pixels(self._seen, self.decision, self.pixel_threshold)
        return None if inside is None else put_back(inside, box, size, outside=False)

    @functools.cached_property
    def maximum(self) -> Maximum:
        """The highest pixel of the map, in original pixels."""
        y, x = np.unravel_index(np.argmax(self._seen), self._seen.shape)
        _, box, _ = self._require_read()
        return Maximum(box.left + int(x), box.top + int(y), float(self._seen[y, x]))

    @functools.cached_property
    def regions(self) -> tuple[Component, ...]:
        """The predicted defects, highest peak first; none without a threshold."""
        mask = self.mask
        return () if mask is None else find_components(self.map, mask)

    def _require_read(self) -> tuple[Float[np.ndarray, "h w"], Box, tuple[int, int]]:
        """The model's map, the box and the size, which a file that was read has."""
        if self.model_map is None or self.box is None or self.size is None:
            raise UserError(f"there is no map: {self.error}")
        return self.model_map, self.box, self.size


def load_detector(
    workdir: str | os.PathLike,
    checkpoint: str | int = "last",
    *,
    data_root: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Predictor:
    """Reads a run folder for use on any images.

    A run that was never evaluated is calibrated here, on its held-out good training images. Where
    these cannot be found, predictions go on without a threshold (``Predictor.reason`` says why).

    Args:
      workdir: the run folder.
      checkpoint: ``"last"``, ``"best"`` or a step number.
      data_root: where the training images are now, when they have moved.
      overrides: keys as of :func:`jaxad.evaluate`, for this detector only.

    Raises:
      UserError: it is no run folder, has no such checkpoint, or a key or value is wrong.
    """
    run = RunFolder(workdir)
    detector = Detector.load(workdir, checkpoint=checkpoint, overrides=overrides)
    record = run.read_json(run.data)
    calibration = saved_calibration(run, detector)
    if calibration is None:
        calibration = _new_calibration(run, detector, record, data_root)
    by_hand = detector.config.evaluate.image_threshold
    return Predictor(run, detector, record, with_threshold_by_hand(calibration, by_hand))


def _new_calibration(
    run: RunFolder, detector: Detector, record: dict[str, Any], data_root: str | None
) -> dict[str, Any]:
    """Calibrates, and saves the result unless it would replace that of an evaluation."""
    count = len(calibration_images(record))
    try:
        # Without good images to calibrate on, none is looked for, so that none can be missing.
        table = run_table(detector.config, data_root) if count else None
        calibration = calibrate(run, detector, table, record)
    except UserError as error:
        reason = f"the good images that it comes from cannot be read ({error})"
        return uncalibrated(detector, held_out=count, reason=reason)
    if not run.calibration.exists():
        # A run folder may be read-only where it is used: then the next call calibrates again.
        with contextlib.suppress(UserError):
            save_calibration(run, calibration)
    return calibration


class Predictor:
    """A run, ready to predict on images.

    Attributes:
      run: the run folder.
      detector: the model with its settings.
      calibration: what calibration.json holds, or the like without thresholds.
      batch_size: images in one call of the model, where there are so many.
    """

    def __init__(
        self,
        run: RunFolder,
        detector: Detector,
        record: Mapping[str, Any],
        calibration: Mapping[str, Any],
    ):
        self.run, self.detector, self.calibration = run, detector, calibration
        limit_images(detector.config.data.limit_megapixels)
        self.batch_size = detector.batch_size
        self.range_16bit: tuple[float, float] = tuple(record["range_16bit"])
        self.category: str = record["category"] or pathlib.Path(record["root"]).name

    @property
    def image_threshold(self) -> float | None:
        """An image is rejected over this score; None without one (``reason`` says why)."""
        return self.calibration["image_threshold"]

    @property
    def pixel_threshold(self) -> float | None:
        """A pixel belongs to a predicted region over this value; None without calibration."""
        return self.calibration["pixel_threshold"]

    @property
    def reason(self) -> str | None:
        """Why there is no threshold; None when there is one."""
        return self.calibration["reason"]

    @property
    def scale(self) -> Scale | None:
        """The heat-map scale of the run; None without calibration."""
        if self.calibration["heat_map_low"] is None:
            return None
        low, high = self.calibration["heat_map_low"], self.calibration["heat_map_high"]
        return Scale(low, high, self.pixel_threshold)

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> list[Prediction]:
        """Predicts on images.

        Args:
          images: a file, a folder (read recursively), an array ``(n, h, w, c)``, or a list of
            files, folders and arrays. Arrays are uint8 ``(h, w)``, ``(h, w, 1)`` or
            ``(h, w, 3)`` of any size.

        Returns:
          One prediction per image, in order (of a folder: natural order). A file that cannot be
          read has an ``error`` and no score; the others are not held up by it. Maps are kept at
          the model's size and made larger when asked for.

        Raises:
          UserError: a path does not exist, a folder holds no image, or an array has another type
            or shape.
        """
        return list(self.iterate(images))

    def iterate(self, images: ImageLike | Iterable[ImageLike]) -> Iterator[Prediction]:
        """Like :meth:`predict`, one prediction after the other, in bounded memory.

        At most two batches of images are held, at the model's size; an iterator of images is
        read that far ahead.
        """
        return self._predictions(_sources(images))

    def _predictions(self, sources: Iterator[str | np.ndarray]) -> Iterator[Prediction]:
        with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as pool:
            # One batch is being decoded while the one before it is on the device.
            ahead: deque[list[tuple[str | None, Future]]] = deque()
            size = 0
            while batch := list(islice(sources, self.batch_size)):
                ahead.append(
                    [
                        (None if isinstance(s, np.ndarray) else s, pool.submit(self._read, s))
                        for s in batch
                    ]
                )
                # A single image is not padded to sixteen; what is left after full batches is,
                # since that size is compiled.
                size = size or self.detector.size_for(len(batch))
                if len(ahead) > 1:
                    yield from self._detect(ahead.popleft(), size)
            while ahead:
                yield from self._detect(ahead.popleft(), size)

    def _read(self, source: str | np.ndarray) -> tuple[np.ndarray, tuple[int, int]] | str:
        """An image at the model's size and its original size, or why it cannot be read."""
        data = self.detector.config.data
        try:
            if isinstance(source, np.ndarray):
                image = _with_channels(source, data.channels)
            else:
                image = decode(
                    source, channels=data.channels, range_16bit=self.range_16bit, alpha=data.alpha
                )
            return resize(cut(image, data.region), data.image_size), image.shape[:2]
        except UserError as error:
            return str(error)
        except MemoryError:
            return f"{source} is too large for the memory of this machine"

    def _detect(self, batch: list[tuple[str | None, Future]], size: int) -> Iterator[Prediction]:
        answers = [(path, future.result()) for path, future in batch]
        images = [answer[0] for _, answer in answers if not isinstance(answer, str)]
        detector = self.detector
        found: Iterator[tuple[np.ndarray, np.ndarray, np.floating]] = iter(())
        if images:
            output = detector(np.stack(images), size)
            maps, scores = output.maps[detector.primary_map], output.scores[detector.primary_score]
            found = zip(images, maps, scores, strict=True)
        threshold = self.image_threshold
        for path, answer in answers:
            if isinstance(answer, str):
                yield Prediction(path=path, error=answer)
                continue
            image, model_map, score = next(found)
            yield Prediction(
                path=path,
                size=answer[1],
                box=box_of(self.detector.config.data.region, answer[1]),
                score=float(score),
                decision=None if threshold is None else bool(score > threshold),
                model_map=model_map,
                pixel_threshold=self.pixel_threshold,
                notes=notes_on(self.calibration.get("trained_on"), image, answer[1]),
            )


def _sources(images: ImageLike | Iterable[ImageLike]) -> Iterator[str | np.ndarray]:
    """Paths and checked arrays, one per image; a sequence is checked before anything is read."""
    if isinstance(images, str | os.PathLike):
        return iter(find_images(images))
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise UserError(
            f"one array of images must be (n, h, w, c), not of shape {images.shape}; "
            "put a single image in a list"
        )
    expanded = (source for number, item in enumerate(images) for source in _expand(item, number))
    return iter(list(expanded)) if isinstance(images, list | tuple) else expanded


def _expand(item: ImageLike, number: int) -> list[Any]:
    if isinstance(item, str | os.PathLike):
        return find_images(item)
    if not isinstance(item, np.ndarray):
        raise UserError(
            f"image {number} is a {type(item).__name__}; give a path or a numpy array of uint8"
        )
    if item.dtype != np.uint8:
        raise UserError(f"image {number} has values of type {item.dtype}; give uint8 from 0 to 255")
    fits = item.ndim == 2 or (item.ndim == 3 and item.shape[2] in (1, 3))
    if not fits or not item.size:
        raise UserError(
            f"image {number} has the shape {item.shape}; give (h, w), (h, w, 1) or (h, w, 3), "
            "red before green before blue"
        )
    return [item]


def _with_channels(image: UInt8[np.ndarray, "h w *c"], channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Gray to colour by repetition, colour to gray by the ITU-R 601 luma, as files are read."""
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]
