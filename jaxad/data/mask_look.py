"""Whether files look like masks: few colours, nearly all of it at two levels."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxad.data.images import decode, spread
from jaxad.run.errors import UserError

# Colours at most; levels that count as one where compression or resizing may have moved them; share
# of the two commonest levels.
_FEW_COLOURS, _NEAR, _MOST = 16, 8, 0.95
_FAR = 100
"""Levels between black and white, which dark photographs do not have."""
_LOSSY = (".avif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".webp")


def look_like_masks(base: pathlib.Path, files: Sequence[str], *, strict: bool = False) -> bool:
    """Whether files that stand for all look like masks; those that cannot be read do not count.

    Args:
      base: folder that their paths start from.
      files: relative paths.
      strict: no name says that they are masks. Then levels must be equal, or far apart, but in
        formats with loss, and one of the files must have two: dark photographs are no masks.
    """
    looks = []
    for path in spread(files, 3):
        levels = _levels_of_mask(base / path, exact=strict and not path.lower().endswith(_LOSSY))
        if levels == 0:
            return False
        looks.append(levels)
    return not strict or 2 in looks


def _levels_of_mask(path: pathlib.Path, *, exact: bool) -> int | None:
    """The levels of what looks like a mask, 1 or 2; 0 of a photograph, None if it is unreadable."""
    try:
        picture = decode(path, channels=3, alpha="ignore")
    except UserError:
        return None
    colours = picture[::4, ::4].reshape(-1, 3)
    gray = np.ptp(colours.astype(np.int16), axis=1).max() <= 2 * _NEAR
    if not gray and len(np.unique(colours, axis=0)) > _FEW_COLOURS:
        return 0
    histogram = np.bincount(picture.max(axis=-1).ravel(), minlength=256)
    found = _two_commonest(histogram, 0 if exact else _NEAR)
    if not found and exact:  # compressed or resampled, and then saved without loss
        soft = _two_commonest(histogram, _NEAR)
        found = soft if len(soft) == 2 and abs(soft[0] - soft[1]) >= _FAR else []
    return len(found)


def _two_commonest(histogram: Int[np.ndarray, " 256"], near: int) -> list[int]:
    """The commonest levels, two at most, if nearly all pixels are as near to one of them."""
    left, levels = histogram.copy(), []
    for _ in range(2):
        level = int(left.argmax())
        if left[level]:
            left[max(0, level - near) : level + near + 1] = 0
            levels.append(level)
    return levels if left.sum() <= (1 - _MOST) * histogram.sum() else []
