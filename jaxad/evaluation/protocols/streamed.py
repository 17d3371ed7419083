"""A protocol applied to photographs one by one, whose maps are too large to keep.

A photograph that is seen by tiles has a map at its own size. A protocol that compares maps there,
or judges images alone, means the same of it as of any image. One that is defined by the size to
which its source resizes whole images means nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxad import metrics
from jaxad.data.crop import Crop
from jaxad.data.table import Sample
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.protocols.apply import ProtocolMetrics, label_of, pooled_of
from jaxad.evaluation.protocols.masks import mask_levels
from jaxad.evaluation.protocols.rules import (
    IMAGE_METRICS,
    POOLED_METRICS,
    PROTOCOLS,
    Protocol,
    get_protocol,
)
from jaxad.evaluation.resize import highest_of
from jaxad.run.errors import UserError


def is_of_photographs(protocol: Protocol) -> bool:
    """Whether it can be applied to photographs at their own size, one by one."""
    on_pixels = not set(protocol.metrics) <= IMAGE_METRICS.keys()
    at_their_size = protocol.resolution == "original" or not on_pixels
    one_by_one = set(protocol.metrics) <= IMAGE_METRICS.keys() | POOLED_METRICS.keys()
    plain = protocol.fusion == "raw" and protocol.image_score in ("max", "mean")
    return at_their_size and one_by_one and plain


def streamed_protocol(detector: Detector) -> StreamedProtocol | None:
    """That of a run with tiles; None for this library's own, whose metrics are there anyway.

    Raises:
      UserError: it gives no meaning to photographs by tiles; says why, and which do.
    """
    protocol = get_protocol(detector.config.evaluate.protocol)
    if protocol.name == "jaxad":
        return None
    if not is_of_photographs(protocol):
        others = " or ".join(repr(p.name) for p in PROTOCOLS.values() if is_of_photographs(p))
        raise UserError(
            f"evaluate.protocol {protocol.name!r} compares maps and masks at the size to which its "
            "source resizes whole images, and with data.tiles there is none: maps have the size of "
            f"the photographs; take {others}, which hold at any size, or 'jaxad'"
        )
    return StreamedProtocol(protocol, detector.maps, detector.config.data.region)


class StreamedProtocol:
    """Collects maps of photographs and gives the metrics of a protocol."""

    def __init__(self, protocol: Protocol, maps: Sequence[str], crop: Crop):
        """Starts with no photograph.

        Args:
          protocol: one that :func:`is_of_photographs`.
          maps: names of those that are judged.
          crop: ``data.region``, to which masks are cut.
        """
        self._protocol, self._crop = protocol, crop
        self._on_pixels = not set(protocol.metrics) <= IMAGE_METRICS.keys()
        self._pixels = {name: metrics.Accumulator() for name in maps} if self._on_pixels else {}
        self._scores: dict[str, list[float]] = {name: [] for name in maps}
        self._labels: list[int] = []
        self._without_mask = 0

    def update(self, sample: Sample, output: DetectorOutput) -> None:
        """Adds a photograph.

        Args:
          sample: the photograph.
          output: for it alone. Where its map is kept smaller by a whole factor, a pixel of the
            mask is defective where one that it stands for is.

        Raises:
          UserError: its mask cannot be read, or does not fit.
        """
        levels = mask_levels(sample, self._crop)
        self._without_mask += levels is None
        label = label_of(self._protocol, bool(sample.label), levels)
        self._labels.append(label)
        for name, (values,) in output.maps.items():
            kind = self._protocol.image_score
            # Of all pixels, also where the map is kept smaller; of joined maps none is known.
            (score,) = output.scores.get(f"{name}:{kind}", [getattr(values, str(kind))()])
            self._scores[name].append(float(score))
            if self._on_pixels:
                truth = None if levels is None else highest_of(levels > 0, values.shape)
                self._pixels[name].update([values], [truth], labels=[label])

    def compute(self, aupro_limit: float) -> dict[str, ProtocolMetrics]:
        """The metrics of every map.

        Args:
          aupro_limit: where the protocol leaves it open.
        """
        limit = aupro_limit if self._protocol.aupro_limit is None else self._protocol.aupro_limit
        counts = {"images": len(self._labels), "images_without_mask": self._without_mask}
        return {name: self._of_map(name, limit, counts) for name in self._scores}

    def _of_map(self, name: str, limit: float, counts: dict[str, int]) -> ProtocolMetrics:
        values, undefined = metrics.image_metrics(self._labels, self._scores[name])
        if self._on_pixels:
            found = self._pixels[name].compute(limit=limit)
            of_pixels, why = pooled_of(found, found["undefined"])
            values, undefined = values | of_pixels, undefined | why
        return ProtocolMetrics.chosen(self._protocol.metrics, values, undefined, counts)
