"""What a detector gives for images."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8


class DetectorOutput(NamedTuple):
    """What a detector gives for ``n`` images: a model's `Detection` after post-processing.

    Attributes:
      maps: name -> ``(n, h, w)`` float32, smoothed as the config says, larger = more anomalous.
      scores: name -> ``(n,)`` float32: the model's own, and ``MAP:REDUCTION`` for every map.
      reconstruction: ``(n, h, w, c)`` uint8; of a photograph that is judged by tiles a small
        picture.
      overview: ``(n, h, w, c)`` uint8, the photograph at the size of that picture; None where the
        model sees whole images.
    """

    maps: dict[str, Float[np.ndarray, "n h w"]]
    scores: dict[str, Float[np.ndarray, " n"]]
    reconstruction: UInt8[np.ndarray, "n i j c"]
    overview: UInt8[np.ndarray, "n i j c"] | None = None

    def rows(self, index: slice | list[int]) -> DetectorOutput:
        """The output for some of the images."""
        return jax.tree.map(lambda values: values[index], self)
