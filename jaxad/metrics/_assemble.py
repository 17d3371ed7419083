"""Puts the metrics of an evaluation together, from exact or from binned pixels alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxad.metrics import _counts
from jaxad.metrics._curves import PixelCurve
from jaxad.metrics._inputs import UndefinedMetric
from jaxad.metrics._intervals import Bounds
from jaxad.metrics._pixels import Totals
from jaxad.metrics._prepare import Images
from jaxad.metrics.regions import RegionCounts

Metrics = dict[str, Any]
Undefined = dict[str, str]
Kind = str | None
"""A group of pixels: those of one kind of defect, or (None) of good images or of unknown kind."""

TPR = 0.95
IMAGE_METRICS = ("image_auroc", "image_ap", "image_pr_auc_trapezoid", "image_f1_max", "image_fpr95")
POOLED_METRICS = ("pixel_auroc", "pixel_ap", "aupro", "pixel_f1_max", "pixel_fpr95")
PER_IMAGE_METRICS = ("pixel_auroc_per_image_mean", "pixel_auroc_per_image_std")
PER_KIND = ("image_auroc", "pixel_auroc", "aupro")
NO_DEFECT = "no mask holds a defect pixel"
MIXED = "no image has both normal and defect pixels"


class Result(NamedTuple):
    """Some metrics of an evaluation.

    Attributes:
      metrics: name -> value or None.
      undefined: name of each that is None -> the reason.
      bounds: name of each that is not exact -> [low, high].
    """

    metrics: Metrics
    undefined: Undefined
    bounds: dict[str, list[float]]

    @classmethod
    def defined(cls, names: Sequence[str], values: Sequence[float]) -> Result:
        """All known exactly."""
        return cls(dict(zip(names, values, strict=True)), {}, {})

    @classmethod
    def unknown(cls, names: Sequence[str], reason: str) -> Result:
        """All undefined, for one reason."""
        return cls(dict.fromkeys(names), dict.fromkeys(names, reason), {})

    def and_also(self, other: Result) -> Result:
        """These metrics and others."""
        return Result(
            self.metrics | other.metrics,
            self.undefined | other.undefined,
            self.bounds | other.bounds,
        )


P = TypeVar("P", bound="Pixels")
V = TypeVar("V")


@runtime_checkable
class Pixels(Protocol):
    """The pixels of some images, ready for metrics: `PixelScores` (sorted) or `BinnedPixels`."""

    @property
    def method(self) -> str:
        """As the result of an evaluation names it."""

    def joined(self: P, others: Sequence[P]) -> P:
        """These and others as one."""

    def totals(self) -> Totals:
        """How many there are."""

    def pooled_metrics(self, limit: float) -> Mapping[str, float | Bounds]:
        """By name; both kinds of pixels are there."""

    def curve(self) -> PixelCurve:
        """The curve of the pixels, as exactly as they are known."""


def join_groups(groups: Mapping[Kind, Pixels], kinds: Iterable[Kind]) -> Pixels:
    """The pixels of good images and of some kinds of defects as one."""
    others = [groups[kind] for kind in kinds if kind in groups]
    return groups[None].joined(others) if others else groups[None]


def assemble(
    images: Images,
    groups: Mapping[Kind, Pixels],
    limit: float,
    regions: RegionCounts | None = None,
) -> Metrics:
    """The dictionary of `evaluate_maps`.

    Args:
      images: what is known of each image.
      groups: pixels of good images (or of unknown kind) under None, and of each kind.
      limit: of AUPRO.
      regions: what was found at a threshold; None without one.
    """
    kind_of = images.kind or ()
    kinds = sorted({kind for kind in kind_of if kind is not None})
    pixels = join_groups(groups, kinds)
    totals = pixels.totals()
    no_defect = _why_no_defect(images.anomalous, images.has_mask)
    metrics, undefined, bounds = (
        image_result(images.anomalous, images.score)
        .and_also(pooled_result(pixels, limit, no_defect))
        .and_also(per_image_result(images.areas, MIXED if totals.components else no_defect))
    )
    metrics["method"] = pixels.method
    metrics["counts"] = _counts_of(images, totals)
    metrics["per_defect"] = {}
    for kind in kinds:
        ours = np.array([k == kind for k in kind_of], bool)
        among = ours | ~images.anomalous
        of_kind = image_result(images.anomalous[among], images.score[among]).and_also(
            pooled_result(join_groups(groups, [kind]), limit, _why_no_defect(ours, images.has_mask))
        )
        row = {name: of_kind.metrics[name] for name in PER_KIND}
        metrics["per_defect"][kind] = {"count": int(ours.sum())} | row
        undefined |= _of_kind(kind, of_kind.undefined)
        bounds |= _of_kind(kind, of_kind.bounds)
    bounds = _points(metrics) | bounds
    if regions is not None:
        metrics["regions"] = None
        if regions.shares:
            metrics["regions"] = {"threshold": float(regions.threshold)} | regions.summary()
        else:
            undefined["regions"] = no_defect
    return metrics | {"undefined": undefined, "brackets": bounds}


def image_result(anomalous: Bool[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]) -> Result:
    """Image-level metrics of checked labels and scores."""
    counts = _counts.count(np.sort(scores[anomalous]), [np.sort(scores[~anomalous])])
    try:
        _counts.require_both_classes(counts.positives, counts.negatives, "labels")
    except UndefinedMetric as reason:
        return Result.unknown(IMAGE_METRICS, str(reason))
    values = (
        _counts.auroc_of(counts),
        _counts.average_precision_of(counts),
        _counts.pr_auc_trapezoid_of(counts),
        _counts.best_f1_of(counts)[0],
        _counts.fpr_at_tpr_of(counts, TPR),
    )
    return Result.defined(IMAGE_METRICS, values)


def pooled_result(pixels: Pixels, limit: float, no_defect: str) -> Result:
    """Metrics of all pixels together.

    Args:
      pixels: of all images that count.
      limit: of AUPRO.
      no_defect: the reason to give where there are no defect pixels.
    """
    try:
        pixels.totals().require_both(no_defect)
    except UndefinedMetric as reason:
        return Result.unknown(POOLED_METRICS, str(reason))
    found = pixels.pooled_metrics(limit)
    metrics, bounds = {}, {}
    for name in POOLED_METRICS:
        value = found[name]
        if isinstance(value, Bounds):
            bounds[name], value = list(value), value.middle
        metrics[name] = value
    return Result(metrics, {}, bounds)


def per_image_result(areas: Float[np.ndarray, " m"], reason: str) -> Result:
    """Mean and population standard deviation of the pixel AUROC over images."""
    if not areas.size:
        return Result.unknown(PER_IMAGE_METRICS, reason)
    return Result.defined(PER_IMAGE_METRICS, (float(areas.mean()), float(areas.std())))


def _counts_of(images: Images, totals: Totals) -> dict[str, int]:
    return {
        "images": images.anomalous.size,
        "good": int((~images.anomalous).sum()),
        "anomalous": int(images.anomalous.sum()),
        "images_without_mask": int((~images.has_mask).sum()),
        "images_with_empty_mask": int(images.empty_mask.sum()),
        "images_in_pixel_auroc_per_image": images.areas.size,
        "pixels": totals.normal + totals.defect,
        "defect_pixels": totals.defect,
        "defect_components": totals.components,
    }


def _points(metrics: Metrics) -> dict[str, list[float]]:
    """The bounds of figures that are known exactly: twice the figure, under its dotted key."""
    rows = {"": metrics} | {f"per_defect.{k}.": row for k, row in metrics["per_defect"].items()}
    return {
        prefix + name: [value, value]
        for prefix, row in rows.items()
        for name, value in row.items()
        if isinstance(value, float)
    }


def _of_kind(kind: str, entries: Mapping[str, V]) -> dict[str, V]:
    """Under their dotted keys, those of the metrics that each kind has."""
    return {f"per_defect.{kind}.{name}": entries[name] for name in PER_KIND if name in entries}


def _why_no_defect(anomalous: Bool[np.ndarray, " n"], has_mask: Bool[np.ndarray, " n"]) -> str:
    if not anomalous.any():
        return "no image is anomalous"
    return NO_DEFECT if (anomalous & has_mask).any() else "no anomalous image has a mask"
