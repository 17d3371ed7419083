"""``evaluate.coarse`` inside an exported program: a model of whole photographs beside the tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from jaxad.evaluation.coarse import load_coarse
from jaxad.evaluation.joining import Ranges
from jaxad.evaluation.postprocess import make_detect
from jaxad.evaluation.predict import Predictor
from jaxad.models import fitted_from
from jaxad.models.base import Variables
from jaxad.ops.antialias import resize_maps, resize_pictures, to_luma


class CoarseModel(NamedTuple):
    """A model of whole photographs, and how it is joined to one of tiles.

    Attributes:
      detect: of it; smoothed maps.
      variables: its parameters.
      image_size: ``(h, w)`` that it sees.
      channels: that it takes.
      primary: its map and its score.
      own: its ranges.
      tiles: those of the model of tiles.
      inside: what is judged, at that size; None: all.
    """

    detect: Callable[..., Any]
    variables: Variables
    image_size: tuple[int, int]
    channels: int
    primary: tuple[str, str]
    own: Ranges
    tiles: Ranges
    inside: Bool[np.ndarray, "h w"] | None

    def join(
        self,
        known: Any,
        seen: UInt8[Array, "i j c"],
        tiles: Float[Array, "i j"],
        score: Float[Array, ""],
    ) -> tuple[Float[Array, "i j"], Float[Array, ""]]:
        """The joined map and score, as :func:`jaxad.evaluation.joining.join` has them.

        Args:
          known: the variables, from the program.
          seen: the part of the photograph that is seen.
          tiles: the map of the tiles.
          score: of them.
        """
        inside = None if self.inside is None else jnp.asarray(self.inside)[None]
        output = self.detect(known, self._small(seen)[None], inside)
        size = (tiles.shape[0], tiles.shape[1])
        values = resize_maps(self.own.map.of(output.maps[self.primary[0]]), size)[0]
        own_score = self.own.score.of(output.scores[self.primary[1]][0])
        joined = jnp.maximum(self.tiles.map.of(tiles), values)
        return joined, jnp.maximum(self.tiles.score.of(score), own_score)

    def _small(self, seen: UInt8[Array, "i j c"]) -> UInt8[Array, "h w d"]:
        """As the model sees it; row by row, since numbers of 32 bits take four times the room."""
        height, width = self.image_size

        def narrow(row: UInt8[Array, "j c"]) -> Array:
            pixels = row[None, None]
            if pixels.shape[-1] != self.channels:
                pixels = to_luma(pixels)
            return resize_pictures(pixels, (1, width))[0, 0]

        return resize_pictures(lax.map(narrow, seen)[None], (height, width))[0]


def coarse_model(predictor: Predictor) -> CoarseModel | None:
    """That of a run; None without one."""
    detector = predictor.detector
    if detector.coarse is None:
        return None
    whole = load_coarse(detector, detector.coarse)
    config, joined = whole.config, predictor.calibration["joined"]
    model, variables = fitted_from(config, whole.variables)
    inside = whole.inside_of([None])
    return CoarseModel(
        make_detect(model, smoothing=config.evaluate.smoothing),
        variables,
        config.data.image_size,
        config.data.channels,
        (whole.primary_map, whole.primary_score),
        Ranges.of_json(joined["coarse"]),
        Ranges.of_json(joined["tiles"]),
        None if inside is None else inside[0],
    )
