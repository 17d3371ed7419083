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
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxad.data.datasets import NAMES, read_table
from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.images import decode, resize
from jaxad.data.masks import read_truth
from jaxad.data.repeats import pixel_digest
from jaxad.data.shards import METADATA, PREFIX, TABLE_KEY, is_shards, open_shards
from jaxad.data.table import Sample, SampleTable
from jaxad.data.tensorflow import import_tensorflow_datasets
from jaxad.data.threads import map_ahead
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.files import remove_unfinished, writing
from jaxad.run.schema import with_digest

SHARDS_VERSION = "2.0.0"

# TensorFlow Datasets has builders of its own for the first two; the last are shards already.
_NOT_FOLDERS = ("mnist", "cifar10", "shards")

_Splits = Mapping[str, tuple[Sample, ...]]


def prepare_shards(
    root: str | os.PathLike,
    dataset: str,
    *,
    category: str = "",
    anomalous: str = "",
    masks: str = "",
    pages: str = "first",
    image_size: tuple[int, int] | None,
    channels: int = 3,
    range_16bit: str | int = "full",
    alpha: str = "white",
    data_dir: str | os.PathLike,
) -> pathlib.Path:
    """Writes the shards of one category, unless they are there already: all of them or none.

    What earlier calls that were killed left behind is removed.

    Args:
      root: of the data set.
      dataset: of :data:`~jaxad.data.datasets.NAMES`, ``mnist``, ``cifar10``, ``shards`` apart.
      category: as ``data.category``.
      anomalous: as ``data.anomalous``.
      masks: as ``data.masks``.
      pages: as ``data.pages``.
      image_size: ``(h, w)`` that images and masks are resized to; None: they keep their own, for
        runs that see tiles of photographs.
      channels: 1 or 3.
      range_16bit: as ``data.range_16bit``; the numbers that come of it are written down.
      alpha: as ``data.alpha``.
      data_dir: where the shards are written.

    Returns:
      Their folder, which ``data.root`` may be from now on.

    Raises:
      UserError: the name is unknown, TensorFlow Datasets is not installed, the data set cannot be
        read, the shards that are there are of other images, or the disk is full.
    """
    known = [each for each in NAMES if each not in _NOT_FOLDERS]
    if dataset not in known:
        raise UserError(f"no folder data set {dataset!r}{did_you_mean(dataset, known)}")
    tfds = import_tensorflow_datasets("writing shards")
    table = read_table(
        root, name=dataset, category=category, anomalous=anomalous, masks=masks, pages=pages
    )
    content = _Content(table, image_size, channels, range_16bit, alpha)
    depth = "" if str(range_16bit) == "full" else f"_range_{range_16bit}"
    size = "x".join(map(str, (*(image_size or ("own",)), channels)))
    name, config = PREFIX + _identifier(dataset, category, anomalous), f"size_{size}{depth}"
    folder = pathlib.Path(data_dir, name, config, SHARDS_VERSION)
    remove_unfinished(folder.parent, folder.name)
    if is_shards(folder):
        _check_same(folder, content)
        return folder
    # TensorFlow Datasets has temporary folders of its own, which nobody removes after a kill; so
    # all of it happens inside one of ours.
    with writing(folder, what=f"the shards {folder}", durable=True) as partial:
        making = partial / "making"
        try:
            builder = _builder(tfds, content, name, config)(
                data_dir=os.fspath(making), file_format="array_record"
            )
            builder.download_and_prepare()
        except RuntimeError as error:  # of the writer of records: the disk is full
            raise OSError(str(error)) from error
        for file in pathlib.Path(builder.data_dir).iterdir():
            file.rename(partial / file.name)
        shutil.rmtree(making)
        (partial / METADATA).write_text(json.dumps({TABLE_KEY: with_digest(content.record())}))
    return folder


def _check_same(folder: pathlib.Path, content: _Content) -> None:
    """Whether shards that are there are those that would be written now.

    Raises:
      UserError: they are of other images.
    """
    if any(open_shards(folder).table[split] != rows for split, rows in content.rows.items()):
        raise UserError(
            f"{folder} holds shards of other images than those in {content.table.root}; remove it, "
            "or give --shards another folder"
        )


class _Content:
    """What the shards of a table hold.

    Attributes:
      table: of the samples.
      splits: the samples of each, in the order of the records.
      rows: split -> one ``[path, label, defect, has a mask]`` for each sample.
      image_size: ``(h, w)``; None: every image has its own.
      channels: 1 or 3.
    """

    def __init__(
        self,
        table: SampleTable,
        image_size: tuple[int, int] | None,
        channels: int,
        range_16bit: str | int,
        alpha: str,
    ):
        self.table, self.image_size, self.channels = table, image_size, channels
        self.splits: _Splits = {"train": table.train_good(), "test": table.test()}
        self.rows = {
            split: [[table.relative(s), s.label, s.defect, s.mask is not None] for s in samples]
            for split, samples in self.splits.items()
        }
        self._range_16bit, self._alpha = range_16bit, alpha
        self._digests: dict[str, list[str]] = {split: [] for split in self.splits}

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The values of 16-bit images that become 0 and 255; some of the images are read."""
        return resolve_range_16bit([s.path for s in self.splits["train"]], self._range_16bit)

    def examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records of a split, decoded ahead, and their numbers."""
        for index, example in enumerate(map_ahead(self._example, self.splits[split])):
            self._digests[split].append(pixel_digest(example["image"]))
            yield index, {**example, "index": index}

    def _example(self, sample: Sample) -> dict[str, Any]:
        image = decode(
            sample.path, channels=self.channels, range_16bit=self.limits, alpha=self._alpha
        )
        size = self.image_size or (image.shape[0], image.shape[1])
        return {
            "image": np.ascontiguousarray(resize(image, size)),
            "mask": _mask(sample, size),
            "has_mask": sample.mask is not None,
            "label": sample.label,
            "defect": sample.defect,
            "path": self.table.relative(sample),
        }

    def record(self) -> dict[str, Any]:
        """What :mod:`jaxad.data.shards` reads of the table, once the examples are made."""
        train = zip(self.rows["train"], self.splits["train"], strict=True)
        return {
            "dataset": self.table.name,
            "category": self.table.category or pathlib.Path(self.table.root).resolve().name,
            "image_size": list(self.image_size or ()),
            "channels": self.channels,
            "range_16bit": list(self.limits),
            "notes": list(self.table.notes),
            "validation": [row[0] for row, sample in train if sample.split == "validation"],
            "pixels": self._digests,
            **self.rows,
        }


def _builder(tfds: Any, content: _Content, name_: str, config: str) -> Any:
    """The class of the data set: it depends on the content, and may be made more than once."""
    builder_class: Any = tfds.core.GeneratorBasedBuilder

    class FolderBuilder(builder_class, skip_registration=True):  # type: ignore[call-arg]
        name = name_
        VERSION = tfds.core.Version(SHARDS_VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)]  # noqa: RUF012
        # Made here and not in a file of checksums and metadata that would have to be looked for.
        code_path = None

        def _info(self):
            height, width = content.image_size or (None, None)
            features = {
                "image": tfds.features.Image(shape=(height, width, content.channels)),
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
            )

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(split)
                for split, samples in content.splits.items()
                if samples  # TensorFlow Datasets refuses to write nothing
            }

        def _generate_examples(self, split):
            yield from content.examples(split)

    return FolderBuilder


def _mask(sample: Sample, image_size: tuple[int, int]) -> UInt8[np.ndarray, "h w 1"]:
    truth = read_truth(sample, image_size=image_size)
    truth = np.zeros(image_size, bool) if truth is None else truth
    return truth[..., None] * np.uint8(255)


def _identifier(*parts: str) -> str:
    """A name that TensorFlow Datasets accepts for a folder."""
    return "_".join(re.sub(r"\W+", "_", part).lower() for part in parts if part)
