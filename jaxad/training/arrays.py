"""Training images that are no files: written into the run folder, for the commands after it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from jaxad.data.given import Given, ImageLike, given_images
from jaxad.data.images import FULL_RANGE
from jaxad.run.errors import UserError
from jaxad.run.files import make_folder, writing
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings
from jaxad.training import processes

_GOOD = "images/train/good"


def with_images(config: Settings, run: RunFolder, images: Iterable[ImageLike]) -> Settings:
    """Writes good training images as PNG below the run folder, and names them in the settings.

    Thresholds are set from these images after training, and a run that goes on reads them again.

    Args:
      config: its ``data.root`` is empty.
      run: the run folder; ``RUN/images/train/good/00000.png`` and so on are made.
      images: as of :func:`jaxad.data.given.given_images`; all of them are good.

    Returns:
      The settings with these images as ``data.root``.

    Raises:
      UserError: the settings name other images, an image cannot be read, or the folder holds
        other ones.
    """
    if config.data.root or config.data.name not in ("auto", "mvtec", "folder"):
        raise UserError("train takes images or data.root (data.name), not both")
    if processes.count() > 1:
        raise UserError("images are given to one process; several train on a folder (data.root)")
    folder = run.path / _GOOD
    make_folder(folder, what=f"the workdir {run.path}")
    count = 0
    for count, one in enumerate(given_images(images), start=1):
        path = folder / f"{count - 1:05d}.png"
        pixels = _pixels(one, config)
        if path.exists():
            _check_same(path, pixels, run)
            continue
        with writing(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
    if not count:
        raise UserError("there is no image to train on")
    if len([*folder.glob("*.png")]) > count:
        raise _other(run)
    return config.changed("data", name="mvtec", root=str(run.path / "images"))


def _pixels(one: Given, config: Settings) -> np.ndarray:
    """As they are saved: 16-bit values as such, all others as the run reads them."""
    if isinstance(one.content, np.ndarray) and one.content.dtype == np.uint16:
        return one.content
    data = config.data
    pixels = one.decode(channels=data.channels, range_16bit=FULL_RANGE, alpha=data.alpha)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _check_same(path: pathlib.Path, pixels: np.ndarray, run: RunFolder) -> None:
    with Image.open(path) as image:
        there = np.asarray(image)
    if there.dtype != pixels.dtype or not np.array_equal(there, pixels):
        raise _other(run)


def _other(run: RunFolder) -> UserError:
    return UserError(f"{run.path} was started with other images; use a new workdir")
