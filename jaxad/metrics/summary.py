"""All metrics of an evaluation at once: the keys of ``metrics.json``.

A metric that has no value for the data is None, and its reason stands under ``"undefined"``;
it is never replaced by 0 or 0.5.

Cost of `evaluate_maps` while exact, for n pixels of which p lie in defects, in g groups (the good
images and each kind of defect): one sort by value, O(n log n), from which the pixel metrics of
every group and of all are read by O(g p log n) searches; the per-image AUROC sorts each defective
image by itself. Memory beyond the maps: about one copy of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy.typing as npt

from jaxad.metrics import _pixels, pro
from jaxad.metrics._assemble import (
    MIXED,
    NO_DEFECT,
    Metrics,
    Undefined,
    assemble,
    image_result,
    per_image_result,
    pooled_result,
)
from jaxad.metrics._curves import Curves
from jaxad.metrics._inputs import (
    as_labels_scores,
    as_maps,
    as_maps_with_masks,
    common_dtype,
    defect_pixels,
)
from jaxad.metrics._prepare import prepare
from jaxad.metrics.regions import RegionCounts
from jaxad.metrics.streaming import Accumulator


def image_metrics(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Metrics, Undefined]:
    """Image-level metrics of scores against labels.

    Args:
      labels: (n,) 0 (good) or 1 (anomalous).
      scores: (n,) raw image scores, larger is more anomalous.

    Returns:
      ``(metrics, undefined)``: ``image_auroc``, ``image_ap`` (average precision),
      ``image_pr_auc_trapezoid``, ``image_f1_max`` (the best F1 on these data, see `best_f1`) and
      ``image_fpr95`` (`fpr_at_tpr` of 0.95), each a float or None; and for every None its reason.

    Raises:
      ValueError: shapes differ, labels are not 0 or 1, or scores are not finite.

    Examples:
      >>> from jaxad import metrics
      >>> found, undefined = metrics.image_metrics([0, 0, 1, 1], [31.0, 34.0, 33.0, 38.0])
      >>> found["image_auroc"], undefined
      (0.75, {})
      >>> metrics.image_metrics([0, 0], [31.0, 34.0])[1]["image_auroc"]
      'none of the 2 labels is anomalous'
    """
    return image_result(*as_labels_scores(labels, scores))[:2]


def pixel_metrics(
    maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None], *, limit: float = 0.3
) -> tuple[Metrics, Undefined]:
    """Pixel-level metrics of anomaly maps against masks.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image. None is
        refused, since without labels nothing tells whether that image is good.
      limit: false-positive rate up to which AUPRO integrates, in (0, 1].

    Returns:
      ``(metrics, undefined)``: ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max`` (best F1) and
      ``pixel_fpr95`` (false-positive rate at recall 0.95) over the pixels of all images together,
      ``aupro`` (see `aupro`), ``pixel_auroc_per_image_mean`` and
      ``pixel_auroc_per_image_std`` (population) over the images that have both normal and defect
      pixels; each a float or None, and for every None its reason.

    Raises:
      ValueError: sizes differ, a map is not finite, or the limit is out of range.

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> masks = np.zeros((2, 8, 8))
      >>> masks[0, 2:4, 2:4] = 1
      >>> found, undefined = metrics.pixel_metrics(30.0 + 5.0 * masks, masks)
      >>> found["pixel_auroc"], found["aupro"], found["pixel_auroc_per_image_std"]
      (1.0, 1.0, 0.0)
    """
    pro.check_limit(limit)
    images, truth = as_maps_with_masks(maps, masks)
    pixels = _pixels.split_pixels(images, truth, common_dtype(images)).sorted()
    areas = _pixels.auroc_per_image(
        (image, mask, None) for image, mask in zip(images, truth, strict=True)
    )
    pooled = pooled_result(pixels, limit, NO_DEFECT)
    return pooled.and_also(per_image_result(areas, MIXED))[:2]


def pixel_curves(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None],
    *,
    valid: Iterable[npt.ArrayLike] | None = None,
) -> Curves:
    """The curves behind the pixel metrics, from one sort, corner by corner.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image.
      valid: as of `evaluate_maps`.

    Returns:
      ``"roc"`` (false-positive rate, recall), ``"pr"`` (recall, precision) and ``"pro"``
      (false-positive rate, mean region overlap); see `roc_curve` and `pro_curve` for thresholds.

    Raises:
      UndefinedMetric: the masks hold no defect pixel or no normal pixel.
      ValueError: sizes differ, or a map holds NaN or infinity.

    Examples:
      >>> from jaxad import metrics
      >>> curves = metrics.pixel_curves([[[9.0, 7.0, 5.0, 3.0]]], [[[1, 0, 0, 1]]])
      >>> [axis.tolist() for axis in curves["pr"]]
      [[0.0, 0.5, 1.0], [1.0, 1.0, 0.5]]
    """
    pixels = _pixels.read_pixels(maps, masks, valid)
    pixels.totals().require_both(NO_DEFECT)
    return pixels.sorted().curve().curves()


def evaluate_maps(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None] | None,
    *,
    labels: npt.ArrayLike | None = None,
    image_scores: npt.ArrayLike | None = None,
    limit: float = 0.3,
    defects: Sequence[str | None] | None = None,
    threshold: float | None = None,
    valid: Iterable[npt.ArrayLike] | None = None,
    memory_limit_mb: float = 4096.0,
) -> Metrics:
    """Evaluates anomaly maps: image-level, pixel-level and per-defect metrics.

    Exact as long as a copy of the maps fits into ``memory_limit_mb``; beyond it the pixels are
    counted in bins (`Accumulator`), and each pixel metric comes with bounds between which
    its exact value lies. The result names the method.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores of any
        range and dtype, larger is more anomalous.
      masks: one per map, same size, defect pixels > 0 (so booleans, 0/1, 0/255 all do). None in
        place of a mask: a good image counts as all zeros; an anomalous image is left out of the
        pixel metrics (and counted in ``images_without_mask``). None for all: no masks at all.
      labels: (n,) 0 (good) or 1 (anomalous); by default whether the mask holds a defect pixel.
      image_scores: (n,) raw image scores; by default the maximum of each map.
      limit: false-positive rate up to which AUPRO integrates, in (0, 1].
      defects: (n,) kind of defect of each image; only read for anomalous images.
      threshold: score from which a pixel is called anomalous, for ``regions``.
      valid: one boolean array per map, same size: the pixels that count; what lies elsewhere is
        neither normal nor defective, and no part of a connected component. None: all.
      memory_limit_mb: 2**20 bytes that a copy of the maps may take; 0 always streams.

    Returns:
      A dictionary for JSON: the metrics of `image_metrics` and `pixel_metrics`; ``method``
      (``"exact"`` or ``"streaming"``); ``counts``; ``per_defect`` (each kind against the good
      images: ``count``, ``image_auroc``, ``pixel_auroc``, ``aupro``; empty without ``defects``);
      with ``threshold`` also ``regions`` (``threshold`` and what `region_recall` says);
      ``undefined``, the reason for every metric that is None, under its dotted key
      (``"per_defect.scratch.aupro"``); and ``brackets``, likewise the bounds
      ``[low, high]`` of every metric that has a value, equal where it is exact.

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
    dtype = common_dtype(images)
    if sum(m.size for m in images) * dtype.itemsize > memory_limit_mb * 2**20:
        accumulator = Accumulator(threshold=threshold)
        accumulator.update(
            images, masks, labels=labels, image_scores=image_scores, defects=defects, valid=valid
        )
        return accumulator.compute(limit=limit)
    images, truth, counted, record = prepare(images, masks, labels, image_scores, defects, valid)
    kind_of = record.kind or (None,) * len(images)
    with_mask = [
        (image, mask, part, kind)
        for image, mask, part, kind in zip(images, truth, counted, kind_of, strict=True)
        if mask is not None
    ]
    groups = {}
    for group in dict.fromkeys((None, *kind_of)):
        members = [each[:3] for each in with_mask if each[3] == group]
        maps_of, masks_of, parts_of = zip(*members, strict=True) if members else ((), (), ())
        pixels = _pixels.split_pixels(maps_of, masks_of, dtype, parts_of)
        groups[group] = pixels.sorted()
    regions = None
    if threshold is not None:
        regions = RegionCounts(threshold)
        for image, mask, part, kind in with_mask:
            regions.add(image, defect_pixels(mask), kind, part)
    return assemble(record, groups, limit, regions)
