"""Connected components of a mask: the predicted defects of an image.

Not the region of interest, which is what a model sees of an image (:mod:`jaxad.data.crop`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from jaxad.data.crop import Box
from jaxad.evaluation.resize import AnyMap, columns_of

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class Component(NamedTuple):
    """A connected component (of eight neighbours) over the pixel threshold, in original pixels.

    Attributes:
      x: leftmost column.
      y: topmost row.
      width: of the bounding box.
      height: of the bounding box.
      area: number of pixels.
      peak: highest value of the map in it.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float

    def enlarged(self, factor: int, box: Box) -> Component:
        """The same of a map that is smaller by a factor than the box of a photograph it is of."""
        bottom, right = box.size
        top, left = factor * self.y, factor * self.x
        return Component(
            x=box.left + left,
            y=box.top + top,
            width=min(factor * self.width, right - left),
            height=min(factor * self.height, bottom - top),
            area=factor * factor * self.area,
            peak=self.peak,
        )


def find_components(values: AnyMap, mask: Bool[np.ndarray, "h w"]) -> tuple[Component, ...]:
    """Connected components of a mask, highest peak first.

    Args:
      values: the map.
      mask: the pixels that belong to components.
    """
    labels, count = ndimage.label(mask, _EIGHT_NEIGHBOURS)
    areas, peaks = np.zeros(count + 1, np.int64), np.full(count + 1, -np.inf)
    # In strips: the sums and maxima of ndimage sort all pixels, gigabytes for a large image.
    for part in columns_of(labels.shape):
        inside = mask[:, part]
        if inside.any():
            numbers = labels[:, part][inside]
            areas += np.bincount(numbers, minlength=count + 1)
            np.maximum.at(peaks, numbers, values[:, part][inside])
    components = [
        Component(
            x=columns.start,
            y=rows.start,
            width=columns.stop - columns.start,
            height=rows.stop - rows.start,
            area=int(areas[number]),
            peak=float(peaks[number]),
        )
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
    ]
    return tuple(sorted(components, key=lambda component: -component.peak))
