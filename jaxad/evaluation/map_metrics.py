"""Metrics of a detector's maps on a test set, with all maps in memory or batch by batch.

While all maps fit into ``evaluate.memory_limit_mb`` they are kept and the metrics are exact.
Beyond that, each batch's maps go into one `jaxad.metrics.Accumulator` per map and are forgotten:
pixel metrics come with bounds, and who needs the maps of some images again (the report, for its
pictures) runs the detector on these a second time, see `shown_of`. Scores are kept either way.
Photographs that the model sees by tiles are judged one by one, and small pictures of them are kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxad import metrics
from jaxad.data.images import image_dimensions
from jaxad.data.mask_levels import Dim
from jaxad.data.masks import Truth
from jaxad.data.table import Sample
from jaxad.data.tiled import Photographs
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.inputs import EvaluationInputs, Masks, read_truths
from jaxad.evaluation.joining import JOINED
from jaxad.evaluation.postprocess import REDUCTIONS
from jaxad.evaluation.protocols.apply import ProtocolMetrics
from jaxad.evaluation.protocols.streamed import streamed_protocol
from jaxad.evaluation.resize import at_size, highest_of
from jaxad.evaluation.saturated import SaturatedFigures
from jaxad.run.errors import UserError
from jaxad.run.progress import Progress

Curves = dict[str, tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]]


class MapMetrics(NamedTuple):
    """The metrics of all maps of a detector on a test set.

    Attributes:
      scores: name -> ``(n,)`` image scores.
      metrics: (map, score) of `map_score_pairs` -> what `jaxad.metrics.evaluate_maps` says.
      curves: of the primary map, see `jaxad.metrics.pixel_curves`; empty where undefined.
      output: of all n images; None where the maps were too many to keep, or of photographs.
      components: of the masks, before and after they were resized.
      marked: share in [0, 1] of each image that its mask marks; 0 without a mask.
      dims: what does not count of each mask that has levels in between; None of others.
      photographs: what a page shows of every one, where the model sees tiles of them.
      protocol: map -> its metrics under the run's protocol, where these are computed photograph by
        photograph; None elsewhere.
    """

    scores: dict[str, Float[np.ndarray, " n"]]
    metrics: dict[tuple[str, str], dict[str, Any]]
    curves: Curves
    output: DetectorOutput | None
    components: Components
    marked: tuple[float, ...]
    dims: tuple[Dim | None, ...]
    photographs: tuple[Shown, ...] = ()
    protocol: dict[str, ProtocolMetrics] | None = None


class Shown(NamedTuple):
    """What a page shows of one image.

    Attributes:
      image: ``(h, w, c)`` uint8 as the model sees it, or a small picture of a photograph.
      heat: ``(h, w)`` float32, the primary map.
      reconstruction: ``(h, w, c)`` uint8.
    """

    image: UInt8[np.ndarray, "h w c"]
    heat: Float[np.ndarray, "h w"]
    reconstruction: UInt8[np.ndarray, "h w c"]


class Components(NamedTuple):
    """Connected components of masks that were resized.

    Attributes:
      in_files: at the size of the files, inside the region of interest.
      kept_as_a_pixel: of which nearest neighbour would have left nothing.
      enlarged: by which factor the model's image size must grow for that to happen to none.
    """

    in_files: int
    kept_as_a_pixel: int
    enlarged: int

    @classmethod
    def of(cls, truths: Sequence[Truth]) -> Components:
        """Those of all masks."""
        return cls(
            sum(truth.components for truth in truths),
            sum(truth.vanishing for truth in truths),
            max((truth.enlarged for truth in truths), default=1),
        )


def map_metrics(
    detector: Detector, test: EvaluationInputs, *, pixel_threshold: float | None
) -> MapMetrics:
    """Runs the detector over the test images and computes the metrics of every map.

    Args:
      detector: the trained model; its ``evaluate.memory_limit_mb`` decides whether maps are kept.
      test: the test images.
      pixel_threshold: of the primary map, above which pixels are predicted; None for none.

    Raises:
      UserError: the protocol of the run needs more maps than may be kept, or a mask is wrong.
    """
    options = detector.config.evaluate
    if detector.regions is not None and options.protocol != "jaxad":
        raise UserError(
            f"evaluate.protocol {options.protocol!r} judges all pixels of an image; with "
            "evaluate.region_mask take the protocol 'jaxad'"
        )
    if detector.tiled:
        return _batch_by_batch(detector, test, pixel_threshold)
    needed = required_mb(detector, test.samples)
    if needed <= options.memory_limit_mb:
        return _in_memory(detector, test, pixel_threshold)
    if options.protocol != "jaxad":
        raise UserError(
            f"evaluate.protocol {options.protocol!r} needs all maps in memory, about "
            f"{needed:.0f} MB, but evaluate.memory_limit_mb is "
            f"{options.memory_limit_mb}; raise it, or take the protocol 'jaxad'"
        )
    return _batch_by_batch(detector, test, pixel_threshold)


def required_mb(detector: Detector, samples: Sequence[Sample]) -> float:
    """About how much memory an evaluation takes that keeps every map, in 2**20 bytes."""
    height, width, channels = detector.model.image_shape
    maps = height * width * (4 * len(detector.maps) + channels)
    # A mask, the map at its size, and the copy that is sorted.
    return (maps * len(samples) + (1 + 4 + 4) * _pixels(detector, samples)) / 2**20


def _pixels(detector: Detector, samples: Sequence[Sample]) -> int:
    """Of all images at the size at which they are judged, photographs at their own.

    The maps of photographs may be kept smaller, never larger.
    """
    if detector.config.evaluate.resolution == "model" and not detector.tiled:
        return len(samples) * math.prod(detector.config.data.image_size)
    crop = detector.config.data.region
    return sum(math.prod(image_dimensions(sample.path, crop=crop)) for sample in samples)


def _saturated(detector: Detector, test: EvaluationInputs) -> SaturatedFigures:
    table = test.table
    if detector.regions is not None:  # published for whole images
        table = dataclasses.replace(table, saturations={})
    pixels = _pixels(detector, test.samples) if table.saturations else 0
    return SaturatedFigures(table, pixels=pixels, crop=tuple(detector.config.data.region))


def map_score_pairs(detector: Detector) -> list[tuple[str, str]]:
    """(map, image score) whose metrics stand in metrics.json, the primary pair first."""
    reduction = detector.primary_score.rpartition(":")[2]
    reduction = reduction if reduction in REDUCTIONS else "max"
    pairs = [(name, JOINED if name == JOINED else f"{name}:{reduction}") for name in detector.maps]
    return [(detector.primary_map, detector.primary_score), *pairs]


def shown_of(
    detector: Detector, test: EvaluationInputs, computed: MapMetrics, indices: Sequence[int]
) -> dict[int, Shown]:
    """What a page shows of some of the test images, by index.

    Taken from what was kept; where nothing was, the detector runs on these images again.
    """
    if isinstance(test.images, Photographs):
        return {i: computed.photographs[i] for i in indices}
    rows = list(indices)
    if computed.output is None:
        inside = detector.inside_of([test.samples[i].path for i in rows])
        output = detector(test.images[rows], inside=inside)
    else:
        output = computed.output.rows(rows)
    heats, pictures = output.maps[detector.primary_map], output.reconstruction
    return {i: Shown(test.images[i], heats[k], pictures[k]) for k, i in enumerate(rows)}


def _photograph_shown(output: DetectorOutput, primary_map: str) -> Shown:
    """A photograph, small: of the map every pixel has the highest that it stands for."""
    assert output.overview is not None
    picture, heat = output.overview[0], output.maps[primary_map][0]
    return Shown(picture, highest_of(heat, picture.shape[:2]), output.reconstruction[0])


def next_float(threshold: float | None) -> float | None:
    """The float32 next above a threshold: a value >= it is one > the threshold.

    Thresholds are values of good pixels and pixels are predicted strictly above them, but
    `jaxad.metrics` takes the lowest value from which they are.
    """
    if threshold is None:
        return None
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))


def _judged(
    detector: Detector, samples: Sequence[Sample], maps: Sequence[Float[np.ndarray, "_ _"]]
) -> list[Bool[np.ndarray, "_ _"]] | None:
    """The pixels of each image's map that are judged; None: all of all."""
    if detector.regions is None:
        return None
    # One after the other: the pictures of a folder may be large.
    regions = map(detector.regions.of, [sample.path for sample in samples])
    return [
        np.ones(values.shape, bool) if region is None else region.at(values.shape)
        for region, values in zip(regions, maps, strict=True)
    ]


def _in_memory(
    detector: Detector, test: EvaluationInputs, pixel_threshold: float | None
) -> MapMetrics:
    truths = read_truths(test.samples, detector.config)
    masks = [truth.mask for truth in truths]
    assert isinstance(test.images, np.ndarray)
    output = detector(test.images, inside=detector.inside_of([s.path for s in test.samples]))
    pairs = map_score_pairs(detector)
    found, curves = {}, {}
    saturated = _saturated(detector, test)
    for name in detector.maps:
        maps = [at_size(values, m) for values, m in zip(output.maps[name], masks, strict=True)]
        valid = _judged(detector, test.samples, maps)
        for pair in dict.fromkeys(pairs):
            if pair[0] != name:
                continue
            found[pair] = metrics.evaluate_maps(
                maps,
                masks if _any_mask(test) else None,
                labels=np.array([sample.label for sample in test.samples]),
                image_scores=output.scores[pair[1]],
                limit=detector.config.evaluate.aupro_limit,
                defects=[sample.defect for sample in test.samples],
                threshold=next_float(pixel_threshold) if pair == pairs[0] else None,
                valid=valid,
                memory_limit_mb=math.inf,
            )
        if name == detector.primary_map:
            curves = _curves(maps, masks, valid)
            saturated.update(test.samples, maps)
    found[pairs[0]] = saturated.added_to(found[pairs[0]])
    return MapMetrics(
        output.scores,
        found,
        curves,
        output,
        Components.of(truths),
        marked=tuple(truth.marked for truth in truths),
        dims=tuple(truth.dim for truth in truths),
    )


def _batch_by_batch(
    detector: Detector, test: EvaluationInputs, pixel_threshold: float | None
) -> MapMetrics:
    pairs = map_score_pairs(detector)
    accumulators = {pair: metrics.Accumulator() for pair in dict.fromkeys(pairs)}
    accumulators[pairs[0]] = metrics.Accumulator(threshold=next_float(pixel_threshold))
    saturated, done = _saturated(detector, test), 0
    scores: list[dict[str, Float[np.ndarray, " b"]]] = []
    counted: list[Truth] = []
    photographs: list[Shown] = []
    protocol = streamed_protocol(detector) if detector.tiled else None
    inside = detector.inside_of([sample.path for sample in test.samples])
    with Progress("image", len(test.samples)) as progress:
        for output in detector.batches(test.images, inside=inside):
            samples = test.samples[done : done + len(output.reconstruction)]
            primary = output.maps[detector.primary_map]
            sizes = [primary.shape[1:]] * len(samples) if detector.tiled else None
            truths = read_truths(samples, detector.config, sizes)
            masks = [truth.mask for truth in truths]
            counted += [truth._replace(mask=None) for truth in truths]  # the masks are forgotten
            for (map_name, score_name), accumulator in accumulators.items():
                maps = list(map(at_size, output.maps[map_name], masks))
                accumulator.update(
                    maps,
                    masks if _any_mask(test) else None,
                    labels=[sample.label for sample in samples],
                    image_scores=output.scores[score_name],
                    defects=[sample.defect for sample in samples],
                    valid=_judged(detector, samples, maps),
                )
            if detector.tiled:
                photographs.append(_photograph_shown(output, detector.primary_map))
            if protocol is not None:
                protocol.update(samples[0], output)
            saturated.update(samples, list(map(at_size, primary, masks)))
            scores.append(output.scores)
            done += len(samples)
            progress.update(done, "test")
    limit = detector.config.evaluate.aupro_limit
    found = {pair: one.compute(limit=limit) for pair, one in accumulators.items()}
    found[pairs[0]] = saturated.added_to(found[pairs[0]])
    return MapMetrics(
        scores={name: np.concatenate([batch[name] for batch in scores]) for name in scores[0]},
        metrics=found,
        curves=accumulators[pairs[0]].curves(),
        output=None,
        components=Components.of(counted),
        marked=tuple(truth.marked for truth in counted),
        dims=tuple(truth.dim for truth in counted),
        photographs=tuple(photographs),
        protocol=None if protocol is None else protocol.compute(limit),
    )


def _any_mask(test: EvaluationInputs) -> bool:
    return any(sample.mask is not None for sample in test.samples)


def _curves(
    maps: Sequence[Float[np.ndarray, "_ _"]],
    masks: Masks,
    valid: Sequence[Bool[np.ndarray, "_ _"]] | None,
) -> Curves:
    """Of the images with a mask."""
    masked = [i for i, mask in enumerate(masks) if mask is not None]
    try:
        return metrics.pixel_curves(
            [maps[i] for i in masked],
            [masks[i] for i in masked],
            valid=valid and [valid[i] for i in masked],
        )
    except metrics.UndefinedMetric:
        return {}
