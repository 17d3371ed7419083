"""Tables from pools of images that are shipped without a split into training and test."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping

from jaxad.data.layouts import make_samples, share_out
from jaxad.data.mask_pairs import Masks
from jaxad.data.table import GOOD, SampleTable


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
    pairs: Masks = {image: (mask,) for image, mask in (masks or {}).items()}
    samples = make_samples(base, share_out(kinds, test), pairs)
    table = SampleTable(root=str(base), name=name, category=category, samples=samples)
    good = sum(kind == GOOD for kind in kinds.values())
    note = (
        f"no split is published: {sum(s.label == 0 for s in table.test())} of {good} good images, "
        "drawn by a fixed seed, and all anomalous ones are for testing"
    )
    return table.with_notes([note])
