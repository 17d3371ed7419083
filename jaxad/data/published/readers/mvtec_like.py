"""The data sets that come in the MVTec layout: MVTec AD, MIAD, BTAD (``ok`` and ``ko``)."""

from __future__ import annotations

import pathlib

from jaxad.data.layouts import category_folder, is_mvtec, read_layout
from jaxad.data.published.catalogue import published_categories
from jaxad.data.table import SampleTable
from jaxad.run.errors import UserError, did_you_mean


def read_mvtec_ad(root: pathlib.Path, category: str) -> SampleTable:
    """Reads a category of MVTec AD."""
    return _read(root, category, "mvtec_ad")


def read_miad(root: pathlib.Path, category: str) -> SampleTable:
    """Reads a category of MIAD. Its kind of defect is ``broken``."""
    return _read(root, category, "miad")


def read_btad(root: pathlib.Path, category: str) -> SampleTable:
    """Reads a product of BTAD. Images and masks may be png or bmp; its kind of defect is ``ko``."""
    return _read(root, category, "btad")


def _read(root: pathlib.Path, category: str, name: str) -> SampleTable:
    known = published_categories(name)
    if category and category not in known and not (root / category).is_dir():
        raise UserError(f"{name} has no category {category!r}{did_you_mean(category, known)}")
    base, category = category_folder(root, category)
    if not is_mvtec(base):
        raise UserError(
            f"{base} has no folder train/good (ok), so it is no category of {name}; "
            f"its categories are {', '.join(known)}"
        )
    _, samples = read_layout(base, "mvtec")
    # A category's folder that is named itself tells the category by its own name.
    category = category or base.resolve().name
    return SampleTable(root=str(base), name=name, category=category, samples=samples)
