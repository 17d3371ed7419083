"""All figures of an evaluation at once: the keys of ``metrics.json``.

A figure that has no value for the data is None, and its reason stands under ``"undefined"``;
it is never replaced by 0 or 0.5.

Cost of `evaluate_maps` while exact, for n pixels of which p lie in defects, in g groups (the good
images and each kind of defect): one sort by value, O(n log n), from which the pixel figures of
every group and of all are read by O(g p log n) searches; the per-image AUROC sorts each defective
image by itself. Memory beyond the maps: about one copy of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from jaxad.metrics import _pixels, pro
from jaxad.metrics._assemble import (
    MIXED,
    NO_DEFECT,
    ExactPixels,
    Figures,
    Undefined,
    assemble,
    image_figures,
    per_image_figures,
    pooled_figures,
)
from jaxad.metrics._inputs import (
    as_labels_scores,
    as_maps,
    as_masks,
    common_dtype,
    defect_pixels,
    require_all_masks,
)
from jaxad.metrics._prepare import Images, prepare
from jaxad.metrics.regions import RegionCounts
from jaxad.metrics.streaming import Accumulator


def image_metrics(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Figures, Undefined]:
    """Image-level figures of scores against labels.

    Args:
      labels: (n,) 0 (good) or 1 (anomalous).
      scores: (n,) raw image scores, larger is more anomalous.

    Returns:
      ``(figures, undefined)``: ``image_auroc``, ``image_ap`` (average precision),
      ``image_pr_auc_trapezoid``, ``image_f1_max`` (see `best_f1`) and ``image_fpr95``
      (`fpr_at_tpr` of 0.95), each a float or None; and for every None its reason.

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
    return image_figures(*as_labels_scores(labels, scores))


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
      ``(figures, undefined)``: ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max`` (see `best_f1`) and
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
      >>> figures, undefined = metrics.pixel_metrics(30.0 + 5.0 * masks, masks)
      >>> figures["pixel_auroc"], figures["aupro"], figures["pixel_auroc_per_image_std"]
      (1.0, 1.0, 0.0)
    """
    pro.check_limit(limit)
    images = as_maps(maps)
    truth = require_all_masks(as_masks(masks, images))
    pixels = _pixels.sort_pixels(_pixels.split_pixels(images, truth, common_dtype(images)))
    figures, undefined, _ = pooled_figures(ExactPixels({None: pixels}), (None,), limit, NO_DEFECT)
    areas, missing = per_image_figures(_pixels.auroc_per_image(images, truth), MIXED)
    return figures | areas, undefined | missing


def pixel_curves(
    maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None]
) -> dict[str, tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]]:
    """The curves behind the pixel figures, from one sort, corner by corner.

    Args:
      maps: (n, h, w), (n, 1, h, w) or a sequence of (h, w) arrays of any sizes; raw scores.
      masks: one per map, same size, defect pixels > 0; all zeros for a good image.

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
    images = as_maps(maps)
    truth = require_all_masks(as_masks(masks, images))
    pixels = _pixels.split_pixels(images, truth, common_dtype(images))
    _pixels.require_both_pixels(pixels, NO_DEFECT)
    return ExactPixels({None: _pixels.sort_pixels(pixels)}).curves((None,))


def evaluate_maps(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None] | None,
    *,
    labels: npt.ArrayLike | None = None,
    image_scores: npt.ArrayLike | None = None,
    limit: float = 0.3,
    defects: Sequence[str | None] | None = None,
    threshold: float | None = None,
    memory_limit_mb: float = 4096.0,
) -> Figures:
    """Evaluates anomaly maps: image-level, pixel-level and per-defect figures.

    Exact as long as a copy of the maps fits into ``memory_limit_mb``; beyond it the pixels are
    counted in bins (`Accumulator`), and each pixel figure comes with bounds around its exact
    value. The result names the method.

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
      threshold: score from which a pixel is called anomalous, for ``regions``.
      memory_limit_mb: 2**20 bytes that a copy of the maps may take; 0 always streams.

    Returns:
      A dictionary for JSON: the figures of `image_metrics` and `pixel_metrics`; ``method``
      (``"exact"`` or ``"streaming"``); ``counts``; ``per_defect`` (each kind against the good
      images: ``count``, ``image_auroc``, ``pixel_auroc``, ``aupro``; empty without ``defects``);
      with ``threshold`` also ``regions`` (``threshold`` and what `region_recall` says);
      ``undefined``, the reason for every figure that is None, under its dotted key
      (``"per_defect.scratch.aupro"``); and ``brackets``, likewise ``[low, high]`` around every
      figure that is not exact.

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
        accumulator.update(images, masks, labels=labels, image_scores=image_scores, defects=defects)
        return accumulator.compute(limit=limit)
    images, truth, record = prepare(images, masks, labels, image_scores, defects)
    pixels = ExactPixels(_sorted_groups(images, truth, record, dtype))
    regions = None
    if threshold is not None:
        regions = RegionCounts(threshold)
        for image, mask, kind in zip(images, truth, _kind_of(record), strict=True):
            if mask is not None:
                regions.add(image, defect_pixels(mask), kind)
    return assemble(record, pixels, limit, regions)


def _kind_of(record: Images) -> tuple[str | None, ...]:
    return record.kind or (None,) * record.anomalous.size


def _sorted_groups(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None],
    record: Images,
    dtype: np.dtype,
) -> dict[str | None, _pixels.PixelScores]:
    """Pixels of the good images and of each kind, sorted; images without a mask are left out."""
    kind_of = _kind_of(record)
    groups = {}
    for kind in dict.fromkeys((None, *kind_of)):
        members = [i for i, k in enumerate(kind_of) if k == kind and masks[i] is not None]
        groups[kind] = _pixels.sort_pixels(
            _pixels.split_pixels([maps[i] for i in members], [masks[i] for i in members], dtype)
        )
    return groups
