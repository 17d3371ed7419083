"""Puts the figures of an evaluation together, from exact or from binned pixels alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxad.metrics import _counts, _pixels, pro
from jaxad.metrics._inputs import UndefinedMetric
from jaxad.metrics._intervals import Bounds, Bracket, Intervals, join
from jaxad.metrics._prepare import Images
from jaxad.metrics.regions import RegionCounts

Figures = dict[str, Any]
Undefined = dict[str, str]
Kind = str | None
"""A group of pixels: those of one kind of defect, or (None) of good images or of unknown kind."""

TPR = 0.95
IMAGE_FIGURES = ("image_auroc", "image_ap", "image_pr_auc_trapezoid", "image_f1_max", "image_fpr95")
POOLED_FIGURES = ("pixel_auroc", "pixel_ap", "aupro", "pixel_f1_max", "pixel_fpr95")
PER_IMAGE_FIGURES = ("pixel_auroc_per_image_mean", "pixel_auroc_per_image_std")
PER_KIND = ("image_auroc", "pixel_auroc", "aupro")
NO_DEFECT = "no mask holds a defect pixel"
MIXED = "no image has both normal and defect pixels"


class Totals(NamedTuple):
    """Numbers of pixels and of connected components."""

    normal: int
    defect: int
    components: int


class Pixels(Protocol):
    """The pixels of a set of images in groups, ready to be judged."""

    method: str

    def totals(self, kinds: Sequence[Kind]) -> Totals:
        """Of some groups together."""

    def figures(self, kinds: Sequence[Kind], limit: float) -> tuple[float | Bracket, ...]:
        """The pooled figures of some groups together; both kinds of pixels are there."""


class ExactPixels:
    """All pixels, sorted."""

    method = "exact"

    def __init__(self, groups: dict[Kind, _pixels.PixelScores]):
        self._groups = groups

    def _merged(self, kinds: Sequence[Kind]) -> _pixels.PixelScores:
        return _pixels.merge_sorted([self._groups[k] for k in kinds if k in self._groups])

    def totals(self, kinds: Sequence[Kind]) -> Totals:
        """See `Pixels`."""
        groups = [self._groups[k] for k in kinds if k in self._groups]
        return Totals(
            sum(part.size for group in groups for part in group.normal),
            sum(group.defect.size for group in groups),
            sum(group.components for group in groups),
        )

    def figures(self, kinds: Sequence[Kind], limit: float) -> tuple[float, ...]:
        """See `Pixels`."""
        return exact_figures(self._merged(kinds), limit)

    def curves(self, kinds: Sequence[Kind]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """ROC, PR and PRO curve of some groups together; see `curves_of`."""
        pixels = self._merged(kinds)
        counts = _counts.count(pixels.defect, pixels.normal)
        covered = pro.coverage(counts, pixels)
        covered[-1] = 1.0  # which the sum of weights gives only up to rounding
        return curves_of(counts, covered)


class BinnedPixels:
    """Pixels of which intervals are known."""

    method = "streaming"

    def __init__(self, groups: dict[Kind, Intervals], components: dict[Kind, int]):
        self._groups, self._components = groups, components

    def bounds(self, kinds: Sequence[Kind]) -> Bounds:
        """Brackets of some groups together."""
        groups = [self._groups[k] for k in kinds if k in self._groups]
        return Bounds(join(groups, groups[0].low.dtype), self.totals(kinds).components)

    def totals(self, kinds: Sequence[Kind]) -> Totals:
        """See `Pixels`."""
        groups = [self._groups[k] for k in kinds if k in self._groups]
        return Totals(
            sum(int(group.normal.sum()) for group in groups),
            sum(int(group.defect.sum()) for group in groups),
            sum(self._components[k] for k in kinds if k in self._groups),
        )

    def figures(self, kinds: Sequence[Kind], limit: float) -> tuple[Bracket, ...]:
        """See `Pixels`."""
        bounds = self.bounds(kinds)
        return (
            bounds.auroc(),
            bounds.average_precision(),
            bounds.aupro(limit),
            bounds.best_f1(),
            bounds.fpr_at_tpr(TPR),
        )

    def curves(self, kinds: Sequence[Kind]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The curves, as if all pixels of an interval stood at its lower end."""
        return curves_of(*self.bounds(kinds).tied())


def curves_of(
    counts: _counts.Counts, covered: Float[np.ndarray, " k"]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Corners of the curves: ``"roc"``, ``"pr"`` (recall first) and ``"pro"``."""
    recall = counts.tp / counts.positives
    precision = counts.tp / (counts.tp + counts.fp)
    return {
        "roc": pro.corners(counts, recall, counts.negatives),
        "pr": (np.append(0.0, recall), np.append(1.0, precision)),
        "pro": pro.corners(counts, covered, counts.negatives),
    }


def exact_figures(pixels: _pixels.PixelScores, limit: float) -> tuple[float, ...]:
    """The pooled figures of sorted pixels."""
    counts = _counts.count(pixels.defect, pixels.normal)
    return (
        _counts.auroc_of(counts),
        _counts.average_precision_of(counts),
        pro.aupro_of(counts, pixels, limit),
        _counts.best_f1_of(counts)[0],
        _counts.fpr_at_tpr_of(counts, TPR),
    )


def assemble(
    images: Images, pixels: Pixels, limit: float, regions: RegionCounts | None = None
) -> Figures:
    """The dictionary of `evaluate_maps`."""
    kinds = sorted({k for k in images.kind or () if k is not None})
    everything = (None, *kinds)
    totals = pixels.totals(everything)
    no_defect = _why_no_defect(images.anomalous, images.has_mask)
    figures, undefined, brackets = _join(
        (*image_figures(images.anomalous, images.score), {}),
        pooled_figures(pixels, everything, limit, no_defect),
        (*per_image_figures(images.areas, MIXED if totals.components else no_defect), {}),
    )
    figures["method"] = pixels.method
    figures["counts"] = _counts_of(images, totals)
    figures["per_defect"] = {}
    for kind in kinds:
        ours = np.array([k == kind for k in images.kind], bool)
        among = ours | ~images.anomalous
        row, missing, within = _join(
            (*image_figures(images.anomalous[among], images.score[among]), {}),
            pooled_figures(pixels, (None, kind), limit, _why_no_defect(ours, images.has_mask)),
        )
        figures["per_defect"][kind] = {"count": int(ours.sum())} | {n: row[n] for n in PER_KIND}
        undefined |= {f"per_defect.{kind}.{n}": missing[n] for n in PER_KIND if n in missing}
        brackets |= {f"per_defect.{kind}.{n}": within[n] for n in PER_KIND if n in within}
    if regions is not None:
        figures["regions"] = None
        if regions.shares:
            figures["regions"] = {"threshold": float(regions.threshold)} | regions.summary()
        else:
            undefined["regions"] = no_defect
    return figures | {"undefined": undefined, "brackets": brackets}


def image_figures(
    anomalous: Bool[np.ndarray, " n"], scores: Shaped[np.ndarray, " n"]
) -> tuple[Figures, Undefined]:
    """Image-level figures of checked labels and scores."""
    counts = _counts.count(np.sort(scores[anomalous]), [np.sort(scores[~anomalous])])
    try:
        _counts.require_both_classes(counts.positives, counts.negatives, "labels")
    except UndefinedMetric as reason:
        return _undefined(IMAGE_FIGURES, reason)
    figures = (
        _counts.auroc_of(counts),
        _counts.average_precision_of(counts),
        _counts.pr_auc_trapezoid_of(counts),
        _counts.best_f1_of(counts)[0],
        _counts.fpr_at_tpr_of(counts, TPR),
    )
    return dict(zip(IMAGE_FIGURES, figures, strict=True)), {}


def pooled_figures(
    pixels: Pixels, kinds: Sequence[Kind], limit: float, no_defect: str
) -> tuple[Figures, Undefined, dict[str, list[float]]]:
    """Figures of all pixels of some groups, and the brackets of those that are not exact.

    Args:
      pixels: of all groups.
      kinds: the groups that count.
      limit: of AUPRO.
      no_defect: the reason to give where there are no defect pixels.
    """
    totals = pixels.totals(kinds)
    try:
        if totals.normal and not totals.defect:
            raise UndefinedMetric(no_defect)
        _counts.require_both_classes(totals.defect, totals.normal, "pixels")
    except UndefinedMetric as reason:
        return (*_undefined(POOLED_FIGURES, reason), {})
    values = dict(zip(POOLED_FIGURES, pixels.figures(kinds, limit), strict=True))
    brackets = {n: list(v) for n, v in values.items() if isinstance(v, Bracket)}
    return {n: v.value if n in brackets else v for n, v in values.items()}, {}, brackets


def per_image_figures(areas: Float[np.ndarray, " m"], reason: str) -> tuple[Figures, Undefined]:
    """Mean and population standard deviation of the pixel AUROC over images."""
    if not areas.size:
        return _undefined(PER_IMAGE_FIGURES, reason)
    return dict(zip(PER_IMAGE_FIGURES, (float(areas.mean()), float(areas.std())), strict=True)), {}


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


def _undefined(names: Sequence[str], reason: object) -> tuple[Figures, Undefined]:
    return dict.fromkeys(names), dict.fromkeys(names, str(reason))


def _join(*parts: tuple[dict, dict, dict]) -> tuple[dict, dict, dict]:
    joined = {}, {}, {}
    for part in parts:
        for whole, more in zip(joined, part, strict=True):
            whole |= more
    return joined


def _why_no_defect(anomalous: Bool[np.ndarray, " n"], has_mask: Bool[np.ndarray, " n"]) -> str:
    if not anomalous.any():
        return "no image is anomalous"
    return NO_DEFECT if (anomalous & has_mask).any() else "no anomalous image has a mask"
