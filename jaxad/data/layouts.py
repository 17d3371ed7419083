"""Folder layouts that hold any data, not one data set by name.

Two layouts are known; ``auto`` takes the first where it fits.

``mvtec``
    ``train/good``, ``test/<good or kind>`` and optionally ``ground_truth/<kind>``, below
    ``root/category`` or in ``root`` itself. ``ok`` and ``normal`` are accepted for ``good``, and
    good images may lie in ``validation/good`` (``val``) too.

``folder``
    Any other folder of images, read recursively:

    * ``train``, ``validation`` (``val``) and ``test``, as far as present. Under the first two all
      images are good unless there are sub-folders ``good`` (``ok``, ``normal``) and others, or
      masks that mark something. Images directly in ``test`` need masks, which tell the good ones
      from the others. A folder ``images`` (``img``, ``rgb``) is no kind.
    * ``good`` (``ok``, ``normal``) beside sub-folders of other kinds: the others are test images,
      and so is a fifth of the good ones, chosen by a fixed seed, because without good test
      images nothing can be measured. The rest of the good ones is for training.
    * Neither of the two: all images are good training images, except those whose mask marks
      something. If there are such, they are test images together with a fifth of the good ones.

Masks lie in a folder that is called so (``ground_truth``, ``masks``, ``gt``, ``labels`` and others,
see :mod:`jaxad.data.mask_folders`) under the image's relative path or, directly in that folder,
under its stem; or beside the image. They have the image's stem, with or without ``_mask`` (beside
the image: with it). Folders whose name begins with a dot are not read, nor ``xyz`` or ``depth``
beside ``rgb``.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxad.data.files import image_files, natural_key, unread_note
from jaxad.data.folder_names import (
    kind_below,
    kind_of,
    says_bad,
    says_good,
    split_at,
    without_depth,
)
from jaxad.data.layout_notes import Found, kind_notes, outside_notes, unmarked_notes, unused_notes
from jaxad.data.mask_folders import CERTAIN_FOLDERS, part_masks
from jaxad.data.mask_pairs import Masks
from jaxad.data.masks import read_mask
from jaxad.data.split import split_holdout
from jaxad.data.table import ALL_SPLITS, GOOD, KIND_UNKNOWN, Sample, Split, split_of
from jaxad.run.errors import UserError, did_you_mean

LAYOUTS = ("auto", "mvtec", "folder")
"""Names of layouts of folders, for ``data.name``."""

GOOD_TEST_SHARE = 0.2
"""Share of the good images that become test images where the layout has no test split."""


class Layout(NamedTuple):
    """A folder as it was read.

    Attributes:
      name: ``"mvtec"`` or ``"folder"``.
      samples: in natural order of their relative paths.
      notes: what was chosen in reading.
    """

    name: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def read_layout(base: pathlib.Path, layout: str = "auto", *, masks: str = "") -> Layout:
    """Reads the folder of one category.

    No image is decoded, but masks that tell kinds and some files of folders that may hold masks.

    Args:
      base: the folder.
      layout: of :data:`LAYOUTS`.
      masks: as ``data.masks``.

    Raises:
      UserError: the layout does not fit or is ambiguous, it is unclear whether a folder holds
        masks, or a mask has no image or several.
    """
    if layout == "auto":
        layout = "mvtec" if is_mvtec(base) else "folder"
    files, notes = without_depth(image_files(base))
    tops = {path.split("/")[0] for path in files}
    outside = []
    if layout == "mvtec" and not masks and tops & set(CERTAIN_FOLDERS):
        # MIAD has a folder `mask` beside `ground_truth`, of what the parts themselves cover.
        kept = {p for p in files if split_at(p) or p.split("/")[0] in CERTAIN_FOLDERS}
        outside = [p for p in files if p not in kept]
        files = [p for p in files if p in kept]
    unread = unread_note(base)
    notes += [unread] if unread else []
    parted = part_masks(base, files, masks)
    if not parted.images:
        raise UserError(f"{base}: {unread}" if unread else f"{base} holds no image")
    if layout == "mvtec":
        found = _read_mvtec(base, parted.images)
        notes += outside_notes([*outside, *(p for p in parted.images if not split_at(p))])
    else:
        found = _read_folder(base, parted.images, parted.masks)
        notes += unmarked_notes(found)
    samples = make_samples(base, found, parted.masks)
    about = (*unused_notes(base, samples), *kind_notes(samples))
    return Layout(layout, samples, (*notes, *parted.notes, *about))


def make_samples(base: pathlib.Path, found: Found, masks: Masks) -> tuple[Sample, ...]:
    """Makes samples, in natural order of their paths.

    Args:
      base: folder that the paths start from.
      found: path, split and kind of each image.
      masks: image -> its masks.
    """
    return tuple(
        Sample(str(base / path), split, kind, _mask(base, masks.get(path, ())))
        for path, split, kind in sorted(found, key=lambda item: natural_key(item[0]))
    )


def _mask(base: pathlib.Path, files: tuple[str, ...]) -> str | tuple[str, ...] | None:
    paths = tuple(str(base / file) for file in files)
    return paths if len(paths) > 1 else next(iter(paths), None)


def category_folder(
    root: pathlib.Path,
    category: str,
    *,
    is_category: Callable[[pathlib.Path], bool] | None = None,
) -> tuple[pathlib.Path, str]:
    """Finds the folder of a category.

    Args:
      root: folder of the data set or of the category itself.
      category: its name; empty where ``root`` is the category, or holds but one.
      is_category: whether a folder is one; by default :func:`is_mvtec`.

    Returns:
      ``(folder, name)``; the name is empty where the folder was named itself.

    Raises:
      UserError: ``root`` is no folder, the category is not there, or has to be chosen.
    """
    is_category = is_category or is_mvtec
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root {root} {problem}")
    known = [folder.name for folder in subfolders(root) if is_category(folder)]
    if category:
        if (root / category).is_dir():
            return root / category, category
        if root.resolve().name == category and is_category(root):
            return root, category
        known = known or [folder.name for folder in subfolders(root)]
        raise UserError(f"{root} has no category {category!r}{did_you_mean(category, known)}")
    if is_category(root) or not known:
        return root, ""
    if len(known) == 1:
        return root / known[0], known[0]
    raise UserError(
        f"{root} holds {len(known)} categories, choose one with data.category: {', '.join(known)}"
    )


def is_mvtec(folder: pathlib.Path) -> bool:
    """True where a folder is a category in the MVTec layout."""
    try:
        trains = [split for split in subfolders(folder) if split_of(split.name) == "train"]
        return any(kind_of(kind.name) == GOOD for split in trains for kind in subfolders(split))
    except OSError:  # no folder, or one that may not be looked into
        return False


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders in a folder, without hidden ones, in natural order."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    return [folder / name for name in sorted(names, key=natural_key)]


def _read_mvtec(base: pathlib.Path, files: Iterable[str]) -> Found:
    found: Found = []
    for path in files:
        split = split_at(path)
        if split is None:
            continue
        top, kind = path.split("/")[0], kind_below(path)
        if not kind:
            raise UserError(
                f"{base / path} lies outside any kind: put good images in {top}/good and "
                f"others in {top}/<kind>"
            )
        found.append((path, split, kind))
    if not found:
        raise UserError(
            f"{base} has no images in train/good and test/<kind>: this is not the mvtec layout, "
            "try data.name=folder"
        )
    return found


def _read_folder(base: pathlib.Path, files: Sequence[str], masks: Masks) -> Found:
    top = {path.split("/")[0] for path in files if "/" in path}
    if any(map(split_of, top)):
        return _read_splits(base, files, masks)
    if {kind_of(name) for name in top} & {GOOD}:
        loose = [path for path in files if "/" not in path]
        if loose:
            raise UserError(
                f"{base / loose[0]} lies beside the folder of good images: is it good or not? "
                "move it into a folder"
            )
        kinds = {path: kind_of(path.split("/")[0]) for path in files}
    else:
        _refuse_named_folders(base, files)
        kinds = kinds_by_mask(base, files, masks)
    return share_out(kinds)


def _read_splits(base: pathlib.Path, files: Iterable[str], masks: Masks) -> Found:
    parts: dict[Split, list[str]] = {split: [] for split in ALL_SPLITS}
    for path in files:
        split = split_at(path)
        if split is None:
            raise UserError(f"{base / path} lies outside the folders train and test")
        parts[split].append(path)
    found: Found = []
    for good in ALL_SPLITS[:2]:
        kinds = _kinds_of_good(base, parts[good], masks)
        found += [(path, good, kind) for path, kind in kinds.items()]
    loose = [path for path in parts["test"] if not kind_below(path)]
    if loose and not any(path in masks for path in loose):
        raise UserError(
            f"{base / loose[0]} has neither a kind nor a mask: put good test images in test/good "
            "and others in test/<kind>"
        )
    loose_kinds = kinds_by_mask(base, loose, masks)
    for path in parts["test"]:
        found.append((path, "test", loose_kinds.get(path) or kind_below(path)))
    return found


def _kinds_of_good(base: pathlib.Path, files: Sequence[str], masks: Masks) -> dict[str, str]:
    """The kinds of images of a split that should hold good ones.

    Sub-folders are kinds as soon as one of them is called good, else just folders; then masks tell.
    """
    kinds = {path: kind_below(path) or GOOD for path in files}
    if GOOD in map(kind_below, files):
        return kinds
    _refuse_named_folders(base, [path.partition("/")[2] for path in files])
    return kinds_by_mask(base, files, masks)


def _refuse_named_folders(base: pathlib.Path, files: Iterable[str]) -> None:
    """Stops before images are taken as good whose folders say otherwise."""
    for path in files:
        for folder in path.split("/")[:-1]:
            if says_bad(folder) or says_good(folder) or split_of(folder):
                raise UserError(
                    f"{base} holds no good training image that is marked as such, but a folder "
                    f"{folder!r} ({path}): put good images in a folder 'good' beside the others, "
                    "or choose a category with data.category"
                )


def kinds_by_mask(base: pathlib.Path, files: Iterable[str], masks: Masks) -> dict[str, str]:
    """Good or ``"defect"`` for images that lie in no kind's folder: what their masks say.

    :data:`~jaxad.data.table.KIND_UNKNOWN` where one cannot be read: such an image is not trained
    on, and whoever reads its mask again says why.
    """
    kinds = {}
    for path in files:
        try:
            marked = any(read_mask(base / mask).any() for mask in masks.get(path, ()))
            kinds[path] = "defect" if marked else GOOD
        except UserError:
            kinds[path] = KIND_UNKNOWN
    return kinds


def share_out(kinds: Mapping[str, str], test: Collection[str] | None = None) -> Found:
    """Splits a pool without a test split: defects and some of the good ones are for testing.

    Args:
      kinds: relative path -> ``"good"`` or the kind of defect.
      test: the good test images; None draws :data:`GOOD_TEST_SHARE` of the good ones by a fixed
        seed from their natural order, so that every machine draws the same.

    Returns:
      ``(path, split, kind)`` of each.
    """
    if test is None:
        good = sorted((path for path, kind in kinds.items() if kind == GOOD), key=natural_key)
        share = GOOD_TEST_SHARE if len(good) < len(kinds) else 0.0
        test = {good[row] for row in split_holdout(len(good), share=share, seed=0)[1]}
    return [
        (path, "test" if kind != GOOD or path in test else "train", kind)
        for path, kind in kinds.items()
    ]
