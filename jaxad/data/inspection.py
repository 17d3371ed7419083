"""What is in a data set: numbers, sizes, formats and masks, measured on the files themselves."""

from __future__ import annotations

import hashlib
import pathlib
from collections import Counter
from typing import NamedTuple

import numpy as np

from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.files import file_of, split_member
from jaxad.data.images import HiddenImage, decode
from jaxad.data.mask_levels import Dim
from jaxad.data.masks import count_vanishing, has_specks, read_look
from jaxad.data.notes import (
    contrast_notes,
    depth_notes,
    dim_notes,
    mask_files,
    mask_notes,
    named,
    page_notes,
    range_notes,
)
from jaxad.data.repeats import find_repeats
from jaxad.data.table import ALL_SPLITS, Sample, SampleTable
from jaxad.data.threads import map_ahead
from jaxad.run.errors import UserError, joined

_SIDES = (128, 256, 512, 1024)
"""Of the square images for which small defects are counted; 128 is the configs' default."""


class KindRow(NamedTuple):
    """One kind of image in one split.

    Attributes:
      split: ``"train"``, ``"validation"`` or ``"test"``.
      kind: ``"good"`` or a kind of defect.
      images: their number.
      masks: how many have a mask.
      median_percent: of an image's pixels that its mask marks, over the masks that mark any;
        None where there is no such mask.
      largest_percent: likewise.
    """

    split: str
    kind: str
    images: int
    masks: int
    median_percent: float | None
    largest_percent: float | None


class Inspection(NamedTuple):
    """What :func:`inspect_table` found.

    Attributes:
      rows: per split and kind.
      sizes: ``(height, width)`` -> number of images, most frequent first.
      formats: file name's ending -> number of images, likewise.
      components: connected components of all masks, the single defects.
      vanishing: side of square images -> how many components are smaller than their pixels, for
        the sides 128, 256, 512 and 1024 where any is.
      notes: the table's own, and what is odd in the files.
    """

    rows: tuple[KindRow, ...]
    sizes: dict[tuple[int, int], int]
    formats: dict[str, int]
    components: int
    vanishing: dict[int, int]
    notes: tuple[str, ...]


class _Measured(NamedTuple):
    size: tuple[int, int] | None
    share: float | None
    fault: str | None
    components: int = 0
    vanishing: tuple[int, ...] = (0,) * len(_SIDES)
    pixels: bytes | None = None
    levels: tuple[int, int] | None = None
    transparent: bool = False
    dim: Dim | None = None
    specks: bool = False


def inspect_table(table: SampleTable) -> Inspection:
    """Decodes every image and every mask."""
    measured = dict(zip(table.samples, map_ahead(_measure, table.samples), strict=True))
    rows = []
    for split in ALL_SPLITS:
        for kind, some in table.by_kind(split).items():
            shares = [100 * m for s in some if (m := measured[s].share)]
            median = float(np.median(shares)) if shares else None
            masks = sum(s.mask is not None for s in some)
            rows.append(KindRow(split, kind, len(some), masks, median, max(shares, default=None)))
    sizes = Counter(m.size for m in measured.values() if m.size is not None)
    formats = Counter(_ending(s.path) for s in table.samples)
    lost = np.sum([m.vanishing for m in measured.values()] or [(0,) * len(_SIDES)], axis=0)
    return Inspection(
        rows=tuple(rows),
        sizes=dict(sizes.most_common()),
        formats=dict(formats.most_common()),
        components=sum(m.components for m in measured.values()),
        vanishing={side: int(n) for side, n in zip(_SIDES, lost, strict=True) if n},
        notes=(
            *table.notes,
            *_oddities(table, measured),
            *_range_notes(table),
            *depth_notes(table, table.samples),
            *page_notes([*(s.path for s in table.samples), *mask_files(table.samples)]),
        ),
    )


def _range_notes(table: SampleTable) -> list[str]:
    paths = [sample.path for sample in table.train_good()]
    try:
        return range_notes(paths, resolve_range_16bit(paths, "full"))
    except UserError:
        return []  # what cannot be read has been told


def _measure(sample: Sample) -> _Measured:
    transparent = False
    try:
        pixels = decode(sample.path, channels=3)
    except HiddenImage:
        transparent, pixels = True, decode(sample.path, channels=3, alpha="ignore")
    except UserError as error:
        return _Measured(None, None, str(error))
    size = pixels.shape[:2]
    found = _Measured(
        size,
        None,
        None,
        pixels=hashlib.sha256(repr(size).encode() + pixels.tobytes()).digest(),
        levels=(int(pixels.min()), int(pixels.max())),
        transparent=transparent,
    )
    if sample.mask is None:
        return found
    try:
        look = read_look(sample.mask, expected_size=size)
    except UserError as error:
        return found._replace(fault=str(error))
    assert look.mask is not None
    components, vanishing = count_vanishing(look.mask, [(side, side) for side in _SIDES])
    return found._replace(
        share=look.marked,
        components=components,
        vanishing=vanishing,
        dim=look.dim,
        specks=has_specks(look.mask),
    )


def _ending(path: str) -> str:
    container, member = split_member(path) or (None, file_of(path))
    ending = pathlib.PurePath(member).suffix.lower()
    # Rows of an array have no ending of their own.
    return ending or pathlib.PurePath(container or path).suffix.lower() or "none"


def _oddities(table: SampleTable, measured: dict[Sample, _Measured]) -> list[str]:
    test = table.test()
    faults = [m.fault for m in measured.values() if m.fault]
    marked = {s: m.share for s, m in measured.items() if m.share is not None}
    bare = [s for s in test if s.label and s.mask is None] if any(s.mask for s in test) else []
    full = [s for s, share in marked.items() if not s.label and share]
    hidden = [s for s, m in measured.items() if m.transparent]
    files = f"{len(faults)} file{'s' * (len(faults) > 1)} cannot be used"
    notes = [f"{files}: {joined(faults)}"] if faults else []
    notes += [
        f"{what}: {named(table, some)}"
        for what, some in (
            ("anomalous test images without a mask", bare),
            ("good images whose mask marks something", full),
            (
                "masks with many parts of 4 pixels or fewer beside a large one (specks of "
                "compression, of which each counts as a defect?)",
                [s for s, m in measured.items() if m.specks],
            ),
            ("images that alpha hides altogether, refused without data.alpha=ignore", hidden),
        )
        if some
    ]
    notes += mask_notes(table, marked)
    notes += dim_notes(table, {s: m.dim for s, m in measured.items()})
    levels = [m.levels for s, m in measured.items() if m.levels and not s.label]
    if levels and not _range_notes(table):
        low, high = min(one for one, _ in levels), max(other for _, other in levels)
        notes += contrast_notes(low, high, "the good images")
    if len(table.train_good()) == 1:
        notes.append(
            "there is 1 good training image: some models cannot be fitted to it, and none is left "
            "for calibration"
        )
    if not test:
        notes.append("there are no test images, so nothing can be evaluated")
    elif not any(s.label for s in test):
        notes.append("there are no anomalous test images, so no ROC can be measured")
    elif all(s.label for s in test):
        notes.append("there are no good test images, so no image ROC can be measured")
    pictures = {sample: m.pixels for sample, m in measured.items() if m.pixels is not None}
    return notes + find_repeats(pictures).notes(table, "equal to the last pixel")
