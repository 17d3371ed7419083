"""Folder layouts to sample tables.

Two layouts are known; ``auto`` takes the first where it fits.

``mvtec``
    ``train/good``, ``test/<good or kind>`` and optionally ``ground_truth/<kind>``, below
    ``root/category`` or in ``root`` itself. ``ok`` and ``normal`` are accepted for ``good``.

``folder``
    Any other folder of images, read recursively:

    * ``train`` and ``test``, as far as present. Under ``train`` all images are good unless there
      are sub-folders ``good`` (``ok``, ``normal``) and others. Images directly in ``test`` need
      masks, which tell the good ones from the others.
    * ``good`` (``ok``, ``normal``) beside sub-folders of other kinds: the others are test images,
      and so is a fifth of the good ones, chosen by a fixed seed, because without good test
      images nothing can be measured. The rest of the good ones is for training.
    * Neither of the two: all images are good training images, except those whose mask marks
      something. If there are such, they are test images together with a fifth of the good ones.

Masks lie in ``ground_truth`` or ``masks`` under the image's relative path or, directly in that
folder, under its stem; or beside the image. They have the image's stem, with or without ``_mask``
(beside the image: with it). Folders whose name begins with a dot are not read.
"""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence

from jaxad.data.files import image_files, natural_key
from jaxad.data.images import read_mask
from jaxad.data.masks import MASK_FOLDERS, match_masks, split_sibling_masks
from jaxad.data.split import split_holdout
from jaxad.data.table import GOOD, Sample, SampleTable
from jaxad.errors import UserError, did_you_mean

LAYOUTS = ("auto", "mvtec", "folder")
GOOD_NAMES = ("good", "ok", "normal")
GOOD_TEST_SHARE = 0.2
"""Share of the good images that become test images where the layout has no test split."""

_SPLITS = ("train", "test")
# Names that say that a folder does not hold good images.
_BAD_NAMES = (
    "abnormal",
    "anomalies",
    "anomalous",
    "anomaly",
    "bad",
    "defect",
    "defective",
    "defects",
    "ko",
    "ng",
    "nok",
)

# What a layout reader finds out about an image before masks are matched: path, split, kind.
_Found = list[tuple[str, str, str]]


def read_table(root: str | os.PathLike, *, name: str = "auto", category: str = "") -> SampleTable:
    """Reads a folder of images into a sample table. No image is decoded.

    Args:
      root: folder of a data set, or of one of its categories.
      name: ``"mvtec"``, ``"folder"`` or ``"auto"`` (see the module's text).
      category: sub-folder of ``root``; ``""`` where ``root`` is itself the category.

    Returns:
      The table, in natural order of the relative paths.

    Raises:
      UserError: the folder or category does not exist, the layout does not fit or is ambiguous,
        a mask has no image or several, or there is no good training image.
    """
    if name not in LAYOUTS:
        raise UserError(f"unknown data.name {name!r}{did_you_mean(name, LAYOUTS)}")
    base, category = _category_folder(pathlib.Path(root), category)
    layout = name
    if name == "auto":
        layout = "mvtec" if _is_mvtec(base) else "folder"
    files, sibling_masks = split_sibling_masks(image_files(base, skip=MASK_FOLDERS))
    if not files:
        raise UserError(f"{base} holds no image")
    masks = match_masks(base, files, sibling_masks)
    found = _read_mvtec(base, files) if layout == "mvtec" else _read_folder(base, files, masks)
    samples = tuple(
        Sample(
            path=str(base / path),
            split=split,
            label=int(kind != GOOD),
            defect=kind,
            mask=None if path not in masks else str(base / masks[path]),
        )
        for path, split, kind in sorted(found, key=lambda item: natural_key(item[0]))
    )
    table = SampleTable(root=str(base), name=layout, category=category, samples=samples)
    if not table.train_good():
        raise UserError(
            f"{base} holds no good training image: put good images in train/good, "
            "or in a folder of nothing but good images"
        )
    return table


def find_images(path: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """Finds the images to predict on.

    Args:
      path: a file, a folder (read recursively, in natural order, without folders of masks), or
        a list of both.

    Returns:
      Paths. A file that is named itself is returned whatever its extension.

    Raises:
      UserError: a path does not exist, or a folder holds no image.
    """
    if not isinstance(path, str | os.PathLike):
        return [image for item in path for image in find_images(item)]
    place = pathlib.Path(path)
    if place.is_dir():
        images = [str(place / image) for image in image_files(place, skip=MASK_FOLDERS)]
        if not images:
            raise UserError(f"{place} holds no image")
        return images
    if not place.exists():
        raise UserError(f"{place} does not exist")
    return [str(place)]


def summarise(table: SampleTable) -> dict:
    """Counts a table's images: what ``jaxad data inspect`` prints.

    Returns:
      ``{"root", "name", "category", "train": kinds, "test": kinds}`` where ``kinds`` maps
      ``"good"`` and every kind of defect to ``{"images": int, "masks": int}``. Anomalous images
      in the training split are counted but never trained on.
    """
    summary: dict = {"root": table.root, "name": table.name, "category": table.category}
    for split in _SPLITS:
        samples = [s for s in table.samples if s.split == split]
        images = Counter(s.defect for s in samples)
        masks = Counter(s.defect for s in samples if s.mask)
        order = sorted(images, key=lambda kind: (kind != GOOD, natural_key(kind)))
        summary[split] = {kind: {"images": images[kind], "masks": masks[kind]} for kind in order}
    return summary


def _category_folder(root: pathlib.Path, category: str) -> tuple[pathlib.Path, str]:
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root {root} {problem}")
    known = [folder.name for folder in _subfolders(root) if _is_mvtec(folder)]
    if category:
        if (root / category).is_dir():
            return root / category, category
        if root.resolve().name == category and _is_mvtec(root):
            return root, category
        known = known or [folder.name for folder in _subfolders(root)]
        raise UserError(f"{root} has no category {category!r}{did_you_mean(category, known)}")
    if _is_mvtec(root) or not known:
        return root, ""
    if len(known) == 1:
        return root / known[0], known[0]
    raise UserError(
        f"{root} holds {len(known)} categories, choose one with data.category: {', '.join(known)}"
    )


def _is_mvtec(folder: pathlib.Path) -> bool:
    return any((folder / "train" / good).is_dir() for good in GOOD_NAMES)


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    found = [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")]
    return sorted(found, key=lambda f: natural_key(f.name))


def _kind(folder_name: str) -> str:
    return GOOD if folder_name.lower() in GOOD_NAMES else folder_name


def _read_mvtec(base: pathlib.Path, files: Iterable[str]) -> _Found:
    found = []
    for path in files:
        split, *folders, _ = path.split("/") if "/" in path else ("", path)
        if split not in _SPLITS:
            continue
        if not folders:
            raise UserError(
                f"{base / path} lies outside any kind: put good images in {split}/good and "
                f"others in {split}/<kind>"
            )
        found.append((path, split, _kind(folders[0])))
    if not found:
        raise UserError(
            f"{base} has no images in train/good and test/<kind>: this is not the mvtec layout, "
            "try data.name=folder"
        )
    return found


def _read_folder(base: pathlib.Path, files: Sequence[str], masks: dict[str, str]) -> _Found:
    top = {path.split("/")[0] for path in files if "/" in path}
    if top & set(_SPLITS):
        return _read_splits(base, files, masks)
    if {_kind(name) for name in top} & {GOOD}:
        loose = [path for path in files if "/" not in path]
        if loose:
            raise UserError(
                f"{base / loose[0]} lies beside the folder of good images: is it good or not? "
                "move it into a folder"
            )
        kinds = {path: _kind(path.split("/")[0]) for path in files}
    else:
        _refuse_named_folders(base, files)
        kinds = _kinds_by_mask(base, files, masks)
    return _share_out(kinds)


def _read_splits(base: pathlib.Path, files: Iterable[str], masks: dict[str, str]) -> _Found:
    parts: dict[str, list[str]] = {"train": [], "test": []}
    for path in files:
        split = path.split("/")[0]
        if split not in _SPLITS or "/" not in path:
            raise UserError(f"{base / path} lies outside the folders train and test")
        parts[split].append(path)
    train = parts["train"]
    kinds = [_kind(p.split("/")[1]) if p.count("/") > 1 else "" for p in train]
    # Sub-folders of train are kinds as soon as one of them is called good, else just folders.
    sorted_by_kind = GOOD in kinds
    if not sorted_by_kind:
        _refuse_named_folders(base, [path.partition("/")[2] for path in train])
    found = [
        (path, "train", (kind or GOOD) if sorted_by_kind else GOOD)
        for path, kind in zip(train, kinds, strict=True)
    ]
    loose = [path for path in parts["test"] if path.count("/") == 1]
    if loose and not any(path in masks for path in loose):
        raise UserError(
            f"{base / loose[0]} has neither a kind nor a mask: put good test images in test/good "
            "and others in test/<kind>"
        )
    loose_kinds = _kinds_by_mask(base, loose, masks)
    for path in parts["test"]:
        found.append((path, "test", loose_kinds.get(path) or _kind(path.split("/")[1])))
    return found


def _refuse_named_folders(base: pathlib.Path, files: Iterable[str]) -> None:
    """Stops before images are taken as good whose folders say otherwise."""
    for path in files:
        for folder in path.split("/")[:-1]:
            if folder.lower() in (*_BAD_NAMES, *GOOD_NAMES, *_SPLITS):
                raise UserError(
                    f"{base} holds no good training image that is marked as such, but a folder "
                    f"{folder!r} ({path}): put good images in a folder 'good' beside the others, "
                    "or choose a category with data.category"
                )


def _kinds_by_mask(
    base: pathlib.Path, files: Iterable[str], masks: dict[str, str]
) -> dict[str, str]:
    """Good or ``"defect"`` for images that lie in no kind's folder: what their masks say."""
    return {
        path: "defect" if path in masks and read_mask(base / masks[path]).any() else GOOD
        for path in files
    }


def _share_out(kinds: dict[str, str]) -> _Found:
    """Gives defects and a fixed share of the good images to the test split."""
    good = sorted((path for path, kind in kinds.items() if kind == GOOD), key=natural_key)
    share = GOOD_TEST_SHARE if len(good) < len(kinds) else 0.0
    _, test_rows = split_holdout(len(good), share=share, seed=0)
    test = {good[row] for row in test_rows}
    return [
        (path, "test" if kind != GOOD or path in test else "train", kind)
        for path, kind in kinds.items()
    ]
