"""Data sets to sample tables: the published ones by name, and any folder.

``mvtec`` and ``folder`` read whatever lies in a folder layout, see :mod:`jaxad.data.layouts`;
``listing`` a list of images (:mod:`jaxad.data.listing`); ``shards`` what `jaxad data prepare
--shards` made of a data set. The names of :data:`~jaxad.data.published.catalogue.CATALOGUE` read
one published data set as its authors ship it, hold it against the published counts, and put what
differs, and what was chosen in reading it, into the table's notes. ``auto`` takes what it finds: a
list, shards, a published data set that is known by a sign of its own, or a folder layout.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from jaxad.data.files import image_files, split_member, split_page, unread_note
from jaxad.data.folder_names import without_depth
from jaxad.data.layouts import (
    LAYOUTS,
    category_folder,
    is_mvtec,
    read_layout,
    subfolders,
)
from jaxad.data.listing import ENDINGS, is_listing, listed_categories, read_listing
from jaxad.data.mask_folders import without_masks
from jaxad.data.pages import pages_of, with_pages
from jaxad.data.published.catalogue import CATALOGUE, published_categories
from jaxad.data.published.counts import differences
from jaxad.data.published.readers import (
    READERS,
    read_shards,
    recognised,
    shard_categories,
    shipped_categories,
)
from jaxad.data.published.readers.elpv import installed_elpv
from jaxad.data.shards import find_shards, is_shards
from jaxad.data.table import KIND_UNKNOWN, SampleTable
from jaxad.run.errors import UserError, did_you_mean

NAMES = (*LAYOUTS, "listing", "shards", *CATALOGUE)
"""What ``data.name`` may be, ``"synthetic"`` apart."""


def read_table(
    root: str | os.PathLike,
    *,
    name: str = "auto",
    category: str = "",
    anomalous: str = "",
    masks: str = "",
    pages: str = "first",
) -> SampleTable:
    """Reads a data set into a sample table. No image is decoded, but masks that tell kinds are.

    Args:
      root: folder of a data set, or of one of its categories; a file for those that come as one;
        ``""`` for ``elpv`` where its package is installed.
      name: of :data:`NAMES`.
      category: of the data set: a sub-folder of ``root``, or a class; ``""`` where there is one.
      anomalous: for ``elpv``, which defect probabilities count as anomalous.
      masks: for folders of your own, which of them hold masks, as ``data.masks``.
      pages: ``"each"`` makes every page of a file an image, as ``data.pages``.

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
    place = pathlib.Path(os.path.expanduser(root)) if wanted else installed_elpv()
    # Who says which folders hold masks knows better than any sign.
    form = _form_of(place) if name == "auto" and not masks else name
    if form == "shards":
        table = read_shards(place, category)
    elif form == "listing":
        table = read_listing(_listing(place), category)
    elif form in LAYOUTS:
        named = bool(category)
        base, category = category_folder(place, category)
        read = read_layout(base, form, masks=masks)
        beside = [] if named else _beside_note(place, base)
        table = SampleTable(
            root=str(base),
            name=read.name,
            category=category,
            samples=read.samples,
            notes=(*read.notes, *beside),
        )
    else:
        if not place.exists():
            raise UserError(f"data.root {place} does not exist")
        _check_category(form, category, place)
        options = {"anomalous": anomalous} if anomalous else {}
        table = READERS[form](place, category, **options)
        published = CATALOGUE[form]
        if name == form:
            notes = differences(table, published, some_left_out=bool(anomalous))
        else:
            notes = [f"recognised as {published.title}; data.name={form} compares it with what is "
                     "published"]  # fmt: skip
        table = table.with_notes(notes)
    if not table.train_good():
        unknown = [sample for sample in table.samples if sample.defect == KIND_UNKNOWN]
        why = (
            f"the masks that tell which images are good cannot be read, those of {len(unknown)} "
            f"(first {table.relative(unknown[0])})"
            if unknown
            else "put good images in train/good, or in a folder of nothing but good images"
        )
        raise UserError(f"{table.root} holds no good training image: {why}")
    return with_pages(table) if pages == "each" else table


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
    place = pathlib.Path(os.path.expanduser(root))
    form = _form_of(place) if name == "auto" else name
    if form in CATALOGUE and not CATALOGUE[form].folders:
        return published_categories(form)
    if form == "shards":
        return shard_categories(place)
    if form == "listing":
        return listed_categories(_listing(place))
    if form in CATALOGUE:
        return shipped_categories(place, form)
    if not place.is_dir() or is_mvtec(place):
        return ()
    return tuple(folder.name for folder in subfolders(place) if is_mvtec(folder))


def _beside_note(place: pathlib.Path, base: pathlib.Path) -> list[str]:
    """Says what lies beside the only category of a data set."""
    if base == place:
        return []
    outside = [file for file in image_files(place) if not file.startswith(f"{base.name}/")]
    if not outside:
        return []
    return [
        f"{len(outside)} image files beside the only category, {base.name}, are not read, first "
        f"{outside[0]}"
    ]


def _form_of(place: pathlib.Path) -> str:
    """What ``auto`` stands for: a list, shards, a data set by its sign, or any folder."""
    if is_listing(place):
        return "listing"
    return "shards" if find_shards(place) else recognised(place) or "auto"


def _listing(place: pathlib.Path) -> pathlib.Path:
    """The list that ``data.root`` is, or that alone lies in it.

    Raises:
      UserError: there is none, or several.
    """
    if not place.is_dir():
        if not place.exists():
            raise UserError(f"data.root {place} does not exist")
        return place
    lists = [file for file in sorted(place.iterdir()) if is_listing(file)]
    if len(lists) != 1:
        found = f"holds {len(lists)} lists" if lists else "holds no list"
        raise UserError(f"{place} {found} ({', '.join(ENDINGS)}): set data.root to the file")
    return lists[0]


def find_images(
    path: str | os.PathLike | Sequence[str | os.PathLike], *, pages: str = "first", masks: str = ""
) -> list[str]:
    """Finds the images to predict on.

    Args:
      path: a file, a folder (read recursively, in natural order, without masks and point clouds), a
        folder of shards (its test images), an image in a file of many (``mnist.npz::test/0``), a
        page of a file (``scan.tif[3]``), or a list of these.
      pages: as ``data.pages``.
      masks: as ``data.masks``, of the run that judges the images.

    Returns:
      Paths. A file that is named itself is returned whatever its extension.

    Raises:
      UserError: a path does not exist, or a folder holds no image.
    """
    if not isinstance(path, str | os.PathLike):
        return [image for item in path for image in find_images(item, pages=pages, masks=masks)]
    place = pathlib.Path(os.path.expanduser(path))
    if is_shards(place):
        return [sample.path for sample in read_shards(place, "").test()]
    if place.is_dir():
        images, _ = _images_below(place, masks)
        if not images:
            unread = unread_note(place)
            raise UserError(f"{place}: {unread}" if unread else f"{place} holds no image")
        found = [str(place / image) for image in images]
    else:
        if not place.exists() and not split_member(place) and not split_page(place):
            pattern = any(sign in place.name for sign in "*?[")
            shell = "; leave out the quotation marks, the shell makes a list of it" * pattern
            raise UserError(f"{place} does not exist{shell}")
        found = [str(place)]
    return [page for image in found for page in pages_of(image)] if pages == "each" else found


def left_out(path: str | os.PathLike, *, masks: str = "") -> list[str]:
    """Says what `find_images` leaves out of a folder; nothing of anything else."""
    place = pathlib.Path(os.path.expanduser(path))
    return _images_below(place, masks)[1] if place.is_dir() and not is_shards(place) else []


def _images_below(folder: pathlib.Path, chosen: str) -> tuple[list[str], list[str]]:
    """The images in a folder, relative, and what is left out."""
    files, notes = without_depth(image_files(folder))
    images, about_masks = without_masks(folder, files, chosen)
    unread = unread_note(folder)
    return images, [*notes, *about_masks, *([unread] if unread else [])]


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
