"""The folder data sets as data sets of TensorFlow Datasets: prepared once into record shards.

For data that is to be decoded and resized once, moved as a few large files instead of many small
ones, and streamed. They are made by the tables, the decoder and the resizer that serve everything
else, so their pixels are those of the cache. The shards
are a data set like any other (``data.name=shards``, read by :mod:`jaxad.data.shards`, without
TensorFlow): each record can be read by itself, so training may take its batches from them in any
order, and each of several processes its own rows.

An example is ``{"image": (h, w, c) uint8, "mask": (h, w, 1) uint8 (0 or 255), "has_mask": bool,
"label": 0 good or 1 anomalous, "defect": kind, "path": relative, "index": row of the table}``.
Splits are ``train`` (good images only) and ``test``, in the order of the table, which is in the
folder's ``metadata.json`` too.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxad.data.datasets import NAMES, read_table
from jaxad.data.images import read_image, resolve_range_16bit
from jaxad.data.masks import read_truth
from jaxad.data.repeats import pixel_digest
from jaxad.data.shards import PREFIX, TABLE_KEY, is_shards, open_shards
from jaxad.data.table import Sample
from jaxad.data.tensorflow import import_tensorflow_datasets
from jaxad.data.threads import map_ahead
from jaxad.run.errors import UserError, did_you_mean

SHARDS_VERSION = "2.0.0"

# TensorFlow Datasets has builders of its own for the first two; the last are shards already.
_NOT_FOLDERS = ("mnist", "cifar10", "shards")


def prepare_shards(
    root: str | os.PathLike,
    dataset: str,
    *,
    category: str = "",
    anomalous: str = "",
    masks: str = "",
    pages: str = "first",
    image_size: tuple[int, int],
    channels: int = 3,
    range_16bit: str | int = "full",
    alpha: str = "white",
    data_dir: str | os.PathLike,
) -> pathlib.Path:
    """Writes the shards of one category, unless they are there already.

    Args:
      root: of the data set.
      dataset: of :data:`~jaxad.data.datasets.NAMES`, ``mnist``, ``cifar10``, ``shards`` apart.
      category: as ``data.category``.
      anomalous: as ``data.anomalous``.
      masks: as ``data.masks``.
      pages: as ``data.pages``.
      image_size: ``(h, w)`` that images and masks are resized to.
      channels: 1 or 3.
      range_16bit: as ``data.range_16bit``; the numbers that come of it are written down.
      alpha: as ``data.alpha``.
      data_dir: where the shards are written.

    Returns:
      Their folder, which ``data.root`` may be from now on.

    Raises:
      UserError: the name is unknown, TensorFlow Datasets is not installed, the data set cannot be
        read, or the shards that are there are of other images.
    """
    known = [each for each in NAMES if each not in _NOT_FOLDERS]
    if dataset not in known:
        raise UserError(f"no folder data set {dataset!r}{did_you_mean(dataset, known)}")
    tfds = import_tensorflow_datasets("writing shards")
    table = read_table(
        root, name=dataset, category=category, anomalous=anomalous, masks=masks, pages=pages
    )
    splits = {"train": table.train_good(), "test": table.test()}
    rows = {
        split: [[table.relative(s), s.label, s.defect, s.mask is not None] for s in samples]
        for split, samples in splits.items()
    }
    size = "x".join(map(str, (*image_size, channels)))
    depth = "" if str(range_16bit) == "full" else f"_range_{range_16bit}"

    digests: dict[str, list[str]] = {split: [] for split in splits}

    def examples(split: str, limits: tuple[float, float]) -> Iterator[tuple[int, dict[str, Any]]]:
        decode = functools.partial(
            read_image, image_size=image_size, channels=channels, range_16bit=limits, alpha=alpha
        )
        read = lambda sample: {
            "image": decode(sample.path),
            "mask": _mask(sample, image_size),
            "has_mask": sample.mask is not None,
            "label": sample.label,
            "defect": sample.defect,
            "path": table.relative(sample),
        }
        for index, example in enumerate(map_ahead(read, splits[split])):
            digests[split].append(pixel_digest(example["image"]))
            yield index, {**example, "index": index}

    builder_class: Any = tfds.core.GeneratorBasedBuilder

    # Not registered: its name depends on the arguments, and it may be made more than once.
    class FolderBuilder(builder_class, skip_registration=True):  # type: ignore[call-arg]
        name = PREFIX + _identifier(dataset, category, anomalous)
        VERSION = tfds.core.Version(SHARDS_VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"size_{size}{depth}")]  # noqa: RUF012
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
            limits = resolve_range_16bit([s.path for s in splits["train"]], range_16bit)
            self.info.metadata[TABLE_KEY] = {
                "dataset": table.name,
                "category": table.category or pathlib.Path(table.root).resolve().name,
                "image_size": list(image_size),
                "channels": channels,
                "range_16bit": list(limits),
                "notes": list(table.notes),
                "validation": [
                    row[0]
                    for row, s in zip(rows["train"], splits["train"], strict=True)
                    if s.split == "validation"
                ],
                # Filled while the examples are made; written once they are.
                "pixels": digests,
                **rows,
            }
            return {
                split: self._generate_examples(split, limits)
                for split, samples in splits.items()
                if samples  # TensorFlow Datasets refuses to write nothing
            }

        def _generate_examples(self, split, limits):
            yield from examples(split, limits)

    # Records that can be read one by one, in any order.
    builder = FolderBuilder(data_dir=os.fspath(data_dir), file_format="array_record")
    folder = pathlib.Path(builder.data_dir)
    if not is_shards(folder):
        builder.download_and_prepare()
    elif any(open_shards(folder).table[split] != rows[split] for split in splits):
        raise UserError(
            f"{folder} holds shards of other images than those in {table.root}; remove it, or "
            "give --shards another folder"
        )
    return folder


def _mask(sample: Sample, image_size: tuple[int, int]) -> UInt8[np.ndarray, "h w 1"]:
    truth = read_truth(sample, image_size=image_size)
    truth = np.zeros(image_size, bool) if truth is None else truth
    return truth[..., None] * np.uint8(255)


def _identifier(*parts: str) -> str:
    """A name that TensorFlow Datasets accepts for a folder."""
    return "_".join(re.sub(r"\W+", "_", part).lower() for part in parts if part)
