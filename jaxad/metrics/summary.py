"""All figures of an evaluation at once: the keys of ``metrics.json``.

A figure that has no value for the data is None, and its reason stands under ``"undefined"``;
it is never replaced by 0 or 0.5.

Cost of `evaluate_maps` for n pixels of which p lie in defects, in g groups (the good images and
each kind of defect): one sort by value, O(n log n), from which pixel AUROC, average precision and
AUPRO of every group and of all are read by O(g p log n) searches; the per-image AUROC sorts each
defective image by itself. Memory beyond the maps: about one copy of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int

from jaxad.metrics import _counts, _pixels, pro
from jaxad.metrics._inputs import (
    UndefinedMetric,
    as_binary,
    as_labels_scores,
    as_maps,
    as_masks,
    common_dtype,
    require_all_masks,
)

Figures = dict[str, Any]
Undefined = dict[str, str]

_IMAGE_FIGURES = ("image_auroc", "image_ap", "image_pr_auc_trapezoid", "image_f1_max")
_POOLED_FIGURES = ("pixel_auroc", "pixel_ap", "aupro")
_PER_IMAGE_FIGURES = ("pixel_auroc_per_image_mean", "pixel_auroc_per_image_std")
_PER_KIND = ("image_auroc", "pixel_auroc", "aupro")
_NO_DEFECT = "no mask holds a defect pixel"
_MIXED = "no image has both normal and defect pixels"


def image_metrics(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Figures, Undefined]:
    """Image-level figures of scores against labels.

    Args:
      labels: (n,) 0 (good) or 1 (anomalous).
      scores: (n,) raw image scores, larger is more anomalous.

    Returns:
      ``(figures, undefined)``: ``image_auroc``, ``image_ap`` (average precision),
      ``image_pr_auc_trapezoid`` and ``image_f1_max`` (an oracle, see `best_f1`), each a float or
      None; and for every None its reason.

    Raises:
      ValueError: shapes differ, labels are not 0 or 1, or scores are not finite.

    Examples:
      >>> from jaxad import metrics
      >>> figures, undefined = metrics.image_metrics([0, 0, 1, 1], [31.0, 34.0, 33.0, 38.0])
      >>> figures["image_auroc"], undefined
      (0.75, {})
      >>> metrics.image_metrics([0, 0], [31.0, 34.0])[1]["image_auroc"]
      'none of the 2 labels is anomalous'
    """
    anomalous, values = as_labels_scores(labels, scores)
    counts = _counts.count(np.sort(values[anomalous]), [np.sort(values[~anomalous])])
    try:
        _counts.require_both_classes(counts.positives, counts.negatives, "labels")
    except UndefinedMetric as reason:
        return _undefined(_IMAGE_FIGURES, reason)
    figures = (
        _counts.auroc_of(counts),
        _counts.average_precision_of(counts),
        _counts.pr_auc_trapezoid_of(counts),
        _counts.best_f1_of(counts)[0],
    )
    return dict(zip(_IMAGE_FIGURES, figures, strict=True)), {}


def pixel_metrics(
    maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None], *, limit: float = 0.3
) -> tuple[Figures, Undefined]:
    """Pixel-level figures of anomaly maps against masks.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image. None is
        refused, since without labels nothing tells whether that image is good.
      limit: false-positive rate up to which AUPRO integrates, in (0, 1].

    Returns:
      ``(figures, undefined)``: ``pixel_auroc`` and ``pixel_ap`` over the pixels of all images
      together, ``aupro`` (see `aupro`), ``pixel_auroc_per_image_mean`` and
      ``pixel_auroc_per_image_std`` (population) over the images that have both normal and defect
      pixels; each a float or None, and for every None its reason.

    Raises:
      ValueError: sizes differ, a map is not finite, or the limit is out of range.

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> masks = np.zeros((2, 8, 8))
      >>> masks[0, 2:4, 2:4] = 1
      >>> figures, undefined = metrics.pixel_metrics(30.0 + 5.0 * masks, masks)
      >>> figures["pixel_auroc"], figures["aupro"], figures["pixel_auroc_per_image_std"]
      (1.0, 1.0, 0.0)
    """
    pro.check_limit(limit)
    images = as_maps(maps)
    truth = require_all_masks(as_masks(masks, images))
    pixels = _pixels.sort_pixels(_pixels.split_pixels(images, truth, common_dtype(images)))
    return _join(
        _pooled_figures(pixels, limit, _NO_DEFECT),
        _per_image_figures(_pixels.auroc_per_image(images, truth), _MIXED),
    )


def evaluate_maps(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None] | None,
    *,
    labels: npt.ArrayLike | None = None,
    image_scores: npt.ArrayLike | None = None,
    limit: float = 0.3,
    defects: Sequence[str | None] | None = None,
) -> Figures:
    """Evaluates anomaly maps: image-level, pixel-level and per-defect figures, exact.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores of any
        range and dtype, larger is more anomalous.
      masks: one per map, same size, defect pixels > 0 (so booleans, 0/1, 0/255 all do). None in
        place of a mask: a good image counts as all zeros; an anomalous image is left out of the
        pixel figures (and counted in ``images_without_mask``). None for all: no masks at all.
      labels: (n,) 0 (good) or 1 (anomalous); by default whether the mask holds a defect pixel.
      image_scores: (n,) raw image scores; by default the maximum of each map.
      limit: false-positive rate up to which AUPRO integrates, in (0, 1].
      defects: (n,) kind of defect of each image; only read for anomalous images.

    Returns:
      A dictionary for JSON, with ``image_auroc``, ``image_ap``, ``image_pr_auc_trapezoid``,
      ``image_f1_max``, ``pixel_auroc``, ``pixel_ap``, ``aupro``, ``pixel_auroc_per_image_mean``,
      ``pixel_auroc_per_image_std`` (see `image_metrics` and `pixel_metrics`), ``counts``,
      ``per_defect`` (each kind against the good images: ``count``, ``image_auroc``,
      ``pixel_auroc``, ``aupro``; empty without ``defects``), and ``undefined``, the reason for
      every figure that is None, under its dotted key (``"per_defect.scratch.aupro"``).

    Raises:
      ValueError: lengths or sizes differ; scores are not finite; labels are not 0 or 1, are
        needed (a mask is missing) or contradict a mask (label 0, defect pixels).

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> masks = np.zeros((3, 8, 8), np.uint8)
      >>> masks[0, 2:4, 2:4] = 255
      >>> maps = 30.0 + masks / 51.0
      >>> result = metrics.evaluate_maps(maps, masks, defects=["scratch", "good", "good"])
      >>> result["image_auroc"], result["aupro"], result["per_defect"]["scratch"]["count"]
      (1.0, 1.0, 1)
      >>> result = metrics.evaluate_maps(maps, None, labels=[1, 0, 0])
      >>> print(result["pixel_auroc"], "-", result["undefined"]["pixel_auroc"])
      None - no anomalous image has a mask
    """
    pro.check_limit(limit)
    images = as_maps(maps)
    truth = as_masks(masks, images)
    anomalous = _labels(labels, truth)
    kinds, kind_of = _kinds(defects, anomalous)
    if image_scores is None:
        image_scores = [float(image.max()) for image in images]
    # Good images without a mask have no defect pixel; the broadcast zeros take no memory.
    truth = [
        np.broadcast_to(np.False_, image.shape) if mask is None and not bad else mask
        for image, mask, bad in zip(images, truth, anomalous, strict=True)
    ]
    has_mask = np.array([mask is not None for mask in truth], bool)
    masked = np.flatnonzero(anomalous & has_mask)
    groups = _sorted_groups(images, truth, kind_of, len(kinds))
    everything = _pixels.merge_sorted(groups)
    areas = _pixels.auroc_per_image([images[i] for i in masked], [truth[i] for i in masked])

    no_defect = _why_no_defect(anomalous, has_mask)
    figures, undefined = _join(
        image_metrics(anomalous, image_scores),
        _pooled_figures(everything, limit, no_defect),
        _per_image_figures(areas, _MIXED if everything.components else no_defect),
    )
    figures["counts"] = {
        "images": len(images),
        "good": int((~anomalous).sum()),
        "anomalous": int(anomalous.sum()),
        "images_without_mask": int((~has_mask).sum()),
        "images_with_empty_mask": sum(not truth[i].any() for i in masked),
        "images_in_pixel_auroc_per_image": areas.size,
        "pixels": everything.defect.size + sum(part.size for part in everything.normal),
        "defect_pixels": everything.defect.size,
        "defect_components": everything.components,
    }
    figures["per_defect"] = {}
    for k, kind in enumerate(kinds if defects is not None else [], start=1):
        ours = kind_of == k
        against_good = ours | ~anomalous
        row, missing = _join(
            image_metrics(anomalous[against_good], np.asarray(image_scores)[against_good]),
            _pooled_figures(
                _pixels.merge_sorted([groups[0], groups[k]]),
                limit,
                _why_no_defect(ours, has_mask),
            ),
        )
        figures["per_defect"][kind] = {"count": int(ours.sum())} | {n: row[n] for n in _PER_KIND}
        undefined |= {f"per_defect.{kind}.{n}": missing[n] for n in _PER_KIND if n in missing}
    return figures | {"undefined": undefined}


def _pooled_figures(
    pixels: _pixels.PixelScores, limit: float, no_defect: str
) -> tuple[Figures, Undefined]:
    try:
        _pixels.require_both_pixels(pixels, no_defect)
    except UndefinedMetric as reason:
        return _undefined(_POOLED_FIGURES, reason)
    counts = _counts.count(pixels.defect, pixels.normal)
    figures = (
        _counts.auroc_of(counts),
        _counts.average_precision_of(counts),
        pro.aupro_of(counts, pixels, limit),
    )
    return dict(zip(_POOLED_FIGURES, figures, strict=True)), {}


def _per_image_figures(areas: Float[np.ndarray, " m"], reason: str) -> tuple[Figures, Undefined]:
    if not areas.size:
        return _undefined(_PER_IMAGE_FIGURES, reason)
    return dict(zip(_PER_IMAGE_FIGURES, (float(areas.mean()), float(areas.std())), strict=True)), {}


def _undefined(names: Sequence[str], reason: object) -> tuple[Figures, Undefined]:
    return dict.fromkeys(names), dict.fromkeys(names, str(reason))


def _join(*parts: tuple[Figures, Undefined]) -> tuple[Figures, Undefined]:
    figures, undefined = {}, {}
    for more, missing in parts:
        figures |= more
        undefined |= missing
    return figures, undefined


def _why_no_defect(anomalous: Bool[np.ndarray, " n"], has_mask: Bool[np.ndarray, " n"]) -> str:
    if not anomalous.any():
        return "no image is anomalous"
    return _NO_DEFECT if (anomalous & has_mask).any() else "no anomalous image has a mask"


def _labels(
    labels: npt.ArrayLike | None, masks: Sequence[np.ndarray | None]
) -> Bool[np.ndarray, " n"]:
    holds_defect = np.array([mask is not None and bool(mask.any()) for mask in masks], bool)
    if labels is None:
        missing = next((i for i, mask in enumerate(masks) if mask is None), None)
        if missing is not None:
            raise ValueError(f"masks[{missing}] is missing, so labels must be given")
        return holds_defect
    if np.shape(labels) != (len(masks),):
        raise ValueError(f"there are {len(masks)} maps but labels of shape {np.shape(labels)}")
    anomalous = as_binary(labels)
    contradictions = np.flatnonzero(holds_defect & ~anomalous)
    if contradictions.size:
        raise ValueError(f"labels[{contradictions[0]}] is 0 but its mask holds defect pixels")
    return anomalous


def _kinds(
    defects: Sequence[str | None] | None, anomalous: Bool[np.ndarray, " n"]
) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """The kinds of defect, sorted, and per image 0 (good) or 1 + the index of its kind."""
    if defects is None:
        return ["anomalous"], anomalous.astype(np.int64)
    if len(defects) != anomalous.size:
        raise ValueError(f"there are {anomalous.size} maps but {len(defects)} defects")
    for i in np.flatnonzero(anomalous):
        if defects[i] is None:
            raise ValueError(f"defects[{i}] is None but the image is anomalous; name its kind")
    kinds = sorted({str(defects[i]) for i in np.flatnonzero(anomalous)})
    number = {kind: k for k, kind in enumerate(kinds, start=1)}
    return kinds, np.array(
        [number[str(d)] if bad else 0 for d, bad in zip(defects, anomalous, strict=True)], np.int64
    )


def _sorted_groups(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None],
    group_of: Int[np.ndarray, " n"],
    kinds: int,
) -> list[_pixels.PixelScores]:
    """Pixels of the good images and of each kind, sorted; images without a mask are left out."""
    dtype = common_dtype(maps)
    groups = []
    for g in range(kinds + 1):
        members = [i for i in np.flatnonzero(group_of == g) if masks[i] is not None]
        pixels = _pixels.split_pixels(
            [maps[i] for i in members], [masks[i] for i in members], dtype
        )
        groups.append(_pixels.sort_pixels(pixels))
    return groups
