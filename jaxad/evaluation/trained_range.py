"""Whether an image is like those of the training in what no score should have to tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

TOLERANCE = 0.25
"""How far brightness may lie outside the training images', as a share of their range."""


def brightness_unlike(
    trained_on: Mapping[str, Any] | None,
    image: UInt8[np.ndarray, "h w c"],
    *,
    least: float = 0.0,
) -> str:
    """``"brighter"`` or ``"darker"`` than all training images; ``""`` for most images.

    Args:
      trained_on: as of :func:`notes_on`.
      image: as the model sees it.
      least: by which share of the brightest training image's brightness it must be so.
    """
    if not trained_on:
        return ""
    low, high = trained_on["brightness"]
    brightness, slack = float(image.mean()) / 255.0, max(TOLERANCE * (high - low), least * high)
    if low - slack <= brightness <= high + slack:
        return ""
    return "brighter" if brightness > high else "darker"


def notes_on(
    trained_on: Mapping[str, Any] | None, image: UInt8[np.ndarray, "h w c"], size: tuple[int, int]
) -> tuple[str, ...]:
    """Sentences on where an image lies outside what was trained; most images have none.

    Args:
      trained_on: of calibration.json; None for a run that was calibrated before there was any.
      image: as the model sees it.
      size: original height and width.
    """
    if not trained_on:
        return ()
    notes = []
    brightness, (low, high) = float(image.mean()) / 255.0, trained_on["brightness"]
    if unlike := brightness_unlike(trained_on, image):
        notes.append(
            f"{unlike} than any training image: mean {brightness:.3f} of full brightness, trained "
            f"on {low:.3f} to {high:.3f}"
        )
    ranges = trained_on["height"], trained_on["width"]
    if not all(a <= side <= b for side, (a, b) in zip(size, ranges, strict=True)):
        height, width = (f"{a}" if a == b else f"{a} to {b}" for a, b in ranges)
        notes.append(
            f"{size[0]} x {size[1]} pixels (height x width), trained on {height} x {width}"
        )
    return tuple(notes)
