"""Some of the rows of an array of images, without copying them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from jaxad.data.streamed import StreamedImages
from jaxad.data.tiled import TiledImages


class ImageRows:
    """Stands where pipelines take an array: rows are taken from another one when asked for.

    So a part of a memory-mapped array is not brought into memory, and streamed images stay
    streamed.

    Attributes:
      shape: ``(n, h, w, c)``.
      dtype: uint8.
      groups: of the rows, see :class:`~jaxad.data.tiled.TiledImages`; None where it does not matter
        which rows are taken together.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        images: UInt8[np.ndarray, "m h w c"] | StreamedImages | TiledImages | ImageRows,
        rows: Int[np.ndarray, " n"],
    ):
        """Keeps the images and which of them.

        Args:
          images: all of them.
          rows: row numbers, in the order of this one's rows.
        """
        self._images, self._rows = images, rows
        self.shape: tuple[int, ...] = (len(rows), *images.shape[1:])
        groups = getattr(images, "groups", None)
        self.groups: Int[np.ndarray, " n"] | None = None if groups is None else groups[rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Int[np.ndarray, " b"] | slice) -> UInt8[np.ndarray, "b h w c"]:
        """The images of some rows.

        Raises:
          UserError: one that is streamed cannot be read; names the file.
        """
        return np.asarray(self._images[self._rows[rows]])
