"""Maps of tiles put together to the map of a photograph, row by row, in bounded memory.

Rows are complete once no later tile covers them; then they go into the scores and, made smaller by
a whole factor where all of the map would be too large, into the map that is kept.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8

from jaxad.data.crop import Box
from jaxad.data.images import resize
from jaxad.data.region_mask import RegionMask
from jaxad.data.tiles import Tiling
from jaxad.evaluation.resize import resize_map

OVERVIEW_SIDE = 512
"""Pixels of the longer side of a picture of a whole photograph, at most."""


def reduced_size(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """(height, width) of a map that is made smaller by a factor."""
    return -(-size[0] // factor), -(-size[1] // factor)


class MapStitcher:
    """One map of one photograph, from its tiles in the order of ``Tiling.boxes``."""

    def __init__(
        self,
        size: tuple[int, int],
        tiling: Tiling,
        *,
        factor: int,
        region: RegionMask | None = None,
    ):
        """Starts an empty map.

        Args:
          size: (height, width) of what is seen of the photograph.
          tiling: where tiles lie.
          factor: by which the map that is kept is smaller: the highest of as many pixels squared.
          region: what of the photograph is judged; None: all.
        """
        self._region, self._judged = region, 0
        self._size, self._tiling, self._factor = size, tiling, factor
        self._starts = tiling.starts(size[0]), tiling.starts(size[1])
        self._weights = tiling.weights(size[0]), tiling.weights(size[1])
        self._strip = np.zeros((tiling.side, size[1]), np.float32)
        self._pending = np.zeros((0, size[1]), np.float32)
        self._emitted = 0
        self._place = 0
        self._kept = np.full(reduced_size(size, factor), -np.inf, np.float32)
        self._top = np.zeros(0, np.float32)
        self._sum = 0.0
        # As many pixels as a hundredth of a tile: a score does not fade in a larger photograph.
        area = min(tiling.side, size[0]) * min(tiling.side, size[1])
        self._top_count = max(1, area // 100)

    def add(self, values: Float[np.ndarray, "h w"]) -> None:
        """Adds the map of the next tile, at the size that the model sees."""
        side, columns = self._tiling.side, self._starts[1]
        row, column = divmod(self._place, len(columns))
        left = columns[column]
        width = min(side, self._size[1] - left)
        at_side = values if values.shape == (side, side) else resize_map(values, (side, side))
        weighted = at_side[:, :width] * self._weights[1][column][:width]
        self._strip[:, left : left + width] += weighted
        self._place += 1
        if column == len(columns) - 1:
            self._finish_row(row)

    def _finish_row(self, row: int) -> None:
        """Adds a row of tiles to the rows under way, and passes on those that are complete."""
        tops = self._starts[0]
        top, height = tops[row], min(self._tiling.side, self._size[0] - tops[row])
        offset = top - self._emitted
        grown = np.zeros((offset + height, self._size[1]), np.float32)
        grown[: len(self._pending)] = self._pending
        grown[offset:] += self._strip[:height] * self._weights[0][row][:height, None]
        self._strip[:] = 0.0
        complete = len(grown)
        if row < len(tops) - 1:
            # Whole blocks of the map that is kept, so that none is met twice.
            complete = (tops[row + 1] - self._emitted) // self._factor * self._factor
        if complete:
            self._emit(grown[:complete])
        self._pending = grown[complete:].copy()

    def _emit(self, rows: Float[np.ndarray, "k w"]) -> None:
        factor, first = self._factor, self._emitted // self._factor
        pixels = rows.ravel()
        if self._region is not None:
            bottom = self._emitted + len(rows)
            inside = self._region.rows(self._size, self._emitted, bottom)
            pixels, rows = rows[inside], np.where(inside, rows, -np.inf)
        if factor == 1:
            self._kept[first : first + len(rows)] = rows
        else:
            down = np.maximum.reduceat(rows, np.arange(0, len(rows), factor), axis=0)
            small = np.maximum.reduceat(down, np.arange(0, rows.shape[1], factor), axis=1)
            self._kept[first : first + len(small)] = small
        self._sum += float(pixels.sum(dtype=np.float64))
        self._judged += pixels.size
        self._top = _highest(np.concatenate([self._top, pixels]), self._top_count)
        self._emitted += len(rows)

    @property
    def map(self) -> Float[np.ndarray, "h w"]:
        """The map, once all tiles were added; smaller by the factor.

        Where nothing is judged it has the smallest value of the rest.
        """
        assert self._emitted == self._size[0]
        if self._region is None:
            return self._kept
        judged = np.isfinite(self._kept)
        return np.where(judged, self._kept, self._kept.min(where=judged, initial=np.inf))

    @property
    def reductions(self) -> dict[str, float]:
        """``max``, ``mean`` and ``top1`` of all that is judged, at the size of the photograph."""
        return {
            "max": float(self._top.max()),
            "mean": self._sum / self._judged,
            "top1": float(self._top.mean(dtype=np.float64)),
        }


def _highest(values: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, " k"]:
    if len(values) <= count:
        return values
    return np.partition(values, len(values) - count)[len(values) - count :].copy()


class Overview:
    """A small picture of a whole photograph, from pictures of its tiles.

    Attributes:
      picture: ``(h, w, c)`` uint8.
    """

    def __init__(self, size: tuple[int, int], channels: int):
        """Starts a black picture.

        Args:
          size: (height, width) of the photograph.
          channels: of the pictures.
        """
        self._factor = max(1, math.ceil(max(size) / OVERVIEW_SIDE))
        self._size = size
        self.picture = np.zeros((*reduced_size(size, self._factor), channels), np.uint8)

    def add(self, tile: UInt8[np.ndarray, "h w c"], box: Box) -> None:
        """Lays a picture of a tile where it belongs.

        Args:
          tile: at any size.
          box: what it shows; may end beyond the photograph.
        """
        bottom, right = min(box.bottom, self._size[0]), min(box.right, self._size[1])
        shown = tile[
            : -(-tile.shape[0] * (bottom - box.top) // box.size[0]),
            : -(-tile.shape[1] * (right - box.left) // box.size[1]),
        ]
        rows, columns = (
            slice(first // self._factor, -(-last // self._factor))
            for first, last in ((box.top, bottom), (box.left, right))
        )
        small = resize(
            np.ascontiguousarray(shown), (rows.stop - rows.start, columns.stop - columns.start)
        )
        self.picture[rows, columns] = small
