"""Magnetic tile defects: folders ``MT_<Kind>/Imgs`` of jpg images with png masks beside them."""

from __future__ import annotations

import pathlib

from jaxad.data.files import image_files
from jaxad.data.layouts import is_mvtec, read_layout
from jaxad.data.published.readers.pool import pool_table
from jaxad.data.table import GOOD, SampleTable
from jaxad.run.errors import UserError

_FOLDER = "MT_"


def read_magnetic_tile(root: pathlib.Path, category: str) -> SampleTable:
    """Reads the data set as shipped, or in the MVTec layout.

    As shipped it has no split: see :mod:`jaxad.data.published.readers.pool`. The masks of good
    images, which mark nothing, are not read.

    Raises:
      UserError: the folder is neither.
    """
    if is_mvtec(root):
        read = read_layout(root, "mvtec")
        return SampleTable(
            root=str(root),
            name="magnetic_tile",
            category="",
            samples=read.samples,
            notes=read.notes,
        )
    files = [path for path in image_files(root) if path.startswith(_FOLDER)]
    drawn = {path.rpartition(".")[0]: path for path in files if path.endswith(".png")}
    kinds = {path: _kind(path) for path in files if not path.endswith(".png")}
    stems = {path: path.rpartition(".")[0] for path, kind in kinds.items() if kind != GOOD}
    masks = {path: drawn[stem] for path, stem in stems.items() if stem in drawn}
    if not kinds:
        raise UserError(
            f"{root} holds neither folders MT_Free, MT_Blowhole ... nor train/good and "
            "test/<kind>: this is not magnetic_tile"
        )
    return pool_table(root, kinds, name="magnetic_tile", masks=masks)


def _kind(path: str) -> str:
    kind = path.split("/")[0].removeprefix(_FOLDER).lower()
    return GOOD if kind == "free" else kind
