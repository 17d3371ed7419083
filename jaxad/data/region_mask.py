"""Which pixels of every image are judged, where that is no rectangle (``evaluate.region_mask``).

A picture drawn over a photograph: what is not black is judged. What lies elsewhere is seen by the
model, as a part of the image that it rebuilds, but counts neither in maps, scores and thresholds
nor in metrics. One picture serves images of every size: it is brought to theirs, and a pixel is
judged where at least half of it lies inside.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image

from jaxad.data.crop import Crop, cut
from jaxad.data.files import image_files
from jaxad.data.mask_pairs import stem_of
from jaxad.data.masks import read_mask
from jaxad.run.errors import UserError
from jaxad.run.files import writing
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings

_HALF = 0.5 - 1e-9
"""Share of a pixel from which it is judged, below by the rounding of areas."""
_STRIP = 2**20
"""Pixels that are computed at once."""
_KEPT = 2**26
"""Pixels of the pictures of a folder that are kept, each of which takes five bytes."""


class RegionMask:
    """What is judged of the part of an image that a model sees.

    Attributes:
      drawn: ``(h, w)`` bool, of the whole image, at the size at which it was drawn.
      sha256: of these pixels.
      share: of what the model sees that lies inside.
    """

    def __init__(self, drawn: Bool[np.ndarray, "h w"], crop: Crop, *, name: str):
        """Cuts the part that a model sees out of a drawing.

        Args:
          drawn: of the whole image.
          crop: as ``data.region``.
          name: of the drawing, for errors.

        Raises:
          UserError: no pixel is inside.
        """
        self.drawn, self._name = drawn, name
        self.sha256 = hashlib.sha256(repr(drawn.shape).encode() + drawn.tobytes()).hexdigest()
        seen = cut(drawn, crop)
        if not seen.any():
            part = "" if seen.shape == drawn.shape else " in the part that data.region sees"
            raise UserError(f"{name} is black everywhere{part}, so no pixel would be judged")
        # Pixels inside above and left of every corner between pixels.
        self._inside = np.zeros((seen.shape[0] + 1, seen.shape[1] + 1), np.uint32)
        np.cumsum(seen, axis=0, out=self._inside[1:, 1:])
        np.cumsum(self._inside, axis=1, out=self._inside)
        self.share = float(seen.mean())
        self.at = functools.lru_cache(maxsize=8)(self._at)

    def _at(self, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """Inside or not, for a map of a size; read-only.

        Raises:
          UserError: at this size no pixel is inside.
        """
        strip = max(1, _STRIP // size[1])
        tops = range(0, size[0], strip)
        inside = np.concatenate([self.rows(size, t, min(t + strip, size[0])) for t in tops])
        if not inside.any():
            raise UserError(
                f"nothing of {self._name} is left at {size[0]} x {size[1]} pixels; draw a larger "
                "region, or take a larger data.image_size"
            )
        inside.setflags(write=False)
        return inside

    def rows(self, size: tuple[int, int], top: int, bottom: int) -> Bool[np.ndarray, "k w"]:
        """Some rows of ``at``, which need not be there as a whole.

        Args:
          size: (height, width) of the map.
          top: first row.
          bottom: the row after the last.
        """
        height, width = self._inside.shape[0] - 1, self._inside.shape[1] - 1
        down = np.arange(top, bottom + 1) * height / size[0]
        across = np.arange(size[1] + 1) * width / size[1]
        corners = _between(self._inside, down, across)
        area = np.diff(np.diff(corners, axis=0), axis=1)
        return area >= _HALF * (height / size[0]) * (width / size[1])

    def hide(self, heat: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        """A map with its smallest judged value in place of what is not judged."""
        inside = self.at(heat.shape)
        return np.where(inside, heat, heat[inside].min())


def _between(
    inside: Shaped[np.ndarray, "n m"],
    down: Float[np.ndarray, " k"],
    across: Float[np.ndarray, " l"],
) -> Float[np.ndarray, "k l"]:
    """Pixels inside above and left of fractional places, where they grow linearly both ways."""
    row, column = (
        np.minimum(places.astype(np.int64), side - 2)
        for places, side in ((down, inside.shape[0]), (across, inside.shape[1]))
    )
    below, right = (down - row)[:, None], across - column
    # The four corners alone: whole rows of a long picture would take gigabytes.
    at = lambda i, j: inside[np.ix_(i, j)] * (1.0 - below) + inside[np.ix_(i + 1, j)] * below
    return at(row, column) * (1.0 - right) + at(row, column + 1) * right


class RegionMasks:
    """What is judged of every image: one picture for all, or pictures of a folder.

    In a folder a picture belongs to the images whose path, without its ending, ends like the
    picture's path in that folder; the longest such path counts. An image without one is judged
    whole.

    Attributes:
      every: the picture for all images; None where there is a folder.
      sha256: of that picture; of a folder ``"folder"``.
    """

    def __init__(self, place: pathlib.Path, crop: Crop):
        """Reads the picture, or lists those of the folder.

        Args:
          place: the file or the folder.
          crop: as ``data.region``.

        Raises:
          UserError: the picture cannot be read, or is black where the model sees; or the folder
            holds none.
        """
        self._crop, self._folder = crop, place
        self._files: dict[str, pathlib.Path] = {}
        self.every: RegionMask | None = None
        self._kept: OrderedDict[pathlib.Path, RegionMask] = OrderedDict()
        self._lock = threading.Lock()
        if place.is_dir():
            for file in image_files(place):
                self._files[stem_of(file)] = place / file
            if not self._files:
                raise UserError(f"evaluate.region_mask {place} holds no picture")
            self.sha256 = "folder"
        else:
            self.every = self._open(place)
            self.sha256 = self.every.sha256

    def _read(self, file: pathlib.Path) -> RegionMask:
        """A picture of the folder, kept until others take its room."""
        with self._lock:
            if file not in self._kept:
                self._kept[file] = self._open(file)
            self._kept.move_to_end(file)
            while len(self._kept) > 1 and sum(m.drawn.size for m in self._kept.values()) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[file]

    def _open(self, file: pathlib.Path) -> RegionMask:
        return RegionMask(read_mask(file), self._crop, name=f"evaluate.region_mask {file}")

    def of(self, image: str | None) -> RegionMask | None:
        """What is judged of one image; None: all of it.

        Args:
          image: its file; None for one that is none.

        Raises:
          UserError: its picture cannot be read, or is black where the model sees.
        """
        if self.every is not None or image is None:
            return self.every
        parts = pathlib.PurePath(image).with_suffix("").parts
        for first in range(len(parts)):
            file = self._files.get("/".join(parts[first:]))
            if file is not None:
                return self._read(file)
        return None

    def digest(self, images: Sequence[str]) -> str:
        """Of what is judged of some images."""
        found = [mask.sha256 if (mask := self.of(image)) else "" for image in images]
        return hashlib.sha256(" ".join(found).encode()).hexdigest()


def read_region_masks(run: RunFolder, config: Settings) -> RegionMasks | None:
    """What a run judges of its images; None: all that it sees.

    Args:
      run: which keeps a copy of a picture that is for all.
      config: of the run; its ``evaluate.region_mask`` is the copy's name, another picture, or a
        folder of pictures.

    Raises:
      UserError: as of :class:`RegionMasks`.
    """
    name = config.evaluate.region_mask
    if not name:
        return None
    place = pathlib.Path(os.path.expanduser(name))
    if name == run.region_mask.name and (run.region_mask.exists() or _has_kept(run, name)):
        place = run.region_mask
    return RegionMasks(place, config.data.region)


def _has_kept(run: RunFolder, name: str) -> bool:
    """Whether a run says that it has a copy: where that is gone, no other file stands in for it."""
    return run.config.exists() and run.read_config().evaluate.region_mask == name


def keep_region_mask(run: RunFolder, config: Settings) -> Settings:
    """Copies a picture for all images into the run folder, and names the copy in the config.

    A folder stays where it is and is named by its absolute path.

    Raises:
      UserError: as of :func:`read_region_masks`, or the copy cannot be written.
    """
    masks = read_region_masks(run, config)
    if masks is None:
        return config
    if masks.every is None:
        name = os.path.abspath(os.path.expanduser(config.evaluate.region_mask))
    else:
        name = run.region_mask.name
        with writing(run.region_mask, durable=True) as temporary:
            Image.fromarray(masks.every.drawn).save(temporary, format="PNG")
    evaluate = dataclasses.replace(config.evaluate, region_mask=name)
    return dataclasses.replace(config, evaluate=evaluate)
