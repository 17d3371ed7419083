"""Photographs as a model of tiles takes them: rows of tiles to train on, photographs to judge."""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from jaxad.data.crop import Box
from jaxad.data.images import image_dimensions, resize
from jaxad.data.photographs import Photograph, Reading
from jaxad.data.repeats import joined_digest, pixel_digest
from jaxad.data.streamed import changed_since
from jaxad.data.table import Sample
from jaxad.data.threads import decoding_threads
from jaxad.data.tiles import Grid, Tiling, cut_tile
from jaxad.data.unreadable import Search
from jaxad.run.errors import UserError

GROUP_PIXELS = 2**27
"""Pixels of the photographs whose tiles are drawn from together where tiles are streamed."""

_AT_ONCE = 4
"""Photographs that are read at once: each may be of many megapixels."""

_ROWS_AT_ONCE = 1024

UNREADABLE = (1, 1)
"""Size of a photograph whose header cannot be read."""

Source = str | os.PathLike | np.ndarray


def sizes_of(samples: Sequence[Sample | Source], reading: Reading) -> list[tuple[int, int]]:
    """(height, width) of what is seen of every photograph; of some :data:`UNREADABLE`.

    Who decodes it says why it cannot.
    """

    def size(path: str) -> tuple[int, int]:
        try:
            return image_dimensions(path, crop=reading.crop)
        except UserError:
            return UNREADABLE

    with decoding_threads() as pool:
        return list(pool.map(size, [_path(sample) for sample in samples]))


def check_large_enough(sizes: Sequence[tuple[int, int]], tiling: Tiling) -> None:
    """Refuses photographs none of which fills a tile in any direction.

    Raises:
      UserError: names the largest.
    """
    largest = max(sizes, key=max)
    if max(largest) < tiling.side:
        raise UserError(
            f"data.tiles has a side of {tiling.side} pixels, but the largest good training image "
            f"is {largest[0]} x {largest[1]} (height x width); give a smaller side, or "
            "data.tiles=0,0 for whole images"
        )


def tiles_of_file(
    path: str, *, tiling: Tiling, image_size: tuple[int, int], reading: Reading
) -> UInt8[np.ndarray, "k h w c"]:
    """All tiles of a photograph as the model sees them, in the order of ``Tiling.boxes``.

    Raises:
      UserError: it cannot be read.
    """
    photograph = Photograph(path, reading)
    boxes = tiling.boxes(photograph.size)
    return np.stack([tile for _, tile in _cut(photograph, boxes, image_size)])


def read_all(photograph: Photograph) -> None:
    """Reads a photograph and keeps nothing, to see whether it can be read.

    Raises:
      UserError: it cannot.
    """
    for top in range(0, photograph.size[0], _ROWS_AT_ONCE):
        photograph.rows(top, top + _ROWS_AT_ONCE)


def _cut(
    photograph: Photograph, boxes: Sequence[Box], image_size: tuple[int, int]
) -> Iterator[tuple[Box, UInt8[np.ndarray, "h w c"]]]:
    """Tiles at the model's size; rows are read once for tiles that lie side by side."""
    top, rows = -1, np.zeros((0, 0, 1), np.uint8)
    for box in boxes:
        if box.top != top:
            top, rows = box.top, photograph.rows(box.top, box.bottom)
        yield box, resize(np.ascontiguousarray(cut_tile(rows, box, top=top)), image_size)


class TiledImages:
    """Stands where pipelines take an array: its rows are tiles, decoded when they are asked for.

    A few photographs are kept decoded, so tiles are best asked for one group of photographs after
    the other (``groups``), as training does.

    Attributes:
      shape: ``(n, h, w, c)``, n the number of all tiles.
      dtype: uint8.
      groups: ``(n,)`` numbers of groups of photographs that fit into memory together.
      digests: number of a photograph -> digest of its tiles, of those that are known from an
        earlier time; one that gives other pixels than then, or than a while ago, is refused.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        tiling: Tiling,
        image_size: tuple[int, int],
        reading: Reading,
    ):
        """Reads the headers.

        Args:
          samples: the photographs.
          tiling: where tiles lie.
          image_size: ``(h, w)`` of a tile as the model sees it.
          reading: how photographs are read.
        """
        self._paths = [_path(sample) for sample in samples]
        self._image_size, self._reading = image_size, reading
        self._search = Search(self._paths, self._read_all, at_once=_AT_ONCE)
        self.digests: dict[int, str] = {}
        self._of_tiles: dict[int, str] = {}
        sizes = sizes_of(samples, reading)
        boxes = [tiling.boxes(size) for size in sizes]
        self._first = np.cumsum([0, *map(len, boxes)]).tolist()
        self._uncut = [len(some) for some in boxes]
        self._rows = [(i, box) for i, some in enumerate(boxes) for box in some]
        pixels = np.cumsum([height * width for height, width in sizes])
        of_photograph = (pixels - 1) // GROUP_PIXELS if len(sizes) else np.zeros(0, np.int64)
        self.groups: Int[np.ndarray, " n"] = np.repeat(of_photograph, [len(b) for b in boxes])
        self.shape = (len(self._rows), *image_size, reading.channels)
        self._open: OrderedDict[int, Photograph] = OrderedDict()
        self._sizes, self._lock = sizes, threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Int[np.ndarray, " b"] | slice) -> UInt8[np.ndarray, "b h w c"]:
        """Cuts tiles, in parallel.

        Raises:
          UserError: a photograph cannot be read, then all that cannot be are named; or one is
            another picture than before.
        """
        numbers = np.arange(len(self))[rows]
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        try:
            wanted = [self._rows[row] for row in numbers]
            photographs = {i: self._photograph(i) for i in dict.fromkeys(i for i, _ in wanted)}
            for place, (i, box) in enumerate(wanted):
                rows_of_it = photographs[i].rows(box.top, box.bottom)
                tile = cut_tile(rows_of_it, box, top=box.top)
                images[place] = resize(np.ascontiguousarray(tile), self._image_size)
        except UserError as error:
            raise self._search.error(error) from None
        for row, image in zip(numbers.tolist(), images, strict=True):
            self._compare(row, pixel_digest(image))
        return images

    def _compare(self, row: int, digest: str) -> None:
        """Holds a tile against itself a while ago, and a photograph all of whose tiles are known.

        Raises:
          UserError: it is another picture.
        """
        number = self._rows[row][0]
        self._uncut[number] -= row not in self._of_tiles
        same = self._of_tiles.setdefault(row, digest) == digest
        if not self._uncut[number]:
            self._uncut[number] = -1  # once
            own = range(self._first[number], self._first[number + 1])
            whole = joined_digest(self._of_tiles[row] for row in own)
            same &= self.digests.setdefault(number, whole) == whole
        if not same:
            raise changed_since(self._paths[number])

    def known_digests(self) -> dict[int, str]:
        """Number of a photograph -> digest of its tiles, of those all of which have been cut."""
        return dict(self.digests)

    def _read_all(self, path: str) -> None:
        read_all(Photograph(path, self._reading))

    def _photograph(self, number: int) -> Photograph:
        """One of the photographs, kept open until others take its room."""
        with self._lock:
            if number not in self._open:
                photograph = Photograph(self._paths[number], self._reading)
                if photograph.size != self._sizes[number]:
                    raise changed_since(self._paths[number])
                self._open[number] = photograph
            self._open.move_to_end(number)
            held = [self._sizes[i][0] * self._sizes[i][1] for i in self._open]
            # Room for a group and for one more, so that a group is not driven out by itself.
            while len(held) > 1 and sum(held) > 2 * GROUP_PIXELS:
                self._open.popitem(last=False)
                held.pop(0)
            return self._open[number]


class Photographs:
    """Photographs to be judged, opened one after the other.

    Attributes:
      tiling: where tiles lie.
      image_size: ``(h, w)`` of a tile as the model sees it.
      reading: how they are read.
      grid: the places of the tiles, where each has a model of its own; else None.
      digests: number of a photograph -> digest of its tiles, as training cuts them; of those that
        have been judged, where ``hashed`` is True.
    """

    def __init__(
        self,
        sources: Sequence[Sample | Source],
        *,
        tiling: Tiling,
        image_size: tuple[int, int],
        reading: Reading,
        hashed: bool = False,
        grid: Grid | None = None,
    ):
        """Keeps the paths or pixels; arguments as of :class:`TiledImages`."""
        self._sources, self._hashed = list(sources), hashed
        self.grid = grid
        self.tiling, self.image_size, self.reading = tiling, image_size, reading
        self.digests: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[Photograph]:
        """Opens them in order.

        Raises:
          UserError: one cannot be read, or has another grid; names the file.
        """
        for number, source in enumerate(self._sources):
            photograph = self.open(source)
            yield photograph
            if self._hashed:  # now, since most have been decoded as a whole and still are there
                trained = self.tiling if self.grid else self.tiling._replace(overlap=0)
                boxes = trained.boxes(photograph.size)
                tiles = _cut(photograph, boxes, self.image_size)
                self.digests[number] = joined_digest(pixel_digest(tile) for _, tile in tiles)

    def open(self, source: Sample | Source) -> Photograph:
        """Opens a photograph as these are read.

        Raises:
          UserError: it cannot be read, or has another grid; names the file.
        """
        pixels = source if isinstance(source, np.ndarray) else _path(source)
        photograph = Photograph(pixels, self.reading)
        if self.grid is not None:
            self.grid.check(photograph.size, photograph.path)
        return photograph

    def subset(self, rows: Sequence[int] | Int[np.ndarray, " k"]) -> Photographs:
        """Some of them, in the order of ``rows``."""
        return Photographs(
            [self._sources[int(row)] for row in rows],
            tiling=self.tiling,
            image_size=self.image_size,
            reading=self.reading,
            grid=self.grid,
        )

    def tiles(self, photograph: Photograph) -> Iterator[tuple[Box, UInt8[np.ndarray, "h w c"]]]:
        """The tiles of one of them, row by row, at the model's size."""
        return _cut(photograph, self.tiling.boxes(photograph.size), self.image_size)

    def middle_tiles(self) -> UInt8[np.ndarray, "n h w c"]:
        """The tile in the middle of each."""
        cut = functools.partial(_middle, tiling=self.tiling, image_size=self.image_size)
        return np.stack([cut(photograph) for photograph in self])


def _middle(
    photograph: Photograph, *, tiling: Tiling, image_size: tuple[int, int]
) -> UInt8[np.ndarray, "h w c"]:
    starts = [tiling.starts(length) for length in photograph.size]
    top, left = (some[len(some) // 2] for some in starts)
    box = Box(top, left, top + tiling.side, left + tiling.side)
    return next(tile for _, tile in _cut(photograph, [box], image_size))


def _path(sample: Sample | Source) -> str:
    assert not isinstance(sample, np.ndarray)  # pixels have no path
    return os.fspath(sample.path if isinstance(sample, Sample) else sample)
