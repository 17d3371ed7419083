"""Pages of TIFF files and frames of animations: ``FILE[3]`` is one of them, counted from 0."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from jaxad.data.files import split_page
from jaxad.data.images import opened
from jaxad.data.table import Sample, SampleTable
from jaxad.data.threads import map_ahead
from jaxad.run.errors import UserError

CHOICES = ("first", "each")
"""Of ``data.pages``."""

_ENDINGS = (".avif", ".gif", ".png", ".tif", ".tiff", ".webp")
"""Of files that may hold several; a photograph with its preview (MPO) is one."""


def pages_of(path: str | os.PathLike) -> list[str]:
    """The pages of a file as paths of their own; the path itself where it is one image.

    Files that cannot be read are left to their reader.
    """
    path = os.fspath(path)
    count = page_count(path)
    return [f"{path}[{page}]" for page in range(count)] if count > 1 else [path]


def with_pages(table: SampleTable) -> SampleTable:
    """The table with a sample for each page of every file.

    A mask belongs to all pages if it is of one page and they are one, else page to page.

    Raises:
      UserError: a mask has another number of pages than its image.
    """
    samples = [page for pages in map_ahead(_pages_of_sample, table.samples) for page in pages]
    return replace(table, samples=tuple(samples))


def _pages_of_sample(sample: Sample) -> list[Sample]:
    pages = pages_of(sample.path)
    if len(pages) == 1 or sample.mask is None:
        return [replace(sample, path=page) for page in pages]
    masks = [sample.mask] if isinstance(sample.mask, str) else list(sample.mask)
    parts = [pages_of(mask) for mask in masks]
    for mask, own in zip(masks, parts, strict=True):
        if len(own) != len(pages):
            raise UserError(
                f"{sample.path} has {len(pages)} pages, but its mask {mask} {_number(own)}; "
                "with data.pages=each a mask has a page for each"
            )
    of_page: list[Sequence[str]] = list(zip(*parts, strict=True))
    return [
        replace(sample, path=page, mask=tuple(own) if len(own) > 1 else own[0])
        for page, own in zip(pages, of_page, strict=True)
    ]


def _number(pages: list[str]) -> str:
    return "has 1" if len(pages) == 1 else f"has {len(pages)}"


def page_count(path: str | os.PathLike) -> int:
    """The pages of a file; 1 of a page of one, and of what cannot be read."""
    path = os.fspath(path)
    if not path.lower().endswith(_ENDINGS) or split_page(path):
        return 1
    try:
        with opened(path, header_only=True) as image:
            return getattr(image, "n_frames", 1)
    except UserError:
        return 1
