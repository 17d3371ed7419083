"""MNIST and CIFAR-10, one class against the others, in the forms in which people have them.

The training images of one class are the good ones; test images of all classes are tested, those
of the other classes being anomalous with their class as the kind. Other training images are not
used.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxad.data.containers import member_path, read_arrays, read_idx, zip_members
from jaxad.data.files import EXTENSIONS, image_files, natural_key
from jaxad.data.published.catalogue import published_categories
from jaxad.data.table import GOOD, Sample, SampleTable
from jaxad.run.errors import UserError

# path of an image, "train" or "test", class
_Labelled = Iterator[tuple[str, str, str]]
_Finder = Callable[[pathlib.Path, str, Sequence[str]], "_Labelled | None"]

_SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_IDX = {"train": "train", "test": "t10k"}
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def read_one_class(root: pathlib.Path, category: str, *, name: str) -> SampleTable:
    """Reads MNIST or CIFAR-10 with one class as normal, as ``category`` names it.

    Raises:
      UserError: none of the known forms is there.
    """
    classes = published_categories(name)
    forms = ((form, find(root, name, classes)) for form, find in _FORMS.items())
    form, found = next(((form, found) for form, found in forms if found is not None), ("", None))
    if found is None:
        raise UserError(
            f"{root} holds {name} in no known form; known are {', '.join(_FORMS)} "
            "(`jaxad data list` tells more)"
        )
    base = root if root.is_dir() else root.parent
    samples = []
    for path, split, image_class in found:
        if split == "train" and image_class != category:
            continue
        kind = GOOD if image_class == category else image_class
        samples.append(Sample(path, split, kind))
    notes = [f"read from {form}; normal is the class {category}, all others are anomalous"]
    if any(s.path.lower().endswith((".jpg", ".jpeg")) for s in samples):
        notes.append(f"images are JPEG, so their pixels are not quite those of {name} as published")
    return SampleTable(str(base), name, category, tuple(samples), tuple(notes))


def _rows(container: str, split: str, labels, classes: Sequence[str], *, member: str) -> _Labelled:
    if len(labels) and not 0 <= int(np.min(labels)) <= int(np.max(labels)) < len(classes):
        raise UserError(f"{container} holds labels outside 0 to {len(classes) - 1}")
    for row, label in enumerate(np.asarray(labels)):
        yield member_path(container, f"{member}{row}"), split, classes[label]


def _npz(root: pathlib.Path, name: str, classes: Sequence[str]) -> _Labelled | None:
    file = _file(root, f"{name}.npz", ".npz")
    return None if file is None else _both_splits(str(file), classes)


def _both_splits(container: str, classes: Sequence[str]) -> _Labelled:
    for split, part in read_arrays(container).items():
        yield from _rows(container, split, part.labels, classes, member=f"{split}/")


def _idx(root: pathlib.Path, name: str, classes: Sequence[str]) -> _Labelled | None:
    def find(prefix: str, what: str) -> pathlib.Path | None:
        # Some copies have a dot for the second hyphen.
        pattern = rf"{prefix}-{what}[-.]idx\d-ubyte(\.gz)?"
        folders = (root, root / "raw", root / name.upper() / "raw")
        files = [f for folder in folders if folder.is_dir() for f in sorted(folder.iterdir())]
        return next((f for f in files if f.is_file() and re.fullmatch(pattern, f.name)), None)

    pairs = {s: (find(p, "images"), find(p, "labels")) for s, p in _IDX.items()}
    if name != "mnist" or not any(file for pair in pairs.values() for file in pair):
        return None
    for split, pair in pairs.items():
        for file, what in zip(pair, ("images", "labels"), strict=True):
            if file is None:
                raise UserError(f"{root} lacks {_IDX[split]}-{what}-idx*-ubyte beside the others")
    return _idx_rows(pairs, classes)


def _idx_rows(pairs: dict, classes: Sequence[str]) -> _Labelled:
    for split, (images, labels) in pairs.items():
        numbers, count = read_idx(labels), len(read_arrays(images)[""].images)
        if len(numbers) != count:
            raise UserError(f"{images} holds {count} images, {labels} {len(numbers)} labels")
        yield from _rows(str(images), split, numbers, classes, member="")


def _batches(root: pathlib.Path, name: str, classes: Sequence[str]) -> _Labelled | None:
    if name != "cifar10":
        return None
    for folder in (root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin"):
        for ending in ("", ".bin"):
            files = {
                split: [folder / f"{batch}{ending}" for batch in batches]
                for split, batches in _BATCHES.items()
            }
            every = [file for split in files.values() for file in split]
            if not any(file.is_file() for file in every):
                continue
            missing = [file.name for file in every if not file.is_file()]
            if missing:
                raise UserError(f"{folder} lacks {', '.join(missing)} beside the other batches")
            return _batch_rows(files, classes)
    return None


def _batch_rows(files: dict[str, list[pathlib.Path]], classes: Sequence[str]) -> _Labelled:
    for split, batches in files.items():
        for batch in batches:
            labels = read_arrays(batch)[""].labels
            yield from _rows(str(batch), split, labels, classes, member="")


def _zip(root: pathlib.Path, name: str, classes: Sequence[str]) -> _Labelled | None:
    file = _file(root, f"{name}.zip", ".zip")
    if file is None:
        return None
    members = sorted(zip_members(file), key=natural_key)
    found = list(_in_folders(members, classes))
    return ((member_path(file, path), split, c) for path, split, c in found) if found else None


def _folders(root: pathlib.Path, name: str, classes: Sequence[str]) -> _Labelled | None:
    if not root.is_dir():
        return None
    found = list(_in_folders(image_files(root), classes))
    return ((str(root / path), split, c) for path, split, c in found) if found else None


def _in_folders(paths: Sequence[str], classes: Sequence[str]) -> _Labelled:
    """Those of the relative paths that end in ``<split>/<class>/<image>``."""
    for path in paths:
        *_, split, image_class, file = ("", "", *path.split("/"))
        known = split in _SPLIT_NAMES and image_class in classes
        if known and file.lower().endswith(EXTENSIONS) and "__MACOSX" not in path:
            yield path, _SPLIT_NAMES[split], image_class


def _tfds(root: pathlib.Path, name: str, classes: Sequence[str]) -> _Labelled | None:
    if not root.is_dir():
        return None
    info = "dataset_info.json"
    places = [root, *root.glob("*"), *root.glob(f"{name}/*")]
    found = sorted(p for p in places if (p / info).is_file() and _is_of(p / info, name))
    return _both_splits(str(found[-1]), classes) if found else None


def _is_of(info: pathlib.Path, name: str) -> bool:
    return f'"name": "{name}"' in info.read_text(errors="replace")


def _file(root: pathlib.Path, name: str, ending: str) -> pathlib.Path | None:
    """A file that is the root, has the name, or is the only one with the ending."""
    if root.is_file():
        return root if root.name.endswith(ending) else None
    if (root / name).is_file():
        return root / name
    files = sorted(root.glob(f"*{ending}"))
    return files[0] if len(files) == 1 else None


_FORMS: dict[str, _Finder] = {
    "npz": _npz,
    "IDX files": _idx,
    "CIFAR's batches": _batches,
    "TensorFlow Datasets": _tfds,
    "a zip file of images": _zip,
    "folders of images": _folders,
}
