"""What a generated category is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxad.data.synthetic.drawing import Grid, Picture, Plane, grid, moved

Parameters = dict[str, Any]
"""Everything random about one picture, the seed of its noise included."""


class Category(NamedTuple):
    """A kind of picture.

    Attributes:
      sample: ``rng -> parameters`` of a good picture.
      draw: ``(parameters, (h, w)) -> (picture, area)``, deterministic; colours in [0, 1], and
        the share of each pixel on which a surface defect may lie.
      shape_defects: kind -> function ``(parameters, rng) -> parameters`` of a picture in which
        the thing itself is wrong.
      surface_defects: kind -> function ``(picture, area, rng) -> picture`` that paints it over.
    """

    sample: Callable[[np.random.Generator], Parameters]
    draw: Callable[[Parameters, tuple[int, int]], tuple[Picture, Plane]]
    shape_defects: Mapping[str, Callable[[Parameters, np.random.Generator], Parameters]]
    surface_defects: Mapping[str, Callable[[Picture, Plane, np.random.Generator], Picture]]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of defect, sorted."""
        return tuple(sorted({*self.shape_defects, *self.surface_defects}))


def begin(p: Parameters, size: tuple[int, int]) -> tuple[np.random.Generator, Grid, Grid]:
    """The source of a picture's noise, its coordinates, and those of the part that lies in it."""
    base = grid(size)
    return np.random.default_rng(p["seed"]), base, moved(base, p["shift"], p["degrees"])
