"""From a config to the images that a run trains on and calibrates with, and the record of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxad.data.cache import prepare_images
from jaxad.data.datasets import read_table
from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.digests import contents_of
from jaxad.data.limits import limit_images
from jaxad.data.notes import (
    depth_notes,
    look_at_masks,
    page_notes,
    range_notes,
)
from jaxad.data.photographs import Reading
from jaxad.data.pipeline import Images
from jaxad.data.repeats import joined_digest, pixel_digests
from jaxad.data.split import random_order, split_folds, split_holdout
from jaxad.data.streamed import StreamedImages
from jaxad.data.table import Sample, SampleTable
from jaxad.data.tiled import Photographs, TiledImages
from jaxad.data.tiles import Grid, tiling_of
from jaxad.data.unreadable import UnreadableImages, unreadable
from jaxad.run.errors import UserError
from jaxad.run.settings import Data, Settings
from jaxad.training.excluded import without_excluded
from jaxad.training.input_notes import repeat_notes, sameness_notes, test_files, told
from jaxad.training.tile_rows import rows_each, training_tiling

FEWEST_TO_CROSS_FIT = 3
"""Good images: with two, each model would see one."""


class Inputs(NamedTuple):
    """The good training images.

    Attributes:
      train: ``(n, h, w, c)`` uint8, decoded, or decoded batch by batch where the data is streamed;
        n is 0 where nothing is trained. With ``data.tiles`` rows are tiles.
      holdout: ``(m, h, w, c)`` uint8, good images that training does not see; m may be 0.
      record: what data.json says: where the images are, which were held out, how 16-bit values
        are read, what the files hold.
      folds: the fold of each row of ``train``, for cross-fitting; None without.
      grid: the places of tiles, where each has a model of its own; else None.
    """

    train: Images
    holdout: UInt8[np.ndarray, "m h w c"]
    record: dict[str, Any]
    folds: Int[np.ndarray, " n"] | None = None
    grid: Grid | None = None


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
        # Here, since only this needs it, and predicting on one image should not wait for it.
        from jaxad.data.synthetic.dataset import ensure_dataset

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
        pages=data.pages,
    )


def decode(samples: list[Any], data: Data, range_16bit: tuple[float, float]) -> np.ndarray:
    """Decodes, cuts and resizes samples or paths as the config says, or tiles of them.

    Raises:
      UserError: names every file that cannot be read.
    """
    return prepare_images(
        samples,
        image_size=data.image_size,
        **_reading(data, range_16bit)._asdict(),
        tiling=training_tiling(data),
        memory_limit_mb=data.memory_limit_mb,
    )


def open_photographs(
    samples: Sequence[Any],
    data: Data,
    range_16bit: tuple[float, float],
    *,
    hashed: bool = False,
    grid: Grid | None = None,
) -> Photographs | None:
    """Samples, paths or pixels to be judged by tiles; None without ``data.tiles``.

    Args:
      samples: to be judged.
      data: of the config.
      range_16bit: that they are read with.
      hashed: whether digests are made of those that are judged.
      grid: the places of tiles, where each has a model of its own; then all must have it.
    """
    tiling = tiling_of(data.tiles, data.image_size)
    if tiling is None:
        return None
    return Photographs(
        samples,
        tiling=tiling,
        image_size=data.image_size,
        reading=_reading(data, range_16bit),
        hashed=hashed,
        grid=grid,
    )


def _reading(data: Data, range_16bit: tuple[float, float]) -> Reading:
    return Reading(data.channels, range_16bit, data.alpha, tuple(data.region))


def _parted(good: list[Sample], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold out.

    A data set's own validation images are those held out, whatever share is asked for, unless all
    images are asked for.
    """
    apart = np.array([sample.split == "validation" for sample in good], bool)
    if not apart.any() or share == 1 or apart.all():
        return split_holdout(len(good), share=share, seed=seed)
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _drawn(good: list[Sample], data: Data) -> list[Sample]:
    """As many of the good training images as ``data.limit`` says, in their order.

    Those that a data set keeps apart for validation are not counted, and all stay.

    Raises:
      UserError: there are not so many.
    """
    if not data.limit:
        return good
    apart = [sample for sample in good if sample.split == "validation"]
    good = [sample for sample in good if sample.split != "validation"]
    if data.limit > len(good):
        raise UserError(
            f"data.limit is {data.limit}, but there are {len(good)} good training images; give a "
            "smaller one, or 0 for all"
        )
    rows = np.sort(random_order(len(good), data.limit_seed, 0)[: data.limit])
    return [*(good[i] for i in rows), *apart]


def open_images(
    samples: list[Sample], data: Data, range_16bit: tuple[float, float]
) -> UInt8[np.ndarray, "n h w c"] | StreamedImages | TiledImages:
    """Like :func:`decode`; with ``data.stream`` batch by batch, when rows are asked for."""
    if not data.stream:
        return decode(samples, data, range_16bit)
    tiling, size, reading = training_tiling(data), data.image_size, _reading(data, range_16bit)
    if tiling is None:
        return StreamedImages(samples, image_size=size, **reading._asdict())
    return TiledImages(samples, tiling=tiling, image_size=size, reading=reading)


def is_cross_fitted(data: Data, *, closed_form: bool, apart: bool = False) -> bool:
    """Whether thresholds come from the images that are trained on (``data.calibration``).

    Args:
      data: ``config.data``.
      closed_form: whether the model is fitted without steps.
      apart: whether the data set keeps validation images apart.
    """
    if data.calibration == "auto":
        return closed_form and not data.holdout and not apart
    return data.calibration == "cross_fitted"


def prepare_inputs(
    config: Settings,
    *,
    train: bool = True,
    closed_form: bool = False,
    table: SampleTable | None = None,
) -> Inputs:
    """Reads the good training images and parts the held-out ones from them.

    Args:
      config: of the run.
      train: whether there is anything to train; if not, held-out images alone are read.
      closed_form: whether the model is fitted without steps, see :func:`is_cross_fitted`.
      table: of the config's data, where it was opened before.

    Raises:
      UserError: there is nothing to train on, or a file cannot be read.
    """
    table = table or open_table(config.data)
    good = without_excluded(table, config.data.exclude)
    if not good:
        raise UserError(
            f"{table.root} holds no good training image; put them into train/good "
            "(or a folder named good)"
        )
    good = _drawn(good, config.data)
    range_16bit = table.range_16bit or resolve_range_16bit(
        [s.path for s in good], config.data.range_16bit, crop=config.data.region
    )
    about_range, notes = _notes(table, good, range_16bit)
    rows, grid = rows_each(good, config.data)
    apart = any(sample.split == "validation" for sample in good)
    cross_fitted = train and is_cross_fitted(config.data, closed_form=closed_form, apart=apart)
    share = 0.0 if cross_fitted else config.data.holdout
    kept, held_out = _parted(good, share, config.seed)
    if cross_fitted:
        held_out = held_out[:0]
    if not train:
        kept = kept[:0]
    elif not len(kept):
        raise UserError(
            "data.holdout=1 leaves no image to train on; give the share to keep for calibration"
        )
    folds = None
    if cross_fitted and len(kept) >= FEWEST_TO_CROSS_FIT:
        folds = split_folds(len(kept), folds=config.data.folds, seed=config.seed)
    if share and not len(held_out):
        raise UserError(
            f"{table.root} holds 1 good training image, so none is left for calibration; add "
            "images, or set data.holdout=0 (then no threshold is set)"
        )
    # Decoded apart: taking rows of a memory-mapped array would bring it into memory.
    held, used_to_train = [good[i] for i in held_out], [good[i] for i in kept]
    try:
        holdout = decode(held, config.data, range_16bit)
    except UnreadableImages as error:
        raise _with_others(error, held, used_to_train, config.data, range_16bit) from None
    images = open_images(used_to_train, config.data, range_16bit)
    # After the decoder has read them, the files come from memory. Of a stream the sizes alone:
    # reading all of it here would take as long as an epoch.
    used = [good[i] for i in (*held_out, *kept)]
    contents = contents_of(table, used, hashed=not config.data.stream)
    if config.data.stream:  # those of held-out images have been read as a whole
        contents |= {"sha256": contents_of(table, used[: len(held_out)])["sha256"]}
    tiles = [rows[i] for i in (*held_out, *kept)] if any(config.data.tiles) else []
    pixels = _pixel_record(table, used, tiles, holdout, images)
    repeats = repeat_notes(table, used, contents["sha256"], pixels)
    notes += told([*sameness_notes(images, dark=bool(about_range)), *repeats])
    record = {
        "name": table.name,
        "root": table.root,
        "category": table.category,
        "notes": notes,
        "range_16bit": list(range_16bit),
        "training": [table.relative(good[i]) for i in kept],
        "holdout": [table.relative(good[i]) for i in held_out],
        # The fold of each training image.
        "folds": [] if folds is None else folds.tolist(),
        **contents,
        "pixels": pixels,
        **({} if grid is None else {"photograph": list(grid.size)}),
    }
    if folds is not None:
        folds = np.repeat(folds, [rows[i] for i in kept])
    return Inputs(images, holdout, record, folds, grid)


def _notes(
    table: SampleTable, good: Sequence[Sample], range_16bit: tuple[float, float]
) -> tuple[list[str], list[str]]:
    """What is odd about the files of a data set, told: of their range of values, and all of it."""
    paths = [sample.path for sample in good]
    about_range = range_notes(paths, range_16bit)
    found = [
        *table.notes,
        *about_range,
        *depth_notes(table, [*good, *table.test()]),
        *page_notes([*paths, *test_files(table)]),
        *look_at_masks(table),
    ]
    return about_range, told(found)


def _with_others(
    error: UnreadableImages,
    held: Sequence[Sample],
    others: list[Sample],
    data: Data,
    range_16bit: tuple[float, float],
) -> UnreadableImages:
    """Why held-out images cannot be read, and which of the others cannot be either."""
    failures = dict(error.failures)
    try:
        open_images(others, dataclasses.replace(data, stream=False), range_16bit)
    except UnreadableImages as more:
        failures |= more.failures
    return unreadable(failures, of=len(held) + len(others))


def _pixel_record(
    table: SampleTable,
    used: list[Sample],
    tiles: Sequence[int],
    holdout: np.ndarray,
    images: Images,
) -> dict[str, str]:
    """Digests of the decoded images by name; of streamed ones there are none yet.

    Args:
      table: that the images are of.
      used: the images, those held out first.
      tiles: how many rows each has; empty where rows are images.
      holdout: rows of the images that are held out.
      images: rows of the others.
    """
    rows = [*pixel_digests(holdout)]
    rows += pixel_digests(images) if isinstance(images, np.ndarray) else []
    if tiles:
        ends = np.cumsum(tiles)
        bounds = [(end - n, end) for n, end in zip(tiles, ends, strict=True) if end <= len(rows)]
        rows = [joined_digest(rows[start:end]) for start, end in bounds]
    return dict(zip(map(table.relative, used), rows, strict=False))
