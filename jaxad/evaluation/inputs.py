"""The test images of a run with their ground truth: what an evaluation reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from jaxad.data.digests import check_unchanged, contents_of
from jaxad.data.masks import MisfitMask, Truth, mask_faults, read_counted_truth
from jaxad.data.table import KIND_UNKNOWN, Sample, SampleTable
from jaxad.data.tiled import Photographs, read_all
from jaxad.data.tiles import Grid
from jaxad.data.unreadable import UnreadableImages
from jaxad.run.errors import UserError, joined
from jaxad.run.folder import RunFolder
from jaxad.run.settings import Settings
from jaxad.training.inputs import decode, open_photographs, open_table
from jaxad.training.tile_rows import grid_of

Masks = list[Bool[np.ndarray, "_ _"] | None]
"""Per image its mask, at sizes of their own; None for a defective image without one."""


class NoTestImages(UserError):
    """The data set has nothing to measure a run on."""


class EvaluationInputs(NamedTuple):
    """The test images of a run.

    Attributes:
      table: all samples of the data set.
      samples: its n test images.
      images: ``(n, h, w, c)`` uint8, their pixels as the model takes them; with ``data.tiles`` the
        photographs, which are opened one after the other.
      record: what data.json says of the run's training images.
      unreadable: test images that were left out because they, or their masks, cannot be read.
    """

    table: SampleTable
    samples: list[Sample]
    images: UInt8[np.ndarray, "n h w c"] | Photographs
    record: dict[str, Any]
    unreadable: tuple[Sample, ...] = ()


def read_inputs(run: RunFolder, config: Settings, data_root: str | None) -> EvaluationInputs:
    """Reads the test images of a run, from its own place or where the data set is now.

    Masks are looked at as well, before the model judges the first image. With
    ``evaluate.skip_unreadable`` test images that cannot be read, or whose mask cannot, are left
    out.

    Raises:
      NoTestImages: the data set has none.
      UserError: its training images are not those of the run, files cannot be read, or masks do
        not fit their images; all such files are named.
    """
    table = run_table(config, data_root)
    samples = list(table.test())
    if not samples:
        raise NoTestImages(
            f"{table.root} holds no test images, so there is nothing to evaluate; "
            "`jaxad predict` judges any images"
        )
    record = run.read_json(run.data)
    if any(sample.defect == KIND_UNKNOWN for sample in samples):
        # Without their kinds others may have been drawn for testing than when the run was trained.
        trained = {*record["training"], *record["holdout"]}
        samples = [sample for sample in samples if table.relative(sample) not in trained]
    _check_training_images(run, table, record)
    range_16bit = tuple(record["range_16bit"])
    grid = grid_of(config.data, record)
    images, error = None, None
    try:
        images = _opened(samples, config, range_16bit, grid)
    except UnreadableImages as unreadable:
        error = unreadable
    usable = _usable(samples, config, error)
    left_out = tuple(sample for sample in samples if sample not in usable)
    if images is None or left_out:
        images = _opened(usable, config, range_16bit, grid)
    return EvaluationInputs(table, usable, images, record, left_out)


def _usable(
    samples: list[Sample], config: Settings, unreadable: UnreadableImages | None
) -> list[Sample]:
    """The samples whose images and masks can be read.

    Args:
      samples: to choose from.
      config: of the run.
      unreadable: what was said of images that cannot be read.

    Raises:
      UserError: names all files that cannot be used, where they may not be left out: masks that
        do not fit never may.
    """
    damaged = set() if unreadable is None else set(unreadable.paths)
    sentences = [] if unreadable is None else [str(unreadable)]
    usable = [sample for sample in samples if sample.path not in damaged]
    faults = mask_faults(usable, crop=tuple(config.data.region))
    misfits = [str(fault) for fault in faults.values() if isinstance(fault, MisfitMask)]
    broken = {s: str(fault) for s, fault in faults.items() if not isinstance(fault, MisfitMask)}
    if broken:
        count = f"{len(broken)} masks cannot be read: " * (len(broken) > 1)
        sentences.append(count + joined(list(broken.values())))
    usable = [sample for sample in usable if sample not in broken]
    if sentences and usable:
        sentences.append("restore them, or leave them out with --skip-unreadable")
    if misfits:
        raise UserError("; ".join([*sentences, joined(misfits)]))
    if not usable or (sentences and not config.evaluate.skip_unreadable):
        raise UserError("; ".join(sentences))
    return usable


def _opened(
    samples: list[Sample], config: Settings, range_16bit: tuple[float, float], grid: Grid | None
) -> UInt8[np.ndarray, "n h w c"] | Photographs:
    """The images, or photographs that are judged by tiles, each of which can be read.

    Raises:
      UnreadableImages: names those that cannot.
    """
    photographs = open_photographs(samples, config.data, range_16bit, hashed=True, grid=grid)
    if photographs is None:
        return decode(samples, config.data, range_16bit)
    errors = {}
    for sample in samples:
        try:
            photograph = photographs.open(sample)
            if config.evaluate.skip_unreadable:  # else whoever judges it will see
                read_all(photograph)
        except UserError as error:
            errors[sample.path] = str(error)
    if errors:
        raise UnreadableImages("; ".join(errors.values()), tuple(errors))
    return photographs


def _check_training_images(run: RunFolder, table: SampleTable, record: dict[str, Any]) -> None:
    """What is evaluated on other images of the same names would be taken for the run's own.

    Of the training images the sizes alone, of those held out the contents; some may be gone.
    """
    there = {table.relative(sample): sample for sample in table.train_good()}
    for key in ("training", "holdout"):
        samples = [there[name] for name in record[key] if name in there]
        now = contents_of(table, samples, hashed=key == "holdout")
        check_unchanged(record, now, run=run.path)


def run_table(config: Settings, data_root: str | None) -> SampleTable:
    """The sample table of a run, at its own place or where the data set is now."""
    data = config.data
    return open_table(data if data_root is None else dataclasses.replace(data, root=data_root))


def read_masks(
    samples: Sequence[Sample],
    config: Settings,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Masks:
    """The masks of :func:`read_truths`; None where a defective image has none."""
    return [truth.mask for truth in read_truths(samples, config, sizes)]


def read_truths(
    samples: Sequence[Sample],
    config: Settings,
    sizes: Sequence[tuple[int, int] | None] | None = None,
) -> list[Truth]:
    """Ground truth at the resolution of the evaluation.

    It is that of the crop which the model sees. A defect that lies wholly outside leaves an
    empty mask: the pixels that are there are normal, and the image stays an anomalous one.

    Args:
      samples: the images.
      config: of the run.
      sizes: (height, width) of each image's map, where they differ: those of photographs.

    Raises:
      UserError: a mask does not fit its image, or marks a defect on a good one.
    """
    crop = tuple(config.data.region)
    if sizes is None:
        at_model_size = config.evaluate.resolution == "model"
        sizes = [config.data.image_size if at_model_size else None] * len(samples)
    return [
        read_counted_truth(sample, image_size=size, crop=crop)
        for sample, size in zip(samples, sizes, strict=True)
    ]
