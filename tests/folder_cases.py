"""Folders as people have them: each case is generated, read by the tests, and a row in the docs.

`python tests/folder_cases.py` prints the table of docs/folders.md.
"""

from __future__ import annotations

import json
import pathlib
import re
import tempfile
from collections import Counter
from collections.abc import Sequence

from folder_case import Case, write
from published_folder_cases import PUBLISHED, SPLIT

from jaxad.data.datasets import read_table
from jaxad.data.table import ALL_SPLITS, SampleTable
from jaxad.run.errors import UserError

GOOD_BAD = {"good/{0-4}.png": "photo", "bad/{0-1}.png": "photo"}

OWN: dict[str, Case] = {
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
    "masks that were compressed, in a folder of another name": Case(
        {"good/{0-4}.png": "large", "bad/{0-1}.png": "large", "bad_drawn/{0-1}.png": "compressed"},
        "bad_drawn looks like a folder of masks: its files have few values and the names of images "
        "in",
        refused=True,
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
    "kinds with folders `rgb`, `gt` and `xyz`": Case(
        {"good/rgb/{0-4}.png": "photo", "good/xyz/{0-4}.tiff": "photo",
         "hole/rgb/{0-1}.png": "photo", "hole/gt/{0-1}.png": "mask"},
        "train: 4 good; test: 1 good, 2 hole (2 masks)",
        ("point clouds", "the folder hole/gt holds masks"),
    ),
    "validation images beside training images": Case(
        SPLIT | {"val/good/{0-1}.png": "photo", "test/hole/{0-1}.png": "photo"},
        "train: 5 good; validation: 2 good; test: 2 good, 2 hole",
    ),
    "folders in capitals": Case(
        {"Train/OK/{0-4}.png": "photo", "Test/OK/{0-1}.png": "photo", "Test/NG/{0-1}.png": "photo",
         "GT/NG/{0-1}.png": "mask"},
        "train: 5 good; test: 2 good, 2 NG (2 masks)",
        ("the folder GT holds masks",),
    ),
    "a list of images (CSV), as `data.root`": Case(
        {"images/{0-5}.png": "photo", "masks/5.png": "mask"},
        "train: 4 good; test: 1 good, 1 scratch (1 mask)",
        ("listed in",),
        options={"root": "parts.csv"},
        texts={"parts.csv": "image;label;mask;split\n" + "".join(
            f"images/{n}.png;good;;{'train' if n < 4 else 'test'}\n" for n in range(5)
        ) + "images/5.png;scratch;masks/5.png;test\n"},
    ),
    "a list without a split (JSON lines)": Case(
        {"{0-5}.png": "photo", "5_drawn.png": "mask"},
        "train: 4 good; test: 1 good, 1 defect (1 mask)",
        ("no split is listed",),
        options={"root": "parts.jsonl"},
        texts={"parts.jsonl": "".join(
            json.dumps({"path": f"{n}.png", "label": n // 5,
                        "mask": "5_drawn.png" if n == 5 else None}) + "\n" for n in range(6)
        )},
    ),
    "a list of images that are not all there": Case(
        {"{0-3}.png": "photo"},
        "train: 4 good",
        ("1 of 5 listed images are not there, first 4.png",),
        options={"root": "parts.csv"},
        texts={"parts.csv": "path,split\n" + "".join(f"{n}.png,train\n" for n in range(5))},
    ),
    "a list with an unknown split": Case(
        {"{0-3}.png": "photo"},
        "line 2: the split 'apart' is none of train, validation, test",
        options={"root": "parts.csv"},
        refused=True,
        texts={"parts.csv": "path,split\n0.png,apart\n"},
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
    "nothing that anyone reads as an image": Case(
        {}, "the folder: no file is read as an image: 2 .txt, 1 without ending", refused=True,
        texts={"a.txt": "a", "b.txt": "b", "README": "c"},
    ),
    "endings of any kind": Case(
        {"good/0.JPG": "photo", "good/1.jpe": "photo", "good/2.BMP": "photo", "good/3.webp": "photo",
         "good/4.TIFF": "photo", "bad/{0-1}.PNG": "photo"},
        "train: 4 good; test: 1 good, 2 bad",
    ),
    "masks beside their images": Case(
        GOOD_BAD | {"bad/{0-1}_GT.png": "mask"}, "train: 4 good; test: 1 good, 2 bad (2 masks)"
    ),
    "masks beside their images, other words": Case(
        {"{0-5}.jpg": "photo", "{4-5}_segmentation.png": "mask"},
        "train: 3 good; test: 1 good, 2 defect (2 masks)",
        ("by the word segmentation in their names",),
    ),
    "masks beside their images, other endings": Case(
        {"{0-5}.jpg": "photo", "{4-5}.png": "mask"},
        "train: 3 good; test: 1 good, 2 defect (2 masks)",
        ("by their images' names, with other endings",),
    ),
    "masks beside their images, no word": Case(
        GOOD_BAD | {"bad/{0-1}_m.png": "mask"},
        "bad/0_m.png looks like the mask of bad/0.png: it has few values and that image's name",
        refused=True,
    ),
    "names of masks with a word before, in another case": Case(
        SPLIT | {"test/Hole/IMG_{0-1}.PNG": "photo", "ground_truth/hole/mask_img_{0-1}.png": "mask"},
        "train: 5 good; test: 2 good, 2 Hole (2 masks)",
    ),
    "masks among the kinds of the test images, not called so": Case(
        SPLIT | {"test/hole/{0-1}.png": "photo", "test/hole_drawn/{0-1}.png": "mask"},
        "test/hole_drawn looks like a folder of masks: its files have few values and the names of "
        "images in test/hole; say what it holds with data.masks=test/hole_drawn (masks), or "
        "data.masks=none (images)",
        refused=True,
    ),
    "masks beside images, not called so": Case(
        {"pictures/{0-5}.png": "photo", "drawn/{0-5}.png": "mask"},
        "drawn looks like a folder of masks: its files have few values and the names of images in "
        "pictures",
        refused=True,
    ),
    "the same, with `data.masks=drawn`": Case(
        {"pictures/{0-5}.png": "photo", "drawn/{0-1}.png": "mask", "drawn/{2-5}.png": "empty"},
        "train: 3 good (3 masks); test: 1 good (1 mask), 2 defect (2 masks)",
        options={"masks": "drawn"},
    ),
    "a kind of images that are black": Case(
        SPLIT | {"test/dark/{0-1}.png": "empty"}, "train: 5 good; test: 2 good, 2 dark"
    ),
    "`images` and `masks` in each split": Case(
        {"train/images/{0-4}.png": "photo", "test/images/{0-3}.png": "photo",
         "test/masks/{0-1}.png": "mask", "test/masks/{2-3}.png": "empty"},
        "train: 5 good; test: 2 good (2 masks), 2 defect (2 masks)",
        ("the folder test/masks holds masks",),
    ),
    "a data set below `images`, masks elsewhere": Case(
        {"images/train/good/{0-4}.png": "photo", "images/test/bad/{0-1}.png": "photo",
         "masks/test/bad/{0-1}.png": "mask"},
        "train: 5 good; test: 2 bad",
        ("2 image files beside the only category, images, are not read",),
    ),
    "folders that no one calls good": Case(
        {"crack/{0-4}.png": "photo", "fine/{0-4}.png": "photo"},
        "train: 10 good",
        ("no folder is called good, ok or normal: images in crack, fine are taken as good",),
    ),
    "folders that someone calls good, in other words": Case(
        {"train/ok_front/{0-4}.png": "photo", "train/def_front/{0-4}.png": "photo"},
        "holds no good training image that is marked as such, but a folder 'def_front'",
        refused=True,
    ),
    "folders `RGB` and `Depth`": Case(
        {"good/RGB/{0-4}.png": "photo", "good/Depth/{0-4}.png": "photo",
         "hole/RGB/{0-1}.png": "photo"},
        "train: 4 good; test: 1 good, 2 hole",
        ("5 files in folders Depth beside rgb (point clouds) are left out",),
    ),
}  # fmt: skip

CASES = OWN | PUBLISHED


def summary(table: SampleTable) -> str:
    """Such as ``train: 4 good; test: 1 good, 2 bad (2 masks)``."""
    parts = []
    for split in ALL_SPLITS:
        kinds = []
        for kind, some in table.by_kind(split).items():
            masks = Counter(sample.mask is not None for sample in some)[True]
            told = f" ({masks} mask{'s' * (masks > 1)})" if masks else ""
            kinds.append(f"{len(some)} {kind}{told}")
        parts += [f"{split}: {', '.join(kinds)}"] if kinds else []
    return "; ".join(parts)


def data_keys(root: pathlib.Path, case: Case) -> dict[str, str]:
    """The keys of ``data`` that a case needs."""
    return {**case.options, "root": str(root / case.options.get("root", ""))}


def answer(root: pathlib.Path, case: Case) -> tuple[str, tuple[str, ...]]:
    """What is read, or the sentence with which reading ends, without the place; and the notes."""
    placeless = lambda text: text.replace(f"{root}/", "").replace(str(root), "the folder")
    try:
        table = read_table(**data_keys(root, case))
    except UserError as error:
        return placeless(str(error)), ()
    return summary(table), tuple(map(placeless, table.notes))


def page() -> str:
    """The table of docs/folders.md: every case, written and read."""
    rows = ["| your folder | holds | what jaxad makes of it |", "|---|---|---|"]
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as root:
            write(pathlib.Path(root), case)
            read, notes = answer(pathlib.Path(root), case)
        files = ", ".join(f"`{path}`" for path in (*case.files, *case.texts))
        told = [f"refused: {read}" if case.refused else read, *_worth_telling(notes)]
        rows.append(f"| {name} | {files} | {'; '.join(told)} |")
    return "\n".join(rows)


def _worth_telling(notes: Sequence[str]) -> list[str]:
    """Without what differs from a published data set, which a few files of one always do."""
    told = [re.sub(r"; data.name=\w+ compares it with what is published", "", n) for n in notes]
    return [note for note in told if "published" not in note]


if __name__ == "__main__":
    print(page())
