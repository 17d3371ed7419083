"""Data sets to sample tables: the published ones by name, and any folder.

``mvtec``, ``folder`` and ``auto`` read whatever lies in a folder layout, see
:mod:`jaxad.data.layouts`; ``shards``, and ``auto`` where there are any, what `jaxad data prepare
--shards` made of one. The names of :data:`~jaxad.data.published.catalogue.CATALOGUE` read one
published
data set as its authors ship it, hold it against the published counts, and put what differs, and
what was chosen in reading it, into the table's notes.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from jaxad.data.files import image_files, split_member, unread_note
from jaxad.data.layouts import LAYOUTS, category_folder, is_mvtec, read_layout, subfolders
from jaxad.data.mask_folders import without_masks
from jaxad.data.published.catalogue import CATALOGUE, published_categories
from jaxad.data.published.counts import differences
from jaxad.data.published.readers import READERS, read_shards, shard_categories
from jaxad.data.published.readers.elpv import installed_elpv
from jaxad.data.shards import find_shards, is_shards
from jaxad.data.table import SampleTable
from jaxad.run.errors import UserError, did_you_mean

NAMES = (*LAYOUTS, "shards", *CATALOGUE)
"""What ``data.name`` may be, ``"synthetic"`` apart."""


def read_table(
    root: str | os.PathLike,
    *,
    name: str = "auto",
    category: str = "",
    anomalous: str = "",
    masks: str = "",
) -> SampleTable:
    """Reads a data set into a sample table. No image is decoded, but masks that tell kinds are.

    Args:
      root: folder of a data set, or of one of its categories; a file for those that come as one;
        ``""`` for ``elpv`` where its package is installed.
      name: of :data:`NAMES`.
      category: of the data set: a sub-folder of ``root``, or a class; ``""`` where there is one.
      anomalous: for ``elpv``, which defect probabilities count as anomalous.
      masks: for folders of your own, which of them hold masks, as ``data.masks``.

    Returns:
      The table, in natural order of the relative paths.

    Raises:
      UserError: the folder or category does not exist, the layout does not fit or is ambiguous,
        a mask has no image or several, or there is no good training image.
    """
    if name not in NAMES:
        raise UserError(f"unknown data.name {name!r}{did_you_mean(name, (*NAMES, 'synthetic'))}")
    if anomalous and name != "elpv":
        raise UserError(f"data.anomalous is for data.name=elpv, not for {name}")
    if masks and name not in LAYOUTS:
        raise UserError(f"data.masks is for folders of your own, not for data.name={name}")
    wanted = os.fspath(root) or name != "elpv"
    place = pathlib.Path(root) if wanted else installed_elpv()
    if name == "shards" or (name == "auto" and find_shards(place)):
        table = read_shards(place, category)
    elif name in LAYOUTS:
        base, category = category_folder(place, category)
        read = read_layout(base, name, masks=masks)
        table = SampleTable(
            root=str(base),
            name=read.name,
            category=category,
            samples=read.samples,
            notes=read.notes,
        )
    else:
        if not place.exists():
            raise UserError(f"data.root {place} does not exist")
        _check_category(name, category, place)
        options = {"anomalous": anomalous} if anomalous else {}
        table = READERS[name](place, category, **options)
        table = table.with_notes(differences(table, CATALOGUE[name], some_left_out=bool(anomalous)))
    if not table.train_good():
        raise UserError(
            f"{table.root} holds no good training image: put good images in train/good, "
            "or in a folder of nothing but good images"
        )
    return table


def list_categories(root: str | os.PathLike, *, name: str = "auto") -> tuple[str, ...]:
    """Lists what ``category`` may be.

    Returns:
      The categories that are there, of data sets in folders; else all that the data set has.
      Empty where there is nothing to choose.

    Raises:
      UserError: the name is unknown.
    """
    if name not in NAMES:
        raise UserError(f"unknown data.name {name!r}{did_you_mean(name, (*NAMES, 'synthetic'))}")
    if name in CATALOGUE and not CATALOGUE[name].folders:
        return published_categories(name)
    place = pathlib.Path(root)
    if name == "shards" or (name == "auto" and find_shards(place)):
        return shard_categories(place)
    if not place.is_dir() or is_mvtec(place):
        return ()
    return tuple(folder.name for folder in subfolders(place) if is_mvtec(folder))


def find_images(path: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """Finds the images to predict on.

    Args:
      path: a file, a folder (read recursively, in natural order, without folders of masks), a
        folder of shards (its test images), an image in a file of many (``mnist.npz::test/0``), or
        a list of these.

    Returns:
      Paths. A file that is named itself is returned whatever its extension.

    Raises:
      UserError: a path does not exist, or a folder holds no image.
    """
    if not isinstance(path, str | os.PathLike):
        return [image for item in path for image in find_images(item)]
    place = pathlib.Path(path)
    if is_shards(place):
        return [sample.path for sample in read_shards(place, "").test()]
    if place.is_dir():
        images = [str(place / image) for image in without_masks(place, image_files(place))]
        if not images:
            unread = unread_note(place)
            raise UserError(f"{place}: {unread}" if unread else f"{place} holds no image")
        return images
    if not place.exists() and split_member(place) is None:
        raise UserError(f"{place} does not exist")
    return [str(place)]


def _check_category(name: str, category: str, place: pathlib.Path) -> None:
    """Refuses what is no category of a published data set, unless a folder has that name."""
    published, known = CATALOGUE[name], published_categories(name)
    in_folder = published.folders and (not category or (place / category).is_dir())
    if category in published.categories or in_folder:
        return
    if not known:
        raise UserError(f"{name} has no categories; leave out data.category={category}")
    if not category:
        raise UserError(f"{name} needs the class that is normal: data.category={'|'.join(known)}")
    raise UserError(f"{name} has no category {category!r}{did_you_mean(category, known)}")
