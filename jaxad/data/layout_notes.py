"""Sentences on what was chosen in reading a folder layout."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from jaxad.data.folder_names import kind_below, says_good, split_at
from jaxad.data.table import GOOD, KIND_UNKNOWN, Sample, Split

Found = list[tuple[str, Split, str]]
"""What a layout reader finds out about images before masks are matched: path, split, kind."""


def unused_notes(base: pathlib.Path, samples: Sequence[Sample]) -> list[str]:
    """Says which images are neither good ones to train with nor for testing."""
    unknown = [s.path for s in samples if s.defect == KIND_UNKNOWN]
    unused = [s.path for s in samples if s.split != "test" and s.label and s.path not in unknown]
    notes = []
    for what, paths in (
        ("defective images outside test, which are not used", unused),
        ("images whose masks tell if they are good but cannot be read (none is trained on, and an "
         "evaluation stops at those for testing, or leaves them out with --skip-unreadable)",
         unknown),
    ):  # fmt: skip
        if paths:
            notes.append(f"{what}: {len(paths)}, first {os.path.relpath(paths[0], base)}")
    return notes


def outside_notes(outside: Sequence[str]) -> list[str]:
    """Says which images lie outside the folders of splits."""
    if not outside:
        return []
    return [f"{len(outside)} images outside train and test are not read, first {outside[0]}"]


def unmarked_notes(found: Found) -> list[str]:
    """Says that images for training are taken as good from folders that are not called so."""
    folders: dict[str, None] = {}
    for path, split, kind in found:
        folder = kind_below(path if split_at(path) else f"train/{path}")
        if split == "train" and kind == GOOD and folder:
            folders[folder] = None
    if not folders or GOOD in folders:
        return []
    shown = ", ".join(list(folders)[:5]) + f" and {len(folders) - 5} more" * (len(folders) > 5)
    return [
        f"no folder is called good, ok or normal: images in {shown} are taken as good unless a "
        "mask marks something"
    ]


def kind_notes(samples: Sequence[Sample]) -> list[str]:
    """Names kinds of defects that are called as if they were good."""
    kinds = dict.fromkeys(s.defect for s in samples if s.label and says_good(s.defect))
    return [f"the kind {kind} counts as a defect, whatever its name says" for kind in kinds]
