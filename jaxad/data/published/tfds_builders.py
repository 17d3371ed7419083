"""The folder data sets as builders of TensorFlow Datasets: prepared once into record shards.

For data that is to be decoded and resized once, moved as a few large files instead of many small
ones, and streamed. A builder reads a manual download folder (the data set's root) through the same
tables, decoder and resizer as everything else, so its pixels are those of the cache. The shards
are a data set like any other (``data.name=shards``, read by :mod:`jaxad.data.shards`, without
TensorFlow): each record can be read by itself, so training may take its batches from them in any
order, and each of several processes its own rows.

An example is ``{"image": (h, w, c) uint8, "mask": (h, w, 1) uint8 (0 or 255), "has_mask": bool,
"label": 0 good or 1 anomalous, "defect": kind, "path": relative, "index": row of the table}``.
Splits are ``train`` (good images only) and ``test``, in the order of the table, which is in the
folder's ``metadata.json`` too.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxad.data.datasets import NAMES, read_table
from jaxad.data.images import read_image, resolve_range_16bit
from jaxad.data.masks import read_truth
from jaxad.data.shards import PREFIX, TABLE_KEY, is_shards, open_shards
from jaxad.data.table import Sample, SampleTable
from jaxad.data.tensorflow import import_tensorflow_datasets
from jaxad.data.threads import map_ahead
from jaxad.run.errors import UserError, did_you_mean

SHARDS_VERSION = "2.0.0"

# TensorFlow Datasets has builders of its own for the first two; the last are shards already.
_NOT_FOLDERS = ("mnist", "cifar10", "shards")


def folder_builder(
    dataset: str,
    *,
    category: str = "",
    anomalous: str = "",
    image_size: tuple[int, int],
    channels: int = 3,
    range_16bit: str | int = "full",
    data_dir: str | os.PathLike,
) -> Any:
    """Makes the builder of one category of a folder data set.

    Args:
      dataset: of :data:`~jaxad.data.datasets.NAMES`, ``mnist``, ``cifar10``, ``shards`` apart.
      category: as ``data.category``.
      anomalous: as ``data.anomalous``.
      image_size: ``(h, w)`` that images and masks are resized to.
      channels: 1 or 3.
      range_16bit: as ``data.range_16bit``; the numbers that come of it are written down.
      data_dir: where the shards are written.

    Returns:
      A ``tfds.core.GeneratorBasedBuilder``. Its ``download_and_prepare`` takes the data set's
      root as ``download_config.manual_dir``.

    Raises:
      UserError: the name is unknown, or TensorFlow Datasets is not installed.
    """
    known = [each for each in NAMES if each not in _NOT_FOLDERS]
    if dataset not in known:
        raise UserError(f"no folder data set {dataset!r}{did_you_mean(dataset, known)}")
    tfds = import_tensorflow_datasets("writing shards")

    def examples(
        table: SampleTable, samples: tuple[Sample, ...], limits: tuple[float, float]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        read = lambda sample: {
            **_pixels(sample, image_size, channels, limits),
            "label": sample.label,
            "defect": sample.defect,
            "path": table.relative(sample),
        }
        for index, example in enumerate(map_ahead(read, samples)):
            yield index, {**example, "index": index}

    size = "x".join(map(str, (*image_size, channels)))
    depth = "" if str(range_16bit) == "full" else f"_range_{range_16bit}"

    # Not registered: its name depends on the arguments, and it may be made more than once.
    class FolderBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = PREFIX + _identifier(dataset, category, anomalous)
        VERSION = tfds.core.Version(SHARDS_VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"size_{size}{depth}")]  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = "the root of the data set, see `jaxad data list`"
        # Made here and not in a file of checksums and metadata that would have to be looked for.
        code_path = None

        def _info(self):
            height, width = image_size
            features = {
                "image": tfds.features.Image(shape=(height, width, channels)),
                "mask": tfds.features.Image(shape=(height, width, 1)),
                "has_mask": np.bool_,
                "label": tfds.features.ClassLabel(names=["good", "anomalous"]),
                "defect": tfds.features.Text(),
                "path": tfds.features.Text(),
                "index": np.int64,
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
                metadata=tfds.core.MetadataDict(),
            )

        def _split_generators(self, dl_manager):
            root = pathlib.Path(dl_manager.manual_dir)
            table = read_table(root, name=dataset, category=category, anomalous=anomalous)
            splits = _splits(table)
            limits = resolve_range_16bit([s.path for s in splits["train"]], range_16bit)
            self.info.metadata[TABLE_KEY] = {
                "dataset": table.name,
                "category": table.category or pathlib.Path(table.root).resolve().name,
                "image_size": list(image_size),
                "channels": channels,
                "range_16bit": list(limits),
                "notes": list(table.notes),
                **{split: _rows(table, samples) for split, samples in splits.items()},
            }
            return {
                split: self._generate_examples(table, samples, limits)
                for split, samples in splits.items()
                if samples  # TensorFlow Datasets refuses to write nothing
            }

        def _generate_examples(self, table, samples, limits):
            yield from examples(table, samples, limits)

    # Records that can be read one by one, in any order.
    return FolderBuilder(data_dir=os.fspath(data_dir), file_format="array_record")


def prepare_shards(
    root: str | os.PathLike,
    dataset: str,
    *,
    category: str = "",
    anomalous: str = "",
    image_size: tuple[int, int],
    channels: int = 3,
    range_16bit: str | int = "full",
    data_dir: str | os.PathLike,
) -> pathlib.Path:
    """Writes the shards, unless they are there already.

    Args:
      root: of the data set.
      dataset: as for :func:`folder_builder`, like the others.
      category: as ``data.category``.
      anomalous: as ``data.anomalous``.
      image_size: ``(h, w)``.
      channels: 1 or 3.
      range_16bit: as ``data.range_16bit``.
      data_dir: where the shards are written.

    Returns:
      Their folder, which ``data.root`` may be from now on.

    Raises:
      UserError: as of :func:`folder_builder`, the data set cannot be read, or the shards that are
        there are of other images.
    """
    builder = folder_builder(
        dataset,
        category=category,
        anomalous=anomalous,
        image_size=image_size,
        channels=channels,
        range_16bit=range_16bit,
        data_dir=data_dir,
    )
    folder = pathlib.Path(builder.data_dir)
    if is_shards(folder):
        now = read_table(root, name=dataset, category=category, anomalous=anomalous)
        there = open_shards(folder).table
        if any(there[split] != _rows(now, samples) for split, samples in _splits(now).items()):
            raise UserError(
                f"{folder} holds shards of other images than those in {now.root}; remove it, or "
                "give --shards another folder"
            )
        return folder
    tfds = import_tensorflow_datasets("writing shards")
    manual = tfds.download.DownloadConfig(manual_dir=os.fspath(root))
    builder.download_and_prepare(download_config=manual)
    return folder


def _splits(table: SampleTable) -> dict[str, tuple[Sample, ...]]:
    return {"train": table.train_good(), "test": table.test()}


def _rows(table: SampleTable, samples: tuple[Sample, ...]) -> list[list]:
    return [[table.relative(s), s.label, s.defect, s.mask is not None] for s in samples]


def _pixels(
    sample: Sample,
    image_size: tuple[int, int],
    channels: int,
    range_16bit: tuple[float, float],
) -> dict[str, Any]:
    truth = read_truth(sample, image_size=image_size)
    mask = np.zeros((*image_size, 1), np.uint8)
    if truth is not None:
        mask[..., 0] = truth * np.uint8(255)
    image = read_image(
        sample.path, image_size=image_size, channels=channels, range_16bit=range_16bit
    )
    return {
        "image": image,
        "mask": mask,
        "has_mask": sample.mask is not None,
    }


def _identifier(*parts: str) -> str:
    """A name that TensorFlow Datasets accepts for a folder."""
    return "_".join(re.sub(r"\W+", "_", part).lower() for part in parts if part)
