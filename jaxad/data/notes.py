"""Sentences on images and masks that may not be what their owner thinks they are.

Training says them when it begins, an evaluation of the masks that it reads, and
`jaxad data inspect` at any time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxad.data.images import (
    deep_values,
    is_deep,
    on_16bit_scale,
    opened,
    spread,
)
from jaxad.data.mask_levels import Dim
from jaxad.data.masks import read_look
from jaxad.data.pages import page_count
from jaxad.data.sixteen_bit import has_16bit_colour
from jaxad.data.table import Sample, SampleTable
from jaxad.run.errors import UserError

_SMALL_PART = 0.25
"""Of a range: whoever uses less of it is told."""

_FEW_LEVELS = 16
"""Of 256: whoever uses no more is told."""

_SPECK = 16
"""Pixels of the largest part of a mask that is taken for a trace of compression or resampling."""

_HEADERS = 5000
"""Files whose headers are looked at, at most."""


def range_notes(paths: Sequence[str | os.PathLike], range_16bit: tuple[float, float]) -> list[str]:
    """Says when images use but a small part of the range that they are read with.

    Args:
      paths: of images; some of them stand for all. What cannot be read is left to its reader.
      range_16bit: that they are read with.
    """
    highest, found = 0.0, set()
    for path in spread(paths):
        try:
            with opened(path) as image:
                if has_16bit_colour(image):
                    highest = max(highest, 257.0 * float(np.asarray(image).max()))
                    found.add("colour")
                elif is_deep(image):
                    values = on_16bit_scale(deep_values(image, path).max(keepdims=True))
                    highest = max(highest, float(values.max()))
                    found.add("gray")
        except UserError:
            continue
    low, high = range_16bit
    if not found or highest > low + _SMALL_PART * (high - low):
        return []
    levels = int(255 * max(highest - low, 0) / (high - low)) + 1
    bits = max(8, int(highest).bit_length())
    remedy = (
        "save them as 8-bit colour or 16-bit gray of full range"
        if "colour" in found
        else f"data.range_16bit={bits} or percentiles spreads them over all"
    )
    return [
        f"images of more than 8 bits reach the value {highest:.0f} of {high:.0f}, so that the "
        f"model sees {levels} of 256 levels; {remedy}"
    ]


def contrast_notes(low: int, high: int, what: str) -> list[str]:
    """Says when images use but a few levels of those that a model sees.

    Args:
      low: the lowest level of all of them.
      high: the highest.
      what: they are, such as ``"the images"``.
    """
    levels = high - low + 1
    if levels > _FEW_LEVELS:
        return []
    return [
        f"{what} have levels from {low} to {high}, {levels} of 256: hardly anything of "
        "them can be seen; spread their values before saving (transparent images lie on white: "
        "data.alpha=ignore takes their colours)"
    ]


def depth_notes(table: SampleTable, samples: Iterable[Sample]) -> list[str]:
    """Says when images of more than 8 bits are among others, which are read in another way.

    Args:
      table: that the samples are of.
      samples: of which many are looked at. What cannot be read is left to its reader.
    """
    deep, others = [], 0
    for sample in spread(list(samples), _HEADERS):
        with contextlib.suppress(UserError), opened(sample.path, header_only=True) as image:
            if is_deep(image):
                deep.append(sample)
            else:
                others += 1
    if not deep or not others:
        return []
    highest = _highest_deep([sample.path for sample in spread(deep)])
    bits = max(8, int(highest).bit_length())
    return [
        f"gray images of more than 8 bits are among {others} others: {named(table, deep)}; "
        "data.range_16bit brings them alone to 8 bits, so one scene may differ in brightness "
        f"(they reach the value {highest:.0f}, which data.range_16bit={bits} makes white)"
    ]


def _highest_deep(paths: Iterable[str]) -> float:
    """The highest value, on the scale of 16 bits, of gray images of more than 8 bits."""
    highest = 0.0
    for path in paths:
        with contextlib.suppress(UserError), opened(path) as image:
            values = deep_values(image, path).max(keepdims=True)
            highest = max(highest, float(on_16bit_scale(values).max()))
    return highest


def page_notes(paths: Sequence[str | os.PathLike]) -> list[str]:
    """Says when files hold several pages or frames, of which the first is read.

    Args:
      paths: of images, of which many are looked at. What cannot be read is left to its reader.
    """
    looked_at = spread(paths, _HEADERS)
    several = [path for path in looked_at if page_count(path) > 1]
    if not several:
        return []
    return [
        f"{len(several)} of {len(looked_at)} files that were looked at hold several pages or "
        f"frames (first {os.path.basename(several[0])}); only the first page of each is read: "
        "data.pages=each reads all, FILE[1] is the second"
    ]


def mask_files(samples: Iterable[Sample]) -> list[str]:
    """The files of all their masks."""
    masks = [[s.mask] if isinstance(s.mask, str) else s.mask or () for s in samples]
    return [path for own in masks for path in own]


def mask_notes(table: SampleTable, marked: Mapping[Sample, float]) -> list[str]:
    """Says when masks mark oddly much, or nothing.

    Args:
      table: that the samples are of.
      marked: samples with a mask -> share in [0, 1] of the pixels that it marks.
    """
    empty = [sample for sample, share in marked.items() if sample.label and share == 0]
    inverted = [sample for sample, share in marked.items() if share > 0.5]
    return [
        f"{what}: {named(table, some)}"
        for what, some in (
            ("anomalous images whose mask marks nothing", empty),
            ("masks that mark more than half of their image (inverted?)", inverted),
        )
        if some
    ]


def dim_notes(table: SampleTable, dims: Mapping[Sample, Dim | None]) -> list[str]:
    """Says how masks with levels in between are read, and what does not count of them.

    Args:
      table: that the samples are of.
      dims: samples with a mask -> what does not count of it, where it has levels in between.
    """
    found = {sample: dim for sample, dim in dims.items() if dim is not None}
    between = [sample for sample, dim in found.items() if dim.between]
    faint = [sample for sample, dim in found.items() if dim.faint]
    notes = []
    if between:
        specks = sum(found[sample].specks for sample in between)
        largest = max(found[sample].largest for sample in between)
        left_out = f"; {specks} parts that lie below it do not count" if specks else ""
        if largest > _SPECK:
            left_out += f", the largest of {largest} pixels: a defect drawn darker than others?"
        notes.append(
            "masks with levels in between, as compression with loss, resampling and antialiasing "
            f"leave them: {named(table, between)}; their pixels count from half of the highest "
            f"level{left_out}"
        )
    if faint:
        notes.append(
            f"masks of low levels in a format with loss: {named(table, faint)}; parts of them may "
            "be gone, save them as PNG"
        )
    return notes


def look_at_masks(table: SampleTable) -> list[str]:
    """Says what :func:`mask_notes` says of some masks, read here, that stand for all.

    Args:
      table: of whose test images. What cannot be read is left to its reader.
    """
    looks = {}
    for sample, mask in spread([(s, s.mask) for s in table.test() if s.mask is not None]):
        with contextlib.suppress(UserError):
            looks[sample] = read_look(mask)
    marked = {sample: look.marked for sample, look in looks.items()}
    about = mask_notes(table, marked)
    about += dim_notes(table, {sample: look.dim for sample, look in looks.items()})
    return [f"of {len(looks)} masks that were looked at: {note}" for note in about]


def named(table: SampleTable, samples: Sequence[Sample], at_most: int = 5) -> str:
    """Their number and the names of the first, such as ``3 (a.png, b.png, c.png)``."""
    names: Iterable[str] = (table.relative(s) for s in samples[:at_most])
    more = f" and {len(samples) - at_most} more" if len(samples) > at_most else ""
    return f"{len(samples)} ({', '.join(names)}{more})"
