"""Folders as people have them: each case is generated, read by the tests, and a row in the docs.

`python tests/folder_cases.py` prints the table of docs/folders.md.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
from PIL import Image

from jaxad.data.datasets import read_table
from jaxad.data.table import SampleTable
from jaxad.run.errors import UserError

SIZE = (12, 16)


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture of many colours."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def mask(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A box of defective pixels."""
    marked = np.zeros(size, np.uint8)
    marked[3:7, 4 : 8 + seed % 3] = 255
    return marked


def empty(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask of nothing."""
    return np.zeros(size, np.uint8)


PICTURES = {"photo": photo, "mask": mask, "empty": empty}


@dataclasses.dataclass(frozen=True)
class Case:
    """A folder and what is made of it.

    Attributes:
      files: patterns such as ``good/{0-4}.png`` -> what the files are, of `PICTURES`.
      read: what `summary` says of the table; of an error, a part of its sentence.
      notes: a part of each note that the table must have.
      options: of `read_table`.
      refused: reading ends in an error.
    """

    files: Mapping[str, str]
    read: str
    notes: tuple[str, ...] = ()
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refused: bool = False


GOOD_BAD = {"good/{0-4}.png": "photo", "bad/{0-1}.png": "photo"}
SPLIT = {"train/good/{0-4}.png": "photo", "test/good/{0-1}.png": "photo"}

CASES: dict[str, Case] = {
    "nothing but images": Case({"{0-4}.png": "photo"}, "train: 5 good"),
    "good beside a kind": Case(GOOD_BAD, "train: 4 good; test: 1 good, 2 bad"),
    "good beside a kind, masks": Case(
        GOOD_BAD | {"mask/{0-1}.png": "mask"},
        "train: 4 good; test: 1 good, 2 bad (2 masks)",
        ("the folder mask holds masks",),
    ),
    "masks by kind": Case(
        GOOD_BAD | {"GT/bad/{0-1}_mask.png": "mask"},
        "train: 4 good; test: 1 good, 2 bad (2 masks)",
        ("the folder GT holds masks",),
    ),
    "masks inside their kind": Case(
        {"good/{0-4}.png": "photo", "bad/images/{0-1}.png": "photo", "bad/labels/{0-1}.png": "mask"},
        "train: 4 good; test: 1 good, 2 bad (2 masks)",
        ("the folder bad/labels holds masks",),
    ),
    "a folder called like masks that holds photographs": Case(
        GOOD_BAD | {"labels/{0-1}.png": "photo"},
        "labels is called like a folder of masks, but its files look like photographs: say what it "
        "holds with data.masks=labels (masks), or data.masks=none (images)",
        refused=True,
    ),
    "masks without images": Case(
        GOOD_BAD | {"gt/{7-8}.png": "mask"},
        "gt is called like a folder of masks, but none has the name of an image",
        refused=True,
    ),
    "masks in a folder of another name": Case(
        GOOD_BAD | {"bad_drawn/{0-1}.png": "mask"},
        "bad_drawn looks like a folder of masks: its files have few values and the names of images "
        "in",
        refused=True,
    ),
    "the same, with `data.masks=bad_drawn`": Case(
        GOOD_BAD | {"bad_drawn/{0-1}.png": "mask"},
        "train: 4 good; test: 1 good, 2 bad (2 masks)",
        options={"masks": "bad_drawn"},
    ),
    "a kind called `label`, with `data.masks=none`": Case(
        {"good/{0-4}.png": "photo", "label/{0-1}.png": "photo"},
        "train: 4 good; test: 1 good, 2 label",
        options={"masks": "none"},
    ),
    "MVTec": Case(
        SPLIT | {"test/hole/{0-1}.png": "photo", "ground_truth/hole/{0-1}_mask.png": "mask"},
        "train: 5 good; test: 2 good, 2 hole (2 masks)",
    ),
    "MVTec, other names": Case(
        {"train/ok/{0-4}.bmp": "photo", "test/ok/{0-1}.bmp": "photo", "test/ko/{0-1}.bmp": "photo",
         "Ground_Truth/ko/{0-1}.png": "mask"},
        "train: 5 good; test: 2 good, 2 ko (2 masks)",
        ("the folder Ground_Truth holds masks",),
    ),
    "masks among the kinds of the test images": Case(
        SPLIT | {"test/hole/{0-1}.png": "photo", "test/masks/{0-1}.png": "mask"},
        "train: 5 good; test: 2 good, 2 hole (2 masks)",
        ("the folder test/masks holds masks",),
    ),
    "a kind of defect called `label`": Case(
        SPLIT | {"test/label/{0-1}.png": "photo"},
        "train: 5 good; test: 2 good, 2 label",
        ("it is read as a kind of defect",),
    ),
    "several masks of one image": Case(
        SPLIT | {"test/hole/{0-1}.png": "photo", "ground_truth/hole/{0-1}_mask_{1-2}.png": "mask"},
        "train: 5 good; test: 2 good, 2 hole (2 masks)",
    ),
    "a folder of masks for every image (MVTec LOCO)": Case(
        SPLIT | {"test/logical_anomalies/{0-1}.png": "photo",
                 "ground_truth/logical_anomalies/{0-1}/{0-2}.png": "mask"},
        "train: 5 good; test: 2 good, 2 logical_anomalies (2 masks)",
    ),
    "`rgb`, `gt` and `xyz` inside each kind (MVTec 3D-AD)": Case(
        {"train/good/rgb/{0-4}.png": "photo", "train/good/xyz/{0-4}.tiff": "photo",
         "test/good/rgb/{0-1}.png": "photo", "test/good/gt/{0-1}.png": "empty",
         "test/hole/rgb/{0-1}.png": "photo", "test/hole/gt/{0-1}.png": "mask",
         "test/hole/xyz/{0-1}.tiff": "photo"},
        "train: 5 good; test: 2 good (2 masks), 2 hole (2 masks)",
        ("point clouds", "the folder test/hole/gt holds masks"),
    ),
    "other formats among the images": Case(
        GOOD_BAD | {"good/{5-6}.gif": "photo", "bad/9.tga": "photo"},
        "train: 4 good; test: 1 good, 2 bad",
        ("3 of 10 image files are not read: 2 .gif, 1 .tga",),
    ),
    "nothing that is read": Case(
        {"good/{0-4}.gif": "photo"},
        "the folder: 5 of 5 image files are not read: 5 .gif",
        refused=True,
    ),
    "endings of any kind": Case(
        {"good/0.JPG": "photo", "good/1.jpe": "photo", "good/2.BMP": "photo", "good/3.webp": "photo",
         "good/4.TIFF": "photo", "bad/{0-1}.PNG": "photo"},
        "train: 4 good; test: 1 good, 2 bad",
    ),
    "masks beside their images": Case(
        GOOD_BAD | {"bad/{0-1}_GT.png": "mask"}, "train: 4 good; test: 1 good, 2 bad (2 masks)"
    ),
}  # fmt: skip


def write(root: pathlib.Path, case: Case) -> None:
    """Writes the files of a case."""
    seed = 0
    for pattern, content in case.files.items():
        for path in expanded(pattern):
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PICTURES[content](seed)).save(place)
            seed += 1


def expanded(pattern: str) -> list[str]:
    """``a{0-2}`` -> ``a0``, ``a1``, ``a2``."""
    match = re.search(r"\{(\d)-(\d)\}", pattern)
    if match is None:
        return [pattern]
    numbers = range(int(match[1]), int(match[2]) + 1)
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [path for n in numbers for path in expanded(f"{before}{n}{after}")]


def summary(table: SampleTable) -> str:
    """Such as ``train: 4 good; test: 1 good, 2 bad (2 masks)``."""
    parts = []
    for split in ("train", "test"):
        kinds = []
        for kind, some in table.by_kind(split).items():
            masks = Counter(sample.mask is not None for sample in some)[True]
            kinds.append(f"{len(some)} {kind}" + (f" ({masks} masks)" if masks else ""))
        parts += [f"{split}: {', '.join(kinds)}"] if kinds else []
    return "; ".join(parts)


def answer(root: pathlib.Path, case: Case) -> tuple[str, tuple[str, ...]]:
    """What is read, or the sentence with which reading ends, without the place; and the notes."""
    try:
        table = read_table(root, **case.options)
    except UserError as error:
        return str(error).replace(f"{root}/", "").replace(str(root), "the folder"), ()
    return summary(table), table.notes


def page() -> str:
    """The table of docs/folders.md."""
    rows = ["| your folder | holds | what jaxad makes of it |", "|---|---|---|"]
    for name, case in CASES.items():
        files = ", ".join(f"`{path}`" for path in case.files)
        read = f"refused: {case.read}" if case.refused else case.read
        rows.append(f"| {name} | {files} | {'; '.join((read, *case.notes))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(page())
