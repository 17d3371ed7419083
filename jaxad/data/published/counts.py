"""What is published of a data set, and how a copy on this machine differs from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxad.data.images import image_dimensions
from jaxad.data.published.forms import Form
from jaxad.data.table import ALL_SPLITS, GOOD, SampleTable
from jaxad.run.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Counts:
    """Published numbers of images of one category; what is empty or None is not compared.

    Attributes:
      train: kind -> images of the training split.
      validation: kind -> images that are kept apart for validation.
      test: kind -> images of the test split, all kinds.
      pool: kind -> images, of data sets that are shipped without a split.
      size: ``(height, width)`` where all images have one.
      masks: every anomalous image has a mask.
    """

    train: Mapping[str, int] = field(default_factory=dict)
    validation: Mapping[str, int] = field(default_factory=dict)
    test: Mapping[str, int] = field(default_factory=dict)
    pool: Mapping[str, int] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    masks: bool = False


@dataclass(frozen=True)
class Published:
    """One published data set.

    Attributes:
      title: its name in full.
      about: in a few words.
      needs: what ``data.root`` has to be.
      source: where it comes from.
      licence: as its authors state it.
      reference: the paper to cite.
      categories: what ``data.category`` may be -> numbers; ``""`` where none need be named.
      counts_from: where the numbers come from, and which could not be verified.
      folders: categories are sub-folders of the root.
      form: where the files lie; one without a sign is the MVTec layout.
    """

    title: str
    about: str
    needs: str
    source: str
    licence: str
    reference: str
    categories: Mapping[str, Counts]
    counts_from: str
    folders: bool = False
    form: Form = field(default_factory=Form)


def differences(
    table: SampleTable, published: Published, *, some_left_out: bool = False
) -> list[str]:
    """Holds a table against what is published.

    Args:
      table: as read.
      published: of its data set.
      some_left_out: kinds without a single image were left out on purpose.

    Returns:
      A sentence for everything that is missing or odd; empty where all agrees.
    """
    counts = published.categories.get(table.category)
    if counts is None:
        known = [name for name in published.categories if name]
        named = table.category or table.root
        return [
            f"{named} is not a category of {published.title}"
            f"{did_you_mean(table.category, known)}; its counts cannot be checked"
        ]
    found = {
        split: Counter(s.defect for s in table.samples if split in ("all", s.split))
        for split in (*ALL_SPLITS, "all")
    }
    notes = []
    for split, expected in (
        ("train", counts.train),
        ("validation", counts.validation),
        ("test", counts.test),
        ("all", counts.pool),
    ):
        if expected:
            notes += _count_notes(split, found[split], expected, some_left_out)
    if counts.masks:
        bare = [s for s in table.test() if s.label == 1 and s.mask is None]
        if bare:
            notes.append(
                f"{len(bare)} of {sum(s.label for s in table.test())} anomalous test images have "
                f"no mask, first {table.relative(bare[0])}; all of the published ones have"
            )
    return notes + _size_notes(table, counts.size)


def _count_notes(
    split: str, found: Mapping[str, int], expected: Mapping[str, int], some_left_out: bool
) -> list[str]:
    notes = []
    for kind in sorted({*found, *expected}, key=lambda kind: (kind != GOOD, kind)):
        here, there = found.get(kind, 0), expected.get(kind, 0)
        if here == there or (some_left_out and not here):
            continue
        place = f"{split}/{kind}" if split != "all" else kind
        if not there:
            notes.append(f"{place}: {here} images of a kind that is not published")
        elif here < there:
            notes.append(f"{place}: {there - here} of {there} published images are missing")
        else:
            notes.append(f"{place}: {here} images, {here - there} more than published")
    return notes


def _size_notes(table: SampleTable, size: tuple[int, int] | None) -> list[str]:
    """One image stands for all: a copy of another size was resized as a whole."""
    if size is None or not table.samples:
        return []
    try:
        here = image_dimensions(table.samples[0].path)
    except UserError:
        return []  # whoever decodes it says so
    if here == size:
        return []
    return [
        f"images are {here[0]} x {here[1]} pixels, the published ones {size[0]} x {size[1]}: "
        "figures at the original resolution are not comparable"
    ]
