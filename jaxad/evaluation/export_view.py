"""What an exported program is of: the size of photographs; map, score and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxad.data.crop import Box, box_of
from jaxad.data.tiles import Tiling, tiling_of
from jaxad.evaluation.outlines import outlined, outlined_in_each
from jaxad.evaluation.predict import Predictor
from jaxad.run.errors import UserError


class View(NamedTuple):
    """What is seen of photographs of one size, and how.

    Attributes:
      box: the part that is seen (``data.region``).
      tiling: where tiles lie in that part.
      image_size: ``(h, w)`` of a tile as the model sees it.
      channels: that the model takes, 1 or 3; of a photograph of 3 it takes the luma as 1.
    """

    box: Box
    tiling: Tiling
    image_size: tuple[int, int]
    channels: int


class Decisions(NamedTuple):
    """What decides, as the attributes of :class:`~jaxad.evaluation.predict.Predictor` say it.

    Map and score are those of the tiles where a coarse model is joined to them.
    """

    primary_map: str
    primary_score: str
    image_threshold: float | None = None
    pixel_threshold: float | None = None
    region_threshold: float | None = None

    def of(
        self,
        score: Float[Array, "*b"],
        values: Float[Array, "*b h w"],
        inside: Bool[np.ndarray, "h w"] | None,
    ) -> dict[str, Array]:
        """The decision and the outlined pixels, of those that have a threshold.

        Args:
          score: of an image, or of several.
          values: the map of it, or of each.
          inside: the pixels that are judged; None: all.
        """
        result = {}
        if self.image_threshold is not None:
            result["decision"] = score > jnp.float32(self.image_threshold)
        if self.pixel_threshold is not None:
            outline = outlined if values.ndim == 2 else outlined_in_each
            result["mask"] = outline(
                values,
                result.get("decision"),
                self.pixel_threshold,
                self.region_threshold,
                inside,
            )
        return result


def size_of_photographs(
    predictor: Predictor, asked: Sequence[int] | None
) -> tuple[int, int] | None:
    """(height, width) of the photographs that an exported program takes; None without tiles.

    Args:
      predictor: the run.
      asked: ``--photograph-size``; None: the size of the photographs that it was trained on.

    Raises:
      UserError: the run has no tiles but a size is asked for; or none is, and the photographs have
        several sizes; or it is no size, or one at which tiles lie at other places than those of
        which each has a model.
    """
    if not predictor.detector.tiled:
        if asked is not None:
            raise UserError(
                f"{predictor.run.path} sees whole images (no data.tiles), so its exported file "
                "needs no size of photographs; leave --photograph-size out"
            )
        return None
    if asked is None:
        sides = predictor.calibration.get("trained_on") or {}
        ranges = [sides.get(name, (0, 1)) for name in ("height", "width")]
        if any(low != high for low, high in ranges):
            raise UserError(
                "the exported file of a run with data.tiles takes photographs of one size, and "
                f"those of {predictor.run.path} have several or are not known; give "
                "--photograph-size=HEIGHT,WIDTH"
            )
        asked = [low for low, _ in ranges]
    if len(asked) != 2 or min(asked) < 1:
        raise UserError(f"--photograph-size takes HEIGHT,WIDTH in pixels, not {list(asked)}")
    size = int(asked[0]), int(asked[1])
    if predictor.detector.grid is not None:
        seen = box_of(predictor.detector.config.data.region, size).size
        predictor.detector.grid.check(seen, f"--photograph-size={size[0]},{size[1]}")
    return size


def view_of(predictor: Predictor, size: tuple[int, int]) -> View:
    """What a run with tiles sees of photographs of a size."""
    data = predictor.detector.config.data
    tiling = tiling_of(data.tiles, data.image_size)
    assert tiling is not None
    return View(box_of(data.region, size), tiling, data.image_size, data.channels)
