"""The data sets whose form is a row of the catalogue, or the MVTec layout."""

from __future__ import annotations

import pathlib
from dataclasses import replace

from jaxad.data.layouts import category_folder, is_mvtec, read_layout, subfolders
from jaxad.data.listing import listed_categories, read_listing
from jaxad.data.published.catalogue import CATALOGUE, published_categories
from jaxad.data.published.forms import Form, read_form
from jaxad.data.saturation import read_saturations
from jaxad.data.table import SampleTable
from jaxad.run.errors import UserError

_CATEGORY = "{category}"


def read_shipped(root: pathlib.Path, category: str, *, name: str) -> SampleTable:
    """Reads a category, or a product; images and masks may be of any format.

    Args:
      root: folder of the data set or of the category itself.
      category: its name; ``""`` where ``root`` is the category, or holds but one.
      name: of the data set.

    Raises:
      UserError: the folder is no category of the data set.
    """
    form = CATALOGUE[name].form
    category = category or _only_listed(root, form, name)
    if listing := form.listing(root, category):
        file, start = listing
        return _called(read_listing(file, category, base=start, name=name), form)
    base, category = category_folder(root, category, is_category=lambda f: _fits(f, form))
    # A category's folder that is named itself tells the category by its own name, in a data set
    # with categories.
    category = category or (base.resolve().name if published_categories(name) else "")
    if form.images and (form.fits(base) or not is_mvtec(base)):
        read = read_form(base, form, name)
    elif is_mvtec(base):
        read = read_layout(base, "mvtec")
    else:
        known = published_categories(name)
        raise UserError(
            f"{base} has no folder train/good (ok), so it is no category of {name}; its categories "
            f"are {', '.join(known)}; data.root is the {CATALOGUE[name].needs}"
        )
    saturations = read_saturations(base, form.saturation)
    table = SampleTable(
        str(base), name, category, read.samples, read.notes, saturations=saturations
    )
    return _called(table, form)


def _called(table: SampleTable, form: Form) -> SampleTable:
    """Gives kinds the names that the catalogue has."""
    named = {s: form.kinds.get(s.defect.casefold(), s.defect) for s in table.samples}
    return replace(table, samples=tuple(replace(s, defect=named[s]) for s in table.samples))


def _only_listed(root: pathlib.Path, form: Form, name: str) -> str:
    """The category where each has a list of its own and one is there."""
    if _CATEGORY not in "".join(form.lists):
        return ""
    known = shipped_categories(root, name)
    if len(known) > 1:
        raise UserError(
            f"{root} lists {len(known)} categories, choose one with data.category: "
            + ", ".join(known)
        )
    return next(iter(known), "")


def shipped_categories(root: pathlib.Path, name: str) -> tuple[str, ...]:
    """The categories of a data set that are there; empty where the root is one itself."""
    form = CATALOGUE[name].form
    if not root.is_dir():
        return ()
    if _CATEGORY in "".join(form.lists):
        listed = tuple(c for c in published_categories(name) if form.listing(root, c))
    else:
        listing = form.listing(root, "")
        listed = listed_categories(listing[0]) if listing else ()
    if listed or _fits(root, form):
        return listed
    return tuple(folder.name for folder in subfolders(root) if _fits(folder, form))


def recognised(root: pathlib.Path) -> str:
    """The data set that a folder is by the sign of its form, in itself or in a category below."""
    for folder in [root, *subfolders(root)] if root.is_dir() else []:
        for name, published in CATALOGUE.items():
            if published.form.fits(folder):
                return name
    return ""


def _fits(folder: pathlib.Path, form: Form) -> bool:
    return form.fits(folder) or is_mvtec(folder)
