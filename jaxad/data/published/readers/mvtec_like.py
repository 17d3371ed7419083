"""The data sets that come in the MVTec layout: MVTec AD, MIAD, BTAD (``ok`` and ``ko``)."""

from __future__ import annotations

import pathlib

from jaxad.data.layouts import category_folder, is_mvtec, read_layout
from jaxad.data.published.catalogue import published_categories
from jaxad.data.table import SampleTable
from jaxad.run.errors import UserError


def read_mvtec_like(root: pathlib.Path, category: str, *, name: str) -> SampleTable:
    """Reads a category, or a product; images and masks may be of any format.

    Raises:
      UserError: the folder is no category of the data set.
    """
    base, category = category_folder(root, category)
    if not is_mvtec(base):
        raise UserError(
            f"{base} has no folder train/good (ok), so it is no category of {name}; "
            f"its categories are {', '.join(published_categories(name))}"
        )
    read = read_layout(base, "mvtec")
    # A category's folder that is named itself tells the category by its own name.
    category = category or base.resolve().name
    return SampleTable(
        root=str(base), name=name, category=category, samples=read.samples, notes=read.notes
    )
