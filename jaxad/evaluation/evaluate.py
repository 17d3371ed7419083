"""Evaluation of a run on its test images: metrics.json, scores.csv, calibration.json, report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxad import metrics
from jaxad.data.crop import crop_record
from jaxad.data.digests import contents_of
from jaxad.data.files import split_member
from jaxad.data.masks import MASK_RULE
from jaxad.data.notes import dim_notes, mask_notes, named
from jaxad.data.repeats import Repeats, find_repeats, pixel_digests
from jaxad.data.table import Sample
from jaxad.evaluation.calibration import (
    calibration_of,
    save_calibration,
    with_threshold_by_hand,
)
from jaxad.evaluation.coarse import with_coarse
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import EvaluationInputs, read_inputs
from jaxad.evaluation.keep import write_keys
from jaxad.evaluation.map_metrics import Components, MapMetrics, map_metrics, map_score_pairs
from jaxad.evaluation.prediction import score_cells
from jaxad.evaluation.presentation import present
from jaxad.evaluation.protocols.apply import apply_protocol
from jaxad.evaluation.trained_range import brightness_unlike
from jaxad.metrics._assemble import NO_DEFECT
from jaxad.models.alignment import alignment_in_words
from jaxad.report.content import ScoreRow
from jaxad.run.files import together, write_csv
from jaxad.run.folder import RunFolder
from jaxad.run.progress import OnProgress, reporting_to
from jaxad.run.text import printable

_CLEARLY = 0.05
"""By which share of brightness good test images differ from the training images to be told."""

OUTSIDE = "no mask marks a defect inside data.region"


def evaluate(
    workdir: str | os.PathLike,
    *,
    checkpoint: str = "last",
    data_root: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Evaluates a run on the test images of its data set.

    Args:
      workdir: the run folder.
      checkpoint: ``"last"``, ``"best"`` or a step number.
      data_root: where the data set is now, when it has moved since training.
      overrides: ``evaluate.*`` keys, and of ``model.*`` those that detection alone reads
        (:func:`jaxad.models.detection_keys`), to change; once they have worked they are kept in
        the run's config, for every later evaluation and prediction.
      on_progress: is called with a :class:`jaxad.run.progress.Update` after every batch.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: it is no run folder, the data set has no test image, or a file cannot be read (of
        test images without ``evaluate.skip_unreadable``).
    """
    run = RunFolder(workdir)
    detector = Detector.load(workdir, checkpoint=checkpoint, overrides=overrides)
    test = read_inputs(run, detector.config, data_root)
    run.remove_unfinished()
    with (
        reporting_to(on_progress),
        together(),
    ):  # a full disk leaves the files of the last evaluation, and all of them
        return _evaluate(run, detector, test, overrides)


def _evaluate(
    run: RunFolder,
    detector: Detector,
    test: EvaluationInputs,
    overrides: Mapping[str, Any] | None,
) -> dict[str, Any]:
    calibration = calibration_of(run, detector, test.table)
    detector = with_coarse(detector, calibration)
    computed = map_metrics(detector, test, pixel_threshold=calibration["pixel_threshold"])
    calibration = with_threshold_by_hand(
        calibration,
        detector.config.evaluate.image_threshold,
        scores=computed.scores[detector.primary_score],
        labels=np.array([bool(sample.label) for sample in test.samples]),
    )
    result = metrics_record(detector, test.samples, computed)
    result |= apply_protocol(
        computed.output,
        test.samples,
        detector.config.evaluate,
        result,
        crop=detector.config.data.region,
        streamed=computed.protocol,
    )
    marked = dict(zip(test.samples, computed.marked, strict=True))
    dims = dict(zip(test.samples, computed.dims, strict=True))
    leaks, about_leaks = find_leaks(test)
    pose = alignment_in_words(detector.variables)
    odd = [
        *([pose] if pose else []),
        *unreadable_notes(test),
        *mask_notes(test.table, {s: share for s, share in marked.items() if s.mask}),
        *dim_notes(test.table, dims),
        *about_leaks,
        *brightness_notes(test, calibration.get("trained_on")),
        *(outside := outside_notes(test, computed.marked, computed.components)),
    ]
    if outside:
        undefined = result["undefined"].items()
        result["undefined"] = {k: OUTSIDE if v == NO_DEFECT else v for k, v in undefined}
    result["notes"] += [printable(note) for note in filter(None, [run.unfinished(), *odd])]
    result["counts"]["unreadable_images"] = len(test.unreadable)
    result["counts"]["test_images_seen_in_training"] = leaks
    result |= {
        "image_threshold": calibration["image_threshold"],
        "pixel_threshold": calibration["pixel_threshold"],
        "threshold_set_by_hand": calibration["set_by_hand"],
    }
    rows = score_rows(test, computed.scores[detector.primary_score], calibration)
    result["decisions"] = count_decisions(rows)
    if overrides:
        write_keys(run, overrides)
    save_calibration(run, calibration)
    run.write_json(run.metrics, result)
    write_scores(run, rows, calibration["image_threshold"])
    present(run, detector, test, computed, calibration, result, rows)
    return result


def metrics_record(
    detector: Detector, samples: Sequence[Sample], computed: MapMetrics
) -> dict[str, Any]:
    """All metrics of all maps and scores: metrics.json without protocol details and thresholds."""
    options = detector.config.evaluate
    labels = np.array([s.label for s in samples])
    pairs = map_score_pairs(detector)
    primary = computed.metrics[pairs[0]]
    per_map = {name: computed.metrics[name, score] for name, score in pairs[1:]}
    aside = ("method", "counts", "per_defect", "regions", "undefined", "brackets")
    brackets = {
        f"maps.{name}.{k}": v
        for name, one in per_map.items()
        for k, v in one["brackets"].items()
        if not k.startswith("per_defect.")
    }
    brackets = {k: v for k, v in (primary["brackets"] | brackets).items() if v[0] < v[1]}
    return {
        "protocol": options.protocol,
        "checkpoint": detector.step,
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "resolution": "original" if detector.tiled else options.resolution,
        **crop_record(detector.config.data.region),
        **_region_record(detector, samples),
        **({"tiles": list(detector.config.data.tiles)} if detector.tiled else {}),
        **({"tile_models": detector.config.data.tile_models} if detector.grid else {}),
        **({"coarse": detector.coarse.sha256} if detector.coarse else {}),
        "smoothing": options.smoothing,
        "mask_rule": MASK_RULE,
        "aupro_limit": options.aupro_limit,
        **primary,
        "counts": primary["counts"]
        | {
            "mask_components_in_files": computed.components.in_files,
            "mask_components_kept_as_a_pixel": computed.components.kept_as_a_pixel,
        },
        "notes": component_notes(detector, computed.components, primary.get("regions") or {}),
        "brackets": brackets,
        "maps": {
            name: {k: v for k, v in one.items() if k not in aside} for name, one in per_map.items()
        },
        "scores": {
            name: metrics.image_metrics(labels, s)[0] for name, s in computed.scores.items()
        },
    }


def _region_record(detector: Detector, samples: Sequence[Sample]) -> dict[str, float]:
    """Which share of what the model sees is judged, on average, where that is not all."""
    if detector.regions is None:
        return {}
    found = map(detector.regions.of, [sample.path for sample in samples])
    shares = [1.0 if region is None else region.share for region in found]
    return {"region_mask_share": float(np.mean(shares))}


def unreadable_notes(test: EvaluationInputs) -> list[str]:
    """Names the test images that `evaluate.skip_unreadable` has left out."""
    if not test.unreadable:
        return []
    return [
        "test images that cannot be read, or whose masks cannot, and are left out of every figure: "
        + named(test.table, test.unreadable, at_most=100)
    ]


def find_leaks(test: EvaluationInputs) -> tuple[int, list[str]]:
    """Names test images that are images of the run, or good and defective at once.

    Compared are pixels as the model sees them; with runs that have no record of them, files.

    Returns:
      How many test images the run was trained on or calibrated with, and sentences.
    """
    trained = {digest: name for name, digest in test.record.get("pixels", {}).items()}
    if isinstance(test.images, np.ndarray):
        digests = pixel_digests(test.images)
    else:
        digests = [test.images.digests[number] for number in range(len(test.images))]
    held = {test.table.relative(s): d for s, d in zip(test.samples, digests, strict=False)}
    contradicting = find_repeats(dict(zip(test.samples, digests, strict=False))).contradicting
    how = "equal to the last pixel as the model sees them"
    notes = Repeats((), contradicting, ()).notes(test.table, how)
    if not trained or not digests:
        trained = {digest: name for name, digest in test.record.get("sha256", {}).items()}
        # Of a file that holds many images, all of them are in one file.
        files = [sample for sample in test.samples if split_member(sample.path) is None]
        held = contents_of(test.table, files)["sha256"] if trained else {}
        how = "byte for byte"
    leaked = {name: trained[digest] for name, digest in held.items() if digest in trained}
    if leaked:
        name, twin = next(iter(leaked.items()))
        notes.append(
            f"{len(leaked)} of {len(test.samples)} test images are images that the run was trained "
            f"on or calibrated with, {how} (first {name} is {twin}): figures on them say nothing "
            "of new images"
        )
    return len(leaked), notes


def brightness_notes(test: EvaluationInputs, trained_on: Mapping[str, Any] | None) -> list[str]:
    """Says when most good test images are brighter or darker than all training images.

    Such are taken or saved in another way (of more bits, say), and rejected for it.
    """
    if not isinstance(test.images, np.ndarray):  # photographs, of which none is decoded as a whole
        return []
    good = [row for row, sample in enumerate(test.samples) if not sample.label]
    compared = {
        row: brightness_unlike(trained_on, test.images[row], least=_CLEARLY) for row in good
    }
    unlike = {row: how for row, how in compared.items() if how}
    if 2 * len(unlike) <= len(good):
        return []
    row, how = next(iter(unlike.items()))
    return [
        f"{len(unlike)} of {len(good)} good test images are brighter or darker than any training "
        f"image (first {test.table.relative(test.samples[row])} is {how}): are they taken, or "
        "saved, in another way?"
    ]


def outside_notes(
    test: EvaluationInputs, marked: Sequence[float], components: Components
) -> list[str]:
    """Says when all that masks mark lies outside ``data.region``, so that no pixel is judged."""
    pairs = zip(test.samples, marked, strict=True)
    count = sum(bool(sample.label and share) for sample, share in pairs)
    if not count or components.in_files:
        return []
    return [f"all that the {count} masks mark lies outside data.region, so no defect is judged"]


def component_notes(
    detector: Detector, components: Components, regions: Mapping[str, Any]
) -> list[str]:
    """What has to be known of masks whose defects are merged or lost at the evaluation's size."""
    size, count = detector.config.data.image_size, regions.get("regions", components.in_files)
    merged = [
        f"the masks mark {components.in_files} defects (connected components) in their files and "
        f"{count} at {size[0]} x {size[1]} pixels, where neighbours may touch: figures of regions "
        "count the latter"
    ]
    if not components.kept_as_a_pixel:
        return merged * (count != components.in_files)
    height, width = (components.enlarged * side for side in size)
    return [
        f"{components.kept_as_a_pixel} of {components.in_files} defects (connected components of "
        f"the masks) are smaller than what {size[0]} x {size[1]} pixels show and were kept as one "
        "pixel each, which makes pixel figures rough; evaluate.resolution=original judges them "
        f"at their own size, data.image_size={height},{width} (or tiles of the images) lets the "
        "model see them"
    ]


def score_rows(
    test: EvaluationInputs, scores: Float[np.ndarray, " n"], calibration: Mapping[str, Any]
) -> list[ScoreRow]:
    """One row per test image, in the table's order."""
    threshold = calibration["image_threshold"]
    return [
        ScoreRow(
            path=printable(test.table.relative(sample)),
            label=sample.label,
            defect=sample.defect,
            score=float(score),
            decision=None if threshold is None else bool(score > threshold),
        )
        for sample, score in zip(test.samples, scores, strict=True)
    ]


def count_decisions(rows: Sequence[ScoreRow]) -> dict[str, int] | None:
    """What the image threshold does on the test images; None without one."""
    if any(row.decision is None for row in rows):
        return None
    verdicts = Counter(row.verdict for row in rows)
    return {
        "defective": verdicts["found"] + verdicts["missed"],
        "defective_rejected": verdicts["found"],
        "good": verdicts["passed"] + verdicts["false alarm"],
        "good_rejected": verdicts["false alarm"],
    }


def write_scores(run: RunFolder, rows: list[ScoreRow], threshold: float | None) -> None:
    """Writes scores.csv: path, label, defect, score, decision (1 = rejected, empty = none).

    Two more columns say the same in words and give the image threshold.
    """
    texts = [row._asdict() | score_cells(row.score, row.decision, threshold) for row in rows]
    write_csv(run.scores, [*ScoreRow._fields, "verdict", "threshold"], texts)
