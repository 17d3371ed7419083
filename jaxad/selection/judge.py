"""One candidate: fitted without the images left out, run on these and on defects drawn there."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from jaxad import metrics
from jaxad.evaluation.detector import Detector
from jaxad.run.errors import UserError
from jaxad.run.progress import OnProgress, Update
from jaxad.selection.candidates import Candidate
from jaxad.selection.records import SelectionFolder
from jaxad.selection.trial import Split, Trial
from jaxad.training.train import train

_SURE_AFTER = 20.0
"""Seconds of training after which its speed is believed."""
_STRIDE = 2
"""Of the pixels of a map, every so many rows and columns are measured."""


class TooSlow(Exception):
    """Training would exceed the budget.

    Attributes:
      seconds: that it would take.
    """

    def __init__(self, seconds: float):
        super().__init__(f"it would take {seconds:.0f} s")
        self.seconds = seconds


def judge(
    folder: SelectionFolder, candidate: Candidate, trial: Trial, *, seconds: float
) -> dict[str, Any]:
    """Fits and judges a candidate; one that was interrupted goes on.

    Args:
      folder: of the selection.
      candidate: what is judged.
      trial: what on.
      seconds: that it may take.

    Returns:
      What its file holds.

    Raises:
      TooSlow: its training would take longer.
      UserError: it cannot be trained on these images.
    """
    begun = time.perf_counter()
    good: dict[str, list[list[float]]] = {}
    drawn: dict[str, list[list[float]]] = {}
    pixels: dict[str, list[float]] = {}
    spent = images = 0.0
    for number, split in enumerate(trial.splits):
        left = seconds - (time.perf_counter() - begun)
        run = folder.run(candidate.name, number)
        settings = candidate.settings({**trial.keys, "seed": split.seed})
        train(settings, run.path, on_progress=_within(left))
        if not set(split.names) <= set(run.read_json(run.data)["holdout"]):
            raise UserError(f"{run.path} left out other images; remove it")
        detector = Detector.load(run.path)
        own = split.at(settings.data.image_size)
        before = time.perf_counter()
        _run(detector, own.good, good)
        maps = _run(detector, own.drawn, drawn)
        spent += time.perf_counter() - before
        images += len(own.good) + len(own.drawn)
        for name, values in maps.items():
            pixels.setdefault(name, []).append(_pixel_auroc(values, own))
    return {
        "trial": trial.digest,
        "settings": candidate.digest(trial.keys),
        "candidate": candidate.name,
        "config": candidate.config,
        "overrides": dict(candidate.overrides),
        "image_size": list(settings.data.image_size),
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "maps": list(detector.maps),
        "seconds": time.perf_counter() - begun,
        "expected_seconds": candidate.seconds,
        "milliseconds": 1000 * spent / images,
        "good": good,
        "drawn": drawn,
        "pixel_auroc": {name: float(np.mean(values)) for name, values in pixels.items()},
    }


def _run(
    detector: Detector,
    images: Shaped[np.ndarray, "n h w c"],
    scores: dict[str, list[list[float]]],
) -> dict[str, Float[np.ndarray, "n i j"]]:
    """Adds the scores of a split; returns every so many pixels of the maps."""
    parts: dict[str, list[np.ndarray]] = {}
    own: dict[str, list[float]] = {}
    for output in detector.batches(images):
        for name, values in output.scores.items():
            own.setdefault(name, []).extend(np.asarray(values, np.float64).tolist())
        for name, values in output.maps.items():
            parts.setdefault(name, []).append(np.asarray(values)[:, ::_STRIDE, ::_STRIDE])
    for name, each in own.items():
        scores.setdefault(name, []).append(each)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _pixel_auroc(maps: Float[np.ndarray, "d i j"], split: Split) -> float:
    """Mean over kinds of the AUROC of pixels inside of defects against those outside."""
    kinds = np.array(split.kinds)
    masks = split.masks[:, ::_STRIDE, ::_STRIDE]
    values = []
    for kind in dict.fromkeys(split.kinds):
        rows = kinds == kind
        if 0 < masks[rows].sum() < masks[rows].size:
            values.append(metrics.auroc(masks[rows].ravel(), maps[rows].ravel()))
    return float(np.mean(values)) if values else 0.5


def _within(seconds: float) -> OnProgress:
    """Ends a training whose steps would take longer."""
    first: list[Update] = []

    def listen(update: Update) -> None:
        if update.label != "step":
            return
        first[:] = first or [update]
        steps, spent = update.done - first[0].done, update.seconds - first[0].seconds
        if steps and update.seconds > _SURE_AFTER:
            whole = update.seconds + (update.total - update.done) * spent / steps
            if whole > seconds:
                raise TooSlow(whole)

    return listen
