"""From a config to the images that a run trains on and calibrates with, and the record of both."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxad.data.cache import prepare_images
from jaxad.data.datasets import read_table
from jaxad.data.images import resolve_range_16bit
from jaxad.data.limits import limit_images
from jaxad.data.split import random_order, split_holdout
from jaxad.data.streamed import StreamedImages
from jaxad.data.synthetic.dataset import ensure_dataset
from jaxad.data.table import Sample, SampleTable
from jaxad.run.errors import UserError
from jaxad.run.settings import Data, Settings
from jaxad.training.processes import log


class Inputs(NamedTuple):
    """The good training images.

    Attributes:
      train: ``(n, h, w, c)`` uint8, decoded, or decoded batch by batch where the data is streamed;
        n is 0 where nothing is trained.
      holdout: ``(m, h, w, c)`` uint8, good images that training does not see; m may be 0.
      record: what data.json says: where the images are, which were held out, how 16-bit values
        are read.
    """

    train: UInt8[np.ndarray, "n h w c"] | StreamedImages
    holdout: UInt8[np.ndarray, "m h w c"]
    record: dict[str, Any]


def open_table(data: Data) -> SampleTable:
    """The sample table of ``config.data``; generated images are written to the cache first.

    From here on ``data.limit_megapixels`` holds for all that this process reads.

    Raises:
      UserError: the folder, the category or the layout is not as expected.
    """
    limit_images(data.limit_megapixels)
    if data.name == "synthetic" or (data.name == "auto" and not data.root):
        if data.root:
            raise UserError("data.name=synthetic generates its images; leave data.root empty")
        root = ensure_dataset(
            category=data.category,
            seed=data.synthetic_seed,
            image_size=data.image_size,
        )
        return read_table(root, name="mvtec")
    if not data.root and data.name != "elpv":  # which an installed package may hold
        raise UserError(f"data.name={data.name} needs data.root, the folder of the images")
    return read_table(
        data.root,
        name=data.name,
        category=data.category,
        anomalous=data.anomalous,
        masks=data.masks,
    )


def decode(samples: list[Any], data: Data, range_16bit: tuple[float, float]) -> np.ndarray:
    """Decodes, cuts and resizes samples or paths as the config says.

    Raises:
      UserError: names every file that cannot be read.
    """
    return prepare_images(
        samples, **_reading(data, range_16bit), memory_limit_mb=data.memory_limit_mb
    )


def _reading(data: Data, range_16bit: tuple[float, float]) -> dict[str, Any]:
    """How files become pixels."""
    return {
        "image_size": data.image_size,
        "channels": data.channels,
        "range_16bit": range_16bit,
        "crop": data.region,
    }


def _drawn(good: list[Sample], data: Data) -> list[Sample]:
    """As many of the good training images as ``data.limit`` says, in their order.

    Raises:
      UserError: there are not so many.
    """
    if not data.limit:
        return good
    if data.limit > len(good):
        raise UserError(
            f"data.limit is {data.limit}, but there are {len(good)} good training images; give a "
            "smaller one, or 0 for all"
        )
    return [good[i] for i in np.sort(random_order(len(good), data.limit_seed, 0)[: data.limit])]


def prepare_inputs(config: Settings, *, train: bool = True) -> Inputs:
    """Reads the good training images and parts the held-out ones from them.

    Args:
      config: of the run.
      train: whether there is anything to train; if not, held-out images alone are read.

    Raises:
      UserError: there is nothing to train on, or a file cannot be read.
    """
    table = open_table(config.data)
    good = list(table.train_good())
    if not good:
        raise UserError(
            f"{table.root} holds no good training image; put them into train/good "
            "(or a folder named good)"
        )
    for note in table.notes:
        log(f"data: {note}")
    good = _drawn(good, config.data)
    range_16bit = table.range_16bit or resolve_range_16bit(
        [s.path for s in good], config.data.range_16bit, crop=config.data.region
    )
    kept, held_out = split_holdout(len(good), share=config.data.holdout, seed=config.seed)
    if not train:
        kept = kept[:0]
    elif not len(kept):
        raise UserError(
            "data.holdout=1 leaves no image to train on; give the share to keep for calibration"
        )
    record = {
        "name": table.name,
        "root": table.root,
        "category": table.category,
        "notes": list(table.notes),
        "range_16bit": list(range_16bit),
        "training": [table.relative(good[i]) for i in kept],
        "holdout": [table.relative(good[i]) for i in held_out],
    }
    if config.data.holdout and not len(held_out):
        raise UserError(
            f"{table.root} holds 1 good training image, so none is left for calibration; add "
            "images, or set data.holdout=0 (then no threshold is set)"
        )
    # Decoded apart: taking rows of a memory-mapped array would bring it into memory.
    holdout = decode([good[i] for i in held_out], config.data, range_16bit)
    samples = [good[i] for i in kept]
    if config.data.stream:
        images = StreamedImages(samples, **_reading(config.data, range_16bit))
        return Inputs(images, holdout, record)
    return Inputs(decode(samples, config.data, range_16bit), holdout, record)
