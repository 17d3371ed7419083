"""Bulk prediction: tables, a page, overlays and float maps of any number of files.

Every picture is written whole or not at all, as soon as it is made. The two tables and the page are
written before the first picture, every minute and at the end, also when the end is an interruption
or a full disk: then they hold what was done so far, and predictions.json says
``"complete": false``. Memory does not grow with the number of images but for their rows in the
tables.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxad.data.crop import crop_record
from jaxad.data.datasets import left_out
from jaxad.data.given import named_file
from jaxad.data.limits import picturing
from jaxad.data.notes import page_notes
from jaxad.data.pages import pages_of
from jaxad.evaluation.names import WRITTEN, Source, find_inputs, name_outputs
from jaxad.evaluation.predict import Predictor, load_detector
from jaxad.evaluation.predict_page import PageImages, shown_image, write_page
from jaxad.evaluation.prediction import Prediction, score_cells
from jaxad.evaluation.submission import Submission
from jaxad.report.content import VERDICTS, Scale
from jaxad.report.gallery import Shown
from jaxad.run.errors import UserError
from jaxad.run.files import make_folder, remove_unfinished, together, write_csv, write_json, writing
from jaxad.run.folder import RunFolder
from jaxad.run.progress import Progress
from jaxad.run.text import counted, from_printable, printable, say

PAGE = "report.html"

SCHEMA = 1
"""Version of predictions.json."""

_PIXELS_IN_FLIGHT = 64_000_000
"""Original pixels of the pictures that are made at once; a larger picture is made alone."""
_SECONDS_BETWEEN_TABLES = 60.0

_OF_CALIBRATION = (
    "method",
    "held_out",
    "held_out_rejected",
    "false_positive_rate",
    "promised_false_positive_rate",
    "promised_interval",
    "odd_images",
)
"""What predictions.json repeats of calibration.json: what the threshold promises."""

Row = dict[str, Any]


class _ChangedError(UserError):
    """A photograph cannot be read again as it was."""


def predict_files(
    workdir: str | os.PathLike,
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    checkpoint: str | int = "last",
    data_root: str | None = None,
    overlays: bool = True,
    tiff: bool = False,
    submission: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Predicts on files and folders of images and writes what was found.

    ``OUTPUT/scores.csv`` (path, score, decision, verdict, threshold, regions, notes, error),
    ``OUTPUT/predictions.json``, ``OUTPUT/report.html`` (the page), ``OUTPUT/overlays/NAME.png`` and
    ``OUTPUT/anomaly_maps/CATEGORY/test/KIND/STEM.tiff`` (float32, raw values; MVTec's layout for
    submissions). All pictures have the size of the original; where a photograph is so large that
    its map is kept smaller (``"reduced"``, with ``data.tiles``), the map is of what is seen of it
    at that size and the overlay a small picture. NAME is the image's path below the folder that all
    inputs have in common. Of a run with a region
    (``data.region``) the pictures show its frame, and the map has its smallest value outside.

    Args:
      workdir: the run folder.
      inputs: files and folders; images in ``output`` are left out.
      output: folder, created.
      checkpoint: as in :func:`jaxad.evaluation.predict.load_detector`, like the next.
      data_root: where the training images are now; only for a run without calibration.
      overlays: write the pictures.
      tiff: write the maps.
      submission: write what MVTec AD 2's server reads, see :mod:`jaxad.evaluation.submission`.
      overrides: keys as of :func:`jaxad.evaluate`, for this call only.

    Returns:
      What predictions.json holds.

    Raises:
      UserError: an input does not exist, there is no such run or checkpoint, or the output cannot
        be written. Files that cannot be read are no error: they have a row with the reason.
    """
    output = pathlib.Path(os.path.expanduser(output))
    masks = RunFolder(workdir).read_config().data.masks
    found = find_inputs(inputs, output, masks=masks)
    for note in dict.fromkeys(n for given in inputs for n in left_out(given, masks=masks)):
        say(f"note: {note}", one_line=True, file=sys.stderr)
    make_folder(output, what=f"--output {output}")
    for folder in WRITTEN:
        _inside(output, f"{folder}/a")  # told before anything is computed
    _remove_unfinished(output)
    predictor = load_detector(workdir, checkpoint, data_root=data_root, overrides=overrides)
    if predictor.reason:
        say(
            f"scores without decisions, for there is no threshold: {predictor.reason}",
            file=sys.stderr,
        )
    if unfinished := predictor.run.unfinished():
        say(f"note: {unfinished}", file=sys.stderr)
    found = _with_pages(found, predictor.detector.config.data.pages)
    sources = name_outputs(found, predictor.category)
    submitted = None
    if submission:
        paths = [source.path for source in sources]
        threshold = predictor.pixel_threshold
        submitted = Submission(paths, predictor.category, threshold, predictor.reason)
    predictions = predictor.iterate([named_file(source.path) for source in sources])
    scale, origin = predictor.scale, "good training images that the model has not seen"
    if scale is None:
        # Never a scale per image: all pictures of a call can be compared with one another.
        first = list(islice(predictions, predictor.batch_size))
        scale, origin = _scale_of(first), f"the first {len(first)} images of this call"
        predictions = chain(first, predictions)
    head = _head(workdir, predictor, scale, origin)
    limit = predictor.detector.config.evaluate.report_images
    page = PageImages(len(sources), limit=limit, threshold=predictor.image_threshold)
    write = _Writer(output, predictor, scale, page, submitted, overlays=overlays, tiff=tiff)

    def write_tables(rows: Sequence[Row]) -> Row:
        result = _write_tables(output, head, rows, len(sources))
        title = f"{predictor.detector.config.model.name} on {predictor.category}: new images"
        write_page(output / PAGE, title, result, predictor.calibration, scale, page.shown)
        return result

    result = _collect(_rows(sources, predictions, page, write), len(sources), write_tables)
    if others := _of_other_calls(output, result["images"]):
        say(
            f"note: {output} also holds {counted(others, 'picture or map', 'pictures and maps')} "
            "of other calls, which the tables and the page do not list; remove what is old, or "
            "give every call an --output of its own",
            file=sys.stderr,
        )
    return result


def _head(
    workdir: str | os.PathLike, predictor: Predictor, scale: Scale | None, origin: str
) -> dict[str, Any]:
    """What predictions.json says of the run, before the images."""
    return {
        "schema": SCHEMA,
        "run": os.fspath(workdir),
        "checkpoint": predictor.detector.step,
        **crop_record(predictor.detector.config.data.region),
        "primary_map": predictor.detector.primary_map,
        "primary_score": predictor.detector.primary_score,
        "image_threshold": predictor.image_threshold,
        "pixel_threshold": predictor.pixel_threshold,
        "region_threshold": predictor.region_threshold,
        "threshold_set_by_hand": predictor.calibration["set_by_hand"],
        "reason": predictor.reason,
        "unfinished": predictor.run.unfinished() or None,
        "calibration": {key: predictor.calibration.get(key) for key in _OF_CALIBRATION},
        "heat_map": scale and {"low": scale.low, "high": scale.high, "from": origin},
    }


def _of_other_calls(output: pathlib.Path, rows: Sequence[Row]) -> int:
    """How many pictures and maps in the output folder are not those of the rows."""
    there = {
        printable(os.path.relpath(os.path.join(place, name), output))
        for folder in WRITTEN
        for place, _, names in os.walk(output / folder)
        for name in names
    }
    return len(there.difference(*(row["files"].values() for row in rows)))


def _with_pages(found: list[tuple[str, str]], pages: str) -> list[tuple[str, str]]:
    """Every page of every file, as the run takes them; where it takes the first, a note on it."""
    if pages == "each":
        each = [(path, name, page[len(path) :]) for path, name in found for page in pages_of(path)]
        return [(path + number, name + number) for path, name, number in each]
    for note in page_notes([path for path, _ in found]):
        say(f"note: {note}", one_line=True, file=sys.stderr)
    return found


def _scale_of(predictions: Sequence[Prediction]) -> Scale:
    """Median to 99.9th percentile of the maps, for a run that has no scale of its own."""
    maps = [p.model_map.ravel() for p in predictions if p.model_map is not None]
    low, high = np.percentile(np.concatenate(maps), [50.0, 99.9]) if maps else (0.0, 1.0)
    return Scale(float(low), float(high))


class _Writer:
    """Turns a prediction into its files and its row; called from several threads at once."""

    def __init__(
        self,
        output: pathlib.Path,
        predictor: Predictor,
        scale: Scale,
        page: PageImages,
        submission: Submission | None,
        *,
        overlays: bool,
        tiff: bool,
    ):
        self._output, self._scale, self._page = output, scale, page
        self._submission, self._overlays, self._tiff = submission, overlays, tiff
        self._channels = predictor.detector.config.data.channels

    def __call__(self, source: Source, prediction: Prediction, number: int, on_page: bool) -> Row:
        """Writes the pictures.

        Args:
          source: of the image.
          prediction: of it.
          number: of the image.
          on_page: it is one of those that the page shows.

        Raises:
          UserError: a file cannot be written.
        """
        size = prediction.size
        if size is None:
            return _unreadable(source, str(prediction.error))
        files, overlay = {}, source.overlay if self._overlays else ""
        small = prediction.reduced > 1  # the pictures of a very large photograph
        try:
            # One after the other: as gray and in colour, a photograph takes gigabytes.
            shown = self._show(prediction, number, overlay) if on_page else None
            gray = _again(prediction, 1) if overlay and not small else None
        except _ChangedError as error:
            return _unreadable(source, str(error))
        with picturing(*size) if not small else contextlib.nullcontext():
            row = prediction.record()
            if overlay:
                files["overlay"] = overlay
                picture = prediction.drawn(gray, self._scale)
                del gray
                prediction.forget()
                with writing(_inside(self._output, overlay)) as temporary:
                    Image.fromarray(picture).save(temporary, format="PNG")
                del picture
            if self._tiff:
                files["map"] = source.tiff
                with writing(_inside(self._output, source.tiff)) as temporary:
                    values = prediction.model_map if small else prediction.map
                    assert values is not None
                    Image.fromarray(values).save(temporary, format="TIFF")
            if self._submission is not None:
                place = functools.partial(_inside, self._output)
                files |= self._submission.write(source.path, prediction, place)
        if shown is not None:
            self._page.add(shown)
        row["files"] = {name: printable(file) for name, file in files.items()}
        return row

    def _show(self, prediction: Prediction, number: int, overlay: str) -> Shown:
        """What the page shows of an image."""
        again = _again(prediction, self._channels) if prediction.overview is None else None
        return shown_image(number, prediction, again, self._scale, overlay=overlay)


def _again(prediction: Prediction, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Reads a photograph again, which must be what it was."""
    assert prediction.photograph is not None
    try:
        photograph = prediction.photograph(channels=channels)
    except UserError as error:
        raise _ChangedError(str(error)) from error
    if photograph.shape[:2] != prediction.size:
        raise _ChangedError(f"{prediction.path} has changed while it was read")
    return photograph


def _inside(output: pathlib.Path, name: str) -> pathlib.Path:
    """The path of an output, once no link on the way to it leads elsewhere.

    Raises:
      UserError: a folder is a link out of the output folder.
    """
    path = output / name
    real = os.path.join(os.path.realpath(path.parent), "")
    if not real.startswith(os.path.join(os.path.realpath(output), "")):
        raise UserError(
            f"{path.parent} leads out of --output {output}, to {real}; nothing is written there: "
            "remove the link, or give another --output"
        )
    return path


def _unreadable(source: Source, reason: str) -> Row:
    return Prediction(path=source.path, error=reason).record() | {"files": {}}


def _rows(
    sources: Sequence[Source],
    predictions: Iterator[Prediction],
    page: PageImages,
    write: Callable[[Source, Prediction, int, bool], Row],
) -> Generator[Row, None, None]:
    """Rows in order; pictures are made in parallel, within a budget of pixels."""
    workers = min(16, os.cpu_count() or 1)
    pending: deque[tuple[Future, int]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for number, (source, prediction) in enumerate(zip(sources, predictions, strict=True)):
                on_page = prediction.score is not None and page.offer(number, prediction.score)
                height, width = prediction.size or (0, 0)
                in_flight = sum(pixels for _, pixels in pending)
                while pending and (
                    in_flight + height * width > _PIXELS_IN_FLIGHT or len(pending) > 2 * workers
                ):
                    future, pixels = pending.popleft()
                    in_flight -= pixels
                    yield future.result()
                task = pool.submit(write, source, prediction, number, on_page)
                pending.append((task, height * width))
            while pending:
                yield pending.popleft()[0].result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _collect(
    rows: Generator[Row, None, None], total: int, write_tables: Callable[[Sequence[Row]], Row]
) -> Row:
    """Gathers the rows into the tables and the page, whatever happens."""
    done: list[Row] = []
    # Before the first picture: tables of an earlier call would not be those of the pictures.
    write_tables(done)
    next_tables = time.monotonic() + _SECONDS_BETWEEN_TABLES
    try:
        with contextlib.closing(rows), Progress("image", total, always=True) as progress:
            for row in rows:
                done.append(row)
                if row["error"]:
                    say(
                        f"unreadable: {from_printable(row['error'])}",
                        one_line=True,
                        file=sys.stderr,
                    )
                progress.update(len(done))
                if time.monotonic() >= next_tables:
                    write_tables(done)
                    next_tables = time.monotonic() + _SECONDS_BETWEEN_TABLES
    except BaseException:
        with contextlib.suppress(UserError):  # on a full disk: the first failure is the message
            write_tables(done)
        raise
    return write_tables(done)


def _write_tables(output: pathlib.Path, head: Row, rows: Sequence[Row], total: int) -> Row:
    """Writes scores.csv and predictions.json; returns what the latter holds."""
    outcomes = Counter(
        "unreadable" if r["error"] else VERDICTS[r["decision"]] or "undecided" for r in rows
    )
    counts = {name: outcomes[name] for name in ("rejected", "accepted", "undecided", "unreadable")}
    result = {
        **head,
        "complete": len(rows) == total,
        "counts": {"images": total, **counts},
        "unlike_training": sum(bool(row["notes"]) for row in rows),
        "images": list(rows),
    }
    columns = ["path", "score", "decision", "verdict", "threshold", "regions", "notes", "error"]
    lines = [
        {
            "path": row["path"],
            **score_cells(row["score"], row["decision"], head["image_threshold"]),
            "regions": None if row["error"] else len(row["regions"]),
            "notes": "; ".join(row["notes"]),
            "error": row["error"],
        }
        for row in rows
    ]
    with together():
        write_csv(output / "scores.csv", columns, lines)
        write_json(output / "predictions.json", result)
    return result


def _remove_unfinished(output: pathlib.Path) -> None:
    """Of a prediction that was killed, in all of the output."""
    remove_unfinished(output)
    for pictures in WRITTEN:
        for place, _, _ in os.walk(output / pictures):
            remove_unfinished(pathlib.Path(place))
