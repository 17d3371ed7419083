"""What the commands say of a threshold: where it comes from, what it promises, what to look at."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from jaxad.run.text import counted

_NAMED = 3
"""Odd images that a sentence names."""


def in_words(result: Mapping[str, Any]) -> str:
    """The image threshold of an evaluation or a prediction."""
    if result["image_threshold"] is None:
        return "no threshold"
    words = f"threshold {result['image_threshold']:.4g}"
    by_hand = result["threshold_set_by_hand"]
    return f"{words} (set by hand: {by_hand})" if by_hand else words


def origin(calibration: Mapping[str, Any], odd_images: str | os.PathLike) -> Iterator[str]:
    """Where the threshold comes from, what it promises, and which images to look at.

    Args:
      calibration: what calibration.json holds, with a threshold that was calibrated.
      odd_images: the file that lists the odd images.
    """
    crossed = calibration.get("method") == "cross_fitted"
    words = f"it comes from {counted(calibration['held_out'], 'good image')}, " + (
        "each scored by a model that was trained without it"
        if crossed
        else "which were held out of training"
    )
    promised = calibration.get("promised_false_positive_rate")
    if promised is None:  # of a run that was calibrated before there was a promise
        yield words
        return
    low, high = calibration["promised_interval"]
    yield (
        f"{words}: {100 * promised:.2g} % of new good images are expected over it "
        f"({100 * low:.2g} to {100 * high:.2g} %)"
    )
    asked = calibration["false_positive_rate"]
    if promised > asked + 1e-9:
        yield _too_few(asked, crossed=crossed)
    if odd := calibration.get("odd_images"):
        highest = "" if calibration["held_out_rejected"] else ", and the highest sets the threshold"
        names = ", ".join(one["path"] for one in odd[:_NAMED]) + ", ..." * (len(odd) > _NAMED)
        yield (
            f"{len(odd)} of them {'score' if len(odd) > 1 else 'scores'} far above the others"
            f"{highest}: look at {names}; to leave out what is not good, delete the other lines of "
            f"{odd_images}, and add --exclude={shlex.quote(os.fspath(odd_images))} to the command "
            "that trained the run, with a new --workdir"
        )


def _too_few(asked: float, *, crossed: bool) -> str:
    """Why the rate asked for cannot be kept, and what to do."""
    words = f"{100 * asked:.3g} % (evaluate.image_false_positive_rate) cannot be promised"
    if not asked:
        return f"{words} by any number of images: ask for a higher rate"
    # One of n + 1 is the smallest rate of n images.
    needed = math.ceil(1 / asked - 1 - 1e-9)
    cure = "add good images" if crossed else (
        "train with --config.data.calibration=cross_fitted, so that every training image counts, "
        "or add good images"
    )  # fmt: skip
    return f"{words} by so few images, it takes {needed}: {cure}"


def kept(overrides: Mapping[str, str]) -> str:
    """That keys of a run have changed for good."""
    keys = ", ".join(f"{key}={value}" for key, value in overrides.items())
    return f"kept for later calls of evaluate and predict: {keys}"
