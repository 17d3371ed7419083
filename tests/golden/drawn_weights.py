"""Weights that the maker of the converter's goldens and the tests draw alike."""

from __future__ import annotations

import zlib

import numpy as np


def draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights from the key alone, so that the tests can draw the same; float32."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and key.endswith("weight"):
        values = rng.uniform(0.8, 1.2, shape)
    elif len(shape) < 2 or 1 in shape[:1]:
        values = 0.2 * rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return values.astype(np.float32)
