"""Lists of images: CSV, JSON lines or JSON with a path each and, as far as known, more.

A row has the columns (or keys) of :data:`COLUMNS`, of which only the path is needed:

* ``label``: ``good`` (``ok``, ``normal``, 0, false) or the kind of the defect (1 and true are just
  ``defect``). Without it masks tell; without masks too all images are good.
* ``mask``: the path of a mask, or a list of them in JSON; empty for none.
* ``split``: ``train``, ``validation`` (``val``) or ``test``. Without it a fifth of the good images
  and all defective ones are for testing.
* ``category``: where several are in one list, ``data.category`` chooses.

JSON is a list of such objects, or an object of lists that are called like splits; its ``meta`` may
have a ``prefix`` of all paths (Real-IAD). Paths start from the list's folder or the one above,
whichever has the images.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxad.data.files import file_of
from jaxad.data.layout_notes import unused_notes
from jaxad.data.layouts import kinds_by_mask, make_samples, share_out
from jaxad.data.mask_pairs import Masks
from jaxad.data.table import GOOD, GOOD_NAMES, SampleTable, Split, split_of
from jaxad.run import schema
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.lists import table_rows

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")

COLUMNS = {
    "path": ("path", "image", "image_path", "img", "img_path", "file", "filename", "file_name",
             "filepath", "file_path"),
    "label": ("label", "anomaly_class", "defect", "kind", "class", "target", "anomaly",
              "is_anomaly", "label_index"),
    "mask": ("mask", "mask_path", "ground_truth", "gt", "gt_path"),
    "split": ("split", "subset", "phase"),
    "category": ("category", "object", "product", "cls_name", "class_name"),
}  # fmt: skip
"""What a column holds -> what it may be called, in any case; of several the first counts."""

_GOOD_WORDS = (*GOOD_NAMES, "0", "false", "no")
_BAD_WORDS = ("1", "true", "yes")
_LOOKED_AT = 50


class _Row(NamedTuple):
    where: str
    path: str
    label: str | None
    masks: tuple[str, ...]
    split: Split | None
    category: str


def is_listing(place: pathlib.Path) -> bool:
    """Whether a path is that of a list, by its ending."""
    return place.suffix.lower() in ENDINGS and place.is_file()


def listed_categories(file: pathlib.Path) -> tuple[str, ...]:
    """The categories that a list names, in its order; none where there are not several.

    Raises:
      UserError: as of :func:`read_listing`.
    """
    found = tuple(dict.fromkeys(row.category for row in _read(file)))
    return found if len(found) > 1 else ()


def read_listing(
    file: pathlib.Path, category: str = "", *, base: pathlib.Path | None = None, name: str = ""
) -> SampleTable:
    """Reads a list. No image is decoded, but masks that tell kinds are.

    Args:
      file: the list.
      category: the only one to read; ``""`` where there is one.
      base: folder from which its paths start; None: see above.
      name: of the data set; by default ``"listing"``.

    Raises:
      UserError: the file is no such list, a line has no image, an unknown split, no label or a mask
        that is not there, an image is listed twice, none is there, or a category has to be chosen.
    """
    rows = _of_category(file, list(_read(file)), category)
    base = base or _start(file, rows)
    there = [row for row in rows if _is_there(base / row.path)]
    if not there:
        raise UserError(
            f"none of the {len(rows)} images in {file} is there ({base / rows[0].path})"
        )
    masks = _masks(file, base, there)
    kinds = kinds_by_mask(base, [row.path for row in there if row.label is None], masks)
    kinds |= {row.path: row.label for row in there if row.label is not None}
    found = [(row.path, row.split, kinds[row.path]) for row in there if row.split]
    pool = {row.path: kinds[row.path] for row in there if not row.split}
    samples = make_samples(base, [*found, *share_out(pool)], masks)
    notes = [f"listed in {file}"]
    if len(there) < len(rows):
        gone = next(row for row in rows if not _is_there(base / row.path))
        notes.append(f"{len(rows) - len(there)} of {len(rows)} listed images are not there, first "
                     f"{gone.path}")  # fmt: skip
    if pool:
        notes.append("no split is listed: a fifth of the good images, drawn by a fixed seed, and "
                     "all defective ones are for testing")  # fmt: skip
    notes += unused_notes(base, samples)
    return SampleTable(str(base), name or "listing", category, samples, tuple(notes))


def _is_there(path: pathlib.Path) -> bool:
    """Whether a file is there, that of a page or of a member too."""
    return path.exists() or os.path.exists(file_of(path))


def _of_category(file: pathlib.Path, rows: list[_Row], category: str) -> list[_Row]:
    known = list(dict.fromkeys(row.category for row in rows))
    if category and known != [""]:
        if category not in known:
            raise UserError(f"{file} has no category {category!r}{did_you_mean(category, known)}")
        rows = [row for row in rows if row.category == category]
    elif len(known) > 1:
        raise UserError(f"{file} lists {len(known)} categories, choose one with data.category: "
                        + ", ".join(known))  # fmt: skip
    if not rows:
        raise UserError(f"{file} lists no image")
    seen: dict[str, str] = {}
    for row in rows:
        if row.path in seen:
            raise UserError(f"{file} lists {row.path} twice: {seen[row.path]} and {row.where}")
        seen[row.path] = row.where
    return rows


def _start(file: pathlib.Path, rows: Sequence[_Row]) -> pathlib.Path:
    """The folder below which most of the first images are."""
    some = rows[:_LOOKED_AT]
    folders = (file.parent, file.parent.parent)
    return max(folders, key=lambda folder: sum(_is_there(folder / row.path) for row in some))


def _masks(file: pathlib.Path, base: pathlib.Path, rows: Sequence[_Row]) -> Masks:
    masks: Masks = {row.path: row.masks for row in rows if row.masks}
    gone = [(row.where, mask) for row in rows for mask in row.masks if not _is_there(base / mask)]
    if gone:
        where, mask = gone[0]
        raise UserError(f"{file}: {len(gone)} masks are not there, first {base / mask} ({where})")
    return masks


def _read(file: pathlib.Path) -> Iterator[_Row]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows = _entries(text, file.suffix.lower())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is no list that can be read: {error}") from error
    for where, fields in rows:
        if not isinstance(fields, Mapping):
            raise UserError(f"{file}, {where}: not an object with a path and more")
        yield _row(file, where, {str(k).strip().casefold(): v for k, v in fields.items()})


def _entries(text: str, ending: str) -> list[tuple[str, Any]]:
    """Where each row stands, and what it holds.

    Raises:
      ValueError: the text is not what its file's ending says.
    """
    if ending == ".json":
        return list(_json_rows(schema.parse(text)))
    if ending in (".jsonl", ".ndjson"):
        lines = enumerate(text.split("\n"), start=1)
        return [(f"line {number}", schema.parse(line)) for number, line in lines if line.strip()]
    return [(f"line {number}", row) for number, row in table_rows(text)]


def _json_rows(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, list):
        content = {"": content}
    if not isinstance(content, Mapping):
        raise ValueError("neither a list nor an object of lists")
    meta = content.get("meta")
    prefix = str(meta.get("prefix") or "") if isinstance(meta, Mapping) else ""
    for split, rows in content.items():
        if not isinstance(rows, list):
            continue
        for number, fields in enumerate(rows):
            if split and isinstance(fields, Mapping):
                fields = {"split": split, _PREFIX: prefix, **fields}
            yield f"{split}[{number}]", fields


_PREFIX = "prefix of paths"


def _row(file: pathlib.Path, where: str, fields: Mapping[str, Any]) -> _Row:
    """Checks a row.

    Raises:
      UserError: it has no path or an unknown split.
    """
    values = {role: _first(fields, names) for role, names in COLUMNS.items()}
    path, word = _text(values["path"]), _text(values["split"])
    if not path:
        known = ", ".join(COLUMNS["path"][:3])
        raise UserError(f"{file}, {where}: no image is named (column {known} ...)")
    split = split_of(word)
    if word and split is None:
        raise UserError(f"{file}, {where}: the split {word!r} is none of train, validation, test")
    prefix = _text(fields.get(_PREFIX))
    masks = values["mask"] if isinstance(values["mask"], list) else [values["mask"]]
    return _Row(
        where,
        _joined(prefix, path),
        _kind(_text(values["label"])),
        tuple(_joined(prefix, text) for mask in masks if (text := _text(mask))),
        split,
        _text(values["category"]),
    )


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if name in fields), None)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _joined(prefix: str, path: str) -> str:
    return os.path.normpath(os.path.join(prefix, path.replace("\\", "/"))).replace(os.sep, "/")


def _kind(label: str) -> str | None:
    """``"good"``, the kind of the defect, or None where nothing is said."""
    if not label:
        return None
    word = label.casefold().removesuffix(".0")
    if word in _GOOD_WORDS:
        return GOOD
    return "defect" if word in _BAD_WORDS else label
