"""Which folders hold masks: told by names and, in doubt, by content.

A folder is one of masks if its name says so (:data:`MASK_NAMES`, in any case) and its files do: few
values, and the stems of images elsewhere. Where only one of the two holds, nothing is guessed: an
error says how to tell it (``data.masks``). Whose masks they are: :mod:`jaxad.data.mask_pairs`.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxad.data.images import decode
from jaxad.data.mask_pairs import (
    ImageIndex,
    Masks,
    bare_name,
    grouped,
    is_numbered,
    split_sibling_masks,
)
from jaxad.run.errors import UserError

MASK_NAMES = ("annotation", "annotations", "groundtruth", "gt", "label", "labels", "mask", "masks",
              "segmentation", "segmentations")  # fmt: skip
"""What folders of masks are called, in any case, with or without ``_``, ``-`` or a space."""

_NO_MASKS = "none"
"""As ``data.masks``: no folder holds masks."""

CERTAIN_FOLDERS = ("ground_truth", "masks")
"""Of the top folders: what lies there are masks, whatever it looks like."""

# Of what looks like a mask: colours at most, levels that count as one, share of the two commonest.
_FEW_LEVELS, _NEAR, _MOST = 16, 8, 0.95


class Parted(NamedTuple):
    """The files of a data set, told apart.

    Attributes:
      images: relative paths.
      masks: of the images that have any.
      notes: which folders were taken for masks, where their names alone do not say it.
    """

    images: list[str]
    masks: Masks
    notes: list[str]


def part_masks(base: pathlib.Path, files: Sequence[str], chosen: str = "") -> Parted:
    """Tells images from masks and finds the masks of every image that has some.

    Args:
      base: folder of the data set.
      files: all its image files, paths relative to it.
      chosen: as ``data.masks``: folders of masks, separated by commas; ``""`` for those that are
        recognised, ``"none"`` for no folder.

    Raises:
      UserError: it is unclear whether a folder holds masks, a mask has no image or several, or an
        image has several masks.
    """
    folders, notes = _mask_folders(base, files, chosen)
    in_folders = {path: folder for path in files if (folder := _folder_of(path, folders))}
    images, siblings = split_sibling_masks([path for path in files if path not in in_folders])
    pairs = [(mask, image, is_numbered(mask)) for mask, image in siblings.items()]
    index = ImageIndex(images)
    orphans = []
    for mask, folder in in_folders.items():
        found = index.image_of(mask, folder)
        if found is None:
            orphans.append(mask)
        else:
            pairs.append((mask, *found))
    if orphans:
        shown = ", ".join(orphans[:10])
        more = f" and {len(orphans) - 10} more" if len(orphans) > 10 else ""
        raise UserError(
            f"{len(orphans)} mask(s) in {base} have no image: {shown}{more}; if these are no "
            "masks, say which folders hold them with data.masks=FOLDER (or none)"
        )
    masks: Masks = {}
    parts: dict[str, bool] = {}
    for mask, image, is_part in pairs:
        if image in masks and not (is_part and parts[image]):
            raise UserError(f"image {base / image} has two masks: {masks[image][0]} and {mask}")
        masks[image] = (*masks.get(image, ()), mask)
        parts[image] = is_part
    return Parted(images, masks, notes)


def _mask_folders(
    base: pathlib.Path, files: Sequence[str], chosen: str = ""
) -> tuple[list[str], list[str]]:
    """Finds the folders of masks.

    Args:
      base: folder of the data set.
      files: its image files, paths relative to it.
      chosen: as of :func:`part_masks`.

    Returns:
      ``(folders, notes)``: paths relative to ``base``, and what was recognised.

    Raises:
      UserError: it is unclear whether a folder holds masks, or a chosen one holds no files.
    """
    if chosen == _NO_MASKS:
        return [], []
    if chosen:
        folders = [folder.strip().strip("/") for folder in chosen.split(",")]
        for folder in folders:
            if not any(path.startswith(f"{folder}/") for path in files):
                raise UserError(f"data.masks names {folder!r}, but {base / folder} holds no image")
        return folders, []
    named = dict.fromkeys(filter(None, map(_named_folder, files)))
    inside = {path: folder for path in files if (folder := _folder_of(path, named))}
    images = [path for path in files if path not in inside]
    index = ImageIndex(images)
    found: list[str] = []
    notes: list[str] = []
    for folder in named:
        own = [path for path in files if inside.get(path) == folder]
        if folder in CERTAIN_FOLDERS:
            found.append(folder)
            continue
        look = _look_like_masks(base, own)
        paired = sum(index.image_of(path, folder) is not None for path in own)
        if look and paired:
            found.append(folder)
            notes.append(
                f"the folder {folder} holds masks: by its name, its {len(own)} files of few "
                f"values, and the images' names, which {paired} of them have"
            )
        elif not look and folder.startswith("test/"):
            notes.append(f"the folder {folder} is called like masks, but its files look like "
                         "photographs: it is read as a kind of defect")  # fmt: skip
        else:
            why = "none has the name of an image" if look else "its files look like photographs"
            raise UserError(
                f"{base / folder} is called like a folder of masks, but {why}: say what it holds "
                f"with data.masks={folder} (masks), or data.masks=none (images)"
            )
    return found, notes


def without_masks(base: pathlib.Path, files: Sequence[str]) -> list[str]:
    """The files that are no masks, of any number of data sets, told by names and content.

    Masks are files in folders that are called so and hold what looks like it, files beside their
    images (``a.jpg`` and ``a_mask.png``), and those of an image's own name and another ending.
    """
    named = dict.fromkeys(filter(None, map(_named_folder, files)))
    masks = []
    for folder in named:
        own = [path for path in files if path.startswith(f"{folder}/")]
        certain = folder in CERTAIN_FOLDERS or folder.endswith("/ground_truth")
        if certain or _look_like_masks(base, own):
            masks.append(folder)
    left = split_sibling_masks([path for path in files if not _folder_of(path, masks)])[0]
    return _without_twins(base, left)


def _without_twins(base: pathlib.Path, files: Sequence[str]) -> list[str]:
    """Leaves out masks that differ from their images in the ending alone (Real-IAD)."""
    stems = grouped(files, lambda path: path.rpartition(".")[0])
    twins = [path for paths in stems.values() if len(paths) > 1 for path in paths]
    endings = grouped(twins, lambda path: path.rpartition(".")[2].lower())
    looks = {ending: _look_like_masks(base, own) for ending, own in endings.items()}
    if all(looks.values()):
        return list(files)
    masks = {path for ending, own in endings.items() if looks[ending] for path in own}
    return [path for path in files if path not in masks]


def refuse_unnamed_masks(base: pathlib.Path, images: Sequence[str]) -> None:
    """Stops before masks are tested as defects whose folder is not called like masks.

    Args:
      base: folder of the data set.
      images: paths relative to it of files in one folder per kind.

    Raises:
      UserError: the files of a folder have few values and the names of images of another folder,
        which have many.
    """
    folders = grouped(images, lambda path: path.split("/")[0])
    names = {folder: {bare_name(path) for path in own} for folder, own in folders.items()}
    look = functools.cache(lambda folder: _look_like_masks(base, folders[folder]))
    for folder in folders:
        beside = [o for o in folders if o != folder and names[folder] <= names[o]]
        if beside and look(folder) and not all(map(look, beside)):
            raise UserError(
                f"{base / folder} looks like a folder of masks: its files have few values and the "
                f"names of images in {base / beside[0]}; say what it holds with "
                f"data.masks={folder} (masks), or data.masks=none (images)"
            )


def _look_like_masks(base: pathlib.Path, files: Sequence[str]) -> bool:
    """Whether files that stand for all look like masks; those that cannot be read do not count."""
    looks = (_looks_like_mask(base / files[i]) for i in {0, len(files) // 2, len(files) - 1})
    return all(look for look in looks if look is not None)


def _looks_like_mask(path: pathlib.Path) -> bool | None:
    """Gray, or of few colours, and nearly all of it at two levels; None if it cannot be read."""
    try:
        picture = decode(path, channels=3)
    except UserError:
        return None
    colours = picture[::4, ::4].reshape(-1, 3)
    gray = np.ptp(colours.astype(np.int16), axis=1).max() <= 2 * _NEAR
    if not gray and len(np.unique(colours, axis=0)) > _FEW_LEVELS:
        return False
    histogram = np.bincount(picture.max(axis=-1).ravel(), minlength=256)
    most = 0
    for _ in range(2):
        level = int(histogram.argmax())
        near = slice(max(0, level - _NEAR), level + _NEAR + 1)
        most += histogram[near].sum()
        histogram[near] = 0
    return bool(most >= _MOST * picture[..., 0].size)


def _is_mask_name(folder: str) -> bool:
    """Whether a folder's own name says that it holds masks."""
    return re.sub("[-_ ]", "", folder.casefold()) in MASK_NAMES


def _named_folder(path: str) -> str:
    """The outermost folder of a path that is called like masks, with what stands before it."""
    folders = path.split("/")[:-1]
    for depth, folder in enumerate(folders, start=1):
        if _is_mask_name(folder):
            return "/".join(folders[:depth])
    return ""


def _folder_of(path: str, folders: Iterable[str]) -> str:
    return next((folder for folder in folders if path.startswith(f"{folder}/")), "")
