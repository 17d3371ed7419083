"""A data set in the MVTec layout: 20 good training images, 3 good and 3 defective to test."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image


def write_stripes(root: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    x = np.mgrid[:16, :16][1][..., None] / 16
    for folder, count in (("train/good", 20), ("test/good", 3), ("test/hole", 3)):
        for i in range(count):
            waves = np.sin(6 * x + rng.random()) * np.array([80, 64, 40])
            picture = 127 + waves + rng.normal(0, 5, (16, 16, 3))
            if folder == "test/hole":
                picture[4:8, 4:8] = 255
                mask = np.zeros((16, 16), np.uint8)
                mask[4:8, 4:8] = 255
                save(mask, root / "ground_truth/hole" / f"{i}_mask.png")
            save(np.uint8(np.clip(picture, 0, 255)), root / folder / f"{i}.png")


def save(picture: np.ndarray, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
