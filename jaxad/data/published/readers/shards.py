"""Shards that `jaxad data prepare --shards` wrote, as the data set that they were made of."""

from __future__ import annotations

import pathlib

from jaxad.data.files import member_path
from jaxad.data.shards import MASK, Shards, find_shards, open_shards
from jaxad.data.table import SPLITS, Sample, SampleTable
from jaxad.run.errors import UserError, did_you_mean


def read_shards(root: pathlib.Path, category: str) -> SampleTable:
    """Reads the table of the shards in a folder, or of the one category of those below it.

    Raises:
      UserError: there are none or several that fit, or they cannot be read.
    """
    shards = _choose(root, category)
    table, folder = shards.table, shards.folder
    apart = frozenset(table.get("validation", ()))
    samples = tuple(
        Sample(
            path=member_path(folder, f"/{path}"),
            split="validation" if split == "train" and path in apart else split,
            defect=defect,
            mask=member_path(folder, f"/{path}{MASK}") if has_mask else None,
        )
        for split in SPLITS
        for path, _, defect, has_mask in table[split]
    )
    size = " x ".join(map(str, (*(table["image_size"] or ["own size"]), table["channels"])))
    made_of = f"{table['dataset']} {table['category']}".strip()
    return SampleTable(
        root=folder,
        name="shards",
        category=table["category"],
        samples=samples,
        notes=(f"read from shards of {made_of}, {size}", *table["notes"]),
        range_16bit=tuple(table["range_16bit"]),
    )


def shard_categories(root: pathlib.Path) -> tuple[str, ...]:
    """The categories of the shards below a folder; none where it holds the shards itself."""
    folders = find_shards(root)
    if folders == [root]:
        return ()
    return tuple(sorted({open_shards(folder).table["category"] for folder in folders}))


def _choose(root: pathlib.Path, category: str) -> Shards:
    folders = find_shards(root)
    if not folders:
        return open_shards(root)  # which says what is wrong
    found = [open_shards(folder) for folder in folders]
    fitting = [each for each in found if category in ("", each.table["category"])]
    if len(fitting) == 1:
        return fitting[0]
    known = sorted({each.table["category"] for each in found})
    if not fitting:
        raise UserError(f"{root} holds no shards of {category!r}{did_you_mean(category, known)}")
    if not category and len(known) > 1:
        raise UserError(
            f"{root} holds shards of several categories; set data.category={'|'.join(known)}"
        )
    named = ", ".join(each.folder for each in fitting)
    raise UserError(f"{root} holds several shards that fit; set data.root to one of {named}")
