"""A protocol applied to anomaly maps: its metrics, what was left out, and why one is undefined."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Shaped, UInt8

from jaxad import metrics
from jaxad.data.crop import WHOLE, Crop
from jaxad.data.table import Sample
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.protocols.masks import MASK_RESIZINGS, mask_levels
from jaxad.evaluation.protocols.rules import (
    IMAGE_METRICS,
    PER_IMAGE_METRICS,
    POOLED_METRICS,
    Protocol,
    get_protocol,
)
from jaxad.evaluation.resize import at_size
from jaxad.run.settings import Evaluate

Map = Float[np.ndarray, "_ _"]
Values = dict[str, Any]
Undefined = dict[str, str]


class ProtocolMetrics(NamedTuple):
    """The metrics of one map under a protocol.

    Attributes:
      values: name -> value or None, as the protocol lists them; with metrics over kinds also
        ``per_defect``, kind -> mean over its images.
      undefined: name (``"per_defect.KIND"``) -> reason, for every None.
      counts: ``images`` (that count in this protocol), and of them ``images_without_mask``,
        ``images_with_constant_map``, ``images_of_one_class`` and ``images_in_per_image_figures``,
        which leave each other out in this order; the last three with per-image metrics alone.
    """

    values: Values
    undefined: Undefined
    counts: dict[str, int]

    @classmethod
    def chosen(
        cls, names: Sequence[str], values: Values, undefined: Undefined, counts: dict[str, int]
    ) -> ProtocolMetrics:
        """Those of some names alone."""
        reasons = {name: why for name, why in undefined.items() if name.partition(".")[0] in names}
        return cls({name: values[name] for name in names}, reasons, counts)


def apply_protocol(
    output: DetectorOutput | None,
    samples: Sequence[Sample],
    options: Evaluate,
    result: Mapping[str, Any],
    *,
    crop: Crop = WHOLE,
    streamed: Mapping[str, ProtocolMetrics] | None = None,
) -> dict[str, Any]:
    """What a run's protocol adds to metrics.json.

    Args:
      output: of the detector on the test images; may be None for the protocol ``"jaxad"``.
      samples: the test images.
      options: ``config.evaluate``; its ``protocol`` is applied to every map.
      result: the rest of metrics.json, which holds the metrics of the protocol ``"jaxad"``.
      crop: ``config.data.region``, to which masks are cut.
      streamed: map -> its metrics, where these were computed photograph by photograph.

    Returns:
      ``protocol``, ``protocol_statement`` (in words), ``protocol_departures`` (sentences),
      ``protocol_figures`` (of the primary map), ``protocol_maps`` (map -> the same metrics),
      ``protocol_counts`` and ``undefined``: that of ``result`` with the reasons of
      ``protocol_figures.NAME`` and ``protocol_maps.MAP.NAME`` added.

    Raises:
      UserError: a mask cannot be read.
    """
    protocol, primary = get_protocol(options.protocol), options.primary_map
    if protocol.name == "jaxad":
        of_maps = {name: _as_in(result, name, primary, protocol) for name in result["maps"]}
    elif streamed is not None:
        of_maps = dict(streamed)
    elif output is None:
        raise ValueError(f"the protocol {protocol.name!r} needs the output of the detector")
    else:
        own = output.scores[options.primary_score]
        of_a_map = options.primary_score.rpartition(":")[0] in output.maps
        original = protocol.resolution == "original"
        masks = [
            mask_levels(sample, crop, None if original else output.maps[primary].shape[1:])
            for sample in samples
        ]
        of_maps = {
            name: protocol_metrics(
                protocol,
                output.maps,
                masks,
                labels=[sample.label for sample in samples],
                kinds=[sample.defect for sample in samples],
                map_name=name,
                own_scores=None if of_a_map or name != primary else own,
                aupro_limit=options.aupro_limit,
            )
            for name in output.maps
        }
    undefined = {f"protocol_figures.{k}": why for k, why in of_maps[primary].undefined.items()}
    for name, one in of_maps.items():
        undefined |= {f"protocol_maps.{name}.{k}": why for k, why in one.undefined.items()}
    return {
        "protocol": protocol.name,
        "protocol_statement": protocol.statement,
        "protocol_departures": protocol.departures(smoothing=options.smoothing),
        "protocol_figures": of_maps[primary].values,
        "protocol_maps": {name: one.values for name, one in of_maps.items()},
        "protocol_counts": of_maps[primary].counts,
        "undefined": {**result["undefined"], **undefined},
    }


def protocol_metrics(
    protocol: Protocol,
    maps: Mapping[str, Float[np.ndarray, "n h w"] | Sequence[Map]],
    masks: Sequence[UInt8[np.ndarray, "_ _"] | None],
    *,
    labels: npt.ArrayLike,
    kinds: Sequence[str],
    map_name: str,
    own_scores: npt.ArrayLike | None = None,
    aupro_limit: float = 0.3,
) -> ProtocolMetrics:
    """The metrics of one map of a model as a protocol defines them.

    Args:
      protocol: of :data:`~jaxad.evaluation.protocols.rules.PROTOCOLS`.
      maps: name -> ``(n, h, w)`` or n arrays of ``(h, w)``; raw values.
      masks: n arrays of gray levels at their own size, all zero for good images; None for
        defective images without a mask.
      labels: ``(n,)`` 0 good, 1 anomalous.
      kinds: ``(n,)`` kind of defect; read for anomalous images alone.
      map_name: the map to evaluate; under ``"min_max"`` its factors are taken from ``maps`` too.
      own_scores: ``(n,)`` the model's own image scores, for protocols that take them.
      aupro_limit: where the protocol leaves it open.

    Returns:
      The metrics with reasons and counts. An empty mask counts as such; nothing is replaced by 0
      or 0.5.
    """
    anomalous = [bool(label) for label in np.asarray(labels)]
    counting = [i for i, bad in enumerate(anomalous) if bad or protocol.images == "all"]
    factors = map_name.split("*") if protocol.fusion == "min_max" else [map_name]
    if missing := " and ".join(name for name in factors if name not in maps):
        reason = f"the map {map_name} is made of {missing}, which this model does not give"
        return ProtocolMetrics(*_undefined(protocol.metrics, reason), {"images": len(counting)})
    images = [
        _prepare(
            protocol,
            [maps[name][i] for name in factors],
            masks[i],
            anomalous=anomalous[i],
            kind=kinds[i],
            own_score=None if own_scores is None else float(np.asarray(own_scores)[i]),
        )
        for i in counting
    ]
    counts = {
        "images": len(images),
        "images_without_mask": sum(image.truth is None for image in images),
    }
    wanted = set(protocol.metrics)
    parts = []
    if wanted & IMAGE_METRICS.keys():
        parts.append(_image_metrics(protocol, images))
    if wanted & POOLED_METRICS.keys():
        limit = aupro_limit if protocol.aupro_limit is None else protocol.aupro_limit
        parts.append(_pooled_metrics(images, limit))
    if wanted & PER_IMAGE_METRICS.keys():
        values, undefined, skipped = _per_image_metrics(images)
        parts.append((values, undefined))
        counts |= skipped
    values = {name: value for part, _ in parts for name, value in part.items()}
    undefined = {name: why for _, part in parts for name, why in part.items()}
    over_kinds = "pixel_auroc_mean_over_kinds" in wanted
    names = [*protocol.metrics, *(["per_defect"] if over_kinds else [])]
    return ProtocolMetrics.chosen(names, values, undefined, counts)


def min_max(values: Map) -> Float[np.ndarray, "_ _"]:
    """Values of one image brought to [0, 1] in float64; NaN where the map is constant."""
    values = np.asarray(values, np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.full_like(values, np.nan)


class _Image(NamedTuple):
    """One image as a protocol sees it.

    Attributes:
      values: its map, formed and resized as the protocol says.
      truth: its mask, likewise, of the same size; None for a defective image without one.
      anomalous: by its folder.
      kind: of its defect.
      own_score: the model's own image score, where there is one.
    """

    values: Map
    truth: Bool[np.ndarray, "_ _"] | None
    anomalous: bool
    kind: str
    own_score: float | None


def _prepare(
    protocol: Protocol,
    factors: Sequence[Map],
    mask: UInt8[np.ndarray, "_ _"] | None,
    *,
    anomalous: bool,
    kind: str,
    own_score: float | None,
) -> _Image:
    if protocol.fusion == "raw":
        (values,) = map(np.asarray, factors)
    else:
        first, *others = map(min_max, factors)
        # In float64 a min-max step ties no two float32 values that differ.
        values = min_max(math.prod(others, start=first))
    if mask is None:
        truth = None
    elif protocol.resolution == "original":
        truth = mask > 0
    else:
        truth = MASK_RESIZINGS[protocol.mask_resizing].apply(mask, values.shape)
    return _Image(at_size(values, truth), truth, anomalous, kind, own_score)


def _image_metrics(protocol: Protocol, images: Sequence[_Image]) -> tuple[Values, Undefined]:
    reduce = np.mean if protocol.image_score == "mean" else np.max
    labels = [label_of(protocol, image.anomalous, image.truth) for image in images]
    scores = []
    for image in images:
        if protocol.image_score == "own" and image.own_score is not None:
            scores.append(image.own_score)
        else:
            scores.append(float(reduce(image.values)))
    return metrics.image_metrics(labels, scores)


def label_of(protocol: Protocol, anomalous: bool, mask: Shaped[np.ndarray, "_ _"] | None) -> int:
    """Whether an image counts as anomalous, 0 or 1.

    Args:
      protocol: which says what decides.
      anomalous: by its folder.
      mask: above zero where there is a defect; None where there is none.
    """
    if protocol.label == "mask" and mask is not None:
        return int(mask.any())
    return int(anomalous)


def _pooled_metrics(images: Sequence[_Image], limit: float) -> tuple[Values, Undefined]:
    masked = [image for image in images if image.truth is not None]
    if not any(image.anomalous for image in masked):
        some = any(image.anomalous for image in images)
        reason = "no anomalous image has a mask" if some else "no image is anomalous"
        return _undefined(POOLED_METRICS, reason)
    values, undefined = metrics.pixel_metrics(
        [image.values for image in masked], [image.truth for image in masked], limit=limit
    )
    # The per-image metrics are this module's own: it tells what was skipped.
    return pooled_of(values, undefined)


def pooled_of(values: Values, undefined: Undefined) -> tuple[Values, Undefined]:
    """Of metrics of pixels those that are pooled over all images."""
    values = values | {"pro_as_released": values["pixel_auroc"]}
    if "pixel_auroc" in undefined:
        undefined = undefined | {"pro_as_released": undefined["pixel_auroc"]}
    return (
        {name: values[name] for name in POOLED_METRICS},
        {name: why for name, why in undefined.items() if name in POOLED_METRICS},
    )


def _per_image_metrics(images: Sequence[_Image]) -> tuple[Values, Undefined, dict[str, int]]:
    """Means of the pixel AUROC inside each defective image, over images and over kinds.

    The counts say how many images have no such AUROC, and why.
    """
    defective = [image for image in images if image.anomalous]
    constant = one_class = 0
    areas: list[tuple[str, float]] = []
    for image in defective:
        if image.truth is None:
            continue
        if np.isnan(image.values).any():
            constant += 1
        elif not image.truth.any() or image.truth.all():
            one_class += 1
        else:
            area = metrics.auroc(image.truth.ravel(), image.values.ravel())
            areas.append((image.kind, area))
    per_kind = {
        kind: _mean([area for its, area in areas if its == kind])
        for kind in sorted({image.kind for image in defective})
    }
    values = {
        "pixel_auroc_per_image_mean": _mean([area for _, area in areas]),
        "pixel_auroc_per_image_std": float(np.std([a for _, a in areas])) if areas else None,
        "per_defect": per_kind,
        "pixel_auroc_mean_over_kinds": _mean([v for v in per_kind.values() if v is not None]),
    }
    if constant or one_class:
        reason = "no image has both classes of pixels and a map that varies"
    else:
        reason = "no anomalous image has a mask" if defective else "no image is anomalous"
    of_kind = "no image of this kind has a mask, both classes of pixels and a map that varies"
    undefined = {name: reason for name, value in values.items() if value is None}
    undefined |= {f"per_defect.{kind}": of_kind for kind, v in per_kind.items() if v is None}
    counts = {
        "images_with_constant_map": constant,
        "images_of_one_class": one_class,
        "images_in_per_image_figures": len(areas),
    }
    return values, undefined, counts


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _as_in(
    result: Mapping[str, Any], map_name: str, primary: str, protocol: Protocol
) -> ProtocolMetrics:
    """The metrics of the protocol "jaxad", which stand in metrics.json already."""
    known = result if map_name == primary else result["maps"][map_name]
    values = {name: known[name] for name in protocol.metrics}
    why = result["undefined"]
    return ProtocolMetrics(
        values,
        {name: why[name] for name, value in values.items() if value is None and name in why},
        {"images": result["counts"]["images"]},
    )


def _undefined(names: Collection[str], why: str) -> tuple[Values, Undefined]:
    return dict.fromkeys(names), dict.fromkeys(names, why)
