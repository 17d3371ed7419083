"""A protocol applied to anomaly maps: its figures, what was left out, and why one is undefined."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, UInt8
from ml_collections import ConfigDict

from jaxad import metrics
from jaxad.data.images import image_dimensions
from jaxad.data.masks import read_mask_levels
from jaxad.data.region import WHOLE, Region
from jaxad.data.table import Sample
from jaxad.evaluation.detector import Findings
from jaxad.evaluation.protocols.masks import MASK_RULES
from jaxad.evaluation.protocols.rules import (
    IMAGE_FIGURES,
    PER_IMAGE_FIGURES,
    POOLED_FIGURES,
    Protocol,
    get_protocol,
)
from jaxad.evaluation.resize import at_size

Map = Float[np.ndarray, "h w"]
Figures = dict[str, Any]
Undefined = dict[str, str]


class Judgement(NamedTuple):
    """One map under a protocol.

    Attributes:
      figures: name -> value or None, as the protocol lists them; with figures over kinds also
        ``per_defect``, kind -> mean over its images.
      undefined: name (``"per_defect.KIND"``) -> reason, for every None.
      counts: ``images`` (that count in this protocol), and of them ``images_without_mask``,
        ``images_with_constant_map``, ``images_of_one_class`` and ``images_in_per_image_figures``,
        which leave each other out in this order; the last three with per-image figures alone.
    """

    figures: Figures
    undefined: Undefined
    counts: dict[str, int]


def judge_run(
    findings: Findings,
    samples: Sequence[Sample],
    options: ConfigDict,
    result: Mapping[str, Any],
    *,
    region: Region = WHOLE,
) -> dict[str, Any]:
    """What a run's protocol adds to metrics.json.

    Args:
      findings: of the test images.
      samples: the test images.
      options: ``config.evaluate``; its ``protocol`` is applied to every map.
      result: the rest of metrics.json, which holds the figures of the protocol ``"jaxad"``.
      region: ``config.data.region``, to which masks are cut.

    Returns:
      ``protocol``, ``protocol_statement`` (in words), ``protocol_departures`` (sentences),
      ``protocol_figures`` (of the primary map), ``protocol_maps`` (map -> the same figures),
      ``protocol_counts`` and ``undefined``: that of ``result`` with the reasons of
      ``protocol_figures.NAME`` and ``protocol_maps.MAP.NAME`` added.

    Raises:
      UserError: a mask cannot be read.
    """
    protocol, primary = get_protocol(options.protocol), options.primary_map
    if protocol.name == "jaxad":
        judged = {name: _as_in(result, name, primary, protocol) for name in findings.maps}
    else:
        own = findings.scores[options.primary_score]
        own = own if options.primary_score.rpartition(":")[0] not in findings.maps else None
        masks = _mask_values(samples, protocol, findings.maps[primary].shape[1:], region)
        judged = {
            name: judge_by(
                protocol,
                findings.maps,
                masks,
                labels=[sample.label for sample in samples],
                kinds=[sample.defect for sample in samples],
                map_name=name,
                own_scores=own if name == primary else None,
                aupro_limit=options.aupro_limit,
            )
            for name in findings.maps
        }
    undefined = {f"protocol_figures.{k}": why for k, why in judged[primary].undefined.items()}
    for name, one in judged.items():
        undefined |= {f"protocol_maps.{name}.{k}": why for k, why in one.undefined.items()}
    return {
        "protocol": protocol.name,
        "protocol_statement": protocol.statement,
        "protocol_departures": protocol.departures(smoothing=options.smoothing),
        "protocol_figures": judged[primary].figures,
        "protocol_maps": {name: one.figures for name, one in judged.items()},
        "protocol_counts": judged[primary].counts,
        "undefined": {**result["undefined"], **undefined},
    }


def judge_by(
    protocol: Protocol,
    maps: Mapping[str, Sequence[Map]],
    masks: Sequence[UInt8[np.ndarray, "H W"] | None],
    *,
    labels: npt.ArrayLike,
    kinds: Sequence[str],
    map_name: str,
    own_scores: npt.ArrayLike | None = None,
    aupro_limit: float = 0.3,
) -> Judgement:
    """Judges one map of a model as a protocol says.

    Args:
      protocol: of :data:`~jaxad.evaluation.protocols.rules.PROTOCOLS`.
      maps: name -> ``(n, h, w)`` or n arrays of ``(h, w)``; raw values.
      masks: n arrays of gray levels at their own size, all zero for good images; None for
        defective images without a mask.
      labels: ``(n,)`` 0 good, 1 anomalous.
      kinds: ``(n,)`` kind of defect; read for anomalous images alone.
      map_name: the map to judge; under ``"min_max"`` its factors are taken from ``maps`` as well.
      own_scores: ``(n,)`` the model's own image scores, for protocols that take them.
      aupro_limit: where the protocol leaves it open.

    Returns:
      The figures with reasons and counts. An empty mask counts as such; nothing is replaced by 0
      or 0.5.
    """
    anomalous = np.asarray(labels).astype(bool)
    chosen = np.flatnonzero(anomalous) if protocol.images == "defective" else range(len(masks))
    if missing := _missing_factors(protocol, maps, map_name):
        reason = f"the map {map_name} is made of {missing}, which this model does not give"
        return Judgement(*_undefined(protocol.figures, reason), {"images": len(chosen)})
    truth = {i: _truth(protocol, masks[i], maps[map_name][i]) for i in chosen}
    formed = {i: at_size(_form(protocol, maps, map_name, i), truth[i]) for i in chosen}
    counts = {
        "images": len(chosen),
        "images_without_mask": sum(mask is None for mask in truth.values()),
    }
    parts = []
    if set(protocol.figures) & IMAGE_FIGURES.keys():
        scores = _scores(protocol, formed, own_scores)
        parts.append(metrics.image_metrics(_labels(protocol, anomalous, truth), scores))
    masked = [i for i in chosen if truth[i] is not None]
    if set(protocol.figures) & POOLED_FIGURES.keys():
        limit = aupro_limit if protocol.aupro_limit is None else protocol.aupro_limit
        parts.append(_pooled(formed, truth, masked, anomalous, limit))
    if set(protocol.figures) & PER_IMAGE_FIGURES.keys():
        areas, skipped = _areas(formed, truth, [i for i in masked if anomalous[i]])
        counts |= skipped | {"images_in_per_image_figures": len(areas)}
        reason = _why_no_area(skipped, counts)
        parts.append(_per_image(areas, reason))
        if "pixel_auroc_mean_over_kinds" in protocol.figures:
            parts.append(_over_kinds(areas, {i: kinds[i] for i in chosen if anomalous[i]}, reason))
    figures, undefined = {}, {}
    for values, reasons in parts:
        figures |= values
        undefined |= reasons
    wanted = [*protocol.figures, *(["per_defect"] if "per_defect" in figures else [])]
    return Judgement(
        {name: figures[name] for name in wanted},
        {name: why for name, why in undefined.items() if name.partition(".")[0] in wanted},
        counts,
    )


def min_max(values: Map) -> Float[np.ndarray, "h w"]:
    """Values of one image brought to [0, 1] in float64; NaN where the map is constant."""
    values = np.asarray(values, np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.full_like(values, np.nan)


def _as_in(result: Mapping[str, Any], map_name: str, primary: str, protocol: Protocol) -> Judgement:
    """The figures of the protocol "jaxad", which stand in metrics.json already."""
    known = result if map_name == primary else result["maps"][map_name]
    figures = {name: known[name] for name in protocol.figures}
    why = result["undefined"]
    return Judgement(
        figures,
        {name: why[name] for name, value in figures.items() if value is None and name in why},
        {"images": result["counts"]["images"]},
    )


def _mask_values(
    samples: Sequence[Sample], protocol: Protocol, map_size: tuple[int, int], region: Region
) -> list[UInt8[np.ndarray, "H W"] | None]:
    masks = []
    for sample in samples:
        if not sample.label:
            original = protocol.resolution == "original"
            size = image_dimensions(sample.path, region=region) if original else map_size
            masks.append(np.broadcast_to(np.uint8(0), size))
        elif sample.mask is None:
            masks.append(None)
        else:
            size = image_dimensions(sample.path)
            masks.append(read_mask_levels(sample.mask, expected_size=size, region=region))
    return masks


def _factors(protocol: Protocol, map_name: str) -> list[str]:
    return map_name.split("*") if protocol.fusion == "min_max" else [map_name]


def _missing_factors(protocol: Protocol, maps: Mapping[str, Any], map_name: str) -> str:
    return " and ".join(name for name in _factors(protocol, map_name) if name not in maps)


def _form(protocol: Protocol, maps: Mapping[str, Sequence[Map]], map_name: str, i: int) -> Map:
    if protocol.fusion == "raw":
        return np.asarray(maps[map_name][i])
    factors = [min_max(maps[name][i]) for name in _factors(protocol, map_name)]
    # In float64 a min-max step ties no two float32 values that differ.
    return min_max(math.prod(factors[1:], start=factors[0]))


def _truth(
    protocol: Protocol, mask: UInt8[np.ndarray, "H W"] | None, values: Map
) -> Bool[np.ndarray, "h w"] | None:
    if mask is None:
        return None
    if protocol.resolution == "original":
        return mask > 0
    return MASK_RULES[protocol.mask_rule].apply(mask, np.shape(values))


def _labels(
    protocol: Protocol, anomalous: Bool[np.ndarray, " n"], truth: Mapping[int, Any]
) -> list[int]:
    if protocol.label == "folder":
        return [int(anomalous[i]) for i in truth]
    return [int(anomalous[i] if mask is None else mask.any()) for i, mask in truth.items()]


def _scores(
    protocol: Protocol, formed: Mapping[int, Map], own_scores: npt.ArrayLike | None
) -> list[float]:
    if protocol.image_score == "own" and own_scores is not None:
        return [float(np.asarray(own_scores)[i]) for i in formed]
    reduce: Callable = np.mean if protocol.image_score == "mean" else np.max
    return [float(reduce(values)) for values in formed.values()]


def _pooled(
    formed: Mapping[int, Map],
    truth: Mapping[int, Any],
    masked: Sequence[int],
    anomalous: Bool[np.ndarray, " n"],
    limit: float,
) -> tuple[Figures, Undefined]:
    if not any(anomalous[i] for i in masked):
        some = any(anomalous[i] for i in truth)
        reason = "no anomalous image has a mask" if some else "no image is anomalous"
        return _undefined(POOLED_FIGURES, reason)
    figures, undefined = metrics.pixel_metrics(
        [formed[i] for i in masked], [truth[i] for i in masked], limit=limit
    )
    figures["pro_as_released"] = figures["pixel_auroc"]
    if "pixel_auroc" in undefined:
        undefined["pro_as_released"] = undefined["pixel_auroc"]
    # The per-image figures are this module's own: it tells what was skipped.
    return (
        {name: figures[name] for name in POOLED_FIGURES},
        {name: why for name, why in undefined.items() if name in POOLED_FIGURES},
    )


def _areas(
    formed: Mapping[int, Map], truth: Mapping[int, Any], images: Sequence[int]
) -> tuple[dict[int, float], dict[str, int]]:
    """Pixel AUROC inside each image that has one, and how many have none."""
    areas, constant, one_class = {}, 0, 0
    for i in images:
        if np.isnan(formed[i]).any():
            constant += 1
        elif not truth[i].any() or truth[i].all():
            one_class += 1
        else:
            areas[i] = metrics.auroc(truth[i].ravel(), formed[i].ravel())
    return areas, {"images_with_constant_map": constant, "images_of_one_class": one_class}


def _why_no_area(skipped: Mapping[str, int], counts: Mapping[str, int]) -> str:
    if any(skipped.values()):
        return "no image has both classes of pixels and a map that varies"
    without_mask = counts["images_without_mask"]
    return "no anomalous image has a mask" if without_mask else "no image is anomalous"


def _per_image(areas: Mapping[int, float], reason: str) -> tuple[Figures, Undefined]:
    names = ("pixel_auroc_per_image_mean", "pixel_auroc_per_image_std")
    if not areas:
        return _undefined(names, reason)
    values = list(areas.values())
    return dict(zip(names, (float(np.mean(values)), float(np.std(values))), strict=True)), {}


def _over_kinds(
    areas: Mapping[int, float], kind_of: Mapping[int, str], reason: str
) -> tuple[Figures, Undefined]:
    name = "pixel_auroc_mean_over_kinds"
    per_kind: dict[str, float | None] = {}
    for kind in sorted(set(kind_of.values())):
        values = [areas[i] for i, its in kind_of.items() if its == kind and i in areas]
        per_kind[kind] = float(np.mean(values)) if values else None
    none = "no image of this kind has a mask, both classes of pixels and a map that varies"
    undefined = {f"per_defect.{kind}": none for kind, v in per_kind.items() if v is None}
    if not areas:
        return {name: None, "per_defect": per_kind}, undefined | {name: reason}
    mean = float(np.mean([value for value in per_kind.values() if value is not None]))
    return {name: mean, "per_defect": per_kind}, undefined


def _undefined(names: Sequence[str] | Mapping[str, Any], why: str) -> tuple[Figures, Undefined]:
    return dict.fromkeys(names), dict.fromkeys(names, why)
