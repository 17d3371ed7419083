"""Whose mask a file is, told by its name.

A mask lies beside its image (``a.jpg`` and ``a_mask.png``), or in a folder of masks under the path
or the stem of its image. A name is that of a mask by a word before or behind the image's, in any
case: ``a_mask``, ``a-label``, ``a.gt``, ``mask_a``. Files of one image (``000_mask_1.png``,
``000_mask_2.png``, or a folder that is called like the image) are united.
"""

from __future__ import annotations

import pathlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxad.data.table import GOOD_NAMES, split_of
from jaxad.run.errors import UserError

CERTAIN_WORDS = ("gt", "mask", "masks")
"""What says of a file beside an image that it is its mask, whatever it looks like."""

_WORD = r"(annotations?|gt|ground[-_ ]?truth|labels?|masks?|seg(?:mentations?)?)"
_BEHIND = re.compile(rf"(.+?)[-_. ]*(?:(?<=[-_. ]){_WORD}|(masks?))(?:[-_. ]?(\d+))?", re.I)
_BEFORE = re.compile(rf"{_WORD}[-_. ]+(.+)", re.I)
_NUMBERED = re.compile(r"(.+?)[-_ ]\d+")
IMAGE_FOLDERS = ("image", "images", "img", "imgs", "rgb")
"""What folders are called that hold just the pictures of a kind."""

Masks = dict[str, tuple[str, ...]]
"""Image -> its masks, relative paths."""


class MaskName(NamedTuple):
    """What a file's name says of a mask.

    Attributes:
      image: the name without what makes it that of a mask.
      word: that says so, in small letters; ``""`` without one.
      is_part: its image may have several.
    """

    image: str
    word: str
    is_part: bool


def sibling_masks(files: Sequence[str]) -> dict[str, MaskName]:
    """The files that are masks of an image beside them, by their names.

    Args:
      files: relative paths.

    Returns:
      Mask -> its name's meaning, with the relative path of the image.

    Raises:
      UserError: a mask has several images.
    """
    by_stem = Names(files, stem_of)
    masks = {}
    for path in files:
        folder, slash, name = stem_of(path).rpartition("/")
        for meaning in meanings(name):
            images = by_stem.called(f"{folder}{slash}{meaning.image}") if meaning.word else []
            if images:
                masks[path] = meaning._replace(image=_only(images, path))
                break
    return masks


class Names:
    """Relative paths by what they are called: as it is spelt or, without such, in any case."""

    def __init__(self, files: Iterable[str], key: Callable[[str], str]):
        self._key = key
        self._found = grouped(files, lambda path: key(path).casefold())

    def called(self, name: str) -> list[str]:
        """The files of a name."""
        found = self._found.get(name.casefold(), [])
        return [path for path in found if self._key(path) == name] or found


class ImageIndex:
    """Finds the image that a mask belongs to, by names alone.

    Args:
      images: relative paths of all images of a data set, without masks.
    """

    def __init__(self, images: Sequence[str]):
        self._by_stem = Names(images, _place)
        self._by_name = Names(images, _name)
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
        inner = stem_of(mask)[len(folder) + 1 :]
        for stem, is_part in _stems(inner):
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
            yield self._by_stem.called(f"{prefix}{middle}{stem}")
        if "/" not in stem:
            yield [i for i in self._by_name.called(stem) if i.startswith(prefix)]


def meanings(name: str) -> Iterator[MaskName]:
    """Names of images that a mask's name may stand for, without folders and ending."""
    yield MaskName(name, "", False)
    word, is_part = "", False
    if match := _BEHIND.fullmatch(name):
        name, word, is_part = match[1], (match[2] or match[3]).lower(), match[4] is not None
    elif match := _BEFORE.fullmatch(name):
        name, word = match[2], match[1].lower()
    if word:
        yield MaskName(name, word, is_part)
    if match := _NUMBERED.fullmatch(name):
        yield MaskName(match[1], word, True)


def _stems(stem: str) -> Iterator[tuple[str, bool]]:
    """Stems of images that a mask's stem may stand for, with whether it is one of several masks."""
    folder, slash, name = stem.rpartition("/")
    for meaning in meanings(name):
        yield f"{folder}{slash}{meaning.image}", meaning.is_part
    if folder:  # of masks, called like the image
        above, slash, name = folder.rpartition("/")
        for meaning in meanings(name):
            yield f"{above}{slash}{meaning.image}", True


def bare_name(path: str) -> str:
    """A file's name in small letters, without folders, ending and the words of masks."""
    name = _name(path)
    return next((m.image for m in meanings(name) if m.word), name).casefold()


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
    *folders, name = stem_of(path).split("/")
    return "/".join([*(f for f in folders if f.casefold() not in IMAGE_FOLDERS), name])


def stem_of(path: str) -> str:
    """Relative path without the extension (``a/b.c.png`` -> ``a/b.c``)."""
    return path[: -len(pathlib.PurePosixPath(path).suffix)]


def _name(path: str) -> str:
    return stem_of(path).rpartition("/")[2]


def _only(images: Sequence[str], mask: str) -> str:
    if len(images) > 1:
        raise UserError(f"mask {mask} could belong to several images: {', '.join(images[:3])}")
    return images[0]
