"""Evaluation of any number of maps in bounded memory, with certified error bounds.

Maps are added batch by batch and forgotten. The first few million pixels are kept as they are, so
that small sets stay exact. Beyond that pixels are counted in bins that adapt to the scores (no
range has to be guessed), and every pixel metric comes with bounds between which its exact value
lies whatever the scores are; on real maps they are closer than 1e-4. Image-level metrics and the
per-image pixel AUROC are always exact.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from jaxad.metrics import _pixels, pro
from jaxad.metrics._assemble import (
    Kind,
    Metrics,
    Pixels,
    assemble,
    join_groups,
)
from jaxad.metrics._bins import Bins
from jaxad.metrics._curves import Curves
from jaxad.metrics._inputs import defect_pixels, working_dtype
from jaxad.metrics._intervals import BinnedPixels
from jaxad.metrics._prepare import Images, join_images, prepare
from jaxad.metrics.regions import RegionCounts

KEPT_PIXELS = 4_000_000
"""Pixels that are kept as they are before they are counted into bins."""


class Accumulator:
    """Collects anomaly maps batch by batch and evaluates them all.

    Memory: some 100 MiB at most whatever is added (more with many kinds of defects), besides one
    number per image. State can be pickled, so that processes send theirs to one which merges.

    Args:
      kept_pixels: pixels kept as they are before any are counted into bins; up to as many the
        metrics are exact.
      threshold: score from which a pixel is called anomalous, for ``"regions"`` in the result (see
        `region_recall`); exact at any size. None leaves it out.

    Examples:
      >>> import numpy as np
      >>> from jaxad import metrics
      >>> rng = np.random.default_rng(0)
      >>> accumulator = metrics.Accumulator(kept_pixels=5_000)
      >>> for _ in range(10):
      ...     masks = np.zeros((2, 64, 64), bool)
      ...     masks[1, 8:24, 8:24] = True
      ...     accumulator.update(rng.normal(30, 3, masks.shape) + 4 * masks, masks)
      >>> result = accumulator.compute()
      >>> result["method"], result["counts"]["pixels"]
      ('streaming', 81920)
      >>> low, high = result["brackets"]["aupro"]
      >>> high - low < 1e-4, low <= result["aupro"] <= high
      (True, True)
    """

    def __init__(self, *, kept_pixels: int = KEPT_PIXELS, threshold: float | None = None):
        self._kept_pixels = kept_pixels
        self._regions = None if threshold is None else RegionCounts(threshold)
        self._images: list[Images] = []
        self._dtype = np.dtype(np.float32)
        self._waiting: dict[Kind, list[_pixels.PixelScores]] = {}
        self._waiting_pixels = 0
        self._bins: dict[Kind, Bins] = {}
        self._components: dict[Kind, int] = {}

    def __len__(self) -> int:
        """Number of images added."""
        return sum(part.anomalous.size for part in self._images)

    def update(
        self,
        maps: Iterable[npt.ArrayLike],
        masks: Iterable[npt.ArrayLike | None] | None = None,
        *,
        labels: npt.ArrayLike | None = None,
        image_scores: npt.ArrayLike | None = None,
        defects: Sequence[str | None] | None = None,
        valid: Iterable[npt.ArrayLike] | None = None,
    ) -> None:
        """Adds images; arguments as in `evaluate_maps`.

        Raises:
          ValueError: as `evaluate_maps` does; kinds of defects are given for some batches only;
            64-bit integers that float64 cannot hold, or long doubles. Nothing is added then.
        """
        images, truth, counted, record = prepare(maps, masks, labels, image_scores, defects, valid)
        if not images:
            return
        self._require_same_kinds(record.kind is None)
        for i, image in enumerate(images):
            _require_exact_in_float64(image, f"maps[{i}]")
        self._widen(np.result_type(self._dtype, *{_streamed_dtype(m.dtype) for m in images}))
        self._images.append(record)
        kinds = record.kind or (None,) * len(images)
        for image, mask, part, kind in zip(images, truth, counted, kinds, strict=True):
            if mask is None:
                continue
            if self._regions is not None:
                self._regions.add(image, defect_pixels(mask), kind, part)
            pixels = _pixels.split_pixels([image], [mask], self._dtype, [part])
            self._components[kind] = self._components.get(kind, 0) + pixels.components
            self._waiting.setdefault(kind, []).append(pixels)
            self._waiting_pixels += image.size
            if self._waiting_pixels > self._kept_pixels:
                self._count_waiting()

    def merge(self, other: Accumulator) -> Accumulator:
        """Adds all that another accumulator holds, which is left as it is; returns this one.

        The exact value lies between the bounds in whatever order accumulators are merged.

        Raises:
          ValueError: kinds of defects are known to one of them only, or thresholds differ.
        """
        if self._threshold != other._threshold:
            raise ValueError(
                f"the thresholds differ: {self._threshold} and {other._threshold}; merge "
                "accumulators of the same threshold"
            )
        if other._images:
            self._require_same_kinds(other._images[0].kind is None)
        dtype = np.result_type(self._dtype, other._dtype)
        other = copy.deepcopy(other)
        self._widen(dtype)
        other._widen(dtype)
        self._images += other._images
        if self._regions is not None and other._regions is not None:
            self._regions.merge(other._regions)
        for kind, components in other._components.items():
            self._components[kind] = self._components.get(kind, 0) + components
        for kind, bins in other._bins.items():
            if kind in self._bins:
                self._bins[kind].absorb(bins.intervals())
            else:
                self._bins[kind] = bins
        for kind, parts in other._waiting.items():
            self._waiting.setdefault(kind, []).extend(parts)
        self._waiting_pixels += other._waiting_pixels
        if self._waiting_pixels > self._kept_pixels:
            self._count_waiting()
        return self

    def compute(self, *, limit: float = 0.3) -> Metrics:
        """Evaluates what was added so far; more can be added afterwards.

        Args:
          limit: false-positive rate up to which AUPRO integrates, in (0, 1].

        Returns:
          The dictionary of `evaluate_maps`. ``"brackets"`` holds the bounds ``[low, high]`` of
          every metric that has a value, under its dotted key; the value itself is the middle. As
          long as all pixels are kept ``"method"`` is ``"exact"`` and all bounds are points, else
          it is ``"streaming"``.
        """
        pro.check_limit(limit)
        return assemble(join_images(self._images), self._groups(), limit, self._regions)

    def curves(self) -> Curves:
        """Pooled pixel curves of what was added so far.

        Returns:
          ``"roc"`` (false-positive rate, recall), ``"pr"`` (recall, precision) and ``"pro"``
          (false-positive rate, mean region overlap), corner by corner; empty where there are no
          defect or no normal pixels. Pixels of one bin count as equal.
        """
        groups = self._groups()
        pixels = join_groups(groups, [kind for kind in groups if kind is not None])
        totals = pixels.totals()
        return pixels.curve().curves() if totals.normal and totals.defect else {}

    @property
    def _threshold(self) -> float | None:
        return None if self._regions is None else self._regions.threshold

    def _groups(self) -> Mapping[Kind, Pixels]:
        """All pixels, by kind; None is always there."""
        if not self._bins:
            nothing = _pixels.split_pixels([], [], self._dtype)
            waiting = {None: [nothing]} | self._waiting
            return {kind: _pixels.concatenate(parts).sorted() for kind, parts in waiting.items()}
        self._count_waiting()
        bins = {None: Bins(self._dtype)} | self._bins
        return {
            kind: BinnedPixels(one.intervals(), self._components.get(kind, 0))
            for kind, one in bins.items()
        }

    def _count_waiting(self) -> None:
        for kind in list(self._waiting):
            pixels = _pixels.concatenate(self._waiting.pop(kind))
            self._bins.setdefault(kind, Bins(self._dtype)).add(pixels)
        self._waiting_pixels = 0

    def _widen(self, dtype: np.dtype) -> None:
        if dtype == self._dtype:
            return
        self._dtype = dtype
        self._bins = {kind: bins.widened() for kind, bins in self._bins.items()}
        self._waiting = {
            kind: [
                part._replace(
                    normal=tuple(n.astype(dtype) for n in part.normal),
                    defect=part.defect.astype(dtype),
                )
                for part in parts
            ]
            for kind, parts in self._waiting.items()
        }

    def _require_same_kinds(self, unknown: bool) -> None:
        if self._images and (self._images[0].kind is None) != unknown:
            raise ValueError("defects must be given for all batches or for none")


def _streamed_dtype(dtype: np.dtype) -> np.dtype:
    """float32 where it holds all values of the dtype, else float64."""
    dtype = working_dtype(dtype)
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise ValueError(f"maps of {dtype} cannot be streamed; convert them to float64")
    small = dtype.itemsize <= (2 if dtype.kind in "ui" else 4)
    return np.dtype(np.float32 if small else np.float64)


def _require_exact_in_float64(image: np.ndarray, name: str) -> None:
    long = image.dtype.kind in "ui" and image.dtype.itemsize == 8
    if long and (image.max() > 2**53 or image.min() < -(2**53)):
        raise ValueError(
            f"{name} holds integers beyond 2**53, which cannot be streamed; scale them down"
        )
