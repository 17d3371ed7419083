"""The sample table: what a data set is to the rest of jaxad."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from jaxad.data.files import SEPARATOR, natural_key

GOOD = "good"
GOOD_NAMES = ("good", "ok", "normal")
"""What a folder of good images may be called, in any case."""

KIND_UNKNOWN = "kind unknown"
"""Of images whose mask would tell whether they are good, but cannot be read."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
"""That any data set may have."""

ALL_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""With that of the good images which some data sets keep apart: a run holds these out."""

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip


def split_of(name: str) -> Split | None:
    """The split that a folder's name or a word in a list stands for, in any case."""
    return _SPLIT_NAMES.get(name.strip().casefold())


@dataclass(frozen=True)
class Sample:
    """One image file.

    Attributes:
      path: of the image.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      defect: ``"good"`` or the kind of the defect.
      mask: path of the ground-truth mask, or None; several paths where they are united.
    """

    path: str
    split: Split
    defect: str
    mask: str | tuple[str, ...] | None = None

    @property
    def label(self) -> int:
        """0 good, 1 anomalous."""
        return int(self.defect != GOOD)


class Saturation(NamedTuple):
    """How much of a defect of one kind has to be found, see :mod:`jaxad.data.saturation`.

    Attributes:
      kind: its name.
      threshold: pixels, or a share of the defect's area in (0, 1].
      relative: which of the two.
    """

    kind: str
    threshold: float
    relative: bool


@dataclass(frozen=True)
class SampleTable:
    """All samples of one category, in a fixed order.

    Attributes:
      root: folder that relative paths start from: the category's own folder.
      name: the layout that was read, ``"mvtec"`` or ``"folder"``, or the published data set.
      category: name of the category, ``""`` where the folder was named itself.
      samples: in natural order of their relative paths.
      notes: sentences on what was chosen in reading, and on what is missing or odd.
      range_16bit: that the images were brought to 8 bits with, where they are copies (shards) and
        not the files themselves.
      saturations: pixel value of masks -> saturation of the kind of defect; empty without.
    """

    root: str
    name: str
    category: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    range_16bit: tuple[float, float] | None = None
    saturations: Mapping[int, Saturation] = field(default_factory=dict)

    def with_notes(self, notes: Iterable[str]) -> SampleTable:
        """Returns the table with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def train_good(self) -> tuple[Sample, ...]:
        """Returns the good images that are not for testing: all that training ever sees."""
        return tuple(s for s in self.samples if s.split != "test" and s.label == 0)

    def test(self) -> tuple[Sample, ...]:
        """Returns the test images, good and anomalous."""
        return tuple(s for s in self.samples if s.split == "test")

    def kinds(self) -> tuple[str, ...]:
        """Returns the kinds of defect among the test images, sorted, without ``"good"``."""
        return tuple(sorted({s.defect for s in self.test() if s.label == 1}))

    def by_kind(self, split: Split) -> dict[str, list[Sample]]:
        """Returns kind -> samples of one split, ``"good"`` first, then in natural order."""
        kinds: dict[str, list[Sample]] = {}
        for sample in self.samples:
            if sample.split == split:
                kinds.setdefault(sample.defect, []).append(sample)
        return dict(sorted(kinds.items(), key=lambda item: (item[0] != GOOD, natural_key(item[0]))))

    def relative(self, sample: Sample) -> str:
        """Returns a sample's path from the root with forward slashes; absolute if outside.

        In shards this is the path that its file had when they were made.
        """
        member = sample.path.removeprefix(f"{self.root}{SEPARATOR}/")
        if member != sample.path:
            return member
        path, root = os.path.abspath(sample.path), os.path.abspath(self.root)
        try:
            return pathlib.PurePath(path).relative_to(root).as_posix()
        except ValueError:
            return pathlib.PurePath(path).as_posix()
