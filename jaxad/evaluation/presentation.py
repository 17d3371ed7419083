"""What people look at of an evaluation: the page, the panel strips, and which images they show."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxad import metrics
from jaxad.data.crop import Crop, crop_in_words, cut, is_whole
from jaxad.data.images import decode
from jaxad.data.tiled import Photographs
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import EvaluationInputs, read_masks
from jaxad.evaluation.learned import examine, images_to_examine
from jaxad.evaluation.map_metrics import Curves, MapMetrics, shown_of
from jaxad.evaluation.names import unique_names
from jaxad.evaluation.prediction import make_case
from jaxad.report.cases import save_cases
from jaxad.report.content import Case, Learned, ReportContent, ScoreRow, common_scale
from jaxad.report.figures import fit, panel_strip
from jaxad.report.html import write_report
from jaxad.report.pictures import SIDE
from jaxad.run.errors import UserError
from jaxad.run.files import writing
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings
from jaxad.run.text import printable
from jaxad.training.history import read_history

ODD_PICTURES = 20
"""Most odd training images that a page has pictures of."""

PANEL_STRIPS = 12
"""Test images that are kept as panel strips and for comparisons between runs."""


def present(
    run: RunFolder,
    detector: Detector,
    test: EvaluationInputs,
    computed: MapMetrics,
    calibration: Mapping[str, Any],
    result: Mapping[str, Any],
    rows: Sequence[ScoreRow],
) -> None:
    """Writes report.html and figures/ of an evaluation.

    Args:
      run: the run folder.
      detector: the trained model.
      test: the test images.
      computed: the detector's scores and metrics, and its output where that was kept; else the
        detector runs again on the images that are shown.
      calibration: what calibration.json holds.
      result: what metrics.json holds.
      rows: of all test images, as in scores.csv.
    """
    shown = images_to_show(rows, detector.config.evaluate.report_images)
    compared = images_to_compare(rows, PANEL_STRIPS)
    origin, examined = images_to_examine(test.samples, detector)
    indices = list(dict.fromkeys([*shown, *compared, *examined]))
    views = shown_of(detector, test, computed, indices)
    sizes = [views[i].heat.shape for i in indices] if detector.tiled else None
    masks = read_masks([test.samples[i] for i in indices], detector.config, sizes)
    cases = {
        i: make_case(
            rows[i], *views[i], mask, calibration, detector.region_of(test.samples[i].path)
        )
        for i, mask in zip(indices, masks, strict=True)
    }
    if isinstance(test.images, Photographs):  # of which the model knows tiles
        origin, images = f"tiles of {origin}", test.images.subset(examined).middle_tiles()
        knows = detector.in_the_middle()
        rebuilt = knows(images).reconstruction
    else:
        images = test.images[examined]
        knows, rebuilt = detector, np.stack([views[i].reconstruction for i in examined])
    learned = examine(knows, test, origin=origin, images=images, reconstructions=rebuilt)
    content = report_content(
        run,
        detector.config,
        calibration,
        result,
        rows,
        cases=[cases[i] for i in shown],
        learned=learned,
        pixel_curves=computed.curves,
        odd=odd_pictures(test, detector.config, calibration),
    )
    write_report(run.report, content)
    write_figures(run, [cases[i] for i in compared], calibration)


def report_content(
    run: RunFolder,
    config: Settings,
    calibration: Mapping[str, Any],
    result: Mapping[str, Any],
    rows: Sequence[ScoreRow],
    *,
    cases: Sequence[Case],
    learned: Learned,
    pixel_curves: Curves,
    odd: Mapping[str, UInt8[np.ndarray, "_ _ c"]],
) -> ReportContent:
    """Gathers what the page of a run shows."""
    notes = [*_crop_notes(config.data.region, result["counts"]), *result["notes"]]
    if (share := result.get("region_mask_share")) is not None:
        notes.insert(
            0,
            f"Of what the model sees of every image {share:.1%} is judged "
            "(evaluate.region_mask); the rest counts nowhere and is dark in maps.",
        )
    if len(cases) < len(rows):
        notes.append(
            f"{len(cases)} of {len(rows)} test images are shown: the highest-scoring good ones "
            "and every kind of defect in turn; scores.csv lists all (evaluate.report_images)."
        )
    if result["brackets"]:
        widest = max(high - low for low, high in result["brackets"].values())
        notes.append(
            "The maps were judged batch by batch to save memory (evaluate.memory_limit_mb): pixel "
            f"figures are within {widest / 2:.1g} of the exact ones; metrics.json has the bounds."
        )
    record = run.read_json(run.data)
    curves = {f"pixel_{k}" if k != "pro" else k: points for k, points in pixel_curves.items()}
    labels = [bool(row.label) for row in rows]
    if 0 < sum(labels) < len(labels):
        scores = [row.score for row in rows]
        false_positive, true_positive, _ = metrics.roc_curve(labels, scores)
        precision, recall, _ = metrics.precision_recall_curve(labels, scores)
        curves |= {"roc": (false_positive, true_positive), "pr": (recall, precision)}
    return ReportContent(
        title=f"{config.model.name} on {record['category'] or pathlib.Path(record['root']).name}",
        metrics=result,
        calibration=calibration,
        config=config.to_dict(),
        environment=run.read_json(run.environment),
        history=read_history(run.history, run.read_timing()),
        cases=cases,
        notes=notes,
        scores=rows,
        curves=curves,
        learned=learned,
        folder=os.fspath(run.path),
        odd=odd,
    )


def odd_pictures(
    test: EvaluationInputs, config: Settings, calibration: Mapping[str, Any]
) -> dict[str, UInt8[np.ndarray, "_ _ c"]]:
    """Small pictures of the odd training images, by path; none of files that cannot be read."""
    asked = [one["path"] for one in calibration.get("odd_images") or []][:ODD_PICTURES]
    if not asked:
        return {}
    samples = {printable(test.table.relative(one)): one for one in test.table.train_good()}
    data, found = config.data, {}
    for name in asked:
        if name not in samples:
            continue
        try:
            image = decode(
                samples[name].path,
                channels=data.channels,
                range_16bit=tuple(test.record["range_16bit"]),
                alpha=data.alpha,
            )
            found[name] = fit(cut(image, data.region), side=SIDE, smooth=True)
        except UserError:
            continue
    return found


def _crop_notes(crop: Crop, counts: Mapping[str, int]) -> list[str]:
    if is_whole(crop):
        return []
    notes = [
        f"The model sees a part of every image, {crop_in_words(crop)} (data.region): pictures, "
        "maps, masks and figures on this page are of that part."
    ]
    if missed := counts["images_with_empty_mask"]:
        notes.append(
            f"Of the anomalous test images {missed} have a mask that marks nothing in that part; "
            "they count as anomalous all the same, and their pixels as normal."
        )
    return notes


def write_figures(run: RunFolder, cases: Sequence[Case], calibration: Mapping[str, Any]) -> None:
    """Writes a few panel strips as PNG, and the same cases for pages over several runs."""
    scale = common_scale(calibration, cases)
    with writing(run.cases) as temporary:
        save_cases(temporary, cases)
    flat = [pathlib.PurePosixPath(case.path) for case in cases]
    short = ["_".join(path.with_suffix("").parts[-2:]) for path in flat]
    names = unique_names([(a, "_".join(b.parts)) for a, b in zip(short, flat, strict=True)])
    for case, name in zip(cases, names, strict=True):
        with writing(run.figures / f"{name}.png") as temporary:
            panel_strip(case, scale).save(temporary, format="PNG")


def images_to_show(rows: Sequence[ScoreRow], limit: int) -> list[int]:
    """Which test images a page shows: worst mistakes of good images first, kinds in turn.

    Args:
      rows: all test images.
      limit: at most this many; a third go to good images.

    Returns:
      Indices: good ones from the highest score down, then defective ones, one kind after the
      other in turn, each kind from its lowest score (nearly missed) up.
    """
    if limit < 1:
        return []
    by_score = sorted(range(len(rows)), key=lambda i: -rows[i].score)
    good = [i for i in by_score if not rows[i].label]
    defective = _in_turn([i for i in reversed(by_score) if rows[i].label], rows)
    room_for_good = max(limit // 3, limit - len(defective))
    # The most normal image is shown as well: it tells what a quiet map looks like.
    shown_good = (
        good[: max(0, room_for_good - 1)] + good[-1:] if len(good) > room_for_good else good
    )
    return shown_good + defective[: limit - len(shown_good)]


def images_to_compare(rows: Sequence[ScoreRow], limit: int) -> list[int]:
    """A choice of test images that does not depend on the model: kinds in turn, in table order."""
    return _in_turn(range(len(rows)), rows)[:limit]


def _in_turn(indices: Iterable[int], rows: Sequence[ScoreRow]) -> list[int]:
    """Images of one kind after the other in turn, each kind in the order of the indices."""
    kinds: dict[str, list[int]] = {}
    for i in indices:
        kinds.setdefault(rows[i].defect, []).append(i)
    # Good images last in each turn: there are few places and the defects are what is compared.
    queues = [kinds[name] for name in sorted(kinds, key=lambda name: (name == "good", name))]
    longest = max((len(q) for q in queues), default=0)
    return [q[k] for k in range(longest) for q in queues if k < len(q)]
