"""Which images to predict on, and names of outputs that follow theirs and never collide."""

from __future__ import annotations

import os
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxad.data.datasets import find_images
from jaxad.data.files import EXTENSIONS, SEPARATOR, split_member
from jaxad.data.shards import is_shards
from jaxad.run.errors import UserError

OVERLAYS, MAPS = "overlays", "anomaly_maps"
SUBMITTED = ("anomaly_images", "anomaly_images_thresholded")
WRITTEN = (OVERLAYS, MAPS, *SUBMITTED)
"""Folders of pictures in the output folder."""

_LONGEST = 200
"""Bytes of one component; file systems take 255, and a suffix has to fit as well."""


class Source(NamedTuple):
    """An image to predict on: its path, and its outputs' names relative to the output folder."""

    path: str
    overlay: str
    tiff: str


def find_inputs(
    inputs: Sequence[str | os.PathLike], output: str | os.PathLike, *, masks: str = ""
) -> list[tuple[str, str]]:
    """Lists the images of files and folders, each once.

    Args:
      inputs: files and folders.
      output: a folder inside an input folder is left out, so that a second run does not take
        the first one's pictures for images.
      masks: as ``data.masks`` of the run.

    Returns:
      ``(path, name)`` where the name is the path below the deepest folder that holds all inputs;
      where that is the root of the disk, the path below an input behind that input's name.

    Raises:
      UserError: none or but one of the inputs exists and another does not, one holds no image, or
        is the output folder itself.
    """
    real_output = os.path.realpath(output)
    written = tuple(os.path.join(real_output, name, "") for name in WRITTEN)
    folders: dict[str, None] = {}
    found: dict[str, str] = {}
    places = [os.path.expanduser(given) for given in inputs]
    several = sum(map(os.path.exists, places)) > 1
    for place in places:
        is_folder, real = os.path.isdir(place), os.path.realpath(place)
        if real == real_output or os.path.join(real, "").startswith(written):
            raise UserError(
                f"--output {output} would be written over --input {place}; "
                "give --output a folder of its own"
            )
        # One file of many that is gone gets a row that says so.
        gone = several and not os.path.exists(place) and split_member(place) is None
        paths = [place] if gone else find_images(place, masks=masks)
        if is_folder and _is_below(real_output, real):
            paths = [p for p in paths if not _is_below(os.path.realpath(p), real_output)]
            if not paths:
                raise UserError(f"{place} holds no image but those in --output {output}")
        folder = os.path.abspath(place if is_folder else os.path.dirname(place))
        folders[f"{folder}{SEPARATOR}" if is_folder and is_shards(place) else folder] = None
        for path in paths:
            found.setdefault(os.path.abspath(path), path)
    above = os.path.join(os.path.commonpath(list(folders)), "")
    if len(folders) > 1 and above == os.path.join(os.path.abspath(os.sep), ""):
        return _below_tails(found, list(folders))
    return [(p, full.removeprefix(above).replace(os.sep, "/")) for full, p in found.items()]


def _below_tails(found: Mapping[str, str], folders: Sequence[str]) -> list[tuple[str, str]]:
    """As of :func:`find_inputs` for inputs with no folder in common: names tell the inputs apart.

    A name begins with as many last parts of its input's path as no other input ends with.
    """
    parts = [[p for p in folder.split(os.sep) if p] for folder in folders]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        tails = ["/".join(part[-length:]) for part in parts]
        if len({tail.casefold() for tail in tails}) == len(tails):
            break
    named = []
    for full, path in found.items():
        # Of inputs inside one another, the innermost.
        folder = max((f for f in folders if full.startswith(_before(f))), key=len)
        rest = full.removeprefix(_before(folder)).replace(os.sep, "/")
        named.append((path, f"{tails[folders.index(folder)]}/{rest}".lstrip("/")))
    return named


def _before(folder: str) -> str:
    """What the paths inside begin with; of a folder of shards it ends in a separator of its own."""
    return folder if folder.endswith(SEPARATOR) else os.path.join(folder, "")


def name_outputs(found: Sequence[tuple[str, str]], category: str) -> list[Source]:
    """Gives every image the names of its outputs, none twice.

    Args:
      found: as :func:`find_inputs` lists them.
      category: of the run, for MVTec's layout.
    """
    overlays = unique_names([stem_and_full(name) for _, name in found])
    maps = unique_names([stem_and_full(_below_test(path, name)) for path, name in found])
    return [
        Source(path, f"{OVERLAYS}/{picture}.png", f"{MAPS}/{category}/test/{values}.tiff")
        for (path, _), picture, values in zip(found, overlays, maps, strict=True)
    ]


def _below_test(path: str, name: str) -> str:
    """``KIND/FILE`` of an image in the MVTec layout; elsewhere its name."""
    parts = os.path.abspath(path).split(os.sep)
    if parts[-3:-2] == ["test"]:
        return "/".join(parts[-2:])
    *folders, file = name.split("/")
    if "test" in folders:
        folders = folders[len(folders) - folders[::-1].index("test") :]
    return "/".join([*folders, file])


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def stem_and_full(name: str) -> tuple[str, str]:
    """What an output may be called: like the image without its extension, or else with it.

    Args:
      name: relative path of the image, with forward slashes.

    Returns:
      Both names, to be given to :func:`unique_names`. Folders that are called like an image file
      get an underscore, so that no output has the name of a folder.
    """
    *folders, file = pathlib.PurePosixPath(name).parts
    folders = [f"{f}_" if f.lower().endswith(EXTENSIONS) else f for f in folders]
    stem = file[: -len(pathlib.PurePosixPath(file).suffix) or None]
    folders = [_shortened(folder) for folder in folders]
    return "/".join([*folders, _shortened(stem)]), "/".join([*folders, _shortened(file)])


def unique_names(choices: Sequence[Sequence[str]]) -> list[str]:
    """Chooses one name per item so that no two are equal, whatever their case.

    Args:
      choices: per item, its possible names from the preferred one on.

    Returns:
      Each item's first choice where nobody else has it; all who share it go on to their next
      choice, and what is equal to the end is numbered in order.
    """
    rank = [0] * len(choices)
    name_of = lambda i: choices[i][rank[i]]
    while True:
        groups = defaultdict(list)
        for i in range(len(choices)):
            groups[name_of(i).casefold()].append(i)
        shared = [i for group in groups.values() if len(group) > 1 for i in group]
        movable = [i for i in shared if rank[i] + 1 < len(choices[i])]
        if not movable:
            break
        for i in movable:
            rank[i] += 1
    taken = set(groups)
    tried: dict[str, int] = defaultdict(int)
    names = []
    for i in range(len(choices)):
        name = name_of(i)
        key = name.casefold()
        if groups[key][0] != i:
            # Goes on where the last of that name ended: all together, each number is tried once.
            tried[key] += 1
            while f"{key}~{tried[key]}" in taken:
                tried[key] += 1
            name = f"{name}~{tried[key]}"
            taken.add(name.casefold())
        names.append(name)
    return names


def _shortened(component: str) -> str:
    raw = os.fsencode(component)
    return component if len(raw) <= _LONGEST else raw[:_LONGEST].decode("utf-8", "ignore")
