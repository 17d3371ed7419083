"""MNIST and CIFAR-10, one class against the others, in the forms in which people have them.

The training images of one class are the good ones; test images of all classes are tested, those
of the other classes being anomalous with their class as the kind. Other training images are not
used.
"""

from __future__ import annotations

import itertools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Integer

from jaxad.data.containers import read_arrays, read_idx, zip_members
from jaxad.data.files import EXTENSIONS, image_files, member_path, natural_key
from jaxad.data.published.catalogue import published_categories
from jaxad.data.table import GOOD, SPLITS, Sample, SampleTable, Split
from jaxad.run.errors import UserError

# path of an image, split, class
_Image = tuple[str, Split, str]

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
}  # fmt: skip
_IDX: dict[str, Split] = {"train": "train", "t10k": "test"}
_BATCHES: dict[str, Split] = {
    **{f"data_batch_{number}": "train" for number in range(1, 6)}, "test_batch": "test",
}  # fmt: skip


def read_one_class(root: pathlib.Path, category: str, *, name: str) -> SampleTable:
    """Reads MNIST or CIFAR-10 with one class as normal, as ``category`` names it.

    Raises:
      UserError: none of the known forms is there.
    """
    classes = published_categories(name)
    forms = ((form, find(root, name, classes)) for form, find in _FORMS.items())
    form, found = next(((form, found) for form, found in forms if found), ("", []))
    if not found:
        raise UserError(
            f"{root} holds {name} in no known form; known are {', '.join(_FORMS)} "
            "(`jaxad data list` tells more)"
        )
    samples = tuple(
        Sample(path, split, GOOD if image_class == category else image_class)
        for path, split, image_class in found
        if split == "test" or image_class == category
    )
    notes = [f"read from {form}; normal is the class {category}, all others are anomalous"]
    if any(s.path.lower().endswith((".jpg", ".jpeg")) for s in samples):
        notes.append(f"images are JPEG, so their pixels are not quite those of {name} as published")
    base = root if root.is_dir() else root.parent
    return SampleTable(str(base), name, category, samples, tuple(notes))


def _npz(root: pathlib.Path, name: str, classes: Sequence[str]) -> list[_Image]:
    file = _file(root, f"{name}.npz", ".npz")
    return _both_splits(file, classes) if file else []


def _idx(root: pathlib.Path, name: str, classes: Sequence[str]) -> list[_Image]:
    if name != "mnist":
        return []
    folders = (root, root / "raw", root / name.upper() / "raw")
    there = [f for folder in folders if folder.is_dir() for f in sorted(folder.iterdir())]

    def find(start: str) -> pathlib.Path | None:
        # Some copies have a dot for the second hyphen.
        pattern = rf"{start}[-.]idx\d-ubyte(\.gz)?"
        return next((f for f in there if f.is_file() and re.fullmatch(pattern, f.name)), None)

    starts = [f"{prefix}-{what}" for prefix in _IDX for what in ("images", "labels")]
    files = _complete(root, {f"{start}-idx*-ubyte": find(start) for start in starts})
    rows = []
    for split, images, labels in zip(_IDX.values(), files[::2], files[1::2], strict=False):
        numbers, count = read_idx(labels), len(read_arrays(images)[""].images)
        if len(numbers) != count:
            raise UserError(f"{images} holds {count} images, {labels} {len(numbers)} labels")
        rows += _rows(images, split, numbers, classes)
    return rows


def _batches(root: pathlib.Path, name: str, classes: Sequence[str]) -> list[_Image]:
    if name != "cifar10":
        return []
    folders = (root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin")
    for folder, ending in itertools.product(folders, ("", ".bin")):
        paths = [folder / f"{batch}{ending}" for batch in _BATCHES]
        files = _complete(folder, {file.name: file if file.is_file() else None for file in paths})
        if files:
            return [
                row
                for file, split in zip(files, _BATCHES.values(), strict=True)
                for row in _rows(file, split, read_arrays(file)[""].labels, classes)
            ]
    return []


def _zip(root: pathlib.Path, name: str, classes: Sequence[str]) -> list[_Image]:
    file = _file(root, f"{name}.zip", ".zip")
    members = sorted(zip_members(file), key=natural_key) if file else []
    found = _in_folders(members, classes)
    return [(member_path(file, path), split, c) for path, split, c in found] if file else []


def _folders(root: pathlib.Path, name: str, classes: Sequence[str]) -> list[_Image]:
    found = _in_folders(image_files(root), classes)
    return [(str(root / path), split, image_class) for path, split, image_class in found]


def _tfds(root: pathlib.Path, name: str, classes: Sequence[str]) -> list[_Image]:
    found = []
    for place in [root, *root.glob("*"), *root.glob(f"{name}/*")]:
        info = place / "dataset_info.json"
        if info.is_file() and f'"name": "{name}"' in info.read_text(errors="replace"):
            found.append(place)
    return _both_splits(max(found), classes) if found else []


def _both_splits(container: pathlib.Path, classes: Sequence[str]) -> list[_Image]:
    parts = read_arrays(container)
    return [
        row
        for split in SPLITS
        for row in _rows(container, split, parts[split].labels, classes, f"{split}/")
    ]


def _rows(
    container: pathlib.Path,
    split: Split,
    labels: Integer[np.ndarray, " n"],
    classes: Sequence[str],
    member: str = "",
) -> list[_Image]:
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise UserError(f"{container} holds labels outside 0 to {len(classes) - 1}")
    return [
        (member_path(container, f"{member}{row}"), split, classes[label])
        for row, label in enumerate(labels)
    ]


def _complete(place: pathlib.Path, files: Mapping[str, pathlib.Path | None]) -> list[pathlib.Path]:
    """All files of a form, or none; some of them alone are a mistake."""
    found = [file for file in files.values() if file is not None]
    missing = [name for name, file in files.items() if file is None]
    if found and missing:
        raise UserError(f"{place} lacks {', '.join(missing)} beside the others")
    return found


def _in_folders(paths: Sequence[str], classes: Sequence[str]) -> list[_Image]:
    """Those of the relative paths that end in ``<split>/<class>/<image>``."""
    found: list[_Image] = []
    for path in paths:
        *_, split, image_class, file = ("", "", *path.split("/"))
        known = split in _SPLIT_NAMES and image_class in classes
        if known and file.lower().endswith(EXTENSIONS) and "__MACOSX" not in path:
            found.append((path, _SPLIT_NAMES[split], image_class))
    return found


def _file(root: pathlib.Path, name: str, ending: str) -> pathlib.Path | None:
    """A file that is the root, has the name, or is the only one with the ending."""
    if root.is_file():
        return root if root.name.endswith(ending) else None
    if (root / name).is_file():
        return root / name
    files = sorted(root.glob(f"*{ending}"))
    return files[0] if len(files) == 1 else None


_FORMS: dict[str, Callable[[pathlib.Path, str, Sequence[str]], list[_Image]]] = {
    "npz": _npz,
    "IDX files": _idx,
    "CIFAR's batches": _batches,
    "TensorFlow Datasets": _tfds,
    "a zip file of images": _zip,
    "folders of images": _folders,
}
