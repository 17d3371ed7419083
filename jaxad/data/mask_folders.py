"""Which folders hold masks: told by names and, in doubt, by content.

A folder is one of masks if its name says so (:data:`MASK_NAMES`, in any case) and its files do: few
values, and the stems of images elsewhere. Where only one of the two holds, nothing is guessed: an
error says how to tell it (``data.masks``). Files beside their images are masks likewise. What only
looks like masks: :mod:`jaxad.data.unnamed_masks`; whose they are: :mod:`jaxad.data.mask_pairs`.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxad.data.mask_look import look_like_masks
from jaxad.data.mask_pairs import CERTAIN_WORDS, ImageIndex, MaskName, Masks, grouped, sibling_masks
from jaxad.data.unnamed_masks import Suspects, suspected_files, suspected_folders, twins
from jaxad.run.errors import UserError

MASK_NAMES = ("annotation", "annotations", "groundtruth", "gt", "label", "labels", "mask", "masks",
              "segmentation", "segmentations")  # fmt: skip
"""What folders of masks are called, in any case, with or without ``_``, ``-`` or a space."""

_NO_MASKS = "none"
"""As ``data.masks``: no folder holds masks."""

CERTAIN_FOLDERS = ("ground_truth", "masks")
"""Of the top folders: what lies there are masks, whatever it looks like."""


class Parted(NamedTuple):
    """The files of a data set, told apart.

    Attributes:
      images: relative paths.
      masks: of the images that have any.
      notes: which folders and files were taken for masks, where their names alone do not say it.
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
      UserError: it is unclear whether a folder or a file holds masks, a mask has no image or
        several, or an image has several masks.
    """
    folders, notes = _mask_folders(base, files, chosen)
    in_folders = {path: folder for path in files if (folder := _folder_of(path, folders))}
    siblings, about = _siblings(base, [path for path in files if path not in in_folders], chosen)
    images = [path for path in files if path not in in_folders and path not in siblings]
    if not chosen:
        _refuse_unnamed_masks(base, images, folders)
    pairs = [(mask, found.image, found.is_part) for mask, found in siblings.items()]
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
    whole: dict[str, str] = {}
    for mask, image, is_part in pairs:
        if not is_part and whole.setdefault(image, mask) != mask:
            raise UserError(f"image {base / image} has two masks: {whole[image]} and {mask}")
        masks[image] = (*masks.get(image, ()), mask)
    return Parted(images, masks, [*notes, *about])


def _siblings(
    base: pathlib.Path, files: Sequence[str], chosen: str = ""
) -> tuple[dict[str, MaskName], list[str]]:
    """The masks beside their images, and which of them are so by what they look like.

    Raises:
      UserError: a mask has several images.
    """
    by_name = sibling_masks(files)
    masks = {path: found for path, found in by_name.items() if found.word in CERTAIN_WORDS}
    if chosen:
        return masks, []
    notes = []
    others = [path for path in by_name if path not in masks]
    for word, own in grouped(others, lambda path: by_name[path].word).items():
        if look_like_masks(base, own):
            masks.update({path: by_name[path] for path in own})
            notes.append(f"{len(own)} files beside images are masks: by the word {word} in their "
                         f"names and their few values, first {own[0]}")  # fmt: skip
    pairs = twins(base, [path for path in files if path not in masks])
    if pairs:
        masks.update({mask: MaskName(image, "", False) for mask, image in pairs.items()})
        notes.append(f"{len(pairs)} files beside images are masks: by their images' names, with "
                     f"other endings, and their few values, first {next(iter(pairs))}")  # fmt: skip
    return masks, notes


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
    if chosen:
        folders = _chosen_folders(chosen)
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
        look = look_like_masks(base, own)
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


def _chosen_folders(chosen: str) -> list[str]:
    if chosen == _NO_MASKS:
        return []
    return [folder.strip().strip("/") for folder in chosen.split(",")]


def without_masks(
    base: pathlib.Path, files: Sequence[str], chosen: str = ""
) -> tuple[list[str], list[str]]:
    """Leaves out masks, of any number of data sets, told by names and content.

    Args:
      base: folder that the paths start from.
      files: relative paths.
      chosen: as ``data.masks``, of the run that judges the images.

    Returns:
      The files that are no masks, and what was left out, or looks as if it should be.
    """
    if chosen:
        masks = _chosen_folders(chosen)
    else:
        masks = []
        for folder in dict.fromkeys(filter(None, map(_named_folder, files))):
            own = [path for path in files if path.startswith(f"{folder}/")]
            certain = folder in CERTAIN_FOLDERS or folder.endswith("/ground_truth")
            if certain or look_like_masks(base, own):
                masks.append(folder)
    left = [path for path in files if not _folder_of(path, masks)]
    siblings, _ = _siblings(base, left, chosen)
    images = [path for path in left if path not in siblings]
    count = len(files) - len(images)
    notes = [f"{count} masks are left out"] if count else []
    if not chosen:
        notes += [f"{_description(base, s)}; such files ({len(s.files)}) are judged as images"
                  for s in _suspects(base, images)]  # fmt: skip
    return images, notes


def _suspects(base: pathlib.Path, images: Sequence[str]) -> list[Suspects]:
    return suspected_folders(base, images) + suspected_files(base, images)


def _description(base: pathlib.Path, suspects: Suspects) -> str:
    what, beside = base / suspects.what, base / suspects.beside
    if suspects.is_folder:
        return (
            f"{what} looks like a folder of masks: its files have few values and the names of "
            f"images in {beside}"
        )
    return f"{what} looks like the mask of {beside}: it has few values and that image's name"


def _refuse_unnamed_masks(
    base: pathlib.Path, images: Sequence[str], folders: Sequence[str]
) -> None:
    """Stops before masks are tested as defects, or trained on, that are not called like masks.

    Args:
      base: folder of the data set.
      images: paths relative to it of what is no mask by its name.
      folders: of masks that were found.

    Raises:
      UserError: there are files with few values and the names of images, which have many.
    """
    for suspects in _suspects(base, images):
        known = ",".join(folders)
        if suspects.is_folder:
            remedy = (
                f"say what it holds with data.masks={','.join([*folders, suspects.what])} (masks), "
                f"or data.masks={known or _NO_MASKS} (images)"
            )
        else:
            remedy = (
                "if it is one, put a folder masks around such files, or call them NAME_mask; if "
                f"not, say so with data.masks={known or _NO_MASKS}"
            )
        raise UserError(f"{_description(base, suspects)}; {remedy}")


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
