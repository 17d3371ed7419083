"""What a run says about images: :class:`Prediction` of one, :class:`Predictions` of several."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from jaxad.data.crop import Box, put_back
from jaxad.data.masks import resize_mask
from jaxad.data.region_mask import RegionMask
from jaxad.evaluation.connected_components import Component, find_components
from jaxad.evaluation.drawing import draw
from jaxad.evaluation.resize import AnyMap, columns_of, enlarged, highest_of, resize_map
from jaxad.evaluation.thresholds import predicted_pixels
from jaxad.report.content import VERDICTS, Case, Scale, ScoreRow
from jaxad.report.labels import label
from jaxad.report.notebook import NotebookRow, predictions_table
from jaxad.report.page import Picture
from jaxad.run.errors import UserError
from jaxad.run.text import printable

_SHOWN, _THUMBNAIL, _LARGE = 20, 128, 384
"""Images that a notebook shows, and the longest side of their pictures: in a table, and alone."""


class Maximum(NamedTuple):
    """The highest pixel of a map: column, row and value."""

    x: int
    y: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run says about one image.

    Attributes:
      path: the file; None for an image that is none.
      size: original (height, width); None when the file cannot be read.
      box: what the model saw of it, in original pixels (``data.region``).
      score: image score, larger = more anomalous; None when the file cannot be read.
      decision: True = rejected (the score exceeds the image threshold); None without a threshold.
      image_threshold: of the run; None without one.
      model_map: ``(h, w)`` float32, the primary map at the size that the model sees; where it sees
        tiles, at the size of the box, or smaller by ``reduced``.
      reconstruction: ``(h, w, c)`` uint8, what the model makes of the image, at that size; where it
        sees tiles, at that of ``overview``.
      reduced: by which factor the map of a very large photograph is kept smaller than its box;
        regions are then right to as many pixels.
      overview: ``(h, w, c)`` uint8, a small picture of the box; None where the model sees all of
        it at once.
      pixel_threshold: of the run; None without one.
      region_threshold: that the highest pixel of a region must exceed; None for small maps.
      region: what of the box is judged (``evaluate.region_mask``); None: all.
      scale: of the run's heat maps; None without calibration.
      notes: sentences on brightness or size outside what was trained: scores of such images do not
        mean what they mean of others.
      error: why the file cannot be read, as a sentence; None when it can.
      photograph: reads the image again: ``photograph(channels=1)`` or 3, ``(H, W, channels)``
        uint8 at the original size.
    """

    path: str | None
    size: tuple[int, int] | None = None
    box: Box | None = None
    score: float | None = None
    decision: bool | None = None
    image_threshold: float | None = None
    model_map: Float[np.ndarray, "h w"] | None = field(default=None, repr=False)
    reconstruction: UInt8[np.ndarray, "i j c"] | None = field(default=None, repr=False)
    reduced: int = 1
    overview: UInt8[np.ndarray, "i j c"] | None = field(default=None, repr=False)
    pixel_threshold: float | None = None
    region_threshold: float | None = None
    region: RegionMask | None = field(default=None, repr=False, compare=False)
    scale: Scale | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    error: str | None = None
    photograph: Callable[..., UInt8[np.ndarray, "H W c"]] | None = field(
        default=None, repr=False, compare=False
    )

    @functools.cached_property
    def map(self) -> Float[np.ndarray, "H W"]:
        """The primary map at the original size, float32, raw values; made on first use.

        Outside the box and the region mask, of which nothing is known, it has its own smallest
        value.
        """
        _, box, size = self._require_read()
        return put_back(self._seen, box, size, outside=self._seen.min())

    def forget(self) -> None:
        """Frees what was made at the size of the original; it is made again when asked for."""
        for name in ("map", "mask", "_seen", "_strips"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def _seen(self) -> Float[np.ndarray, "i j"]:
        """The map of the box."""
        model_map, box, _ = self._require_read()
        return self._hidden(resize_map(model_map, box.size))

    def _hidden(self, heat: Float[np.ndarray, "a b"]) -> Float[np.ndarray, "a b"]:
        """A map of the box without what is not judged."""
        return heat if self.region is None else self.region.hide(heat)

    @functools.cached_property
    def _strips(self) -> AnyMap:
        """The map of the box, to be looked at some columns at a time."""
        model_map, box, _ = self._require_read()
        return enlarged(model_map, box.size) if self.region is None else self._seen

    @property
    def by_strips(self) -> AnyMap:
        """The same as :attr:`map`; of a large image only what is asked of it is made."""
        _, box, size = self._require_read()
        return self._strips if box == Box(0, 0, *size) else self.map

    @functools.cached_property
    def mask(self) -> Bool[np.ndarray, "H W"] | None:
        """The predicted defects, at the original size; None without a threshold.

        An accepted image has none; a rejected one has the pixels over the pixel threshold or, where
        there are none, its highest hundredth. On a large map only regions count whose highest pixel
        exceeds the region threshold or, where there is none, that of the highest pixel. None of
        them lies outside the box or the region mask.
        """
        _, box, size = self._require_read()
        inside = self._predicted(self._strips)
        return None if inside is None else put_back(inside, box, size, outside=False)

    @property
    def judged(self) -> Bool[np.ndarray, "H W"] | None:
        """The pixels of the original that are judged; None without a region mask."""
        _, box, size = self._require_read()
        if self.region is None:
            return None
        return put_back(self.region.at(box.size), box, size, outside=False)

    @functools.cached_property
    def maximum(self) -> Maximum:
        """The highest pixel of the map, in original pixels."""
        model_map, box, _ = self._require_read()
        seen, scale = self._strips, 1
        if self.reduced > 1:
            seen, scale = self._hidden(model_map), self.reduced
        highest = []
        for columns in columns_of(seen.shape):
            part = seen[:, columns]
            y, x = divmod(int(np.argmax(part)), part.shape[1])
            highest.append((-float(part[y, x]), y, columns.start + x))
        value, y, x = min(highest)  # of equal pixels the first, row by row
        return Maximum(box.left + scale * x, box.top + scale * y, -value)

    @functools.cached_property
    def components(self) -> tuple[Component, ...]:
        """The predicted defects, highest peak first; none without a threshold."""
        model_map, box, _ = self._require_read()
        if self.reduced == 1:
            mask = self.mask
            return () if mask is None else find_components(self.by_strips, mask)
        mask = self._predicted(model_map)
        found = () if mask is None else find_components(model_map, mask)
        return tuple(one.enlarged(self.reduced, box) for one in found)

    @property
    def regions(self) -> tuple[Component, ...]:
        """The components, by the name that the files of `jaxad predict` have for them."""
        return self.components

    def record(self) -> dict[str, Any]:
        """What is said of the image, for JSON: the keys of an image in predictions.json.

        ``path``, ``height``, ``width``, ``box`` and ``reduced`` where there are such, ``score``,
        ``decision``, ``maximum``, ``regions``, ``notes``, ``error``; nulls for a file that cannot
        be read. Boxes are in pixels of the original.
        """
        path = None if self.path is None else printable(self.path)
        if self.size is None or self.box is None or self.score is None:
            row = dict.fromkeys(("height", "width", "score", "decision", "maximum"))
            reason = printable(str(self.error))
            return {"path": path, **row, "regions": [], "notes": [], "error": reason}
        height, width = self.box.size
        box = {"x": self.box.left, "y": self.box.top, "width": width, "height": height}
        highest = self.maximum
        return {
            "path": path,
            "height": self.size[0],
            "width": self.size[1],
            **({} if self.box == Box(0, 0, *self.size) else {"box": box}),
            **({} if self.reduced == 1 else {"reduced": self.reduced}),
            "score": _nine_digits(self.score),
            "decision": self.decision,
            "maximum": highest._asdict() | {"value": _nine_digits(highest.value)},
            "regions": [r._asdict() | {"peak": _nine_digits(r.peak)} for r in self.regions],
            "notes": list(self.notes),
            "error": None,
        }

    @property
    def verdict(self) -> str:
        """The decision in words: rejected, accepted, or nothing without a threshold."""
        return VERDICTS[self.decision]

    def overlay(self, low: float | None = None, high: float | None = None) -> Image.Image:
        """The map in colours over the photograph, the predicted defects outlined, the verdict.

        The picture of `jaxad predict`, at the original size; small, where the photograph is so
        large that its map is. Its colours have the scale of the run, so that pictures can be
        compared.

        Args:
          low: value of the bottom colour instead of the run's.
          high: value of the top colour instead of the run's.

        Raises:
          UserError: the image cannot be read (any more), or there is no scale.
        """
        _, _, size = self._require_read()
        if self.photograph is None:
            raise UserError("there is no photograph to lay the map over")
        scale = self.scale
        if low is not None and high is not None:
            scale = Scale(low, high, self.pixel_threshold)
        if scale is None:
            raise UserError(
                "the run has no heat-map scale, since it has no calibration; give low and high, "
                "for example the range of all maps to be compared"
            )
        gray = None
        if self.reduced == 1:
            gray = self.photograph(channels=1)
            if gray.shape[:2] != size:
                raise UserError(f"{self.path or 'the image'} has changed since it was judged")
        return Image.fromarray(self.drawn(gray, scale))

    def drawn(
        self, gray: UInt8[np.ndarray, "H W 1"] | None, scale: Scale
    ) -> UInt8[np.ndarray, "i j rgb"]:
        """The picture of :meth:`overlay` as pixels.

        Args:
          gray: the photograph; None of one that is so large that the picture is a small one.
          scale: of the colours.
        """
        if gray is None:
            photograph, heat, mask = self.small
            picture = draw(photograph, heat, mask, scale)
        else:
            mask = self.mask
            picture = draw(gray, self.by_strips, mask, scale, self.box, self.judged)
        return label(picture, self.score or 0.0, self.decision, mask)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return predictions_table(
            [self._shown(self.path or "array", _LARGE)], threshold=self.image_threshold
        )

    def _shown(self, name: str, side: int) -> NotebookRow:
        """As a line of a notebook's table, with a picture of at most so many pixels a side."""
        picture = None
        if self.error is None and self.scale is not None and self.photograph is not None:
            small = self.overlay()
            small.thumbnail((side, side))
            picture = Picture(np.asarray(small), alt=f"map of {name}")
        return NotebookRow(
            name=name,
            verdict=self.verdict,
            score=self.score,
            components=None if self.error or self.decision is None else len(self.components),
            notes=self.error or "; ".join(self.notes),
            shown=picture,
        )

    @property
    def small(
        self,
    ) -> tuple[
        UInt8[np.ndarray, "a b 1"], Float[np.ndarray, "a b"], Bool[np.ndarray, "a b"] | None
    ]:
        """Picture (gray), map and predicted defects of a photograph that is judged by tiles, small.

        Of the map and the defects every pixel has the highest that it stands for.
        """
        model_map, _, _ = self._require_read()
        assert self.overview is not None
        size = self.overview.shape[:2]
        gray = np.rint(self.overview.mean(axis=2, keepdims=True)).astype(np.uint8)
        mask = self._predicted(model_map)
        heat = highest_of(self._hidden(model_map), size)
        return gray, heat, None if mask is None else highest_of(mask, size)

    def _predicted(self, heat: AnyMap) -> Bool[np.ndarray, "a b"] | None:
        """Of a map at any size."""
        thresholds = self.pixel_threshold, self.region_threshold
        inside = None if self.region is None else self.region.at((heat.shape[0], heat.shape[1]))
        return predicted_pixels(heat, self.decision, *thresholds, inside)

    def _require_read(self) -> tuple[Float[np.ndarray, "h w"], Box, tuple[int, int]]:
        """The model's map, the box and the size, which a file that was read has."""
        if self.model_map is None or self.box is None or self.size is None:
            raise UserError(f"there is no map: {self.error}")
        return self.model_map, self.box, self.size


def _nine_digits(value: float) -> float:
    """As many digits as tell any two float32 apart, and no more."""
    return float(f"{value:.9g}")


def score_cells(
    score: float | None, decision: bool | None, threshold: float | None
) -> dict[str, str | int | None]:
    """Columns of scores.csv: score, decision (1 = rejected, empty = none), verdict, threshold.

    Args:
      score: of an image; None of one that cannot be read.
      decision: about it; None without a threshold.
      threshold: of images.
    """
    return {
        "score": None if score is None else f"{score:.9g}",
        "decision": None if decision is None else int(decision),
        "verdict": VERDICTS[decision],
        "threshold": None if threshold is None else f"{threshold:.9g}",
    }


def make_case(
    row: ScoreRow,
    image: UInt8[np.ndarray, "h w c"],
    heat: Float[np.ndarray, "h w"],
    reconstruction: UInt8[np.ndarray, "h w c"] | None,
    mask: Bool[np.ndarray, "_ _"] | None,
    calibration: Mapping[str, Any],
    judged: RegionMask | None = None,
) -> Case:
    """One image for a page, its pictures at one size.

    Args:
      row: what is said of it.
      image: as the model sees it, or small.
      heat: the map.
      reconstruction: what the model makes of it; None without one.
      mask: of a defect, at any size; None without one.
      calibration: holds the thresholds of pixels and of regions.
      judged: what of it is judged; None: all.
    """
    threshold, region = calibration["pixel_threshold"], calibration.get("region_threshold")
    if mask is not None:
        mask = resize_mask(mask, heat.shape)
    inside = None
    if judged is not None:
        heat, inside = judged.hide(heat), judged.at(heat.shape)
    return Case(
        **row._asdict(),
        image=image,
        reconstruction=reconstruction,
        heat=heat,
        mask=mask,
        predicted=predicted_pixels(heat, row.decision, threshold, region, inside),
        regions=predicted_pixels(heat, True, threshold, region, inside),
    )


class Predictions(list[Prediction]):
    """Predictions in the order of their images: a list that notebooks show as a table."""

    def table(self) -> list[dict[str, Any]]:
        """One row per image, with the columns of the scores.csv of `jaxad predict`."""
        return [
            {
                "path": one.path,
                "score": one.score,
                "decision": one.decision,
                "verdict": one.verdict,
                "threshold": one.image_threshold,
                "regions": None if one.error else len(one.components),
                "notes": "; ".join(one.notes),
                "error": one.error,
            }
            for one in self
        ]

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``.

        Raises:
          UserError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise UserError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.table())

    def _repr_html_(self) -> str:
        """What a notebook shows: the first images."""
        names = [one.path or f"image {number}" for number, one in enumerate(self)]
        rows = [one._shown(n, _THUMBNAIL) for n, one in zip(names[:_SHOWN], self, strict=False)]
        threshold = self[0].image_threshold if self else None
        return predictions_table(rows, threshold=threshold, more=max(0, len(self) - _SHOWN))
