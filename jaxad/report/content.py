"""What a report shows, as plain data: filled by the evaluation, read by the pages and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, UInt8

T = TypeVar("T")


class Scale(NamedTuple):
    """The heat-map scale that all images of a run share, in the units of its primary map."""

    low: float
    high: float
    threshold: float | None = None

    @property
    def threshold_place(self) -> float | None:
        """Where the threshold lies between the ends, from 0 to 1; None where it does not."""
        if self.threshold is None or not self.low < self.threshold < self.high:
            return None
        return (self.threshold - self.low) / (self.high - self.low)


VERDICTS = {True: "rejected", False: "accepted", None: ""}
"""A decision in words."""


class ScoreRow(NamedTuple):
    """One line of ``scores.csv``; label 0 is good, 1 defective; decision True is "rejected".

    New images have no label.
    """

    path: str
    label: int | None
    defect: str
    score: float
    decision: bool | None = None

    @property
    def verdict(self) -> str | None:
        """What the decision was worth: "found", "missed", "false alarm", "passed", None without.

        Of a new image it is the decision: "rejected", "accepted".
        """
        if self.decision is None:
            return None
        if self.label is None:
            return VERDICTS[self.decision]
        if self.label:
            return "found" if self.decision else "missed"
        return "false alarm" if self.decision else "passed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with everything the detector said about it.

    Attributes:
      path: the file, as the user knows it.
      label: 0 for a good image, 1 for a defective one, None for a new one.
      defect: the kind of defect, "good" for good images, empty for new ones.
      score: image score; larger is more anomalous.
      decision: True when the image is rejected, None when there is no threshold.
      image: (h, w, c) uint8, c is 1 or 3, at the resolution of the detector.
      heat: (h, w) raw anomaly map, not normalised.
      reconstruction: like ``image``, None for maps that come without one.
      mask: (h, w) ground truth, None when the data set has none for this image.
      predicted: (h, w) the pixels that are outlined, None when there is no threshold.
      regions: (h, w) those that are outlined when the image is rejected, for a page on which the
        threshold moves; None takes ``predicted``.

    Raises:
      ValueError: an array does not fit the image.
    """

    path: str
    label: int | None
    defect: str
    score: float
    image: UInt8[np.ndarray, "h w c"]
    heat: Float[np.ndarray, "h w"]
    decision: bool | None = None
    reconstruction: UInt8[np.ndarray, "h w c"] | None = None
    mask: Bool[np.ndarray, "h w"] | None = None
    predicted: Bool[np.ndarray, "h w"] | None = None
    regions: Bool[np.ndarray, "h w"] | None = None

    def __post_init__(self):
        image = self.image
        if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: image must be uint8 (h, w, 1 or 3), got {image.dtype} {image.shape}"
            )
        for name in ("heat", "mask", "predicted", "regions"):
            array = getattr(self, name)
            if array is not None and array.shape != image.shape[:2]:
                raise ValueError(
                    f"{self.path}: {name} has shape {array.shape}, the image {image.shape}; "
                    "resize it to the image first"
                )
        reconstruction = self.reconstruction
        if reconstruction is not None and (
            reconstruction.shape != image.shape or reconstruction.dtype != np.uint8
        ):
            raise ValueError(
                f"{self.path}: reconstruction must be uint8 {image.shape}, "
                f"got {reconstruction.dtype} {reconstruction.shape}"
            )

    @property
    def row(self) -> ScoreRow:
        """The case without its pictures."""
        return ScoreRow(self.path, self.label, self.defect, self.score, self.decision)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a trained model shows of itself.

    Attributes:
      origin: what ``images`` are, in the plural: "good test images".
      images: (b, h, w, c) uint8, c is 1 or 3.
      reconstructions: like ``images``, of the same images.
      similarity: (b,) SSIM of each with its image; None where images are smaller than its window.
      samples: (n, h', w', c) uint8, drawn from the model's prior; None for a model without one.
      photographs: real good training images to hold beside the samples, at their size.
      diagnostics: what ``Model.diagnostics`` says about ``images``, by name.
      notes: sentences on what could not be shown.
    """

    origin: str
    images: UInt8[np.ndarray, "b h w c"]
    reconstructions: UInt8[np.ndarray, "b h w c"]
    similarity: Float[np.ndarray, " b"] | None = None
    samples: UInt8[np.ndarray, "n i j c"] | None = None
    photographs: UInt8[np.ndarray, "m i j c"] | None = None
    diagnostics: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything on the page of one run.

    Attributes:
      title: heading of the page.
      metrics: the content of ``metrics.json``.
      calibration: what calibration.json holds: ``image_threshold``, ``pixel_threshold``,
        ``heat_map_low``, ``heat_map_high`` (None where there is none), ``reason`` why they are
        None, ``held_out`` (number of good training images they come from), ``false_positive_rate``
        (asked for), ``smallest_false_positive_rate`` (attainable with that many images) and so on.
      config: the resolved config, nested.
      environment: versions, devices, commit, seed.
      history: one dict per line of ``history.csv``; empty for models fitted in closed form.
      cases: the images to show, already capped in number by the caller.
      notes: sentences the reader must not miss.
      scores: every test image; where empty, the cases stand in.
      curves: ``"roc"`` (false positive rate, true positive rate) and ``"pr"`` (recall, precision)
        of the images, ``"pixel_roc"`` and ``"pixel_pr"`` of the pixels, ``"pro"`` (false positive
        rate, mean region overlap): pairs of equally long sequences.
      learned: reconstructions, samples and diagnostics; None for pages without them.
      folder: the run folder as the user names it, for commands on the page.
      odd: path -> pixels of the odd training images of the calibration; may lack some.
    """

    title: str
    metrics: Mapping[str, Any]
    calibration: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    cases: Sequence[Case] = ()
    notes: Sequence[str] = ()
    scores: Sequence[ScoreRow] = ()
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] = field(default_factory=dict)
    learned: Learned | None = None
    folder: str = "RUN"
    odd: Mapping[str, UInt8[np.ndarray, "_ _ c"]] = field(default_factory=dict)

    @property
    def rows(self) -> list[ScoreRow]:
        """Every scored test image, of the cases only when nothing else was given."""
        return list(self.scores) or [case.row for case in self.cases]


def is_known(value: T | None) -> TypeGuard[T]:
    """False for None and NaN: the two ways in which a metric is undefined."""
    return value is not None and not (isinstance(value, (float, np.floating)) and math.isnan(value))


def common_scale(calibration: Mapping[str, Any], cases: Sequence[Case]) -> Scale:
    """The one heat-map scale of a run.

    Args:
      calibration: as in ``ReportContent``; its ``heat_map_low`` and ``heat_map_high`` are taken
        when both are there.
      cases: otherwise the 1st and 99.9th percentile of all their pixels together.

    Returns:
      The scale; 0 to 1 when there is nothing to derive it from.
    """
    threshold = calibration.get("pixel_threshold")
    low, high = calibration.get("heat_map_low"), calibration.get("heat_map_high")
    if not (is_known(low) and is_known(high)):
        pixels = np.concatenate([np.zeros(0), *(c.heat[np.isfinite(c.heat)] for c in cases)])
        low, high = np.percentile(pixels, [1.0, 99.9]) if pixels.size else (0.0, 1.0)
    return Scale(float(low), float(high), threshold)
