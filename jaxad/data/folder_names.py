"""What names of folders say, in any case: split, kind, good or not, depth beside photographs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from jaxad.data.mask_pairs import IMAGE_FOLDERS
from jaxad.data.table import GOOD, GOOD_NAMES, Split, split_of

# Names that say that a folder does not hold good images.
_BAD_NAMES = ("abnormal", "anomalies", "anomalous", "anomaly", "bad", "def", "defect", "defective",
              "defects", "fail", "failed", "faulty", "ko", "ng", "nok", "reject", "rejected",
              "rejects", "scrap")  # fmt: skip
_DEPTH_FOLDERS = ("depth", "normals", "pcd", "pointcloud", "point_cloud", "xyz")


def split_at(path: str) -> Split | None:
    """The split that the outermost folder of a relative path is called after."""
    return split_of(path.split("/")[0]) if "/" in path else None


def kind_of(folder_name: str) -> str:
    """The kind of the images in a folder of this name: ``"good"``, or the name itself."""
    return GOOD if folder_name.lower() in GOOD_NAMES else folder_name


def kind_below(path: str) -> str:
    """The kind whose folder an image lies in, below that of its split; ``""`` in none."""
    folders = (folder for folder in path.split("/")[1:-1] if folder.lower() not in IMAGE_FOLDERS)
    return next(map(kind_of, folders), "")


def says_good(folder: str) -> bool:
    """Whether a word of a folder's name says that its images are good."""
    return bool(_words(folder) & {*GOOD_NAMES})


def says_bad(folder: str) -> bool:
    """Whether a word of a folder's name says that its images are not good."""
    return bool(_words(folder) & {*_BAD_NAMES})


def _words(folder: str) -> set[str]:
    return set(re.split(r"[-_. ]+", folder.lower()))


def without_depth(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leaves out the point clouds beside photographs, and says how many."""
    beside = {where for path in files for where in _above(path, ("rgb",))}
    clouds = {path: where for path in files for where in _above(path, _DEPTH_FOLDERS)
              if where in beside}  # fmt: skip
    if not clouds:
        return list(files), []
    names = dict.fromkeys(path[len(where) :].split("/")[0] for path, where in clouds.items())
    note = (
        f"{len(clouds)} files in folders {', '.join(names)} beside rgb (point clouds) are left out"
    )
    return [path for path in files if path not in clouds], [note]


def _above(path: str, names: Collection[str]) -> Iterator[str]:
    """What stands before the folders of a path that are called so, in any case."""
    folders = path.split("/")[:-1]
    for depth, folder in enumerate(folders):
        if folder.lower() in names:
            yield "".join(f"{f}/" for f in folders[:depth])
