"""Tables from pools of images that are shipped without a split into training and test."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping

from jaxad.data.files import natural_key
from jaxad.data.layouts import share_out
from jaxad.data.table import GOOD, Sample, SampleTable


def pool_table(
    base: pathlib.Path,
    kinds: Mapping[str, str],
    *,
    name: str,
    category: str = "",
    masks: Mapping[str, str] | None = None,
    test: Collection[str] | None = None,
) -> SampleTable:
    """Makes a table of a pool.

    Args:
      base: folder that the paths start from.
      kinds: relative path -> ``"good"`` or the kind of defect.
      name: of the data set.
      category: of the data set.
      masks: relative path -> path of its mask, relative too.
      test: the good images that are for testing; by default a fifth of them, drawn by a fixed
        seed (:func:`~jaxad.data.layouts.share_out`).

    Returns:
      The table, with a note on the split.
    """
    masks = masks or {}
    if test is None:
        found = share_out(dict(kinds))
    else:
        found = [
            (path, "test" if kind != GOOD or path in test else "train", kind)
            for path, kind in kinds.items()
        ]
    samples = tuple(
        Sample(
            path=str(base / path),
            split=split,
            label=int(kind != GOOD),
            defect=kind,
            mask=str(base / masks[path]) if path in masks else None,
        )
        for path, split, kind in sorted(found, key=lambda item: natural_key(item[0]))
    )
    table = SampleTable(root=str(base), name=name, category=category, samples=samples)
    good = sum(kind == GOOD for kind in kinds.values())
    note = (
        f"no split is published: {sum(s.label == 0 for s in table.test())} of {good} good images, "
        "drawn by a fixed seed, and all anomalous ones are for testing"
    )
    return table.with_notes([note])
