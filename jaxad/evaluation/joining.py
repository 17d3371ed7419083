"""Maps and scores of a model of whole photographs joined to those of tiles (``evaluate.coarse``).

A tile that shows an ordinary surface says nothing of the hole that should be there, and a model of
the whole photograph sees no scratch of ten pixels. Two models have no common unit, so each map is
measured by what good images give that its model has not seen: 0 is their median pixel, 1 the value
that the highest pixel of a good image exceeds at the rate of false positives only. Scores likewise,
from the median score to the image threshold. The joined map and score are the higher of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxad.data.images import resize
from jaxad.data.photographs import Photograph
from jaxad.evaluation.detector_output import DetectorOutput
from jaxad.evaluation.resize import resize_map
from jaxad.evaluation.thresholds import conformal_threshold, region_threshold

JOINED = "joined"
"""Name of the map and of the score."""

_SMALLEST = 1e-12


class Range(NamedTuple):
    """What good images give: what becomes 0 and 1."""

    typical: float
    highest: float

    def of(self, values: Any) -> Any:
        """Values in this unit."""
        return (values - self.typical) / max(self.highest - self.typical, _SMALLEST)


class Ranges(NamedTuple):
    """Of the primary map and score of a model."""

    map: Range
    score: Range

    @classmethod
    def from_good(
        cls,
        pixels: Float[np.ndarray, " m"],
        peaks: Float[np.ndarray, " n"],
        scores: Float[np.ndarray, " n"],
        *,
        rate: float,
    ) -> Ranges:
        """The ranges of good images that a model has not seen.

        Args:
          pixels: of their maps.
          peaks: the highest pixel of each.
          scores: of each.
          rate: share of good images that may exceed 1.
        """
        return cls(
            Range(float(np.median(pixels)), region_threshold(peaks, rate)),
            Range(float(np.median(scores)), conformal_threshold(scores, rate).value),
        )

    def to_json(self) -> dict[str, list[float]]:
        """As calibration.json has them."""
        return {"map": list(self.map), "score": list(self.score)}

    @classmethod
    def of_json(cls, saved: dict[str, list[float]]) -> Ranges:
        """From calibration.json."""
        return cls(Range(*saved["map"]), Range(*saved["score"]))


Judge = Callable[[UInt8[np.ndarray, "1 h w c"], str | None], tuple[Float[np.ndarray, "h w"], float]]
"""A model of whole photographs: its primary map and score of one, whose path says what of it is
judged."""


class Coarse(NamedTuple):
    """A model of whole photographs, and how it is joined to one of tiles.

    Attributes:
      judge: the model.
      image_size: ``(h, w)`` that it sees.
      own: its ranges.
      tiles: those of the model of tiles.
      primary: map and score of the model of tiles.
    """

    judge: Judge
    image_size: tuple[int, int]
    own: Ranges
    tiles: Ranges
    primary: tuple[str, str]


def join(output: DetectorOutput, photograph: Photograph, coarse: Coarse) -> DetectorOutput:
    """Adds the map and the score :data:`JOINED`.

    Args:
      output: of tiles of the photograph.
      photograph: which is decoded as a whole here.
      coarse: what is joined.
    """
    whole = np.ascontiguousarray(photograph.rows(0, photograph.size[0]))
    small = resize(whole, coarse.image_size)
    values, score = coarse.judge(small[None], photograph.path)
    map_name, score_name = coarse.primary
    (of_tiles,), (score_of_tiles,) = output.maps[map_name], output.scores[score_name]
    joined = coarse.tiles.map.of(of_tiles)
    np.maximum(joined, resize_map(coarse.own.map.of(values), of_tiles.shape), out=joined)
    highest = max(coarse.tiles.score.of(float(score_of_tiles)), coarse.own.score.of(score))
    return output._replace(
        maps=output.maps | {JOINED: joined[None].astype(np.float32, copy=False)},
        scores=output.scores | {JOINED: np.array([highest], np.float32)},
    )
