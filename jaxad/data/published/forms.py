"""The forms in which data sets are shipped, as patterns of paths: a row of a table for each.

The rows are in ``catalogue.toml``. A pattern is a relative path without its ending, in any case;
``{kind}``, ``{name}`` and other fields stand for a folder or (a part of) a name each. A data set
without a row of its own has the MVTec layout.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxad.data.files import image_files, unread_note
from jaxad.data.folder_names import kind_of
from jaxad.data.layout_notes import unused_notes
from jaxad.data.layouts import (
    Layout,
    kinds_by_mask,
    make_samples,
    share_out,
)
from jaxad.data.mask_pairs import Masks, grouped, stem_of
from jaxad.data.table import Split, split_of
from jaxad.run.errors import UserError

POOL = "pool"
"""In place of a split: images that are shipped without one."""


@dataclass(frozen=True)
class Form:
    """Where the files of one category lie.

    Attributes:
      sign: a path below the category's folder, or the root, that only this form has.
      images: split, or `POOL` -> pattern. ``{kind}`` names the kind (``good``, ``ok``, ``normal``);
        without it masks tell the kinds: what they mark is ``"defect"``.
      masks: pattern of masks -> that of their images, with fields of the former. Several masks of
        an image are united.
      left_out: pattern -> what lies there, for a note.
      lists: files that list images (:mod:`jaxad.data.listing`), relative to the root;
        ``{category}`` stands for it. The first that is there counts, before the patterns.
      lists_from: folders from which the paths in them start; the first that is there counts.
      kinds: what a kind is called in the files, in any case -> what it is called here.
      saturation: file with saturation thresholds (:mod:`jaxad.data.saturation`).
    """

    sign: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    lists: Sequence[str] = ()
    lists_from: Sequence[str] = ("",)
    kinds: Mapping[str, str] = field(default_factory=dict)
    saturation: str = ""

    def fits(self, folder: pathlib.Path) -> bool:
        """Whether the sign is in a folder."""
        return bool(self.sign) and (folder / self.sign).exists()

    def listing(
        self, root: pathlib.Path, category: str
    ) -> tuple[pathlib.Path, pathlib.Path] | None:
        """The list of a category's images and the folder from which its paths start, if any."""
        files = _there(root, self.lists, category)
        folders = _there(root, self.lists_from, category)
        return (files[0], folders[0]) if files and folders else None


def _there(root: pathlib.Path, paths: Sequence[str], category: str) -> list[pathlib.Path]:
    places = [root / path.format(category=category) for path in paths]
    return [place for place in places if place.exists()]


class _Parted(NamedTuple):
    """The files of a category by the patterns that they fit.

    Attributes:
      images: path -> split (None in a pool) and kind ("" where masks tell).
      masks: path -> stem of its image.
      left_out: what lies there -> number of files.
      others: files that fit no pattern.
    """

    images: dict[str, tuple[Split | None, str]]
    masks: dict[str, str]
    left_out: Counter[str]
    others: list[str]


def read_form(base: pathlib.Path, form: Form, name: str) -> Layout:
    """Reads the folder of one category by patterns. No image is decoded, but masks that tell kinds.

    Args:
      base: the folder.
      form: with patterns.
      name: of the data set.

    Raises:
      UserError: no image lies where it should, or a mask has no image or several.
    """
    parted = _part(image_files(base), form)
    unread = unread_note(base)
    if not parted.images:
        where = " and ".join(form.images.values())
        raise UserError(f"{base}: {unread}" if unread else f"{base} holds no {name}: no {where}")
    masks = _pair(base, parted)
    kinds = kinds_by_mask(base, [p for p, (_, kind) in parted.images.items() if not kind], masks)
    kinds |= {path: kind_of(kind) for path, (_, kind) in parted.images.items() if kind}
    found = [(path, split, kinds[path]) for path, (split, _) in parted.images.items() if split]
    pool = {path: kinds[path] for path, (split, _) in parted.images.items() if not split}
    samples = make_samples(base, [*found, *share_out(pool)], masks)
    notes = [f"{number} files are left out: {what}" for what, number in parted.left_out.items()]
    if pool:
        notes.append("no split is there: a fifth of the good images, drawn by a fixed seed, and "
                     "all defective ones are for testing")  # fmt: skip
    if parted.others:
        notes.append(f"{len(parted.others)} other images are not read, first {parted.others[0]}")
    notes += [unread] if unread else []
    return Layout(name, samples, (*notes, *unused_notes(base, samples)))


def _part(files: Sequence[str], form: Form) -> _Parted:
    parted = _Parted({}, {}, Counter(), [])
    splits = {pattern: split for split, pattern in form.images.items()}
    for path in files:
        if mask := _first(form.masks, path):
            parted.masks[path] = form.masks[mask[0]].format(**mask[1]).casefold()
        elif aside := _first(form.left_out, path):
            parted.left_out[form.left_out[aside[0]]] += 1
        elif image := _first(splits, path):
            parted.images[path] = (split_of(splits[image[0]]), image[1].get("kind", ""))
        else:
            parted.others.append(path)
    return parted


def _first(patterns: Iterable[str], path: str) -> tuple[str, dict[str, str]] | None:
    """The first pattern that a file fits, with the values of its fields."""
    for pattern in patterns:
        if match := _expression(pattern).fullmatch(stem_of(path)):
            return pattern, match.groupdict()
    return None


@functools.cache
def _expression(pattern: str) -> re.Pattern[str]:
    """``test/{kind}/{name}`` as a regular expression."""
    parts = re.split(r"\{(\w+)\}", pattern)
    # Odd parts are names of fields.
    text = [re.escape(p) if i % 2 == 0 else f"(?P<{p}>[^/]+)" for i, p in enumerate(parts)]
    return re.compile("".join(text), re.IGNORECASE)


def _pair(base: pathlib.Path, parted: _Parted) -> Masks:
    """The masks of every image.

    Raises:
      UserError: a mask has no image, or several.
    """
    images = grouped(parted.images, lambda path: stem_of(path).casefold())
    masks: dict[str, tuple[str, ...]] = {}
    for mask, stem in parted.masks.items():
        own = images.get(stem, [])
        if len(own) != 1:
            several = f"could belong to {', '.join(own[:3])}" if own else ""
            raise UserError(f"the mask {base / mask} {several or f'has no image {stem}.*'}")
        masks[own[0]] = (*masks.get(own[0], ()), mask)
    return masks
