"""Where the object is: the pixels that differ from a plain background."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

_RIM = 0.03
"""Of each side: the pixels at the edge that show the background."""
_PLAIN = 20.0
"""Most that seven tenths of the rim may differ from its median colour, of 255."""
_LEAST = 8.0
"""Least difference from the background that counts as the object, of 255."""
_SHARES = (0.02, 0.95)
"""Of the image that an object covers; where it is less or more, nothing was found."""


def find_foregrounds(images: UInt8[np.ndarray, "n h w c"]) -> Bool[np.ndarray, "n h w"]:
    """Finds the object in each image of a folder.

    Where the rim of most images has one colour, that is the background, and the object is what
    differs from it by more than Otsu's threshold, without specks and holes. Otherwise (textures,
    boards, objects that fill the image) every pixel is foreground.

    Args:
      images: good ones of one category.

    Returns:
      The object's pixels, never none.
    """
    found = [_foreground(image) for image in images]
    plain = sum(one is not None for one in found) * 2 > len(found)
    everything = np.ones(images.shape[1:3], bool)
    return np.stack([one if plain and one is not None else everything for one in found])


def _foreground(image: UInt8[np.ndarray, "h w c"]) -> Bool[np.ndarray, "h w"] | None:
    """The object on a plain background; None where there is no such thing."""
    h, w = image.shape[:2]
    rim = np.ones((h, w), bool)
    y, x = (max(1, round(side * _RIM)) for side in (h, w))
    rim[y:-y, x:-x] = False
    background = np.median(image[rim], axis=0)
    difference = np.abs(np.float32(image) - background).max(axis=-1)
    if np.quantile(difference[rim], 0.7) > _PLAIN:
        return None
    object_ = difference > max(otsu_threshold(difference), _LEAST)
    reach = max(1, round(min(h, w) / 100))
    object_ = ndimage.binary_closing(np.pad(object_, reach), iterations=reach)
    object_ = ndimage.binary_opening(ndimage.binary_fill_holes(object_), iterations=reach)
    object_ = _large_parts(object_[reach:-reach, reach:-reach])
    return object_ if _SHARES[0] <= object_.mean() <= _SHARES[1] else None


def _large_parts(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The connected parts of at least a tenth of the largest one's area."""
    labels, count = ndimage.label(region)
    if count == 0:
        return region
    areas = np.bincount(labels.ravel())[1:]
    return np.isin(labels, 1 + np.flatnonzero(areas >= areas.max() / 10))


def otsu_threshold(values: Float[np.ndarray, ...]) -> float:
    """The value that parts a histogram of 256 bins into two of least variance (Otsu 1979).

    Args:
      values: of any range.

    Returns:
      The centre of the last bin of the lower part; the value itself where all are equal.
    """
    low, high = float(np.min(values)), float(np.max(values))
    if low == high:
        return low
    counts, edges = np.histogram(values, bins=256, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below, sum_below = np.cumsum(counts), np.cumsum(counts * centres)
    above, sum_above = below[-1] - below, sum_below[-1] - sum_below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * np.square(sum_below / below - sum_above / above)
    return float(centres[np.nanargmax(between)])
