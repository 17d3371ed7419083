"""Evaluation of more maps than memory holds: batch by batch, and again for the few that are shown.

Each batch's maps go into one `jaxad.metrics.Accumulator` per map and are forgotten; scores are
kept. The pictures of the report are made by a second run over the images that it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxad import metrics
from jaxad.data.images import image_dimensions
from jaxad.data.table import Sample
from jaxad.evaluation.detector import Detector, Findings
from jaxad.evaluation.resize import at_size
from jaxad.run.errors import UserError
from jaxad.run.progress import Progress

Curves = dict[str, tuple[np.ndarray, np.ndarray]]
ReadMasks = Callable[[Sequence[Sample]], list[Bool[np.ndarray, "h w"] | None]]


class Streamed(NamedTuple):
    """What is left of a test set that went by.

    Attributes:
      scores: name -> ``(n,)``.
      figures: (map, score) -> what `jaxad.metrics.evaluate_maps` says.
      curves: of the primary map, see `jaxad.metrics.pixel_curves`.
    """

    scores: dict[str, Float[np.ndarray, " n"]]
    figures: dict[tuple[str, str], dict[str, Any]]
    curves: Curves


def required_mb(detector: Detector, samples: Sequence[Sample]) -> float:
    """About how much memory an evaluation takes that keeps every map, in 2**20 bytes."""
    height, width, channels = detector.model.image_shape
    maps = height * width * (4 * len(detector.maps) + channels)
    if detector.config.evaluate.resolution == "model":
        judged = [detector.config.data.image_size] * len(samples)
    else:
        region = detector.config.data.region
        judged = [image_dimensions(sample.path, region=region) for sample in samples]
    # A mask, the map at its size, and the copy that is sorted.
    pixels = sum((1 + 4 + 4) * height * width for height, width in judged)
    return (maps * len(samples) + pixels) / 2**20


def stream(
    detector: Detector,
    images: UInt8[np.ndarray, "n h w c"],
    samples: Sequence[Sample],
    read_masks: ReadMasks,
    pairs: Sequence[tuple[str, str]],
    *,
    pixel_threshold: float | None,
) -> Streamed:
    """Runs the detector over all images and judges their maps as they come.

    Args:
      detector: the trained model.
      images: the test images.
      samples: where their masks are and what they show.
      read_masks: masks of some samples, None for a defective image without one.
      pairs: (map, score) whose figures are wanted, the primary one first.
      pixel_threshold: of the primary map; None for none.

    Raises:
      UserError: the protocol of the run needs all maps at once, or a mask is wrong.
    """
    options = detector.config.evaluate
    if options.protocol != "jaxad":
        raise UserError(
            f"evaluate.protocol {options.protocol!r} needs all maps in memory, about "
            f"{required_mb(detector, samples):.0f} MB, but evaluate.memory_limit_mb is "
            f"{options.memory_limit_mb}; raise it, or take the protocol 'jaxad'"
        )
    accumulators = {pair: metrics.Accumulator() for pair in dict.fromkeys(pairs)}
    accumulators[pairs[0]] = metrics.Accumulator(threshold=above(pixel_threshold))
    has_masks = any(sample.mask is not None for sample in samples)
    scores, done = [], 0
    with Progress("image", len(samples)) as progress:
        for part in detector.batches(images):
            some = samples[done : done + len(part.reconstruction)]
            masks = read_masks(some)
            for (map_name, score_name), accumulator in accumulators.items():
                maps = part.maps[map_name]
                accumulator.update(
                    [at_size(m, mask) for m, mask in zip(maps, masks, strict=True)],
                    masks if has_masks else None,
                    labels=[sample.label for sample in some],
                    image_scores=part.scores[score_name],
                    defects=[sample.defect for sample in some],
                )
            scores.append(part.scores)
            done += len(some)
            progress.update(done)
    return Streamed(
        scores={name: np.concatenate([s[name] for s in scores]) for name in scores[0]},
        figures={p: a.compute(limit=options.aupro_limit) for p, a in accumulators.items()},
        curves=accumulators[pairs[0]].curves(),
    )


def above(threshold: float | None) -> float | None:
    """The lowest value of a float32 map over a threshold, from which pixels are predicted."""
    if threshold is None:
        return None
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))


class Again:
    """Maps and reconstructions of some images, by a second run of the detector.

    Stands in for `Findings` where only a few images are looked at.
    """

    def __init__(
        self,
        detector: Detector,
        images: UInt8[np.ndarray, "n h w c"],
        scores: dict[str, Float[np.ndarray, " n"]],
    ):
        self._detector, self._images = detector, images
        self._known: dict[int, tuple[dict[str, np.ndarray], np.ndarray]] = {}
        self.scores = scores
        self.reconstruction = _Rows(self, lambda row: row[1])

    @property
    def maps(self) -> dict[str, _Rows]:
        """Map by name, of the images that have been fetched or are asked for."""
        names = self._detector.maps
        return {name: _Rows(self, lambda row, name=name: row[0][name]) for name in names}

    def fetch(self, indices: Iterable[int]) -> None:
        """Runs the detector over these images unless it did so before."""
        missing = [i for i in dict.fromkeys(indices) if i not in self._known]
        if not missing:
            return
        findings: Findings = self._detector(self._images[missing])
        for k, i in enumerate(missing):
            maps = {name: values[k] for name, values in findings.maps.items()}
            self._known[i] = maps, findings.reconstruction[k]

    def row(self, i: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Maps and reconstruction of one image."""
        self.fetch([i])
        return self._known[i]


class _Rows:
    """An array of which only some rows exist; indexed by a number or a list of them."""

    def __init__(self, again: Again, pick: Callable[[Any], np.ndarray]):
        self._again, self._pick = again, pick

    def __getitem__(self, index: int | list[int]) -> np.ndarray:
        if isinstance(index, list):
            self._again.fetch(index)
            return np.stack([self._pick(self._again.row(i)) for i in index])
        return self._pick(self._again.row(int(index)))


class LazyMasks:
    """Masks by index, read when asked for."""

    def __init__(self, samples: Sequence[Sample], read_masks: ReadMasks):
        self._samples, self._read = samples, read_masks

    def __getitem__(self, i: int) -> Bool[np.ndarray, "h w"] | None:
        return self._read([self._samples[i]])[0]
