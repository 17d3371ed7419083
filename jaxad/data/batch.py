"""What every pipeline yields and every model receives."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Bool, Int, Shaped


class Batch(NamedTuple):
    """Images with their place in the data set.

    Attributes:
      image: ``(b, h, w, c)``, uint8 in [0, 255] from a pipeline (float32 in [0, 1] once a
        training step has augmented it).
      index: ``(b,)`` int32, row of the image in its table: keys and results are tied to it.
      valid: ``(b,)`` bool, False for the rows that only pad the last batch of an evaluation.
    """

    image: Shaped[Any, "b h w c"]
    index: Int[Any, " b"]
    valid: Bool[Any, " b"]
