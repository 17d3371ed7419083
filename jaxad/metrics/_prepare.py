"""Checks what callers hold of a set of images and gathers what is known of each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Shaped

from jaxad.metrics import _pixels
from jaxad.metrics._inputs import (
    as_binary,
    as_maps,
    as_masks,
    as_scores,
    as_valid,
    defect_pixels,
)


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


_NO_IMAGES = Images(
    *(np.zeros(0, bool), np.zeros(0), None, np.zeros(0, bool), np.zeros(0, bool), np.zeros(0))
)


def prepare(
    maps: Iterable[npt.ArrayLike],
    masks: Iterable[npt.ArrayLike | None] | None,
    labels: npt.ArrayLike | None,
    image_scores: npt.ArrayLike | None,
    defects: Sequence[str | None] | None,
    valid: Iterable[npt.ArrayLike] | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray | None], list[np.ndarray | None], Images]:
    """Checks the arguments of `evaluate_maps`; returns maps, masks, valid pixels and the rest.

    Masks of good images without one are zeros; those of anomalous images stay None. Of others
    defect pixels that do not count are taken away.
    """
    images = as_maps(maps)
    counted = as_valid(valid, images)
    truth = [
        mask if mask is None or pixels is None else defect_pixels(mask) & pixels
        for mask, pixels in zip(as_masks(masks, images), counted, strict=True)
    ]
    anomalous = _labels(labels, truth)
    kind = _kinds(defects, anomalous)
    if image_scores is None:
        scores = np.array(
            [
                float((image if pixels is None else image[pixels]).max())
                for image, pixels in zip(images, counted, strict=True)
            ]
        )
    else:
        scores = as_scores(image_scores, "image_scores")
        if scores.shape != anomalous.shape:
            raise ValueError(f"there are {len(images)} maps but {scores.size} image_scores")
    # Good images without a mask have no defect pixel; the broadcast zeros take no memory.
    truth = [
        np.broadcast_to(np.False_, image.shape) if mask is None and not bad else mask
        for image, mask, bad in zip(images, truth, anomalous, strict=True)
    ]
    masked = [
        (image, mask, pixels)
        for image, mask, pixels, bad in zip(images, truth, counted, anomalous, strict=True)
        if bad and mask is not None
    ]
    has_mask = np.array([mask is not None for mask in truth], bool)
    empty = anomalous & np.array([m is not None and not m.any() for m in truth], bool)
    areas = _pixels.auroc_per_image(masked)
    return images, truth, counted, Images(anomalous, scores, kind, has_mask, empty, areas)


def join_images(parts: Sequence[Images]) -> Images:
    """Several sets of images as one; the kinds of all are known, or of none."""
    parts = parts or [_NO_IMAGES]
    kinds = [part.kind for part in parts if part.kind is not None]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Images._fields
        if name != "kind"
    }
    return Images(kind=tuple(chain(*kinds)) if len(kinds) == len(parts) else None, **arrays)


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
    for i, (defect, bad) in enumerate(zip(defects, anomalous, strict=True)):
        if bad and defect is None:
            raise ValueError(f"defects[{i}] is None but the image is anomalous; name its kind")
    return tuple(str(d) if bad else None for d, bad in zip(defects, anomalous, strict=True))
