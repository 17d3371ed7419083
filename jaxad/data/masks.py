"""Which ground-truth mask belongs to which image."""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from jaxad.data.files import image_files
from jaxad.run.errors import UserError

MASK_FOLDERS = ("ground_truth", "masks")
_SUFFIX = "_mask"


def split_sibling_masks(files: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Tells images from masks that lie beside them (``a.jpg`` and ``a_mask.png``).

    Args:
      files: relative paths.

    Returns:
      ``(images, masks)``, where ``masks`` maps a mask to its image.

    Raises:
      UserError: a mask has several images.
    """
    by_stem = _by_stem(files)
    masks = {}
    for path in files:
        stem = _stem(path)
        if stem.endswith(_SUFFIX) and by_stem.get(stem.removesuffix(_SUFFIX)):
            masks[path] = _only(by_stem[stem.removesuffix(_SUFFIX)], path)
    return [path for path in files if path not in masks], masks


def match_masks(
    base: pathlib.Path, images: Sequence[str], siblings: dict[str, str]
) -> dict[str, str]:
    """Finds the mask of every image that has one.

    Args:
      base: folder of the data set.
      images: paths relative to it.
      siblings: mask -> image for masks that lie beside their image.

    Returns:
      image -> mask, relative paths.

    Raises:
      UserError: a mask has no image or several, or an image has several masks.
    """
    pairs = list(siblings.items())
    by_stem = _by_stem(images)
    by_name = defaultdict(list)
    for image in images:
        by_name[_stem(image).rpartition("/")[2]].append(image)
    orphans = []
    for folder in MASK_FOLDERS:
        for mask in image_files(base / folder):
            candidates = next(filter(None, _candidates(mask, by_stem, by_name)), None)
            if candidates is None:
                orphans.append(f"{folder}/{mask}")
            else:
                pairs.append((f"{folder}/{mask}", _only(candidates, f"{folder}/{mask}")))
    if orphans:
        shown = ", ".join(orphans[:10])
        more = f" and {len(orphans) - 10} more" if len(orphans) > 10 else ""
        raise UserError(f"{len(orphans)} mask(s) in {base} have no image: {shown}{more}")
    result: dict[str, str] = {}
    for mask, image in pairs:
        if image in result:
            raise UserError(f"image {base / image} has two masks: {result[image]} and {mask}")
        result[image] = mask
    return result


def _candidates(
    mask: str, by_stem: dict[str, list[str]], by_name: dict[str, list[str]]
) -> Iterator[list[str]]:
    """Images that a mask may belong to; the first answer that is not empty counts."""
    stems = {_stem(mask), _stem(mask).removesuffix(_SUFFIX)}
    for prefix in ("", "test/", "train/"):
        yield [image for stem in sorted(stems) for image in by_stem.get(prefix + stem, ())]
    if "/" not in mask:
        yield [image for stem in sorted(stems) for image in by_name.get(stem, ())]


def _by_stem(files: Iterable[str]) -> dict[str, list[str]]:
    result = defaultdict(list)
    for path in files:
        result[_stem(path)].append(path)
    return result


def _stem(path: str) -> str:
    """Relative path without the extension (``a/b.c.png`` -> ``a/b.c``)."""
    return path[: -len(pathlib.PurePosixPath(path).suffix)]


def _only(images: Sequence[str], mask: str) -> str:
    if len(images) > 1:
        raise UserError(f"mask {mask} could belong to several images: {', '.join(images[:3])}")
    return images[0]
