"""Whose mask a file is, told by its name.

A mask lies beside its image (``a.jpg`` and ``a_mask.png``), or in a folder of masks under the path
or the stem of its image, with or without what makes it the name of a mask. Files of one image
(``000_mask_1.png``, ``000_mask_2.png``, or a folder that is called like the image) are united.
"""

from __future__ import annotations

import pathlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxad.data.table import GOOD_NAMES, split_of
from jaxad.run.errors import UserError

_SUFFIXES = ("_mask", "_gt", "-mask", "-gt", "_label", "_seg")
_NUMBERED = re.compile(rf"(.+?)(?:{'|'.join(_SUFFIXES)})?[_-]\d+$")
_IMAGE_FOLDERS = ("image", "images", "img", "imgs", "rgb")

Masks = dict[str, tuple[str, ...]]
"""Image -> its masks, relative paths."""


def split_sibling_masks(
    files: Sequence[str], *, suffixes: Sequence[str] = ("_mask", "_gt")
) -> tuple[list[str], dict[str, str]]:
    """Tells images from masks that lie beside them (``a.jpg`` and ``a_mask.png``).

    Args:
      files: relative paths.
      suffixes: that a mask's name may have behind the image's, in any case; numbers may follow
        (``a_mask_1.png``).

    Returns:
      ``(images, masks)``, where ``masks`` maps a mask to its image.

    Raises:
      UserError: a mask has several images.
    """
    by_stem = grouped(files, _stem)
    pattern = re.compile(
        f"(.+)(?:{'|'.join(map(re.escape, suffixes))})(?:[_-]?\\d+)?", re.IGNORECASE
    )
    masks = {}
    for path in files:
        match = pattern.fullmatch(_stem(path))
        if match and by_stem.get(match[1]):
            masks[path] = _only(by_stem[match[1]], path)
    return [path for path in files if path not in masks], masks


class ImageIndex:
    """Finds the image that a mask belongs to, by names alone.

    Args:
      images: relative paths of all images of a data set, without masks.
    """

    def __init__(self, images: Sequence[str]):
        self._by_stem = grouped(images, _place)
        self._by_name = grouped(images, _name)
        tops = {path.split("/")[0]: split_of(path.split("/")[0]) for path in images if "/" in path}
        # Masks are those of test images as a rule, and of training images if of no such.
        self._splits = sorted(
            (top for top, split in tops.items() if split),
            key=lambda top: (tops[top] != "test", top),
        )

    def image_of(self, mask: str, folder: str) -> tuple[str, bool] | None:
        """Finds the image of a mask that lies in a folder of masks.

        Args:
          mask: relative path.
          folder: of masks, in which it lies, directly or below.

        Returns:
          The image, and whether the mask is one of several that it may have; None without an image.

        Raises:
          UserError: several images have its name.
        """
        before, _, _ = folder.rpartition("/")
        inner = _stem(mask)[len(folder) + 1 :]
        for stem, is_part in _meanings(inner):
            for candidates in self._candidates(before, stem):
                # A mask marks a defect: of images with its name, those in no good folder.
                bad = [image for image in candidates if not _in_good(image)]
                if candidates:
                    return _only(bad or candidates, mask), is_part
        return None

    def _candidates(self, before: str, stem: str) -> Iterator[list[str]]:
        """Images that a mask may belong to; the first answer that is not empty counts."""
        prefix = f"{before}/" if before else ""
        for middle in ("", *(f"{split}/" for split in self._splits)):
            yield self._by_stem.get(f"{prefix}{middle}{stem}", [])
        if "/" not in stem:
            yield [i for i in self._by_name.get(stem, ()) if i.startswith(prefix)]


def _meanings(stem: str) -> Iterator[tuple[str, bool]]:
    """Stems of images that a mask's stem may stand for, with whether it is one of several masks."""
    yield stem, False
    yield _bare(stem), False
    if match := _NUMBERED.fullmatch(stem):
        yield match[1], True
    if "/" in stem:  # a folder of masks, called like the image
        yield stem.rpartition("/")[0], True


def _bare(stem: str) -> str:
    """Without what makes it the name of a mask."""
    for suffix in _SUFFIXES:
        if stem.casefold().endswith(suffix):
            return stem[: -len(suffix)]
    return stem


def bare_name(path: str) -> str:
    """A file's name without its folders, its ending and what makes it the name of a mask."""
    return _bare(_name(path))


def is_numbered(path: str) -> bool:
    """Whether a file's name says that its image may have several masks (``a_mask_1.png``)."""
    return bool(_NUMBERED.fullmatch(_stem(path)))


def _in_good(image: str) -> bool:
    return any(folder.lower() in GOOD_NAMES for folder in image.split("/")[:-1])


def grouped(files: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Relative paths by a key of each."""
    groups = defaultdict(list)
    for path in files:
        groups[key(path)].append(path)
    return groups


def _place(path: str) -> str:
    """A stem without folders that hold just the pictures of a kind (``hole/rgb/000.png``)."""
    *folders, name = _stem(path).split("/")
    return "/".join([*(f for f in folders if f.casefold() not in _IMAGE_FOLDERS), name])


def _stem(path: str) -> str:
    """Relative path without the extension (``a/b.c.png`` -> ``a/b.c``)."""
    return path[: -len(pathlib.PurePosixPath(path).suffix)]


def _name(path: str) -> str:
    return _stem(path).rpartition("/")[2]


def _only(images: Sequence[str], mask: str) -> str:
    if len(images) > 1:
        raise UserError(f"mask {mask} could belong to several images: {', '.join(images[:3])}")
    return images[0]
