"""Images that are decoded when they are asked for: an array that is never whole."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from jaxad.data.crop import WHOLE, Crop
from jaxad.data.images import FULL_RANGE, read_image
from jaxad.data.repeats import pixel_digest
from jaxad.data.table import Sample
from jaxad.data.threads import decoding_threads
from jaxad.data.unreadable import Search
from jaxad.run.errors import UserError


def changed_since(path: str) -> UserError:
    """The error for a file that is another picture than it was."""
    return UserError(
        f"{path} has changed since it was first read; restore it, or train into a new --workdir"
    )


class StreamedImages:
    """Stands where pipelines take an array: rows are decoded and resized at every indexing.

    Nothing of what was decoded is kept, so memory is bounded by the batches under way. Files of
    many images that hold arrays (``.npz``, IDX, CIFAR's batches) are still read as a whole, once,
    see :mod:`jaxad.data.containers`; shards and zip files are not.

    Attributes:
      shape: ``(n, h, w, c)``.
      dtype: uint8.
      digests: row -> digest of its pixels, of the rows that have been decoded, or are known from
        an earlier time; a file that gives other pixels than then is refused.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        samples: Sequence[Sample | str | os.PathLike],
        *,
        image_size: tuple[int, int],
        channels: int,
        range_16bit: tuple[float, float] = FULL_RANGE,
        alpha: str = "white",
        crop: Crop = WHOLE,
    ):
        """Keeps the paths.

        Args:
          samples: samples or paths.
          image_size: ``(h, w)``.
          channels: 1 or 3.
          range_16bit: see :func:`jaxad.data.deep_range.resolve_range_16bit`.
          alpha: as of :func:`jaxad.data.images.decode`.
          crop: the part of every image that is kept, see :mod:`jaxad.data.crop`.
        """
        self._paths = [os.fspath(s.path if isinstance(s, Sample) else s) for s in samples]
        self._read = functools.partial(
            read_image,
            image_size=image_size,
            channels=channels,
            range_16bit=range_16bit,
            alpha=alpha,
            crop=crop,
        )
        self._search = Search(self._paths, self._read)
        self.digests: dict[int, str] = {}
        self.shape = (len(self._paths), *image_size, channels)
        # They end with the pool, which ends with this object.
        self._pool = decoding_threads()

    def __len__(self) -> int:
        return len(self._paths)

    def known_digests(self) -> dict[int, str]:
        """Number of an image -> digest of its pixels, of those that have been decoded."""
        return dict(self.digests)

    def __getitem__(self, rows: Int[np.ndarray, " b"] | slice) -> UInt8[np.ndarray, "b h w c"]:
        """Decodes rows, in parallel.

        Raises:
          UserError: one cannot be read, then all that cannot are named; or one is another picture
            than before.
        """
        rows = np.arange(len(self))[rows]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def read(place: int) -> None:
            row = int(rows[place])
            try:
                images[place] = self._read(self._paths[row])
            except UserError as error:
                raise self._search.error(error) from None
            digest = pixel_digest(images[place])
            if self.digests.setdefault(row, digest) != digest:
                raise changed_since(self._paths[row])

        for _ in self._pool.map(read, range(len(rows))):
            pass  # a failure is raised here
        return images
