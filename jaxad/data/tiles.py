"""Tiles of photographs (``data.tiles``): where they lie, how they are cut, how they are blended.

A tile is a square of the photograph as it is stored, upright, after the region of interest was cut
out. It is resized to ``data.image_size``, and is what a model sees. Tiles start every side less the
overlap; the last of a row or column is moved back to end at the border. Where a photograph is
smaller than a tile, the tile goes on with its mirror image.

Maps of overlapping tiles are blended by a smooth partition of unity. Of an overlap the outer
quarter of each tile is not used at all, since a network sees the border there; over the half in the
middle one tile fades into the other along a squared sine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxad.data.crop import Box
from jaxad.run.errors import UserError


class Tiling(NamedTuple):
    """Tiles of every photograph.

    Attributes:
      side: in pixels of the photograph.
      overlap: of neighbouring tiles, at least.
    """

    side: int
    overlap: int = 0

    def starts(self, length: int) -> list[int]:
        """Where tiles start along a side of a photograph."""
        if length <= self.side:
            return [0]
        return [*range(0, length - self.side, self.side - self.overlap), length - self.side]

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """All tiles of a photograph, row by row; they may end beyond it where it is smaller."""
        return [
            Box(top, left, top + self.side, left + self.side)
            for top in self.starts(size[0])
            for left in self.starts(size[1])
        ]

    def count(self, size: tuple[int, int]) -> int:
        """The number of tiles of a photograph."""
        return len(self.starts(size[0])) * len(self.starts(size[1]))

    def weights(self, length: int) -> list[Float[np.ndarray, " side"]]:
        """The share that each tile of :meth:`starts` has in the pixels it covers.

        Returns:
          One array per tile, float32 in [0, 1]; over all tiles they add up to 1 at every pixel.
        """
        starts = self.starts(length)
        last = len(starts) - 1
        ramps = [self._ramp(first=i == 0, last=i == last) for i in range(last + 1)]
        total = np.zeros(starts[-1] + self.side)
        for start, ramp in zip(starts, ramps, strict=True):
            total[start : start + self.side] += ramp
        return [
            (ramp / total[start : start + self.side]).astype(np.float32)
            for start, ramp in zip(starts, ramps, strict=True)
        ]

    def _ramp(self, *, first: bool, last: bool) -> Float[np.ndarray, " side"]:
        quarter = self.overlap // 4
        fading = self.overlap - 2 * quarter
        rise = np.ones(self.side)
        if fading:
            rise[:quarter] = 0.0
            phase = (np.arange(fading) + 0.5) / fading
            rise[quarter : quarter + fading] = np.sin(0.5 * np.pi * phase) ** 2
        return (1.0 if first else rise) * (np.ones(self.side) if last else rise[::-1])


class Grid(NamedTuple):
    """The tiles of photographs of one size, each of which lies at a place of its own.

    Attributes:
      tiling: of the photographs, whose boxes are the places.
      size: (height, width) of what is seen of every photograph.
    """

    tiling: Tiling
    size: tuple[int, int]

    @property
    def places(self) -> int:
        """How many there are."""
        return self.tiling.count(self.size)

    @property
    def middle(self) -> int:
        """The place whose tile lies in the middle."""
        rows, columns = (len(self.tiling.starts(length)) for length in self.size)
        return rows // 2 * columns + columns // 2

    def check(self, size: tuple[int, int], name: str | None) -> None:
        """Refuses a photograph of another size.

        Args:
          size: (height, width) of what is seen of it.
          name: of its file; None where there is none.

        Raises:
          UserError: the tiles of the photograph lie at other places.
        """
        if tuple(size) != tuple(self.size):
            raise UserError(
                f"of {name or 'the image'} {size[0]} x {size[1]} pixels are seen (height x width), "
                f"but every model of data.tile_models=per_position knows one place of photographs "
                f"of {self.size[0]} x {self.size[1]}; crop or resize it to that, or train with "
                "data.tile_models=shared"
            )


def tiling_of(tiles: Sequence[int], image_size: Sequence[int]) -> Tiling | None:
    """The tiles of ``data.tiles``; None where whole images are seen.

    Raises:
      UserError: they are no tiles, or ``data.image_size`` is not square.
    """
    if tuple(tiles) == (0, 0):
        return None
    side, overlap = tiles
    if side < 1 or not 0 <= overlap <= side // 2:
        raise UserError(
            "data.tiles must be (side, overlap) in pixels of the photographs, with an overlap of "
            f"at most half the side, or (0, 0) for whole images, not {tuple(tiles)!r}"
        )
    if image_size[0] != image_size[1]:
        raise UserError(
            f"tiles are square, but data.image_size is {image_size[0]} x {image_size[1]}; give "
            "data.image_size the same height and width, or set data.tiles=0,0"
        )
    return Tiling(side, overlap)


def cut_tile(
    rows: UInt8[np.ndarray, "h w c"], box: Box, *, top: int = 0
) -> UInt8[np.ndarray, "i j c"]:
    """A tile of a photograph, mirrored where it goes on beyond it.

    Args:
      rows: of the photograph, those of the box at least as far as there are any.
      box: of the tile.
      top: which row of the photograph is the first of ``rows``.
    """
    inside = rows[box.top - top : box.bottom - top, box.left : box.right]
    missing = [(0, side - there) for side, there in zip(box.size, inside.shape[:2], strict=True)]
    if not any(after for _, after in missing):
        return inside
    return np.pad(inside, [*missing, (0, 0)], mode="symmetric")
