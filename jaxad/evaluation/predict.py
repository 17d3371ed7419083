"""Scores, decisions and maps for any images: ``jaxad.load_detector(workdir).predict(images)``."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count, islice
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxad.data.crop import box_of, cut
from jaxad.data.given import Given, ImageLike, given_images
from jaxad.data.images import resize
from jaxad.data.limits import limit_images
from jaxad.evaluation.calibration import (
    calibrate,
    save_calibration,
    saved_calibration,
    uncalibrated,
    with_threshold_by_hand,
)
from jaxad.evaluation.coarse import with_coarse
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.inputs import run_table
from jaxad.evaluation.prediction import Prediction, Predictions
from jaxad.evaluation.trained_range import notes_on
from jaxad.evaluation.unseen import calibration_images
from jaxad.report.content import Scale
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.run.progress import OnProgress, Progress, reporting_to
from jaxad.training.inputs import open_photographs

_MOST_READERS = 8
"""Each holds one image at its original size."""

_Read = tuple[np.ndarray, tuple[int, int]] | str
"""An image at the model's size and its original size, or why it cannot be read."""


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
    detector = with_coarse(detector, calibration)
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
    def region_threshold(self) -> float | None:
        """The highest pixel of a region exceeds it; None for small maps or without calibration."""
        return self.calibration.get("region_threshold")

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

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        on_progress: OnProgress | None = None,
    ) -> Predictions:
        """Predicts on images.

        Args:
          images: one image, an array ``(n, h, w, c)``, or a list of images: files and folders
            (read recursively), bytes of a file, files open for reading, Pillow images, and arrays
            ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)`` of any size, uint8 or floats in [0, 1]
            (:func:`jaxad.data.given.given_images`).
          on_progress: is called with a :class:`jaxad.run.progress.Update` after every image.

        Returns:
          One prediction per image, in order (of a folder: natural order). A file that cannot be
          read has an ``error`` and no score; the others are not held up by it. Maps are kept at
          the model's size and made larger when asked for; arrays are kept for their overlays. Of
          many images, :meth:`iterate` keeps few.

        Raises:
          UserError: a path does not exist, a folder holds no image, or an array has another type,
            shape or range.
        """
        given, found = list(self._given(images)), Predictions()
        with reporting_to(on_progress), Progress("image", len(given)) as progress:
            for prediction in self._predictions(iter(given)):
                found.append(prediction)
                progress.update(len(found))
        return found

    def iterate(self, images: ImageLike | Iterable[ImageLike | Given]) -> Iterator[Prediction]:
        """Like :meth:`predict`, one prediction after the other, in bounded memory.

        At most two batches of images are held, at the model's size; an iterator of images is
        read that far ahead.
        """
        return self._predictions(self._given(images))

    def _given(self, images: ImageLike | Iterable[ImageLike | Given]) -> Iterator[Given]:
        data = self.detector.config.data
        return given_images(images, pages=data.pages, masks=data.masks)

    def _predictions(self, sources: Iterator[Given]) -> Iterator[Prediction]:
        if self.detector.tiled:
            return map(self._by_tiles, sources)
        return self._by_batches(sources)

    def _by_tiles(self, source: Given) -> Prediction:
        """One photograph, which is read some rows at a time."""
        data = self.detector.config.data
        try:
            pixels = self._decode(source, data.channels) if source.path is None else source.path
            photographs = open_photographs(
                [pixels], data, self.range_16bit, grid=self.detector.grid
            )
            assert photographs is not None
            (photograph,) = photographs
            (output,) = self.detector.batches(photographs)
        except (UserError, MemoryError) as error:
            return Prediction(path=source.path, error=_why_not(source, error))
        assert output.overview is not None
        (overview,) = output.overview
        found = self._prediction(source, output, 0, overview, photograph.whole)
        height = output.maps[self.detector.primary_map].shape[1]
        reduced = -(-photograph.size[0] // height)
        return dataclasses.replace(found, overview=overview, reduced=reduced)

    def _prediction(
        self,
        source: Given,
        output: DetectorOutput,
        row: int,
        seen: UInt8[np.ndarray, "h w c"],
        size: tuple[int, int],
    ) -> Prediction:
        """What is said of an image.

        Args:
          source: the image.
          output: for it, and maybe others.
          row: of it in the output.
          seen: as the model sees it; of a photograph that is judged by tiles a small picture.
          size: original (height, width).
        """
        threshold = self.image_threshold
        score = float(output.scores[self.detector.primary_score][row])
        return Prediction(
            path=source.path,
            size=size,
            box=box_of(self.detector.config.data.region, size),
            score=score,
            decision=None if threshold is None else score > threshold,
            image_threshold=threshold,
            model_map=output.maps[self.detector.primary_map][row],
            reconstruction=output.reconstruction[row],
            pixel_threshold=self.pixel_threshold,
            region_threshold=self.region_threshold,
            region=self.detector.region_of(source.path),
            scale=self.scale,
            notes=notes_on(self.calibration.get("trained_on"), seen, size),
            photograph=functools.partial(self._decode, source),
        )

    def _by_batches(self, sources: Iterator[Given]) -> Iterator[Prediction]:
        first = list(islice(sources, 2))
        if len(first) == 1:  # nothing can be decoded meanwhile, and a thread costs a millisecond
            read = functools.partial(self._read, first[0])
            yield from self._detect([(first[0], read)], self.detector.size_for(1))
            return
        sources = chain(first, sources)
        with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as pool:
            # One batch is being decoded while the one before it is on the device.
            ahead: deque[list[tuple[Given, Callable[[], _Read]]]] = deque()
            size = 0
            while batch := list(islice(sources, self.batch_size)):
                ahead.append([(one, pool.submit(self._read, one).result) for one in batch])
                # A single image is not padded to sixteen; what is left after full batches is,
                # since that size is compiled.
                size = size or self.detector.size_for(len(batch))
                if len(ahead) > 1:
                    yield from self._detect(ahead.popleft(), size)
            while ahead:
                yield from self._detect(ahead.popleft(), size)

    def _read(self, source: Given) -> _Read:
        data = self.detector.config.data
        try:
            self.detector.region_of(source.path)  # if it cannot be read, neither can what is judged
            image = self._decode(source, data.channels)
            return resize(cut(image, data.region), data.image_size), image.shape[:2]
        except (UserError, MemoryError) as error:
            return _why_not(source, error)

    def _decode(self, source: Given, channels: int) -> UInt8[np.ndarray, "h w c"]:
        """An image at its original size."""
        alpha = self.detector.config.data.alpha
        return source.decode(channels=channels, range_16bit=self.range_16bit, alpha=alpha)

    def _detect(
        self, batch: list[tuple[Given, Callable[[], _Read]]], size: int
    ) -> Iterator[Prediction]:
        answers = [(source, read()) for source, read in batch]
        readable = [(source, answer) for source, answer in answers if not isinstance(answer, str)]
        if readable:
            images = np.stack([image for _, (image, _) in readable])
            inside = self.detector.inside_of([source.path for source, _ in readable])
            (output,) = self.detector.batches(images, size, inside)
        rows = count()
        for source, answer in answers:
            if isinstance(answer, str):
                yield Prediction(path=source.path, error=answer)
            else:
                yield self._prediction(source, output, next(rows), *answer)


def _why_not(source: Given, error: Exception) -> str:
    """Why an image cannot be read, as a sentence."""
    if isinstance(error, MemoryError):
        return f"{source.name} is too large for the memory of this machine"
    return str(error)
