"""Checks what callers hold of a set of images and gathers what is known of each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Shaped

from jaxad.metrics import _pixels
from jaxad.metrics._inputs import as_binary, as_maps, as_masks, as_scores


class Images(NamedTuple):
    """What is kept of n images besides their pixels.

    Attributes:
      anomalous: their labels.
      score: their image scores.
      kind: kind of defect of the anomalous ones, None of good ones; None when kinds were not said.
      has_mask: False for anomalous images without a mask.
      empty_mask: True for anomalous images whose mask holds no defect.
      areas: pixel AUROC of each anomalous image with both normal and defect pixels.
    """

    anomalous: Bool[np.ndarray, " n"]
    score: Shaped[np.ndarray, " n"]
    kind: tuple[str | None, ...] | None
    has_mask: Bool[np.ndarray, " n"]
    empty_mask: Bool[np.ndarray, " n"]
    areas: Float[np.ndarray, " m"]


def prepare(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None] | None,
    labels: npt.ArrayLike | None,
    image_scores: npt.ArrayLike | None,
    defects: Sequence[str | None] | None,
) -> tuple[list[np.ndarray], list[np.ndarray | None], Images]:
    """Checks the arguments of `evaluate_maps`; returns maps, masks and what else is known.

    Masks of good images without one are zeros; those of anomalous images stay None.
    """
    images = as_maps(maps)
    truth = as_masks(masks, images)
    anomalous = _labels(labels, truth)
    kind = _kinds(defects, anomalous)
    if image_scores is None:
        scores = np.array([float(image.max()) for image in images])
    else:
        scores = as_scores(image_scores, "image_scores")
        if scores.shape != anomalous.shape:
            raise ValueError(f"there are {len(images)} maps but {scores.size} image_scores")
    # Good images without a mask have no defect pixel; the broadcast zeros take no memory.
    truth = [
        np.broadcast_to(np.False_, image.shape) if mask is None and not bad else mask
        for image, mask, bad in zip(images, truth, anomalous, strict=True)
    ]
    has_mask = np.array([mask is not None for mask in truth], bool)
    masked = np.flatnonzero(anomalous & has_mask)
    empty = np.zeros(len(images), bool)
    empty[masked] = [not truth[i].any() for i in masked]
    areas = _pixels.auroc_per_image([images[i] for i in masked], [truth[i] for i in masked])
    return images, truth, Images(anomalous, scores, kind, has_mask, empty, areas)


def join_images(parts: Sequence[Images]) -> Images:
    """Several sets of images as one; the kinds of all are known, or of none."""
    if not parts:
        none = np.zeros(0, bool)
        return Images(none, np.zeros(0), None, none, none, np.zeros(0))
    kind = parts[0].kind
    if kind is not None:
        kind = tuple(k for part in parts for k in part.kind)
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Images._fields
        if name != "kind"
    }
    return Images(kind=kind, **arrays)


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
) -> tuple[str | None, ...] | None:
    if defects is None:
        return None
    if len(defects) != anomalous.size:
        raise ValueError(f"there are {anomalous.size} maps but {len(defects)} defects")
    for i in np.flatnonzero(anomalous):
        if defects[i] is None:
            raise ValueError(f"defects[{i}] is None but the image is anomalous; name its kind")
    return tuple(str(d) if bad else None for d, bad in zip(defects, anomalous, strict=True))
