"""How ground-truth masks come to the size of the maps: the ways that published code takes.

A mask is resized once, and what is then called defective differs by a rim as wide as the factor
between the sizes. On small defects that rim is most of the defect, so the rule belongs to every
figure on pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jaxad.data.crop import Crop
from jaxad.data.images import image_dimensions
from jaxad.data.masks import read_mask_levels, resize_mask
from jaxad.data.table import Sample

Size = tuple[int, int]


class MaskResizing(NamedTuple):
    """A way of resizing masks.

    Attributes:
      apply: ``(values (h, w) uint8, size (h2, w2)) -> (h2, w2)`` bool.
      statement: what it does, as a clause that follows "masks: ".
    """

    apply: Callable[[UInt8[np.ndarray, "h w"], Size], Bool[np.ndarray, "h2 w2"]]
    statement: str


def nearest(values: UInt8[np.ndarray, "h w"], size: Size) -> Bool[np.ndarray, "h2 w2"]:
    """Above zero, then nearest neighbour."""
    return resize_mask(values > 0, size)


def full_after_min_max(values: UInt8[np.ndarray, "h w"], size: Size) -> Bool[np.ndarray, "h2 w2"]:
    """The floor of the antialiased bilinear mask after its min-max step.

    Only pixels at the resized mask's own maximum are left: the blurred rim counts as normal, and
    so does a gray region beside a white one. A mask of one level has no defect.
    """
    small = _antialiased(values, size)
    return (small == small.max()) & (small > small.min())


def above_zero(values: UInt8[np.ndarray, "h w"], size: Size) -> Bool[np.ndarray, "h2 w2"]:
    """Whatever is not 0 in the 8-bit antialiased bilinear mask: the rim counts as defective."""
    return _antialiased(values, size) > 0


def above_zero_not_antialiased(
    values: UInt8[np.ndarray, "h w"], size: Size
) -> Bool[np.ndarray, "h2 w2"]:
    """Whatever is not 0 in the 8-bit bilinear mask without antialiasing, as OpenCV resizes.

    Each pixel weighs the four around its centre, so that thin defects can fall between. Weights
    are rounded to 1 / 2048 as OpenCV does in 8 bits, and the result to whole levels.
    """
    (top, bottom, wy), (left, right, wx) = (
        _bilinear(old, new) for old, new in zip(values.shape, size, strict=True)
    )
    rows = values.astype(np.int64)
    rows = rows[:, left] * (2048 - wx)[None, :] + rows[:, right] * wx[None, :]
    total = rows[top] * (2048 - wy)[:, None] + rows[bottom] * wy[:, None]
    return total >= 2048 * 2048 // 2


MASK_RESIZINGS = {
    "nearest": MaskResizing(nearest, "above zero is defective, resized by nearest neighbour"),
    "full_after_min_max": MaskResizing(
        full_after_min_max,
        "resized by antialiased bilinear, brought to [0, 1] by min-max and floored, so that only "
        "what is fully white counts as defective and the blurred rim as normal",
    ),
    "above_zero": MaskResizing(
        above_zero, "resized by antialiased bilinear, whatever is above zero is defective"
    ),
    "above_zero_not_antialiased": MaskResizing(
        above_zero_not_antialiased,
        "resized by bilinear without antialiasing (as OpenCV does), whatever is above zero is "
        "defective",
    ),
}
"""How sources read masks, by name."""


def _antialiased(values: UInt8[np.ndarray, "h w"], size: Size) -> UInt8[np.ndarray, "h2 w2"]:
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))


def _bilinear(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both neighbours of every new pixel centre on an axis, and the second one's weight * 2048."""
    centre = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(centre).astype(np.int64)
    weight = np.rint((centre - first) * 2048).astype(np.int64)
    return first, np.minimum(first + 1, old - 1), weight


def mask_levels(
    sample: Sample, crop: Crop, size_of_good: Size | None = None
) -> UInt8[np.ndarray, "_ _"] | None:
    """Gray levels of the mask of an image, at its own size and cut to what is seen.

    Args:
      sample: the image; of a good one they are all zero.
      crop: ``config.data.region``.
      size_of_good: (height, width) of what a good image has; None: its own.

    Returns:
      None of a defective image without a mask.

    Raises:
      UserError: it cannot be read, or does not fit its image.
    """
    if not sample.label:
        size = size_of_good or image_dimensions(sample.path, crop=crop)
        return np.broadcast_to(np.uint8(0), size)
    if sample.mask is None:
        return None
    return read_mask_levels(sample.mask, expected_size=image_dimensions(sample.path), crop=crop)
