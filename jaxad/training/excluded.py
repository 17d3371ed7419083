"""``data.exclude``: good images that a run is trained without."""

from __future__ import annotations

import os
import pathlib

from jaxad.data.table import Sample, SampleTable
from jaxad.run.errors import UserError
from jaxad.run.lists import listed_paths


def without_excluded(table: SampleTable, exclude: str) -> list[Sample]:
    """The good training images but those of ``data.exclude``.

    Raises:
      UserError: one to be left out is no training image.
    """
    good = {table.relative(sample): sample for sample in table.train_good()}
    example = next(iter(good), "")
    for path in listed_paths(exclude, key="data.exclude"):
        # As odd_images.csv names it, or as a shell does.
        below = os.path.relpath(os.path.abspath(path), os.path.abspath(table.root))
        name = next((n for n in (path, pathlib.PurePath(below).as_posix()) if n in good), None)
        if name is None:
            raise UserError(
                f"data.exclude names {path}, which is no good training image of {table.root}; "
                f"give paths from that folder, such as {example}, or from here"
            )
        del good[name]
    return list(good.values())
