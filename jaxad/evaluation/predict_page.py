"""The page of a prediction: which of many images it shows, and what it says of the rest."""

from __future__ import annotations

import heapq
import os
import pathlib
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxad.data.images import resize
from jaxad.evaluation.prediction import Prediction, make_case
from jaxad.evaluation.resize import highest_of, resize_map
from jaxad.report.content import Scale, ScoreRow
from jaxad.report.figures import fit
from jaxad.report.gallery import Shown, shown_case
from jaxad.report.pictures import SIDE
from jaxad.report.predictions import PredictionsContent, write_predictions_page
from jaxad.run.folder import RunFolder
from jaxad.run.text import printable


class _Ranking:
    """The numbers of the images with the highest keys."""

    def __init__(self, size: int, key: Callable[[float], float]):
        self._size, self._key = size, key
        self._best: list[tuple[float, int]] = []

    def offer(self, number: int, score: float) -> None:
        # Of equal keys the first stay.
        offered = [*self._best, (self._key(score), -number)]
        self._best = heapq.nlargest(self._size, offered)

    @property
    def numbers(self) -> set[int]:
        return {-number for _, number in self._best}


class PageImages:
    """The images that the page of a prediction shows, chosen while they pass by.

    All, where they are few. Of many, those with the highest scores, those nearest to the threshold
    on both sides, and some with the lowest. Memory holds the pictures of these alone.
    """

    def __init__(self, total: int, *, limit: int, threshold: float | None):
        some = 0 if total <= limit else limit // 6
        near = 0 if threshold is None else some
        self._rankings = [_Ranking(limit - some - near, lambda score: score)]
        if threshold is not None:
            self._rankings.append(_Ranking(near, lambda score: -abs(score - threshold)))
        self._rankings.append(_Ranking(some, lambda score: -score))
        self._chosen: set[int] = set()
        self._made: dict[int, Shown] = {}
        self._lock = threading.Lock()

    def offer(self, number: int, score: float) -> bool:
        """Whether an image is among those shown so far; called in order, in one thread."""
        for ranking in self._rankings:
            ranking.offer(number, score)
        chosen = set().union(*(ranking.numbers for ranking in self._rankings))
        with self._lock:
            self._chosen = chosen
            self._made = {n: shown for n, shown in self._made.items() if n in chosen}
        return number in chosen

    def add(self, shown: Shown) -> None:
        """Keeps the pictures of an image, unless others have taken its place; from any thread."""
        with self._lock:
            if shown.number in self._chosen:
                self._made[shown.number] = shown

    @property
    def shown(self) -> list[Shown]:
        """The images in the order in which they were offered."""
        with self._lock:
            return [self._made[number] for number in sorted(self._made)]


def shown_image(
    number: int,
    prediction: Prediction,
    photograph: UInt8[np.ndarray, "H W c"] | None,
    scale: Scale,
    *,
    overlay: str = "",
) -> Shown:
    """Makes the pictures of an image for the page.

    Args:
      number: of the image.
      prediction: of a file that was read.
      photograph: the whole image; None where the prediction has a small picture of it.
      scale: of the heat maps.
      overlay: the picture at full size, relative to the page; empty without one.
    """
    box, model_map, score = prediction.box, prediction.model_map, prediction.score
    assert box is not None and model_map is not None and score is not None
    assert prediction.path is not None
    seen = prediction.overview if photograph is None else photograph[box.slices]
    assert seen is not None
    small = fit(seen, side=SIDE, smooth=True) if max(seen.shape[:2]) > SIDE else seen
    size = (small.shape[0], small.shape[1])
    # A small defect must not fade where a map is made many times smaller.
    heat = resize_map(model_map, size) if photograph is not None else highest_of(model_map, size)
    rebuilt = prediction.reconstruction
    rebuilt = None if rebuilt is None else resize(rebuilt, size)
    row = ScoreRow(printable(prediction.path), None, "", score, prediction.decision)
    thresholds = {
        "pixel_threshold": prediction.pixel_threshold,
        "region_threshold": prediction.region_threshold,
    }
    case = make_case(row, small, heat, rebuilt, None, thresholds, prediction.region)
    link = f"./{urllib.parse.quote(os.fsencode(overlay))}" if overlay else ""
    return shown_case(number, case, scale, link=link, notes=prediction.notes)


def _link(page: pathlib.Path, file: pathlib.Path) -> str:
    """The address of a file from a page; empty where there is none."""
    if not file.exists():
        return ""
    try:
        relative = os.path.relpath(file, page.parent)
    except ValueError:  # on another drive
        return ""
    address = urllib.parse.quote(os.fsencode(pathlib.Path(relative).as_posix()))
    return address if address.startswith("../") else f"./{address}"


def write_page(
    path: pathlib.Path,
    title: str,
    result: Mapping[str, Any],
    calibration: Mapping[str, Any],
    scale: Scale,
    shown: Sequence[Shown],
) -> None:
    """Writes the page.

    Args:
      path: the HTML file.
      title: its heading.
      result: what predictions.json holds.
      calibration: of the run.
      scale: of the heat maps.
      shown: the images that are shown.

    Raises:
      UserError: the file cannot be written.
    """
    rows = result["images"]
    judged = [row for row in rows if not row["error"]]
    content = PredictionsContent(
        title=title,
        facts={
            key: value
            for key, value in result.items()
            if key not in ("images", "calibration", "content_sha256")
        },
        counts=result["counts"],
        complete=result["complete"],
        calibration=calibration,
        scale=scale,
        scores=[ScoreRow(row["path"], None, "", row["score"], row["decision"]) for row in judged],
        shown=shown,
        unlike=[(row["path"], "; ".join(row["notes"])) for row in judged if row["notes"]],
        unreadable=[(row["path"], row["error"]) for row in rows if row["error"]],
        links={
            "odd_images": _link(path, RunFolder(result["run"]).odd_images),
            "report": _link(path, RunFolder(result["run"]).report),
        },
    )
    write_predictions_page(path, content)
