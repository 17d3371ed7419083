"""The folder data sets as builders of TensorFlow Datasets: record shards, streamed by share.

For input pipelines that stream, and for data that is to be moved as a few large files instead of
many small ones. A builder reads a manual download folder (the data set's root) through the same
tables, decoder and resizer as everything else, so its pixels are those of the cache; jaxad's own
training maps the cache into memory (`jaxad data prepare`) and does not need it.

An example is ``{"image": (h, w, c) uint8, "mask": (h, w, 1) uint8 (0 or 255), "has_mask": bool,
"label": 0 good or 1 anomalous, "defect": kind, "path": relative, "index": row of the table}``.
Splits are ``train`` (good images only) and ``test``, in the order of the table.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxad.data.datasets import NAMES, read_table
from jaxad.data.images import read_image, read_mask
from jaxad.data.table import Sample
from jaxad.errors import UserError, did_you_mean

SHARDS_VERSION = "1.0.0"

# TensorFlow Datasets has builders of its own for these.
_ITS_OWN = ("mnist", "cifar10")


def folder_builder(
    dataset: str,
    *,
    category: str = "",
    anomalous: str = "",
    image_size: tuple[int, int],
    channels: int = 3,
    data_dir: str | os.PathLike,
) -> Any:
    """Makes the builder of one category of a folder data set.

    Args:
      dataset: of :data:`~jaxad.data.datasets.NAMES`, ``mnist`` and ``cifar10`` apart.
      category: as ``data.category``.
      anomalous: as ``data.anomalous``.
      image_size: ``(h, w)`` that images and masks are resized to.
      channels: 1 or 3.
      data_dir: where the shards are written.

    Returns:
      A ``tfds.core.GeneratorBasedBuilder``. Its ``download_and_prepare`` takes the data set's
      root as ``download_config.manual_dir``.

    Raises:
      UserError: the name is unknown, or TensorFlow Datasets is not installed.
    """
    known = [each for each in NAMES if each not in _ITS_OWN]
    if dataset not in known:
        raise UserError(f"no folder data set {dataset!r}{did_you_mean(dataset, known)}")
    tfds = _import_tfds()

    def rows(root: pathlib.Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        table = read_table(root, name=dataset, category=category, anomalous=anomalous)
        chosen = table.train_good() if split == "train" else table.test()
        for index, sample in enumerate(chosen):
            yield (
                index,
                {
                    **_pixels(sample, image_size, channels),
                    "label": sample.label,
                    "defect": sample.defect,
                    "path": table.relative(sample),
                    "index": index,
                },
            )

    size = "x".join(map(str, (*image_size, channels)))

    # Not registered: its name depends on the arguments, and it may be made more than once.
    class FolderBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = _identifier("jaxad", dataset, category, anomalous)
        VERSION = tfds.core.Version(SHARDS_VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"size_{size}")]  # noqa: RUF012
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
            )

        def _split_generators(self, dl_manager):
            root = pathlib.Path(dl_manager.manual_dir)
            return {split: self._generate_examples(root, split) for split in ("train", "test")}

        def _generate_examples(self, root, split):
            yield from rows(root, split)

    return FolderBuilder(data_dir=os.fspath(data_dir))


def prepare_shards(
    root: str | os.PathLike,
    dataset: str,
    *,
    category: str = "",
    anomalous: str = "",
    image_size: tuple[int, int],
    channels: int = 3,
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
      data_dir: where the shards are written.

    Returns:
      Their folder, for :func:`share_of_process` or ``tfds.builder_from_directory``.

    Raises:
      UserError: as of :func:`folder_builder`, or the data set cannot be read.
    """
    builder = folder_builder(
        dataset,
        category=category,
        anomalous=anomalous,
        image_size=image_size,
        channels=channels,
        data_dir=data_dir,
    )
    tfds = _import_tfds()
    manual = tfds.download.DownloadConfig(manual_dir=os.fspath(root))
    builder.download_and_prepare(download_config=manual)
    return pathlib.Path(builder.data_dir)


def share_of_process(folder: str | os.PathLike, split: str, *, process: int, processes: int) -> Any:
    """Opens the part of a split that one of several processes reads.

    Args:
      folder: of :func:`prepare_shards`.
      split: ``"train"`` or ``"test"``.
      process: number of this process (``jax.process_index()``).
      processes: how many there are (``jax.process_count()``).

    Returns:
      A ``tf.data.Dataset`` of examples in the order of the table. The parts are disjoint, cover
      the split and differ in size by one at most; records of the others are not decoded.

    Raises:
      UserError: the folder holds no shards, or the process is not one of them.
    """
    if not 0 <= process < processes:
        raise UserError(f"process {process} is none of {processes}, counted from 0")
    tfds = _import_tfds()
    if not (pathlib.Path(folder) / "dataset_info.json").is_file():
        raise UserError(f"{folder} holds no shards of TensorFlow Datasets")
    builder = tfds.builder_from_directory(os.fspath(folder))
    if split not in builder.info.splits:
        raise UserError(f"{folder} has no split {split!r}")
    part = tfds.even_splits(split, n=processes, drop_remainder=False)[process]
    return builder.as_dataset(split=part, shuffle_files=False)


def _pixels(sample: Sample, image_size: tuple[int, int], channels: int) -> dict[str, Any]:
    mask = np.zeros((*image_size, 1), np.uint8)
    if sample.mask is not None:
        mask[..., 0] = read_mask(sample.mask, image_size=image_size) * np.uint8(255)
    image = read_image(sample.path, image_size=image_size, channels=channels)
    return {"image": image, "mask": mask, "has_mask": sample.mask is not None}


def _identifier(*parts: str) -> str:
    """A name that TensorFlow Datasets accepts for a folder."""
    return "_".join(re.sub(r"\W+", "_", part).lower() for part in parts if part)


def _import_tfds() -> Any:
    from jaxad.data.pipeline import import_tensorflow

    try:
        import_tensorflow()  # first, so that it takes no GPU
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError("shards need TensorFlow Datasets; install jaxad[tf]") from error
    return tfds
