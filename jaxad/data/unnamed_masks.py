"""Files that look like masks of others, though no name says so.

Whoever tests masks as defects, or trains on them, is told nothing by the figures. So readers of
folders stop at what is found here, and predictions say it.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxad.data.folder_names import says_good
from jaxad.data.mask_look import look_like_masks
from jaxad.data.mask_pairs import bare_name, grouped

_SEPARATOR = re.compile(r"[-_. ]+")
_AFFIXES_AT_MOST = 20


class Suspects(NamedTuple):
    """What looks like masks.

    Attributes:
      what: the folder, or the first of the files, relative.
      files: all of them.
      beside: the folder of their images, or the image of the first.
      is_folder: whether a folder holds nothing else.
    """

    what: str
    files: tuple[str, ...]
    beside: str
    is_folder: bool


def suspected_folders(base: pathlib.Path, images: Sequence[str]) -> list[Suspects]:
    """Folders of files that have few values and the names of images elsewhere, which have many.

    Args:
      base: folder of the data set.
      images: paths relative to it that count as images.
    """
    # Folders that differ in numbers alone (one for each part, say) are looked at as one.
    pools = grouped(images, lambda path: re.sub(r"\d+", "#", path.rpartition("/")[0]))
    names = {pool: {bare_name(path) for path in own} for pool, own in pools.items()}
    holding = defaultdict(list)
    for pool, own_names in names.items():
        for name in own_names:
            holding[name].append(pool)
    look = functools.cache(lambda pool: look_like_masks(base, pools[pool], strict=True))
    suspects = []
    for pool, files in pools.items():
        others = [p for p in holding[next(iter(names[pool]))] if p != pool]
        beside = [p for p in others if names[pool] <= names[p]]
        if beside and look(pool) and not all(map(look, beside)):
            # A mask marks a defect: rather images in no good folder.
            images_of = min(
                (p for p in beside if not look(p)), key=lambda p: says_good(p.rpartition("/")[2])
            )
            folder = _outermost(files, images)
            suspects.append(
                Suspects(folder, tuple(files), pools[images_of][0].rpartition("/")[0], True)
            )
    return suspects


def suspected_files(base: pathlib.Path, images: Sequence[str]) -> list[Suspects]:
    """Files of few values that are called like an image beside them, with something added.

    Args:
      base: folder of the data set.
      images: paths relative to it that count as images.
    """
    stems = defaultdict(list)
    for path in images:
        stems[path.rpartition(".")[0]].append(path)
    affixes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for stem, paths in stems.items():
        for image, affix in _parts(stem):
            if image in stems:
                affixes[re.sub(r"\d+", "#", affix)].append((paths[0], stems[image][0]))
    suspects = []
    for pairs in list(affixes.values())[:_AFFIXES_AT_MOST]:
        files, beside = zip(*pairs, strict=True)
        if look_like_masks(base, files, strict=True) and not look_like_masks(base, beside):
            suspects.append(Suspects(files[0], files, beside[0], False))
    return suspects


def twins(base: pathlib.Path, files: Sequence[str]) -> dict[str, str]:
    """Masks that differ from their images in the ending alone (Real-IAD): mask -> image.

    Args:
      base: folder of the data set.
      files: relative paths.
    """
    pairs = [own for own in grouped(files, lambda p: p.rpartition(".")[0]).values() if len(own) > 1]
    endings = grouped((path for own in pairs for path in own), _ending)
    looks = {ending: look_like_masks(base, own) for ending, own in endings.items()}
    found = {}
    for own in pairs:
        images = [path for path in own if not looks[_ending(path)]]
        if len(images) == 1:
            found.update({path: images[0] for path in own if path != images[0]})
    return found


def _outermost(files: Sequence[str], images: Sequence[str]) -> str:
    """The outermost folder above the first of the files that holds nothing else."""
    own, folder = set(files), files[0].rpartition("/")[0]
    while "/" in folder:
        above = folder.rpartition("/")[0]
        if any(path.startswith(f"{above}/") and path not in own for path in images):
            break
        folder = above
    return folder


def _parts(stem: str) -> Iterator[tuple[str, str]]:
    """What is left of a name, with its folder, without its beginning or its end, and that part."""
    folder, slash, name = stem.rpartition("/")
    for match in _SEPARATOR.finditer(name):
        if match.start() and match.end() < len(name):
            yield f"{folder}{slash}{name[: match.start()]}", f"behind {name[match.start() :]}"
            yield f"{folder}{slash}{name[match.end() :]}", f"before {name[: match.end()]}"


def _ending(path: str) -> str:
    return path.rpartition(".")[2].lower()
