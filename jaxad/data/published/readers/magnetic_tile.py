"""Magnetic tile defects: folders ``MT_<Kind>/Imgs`` of jpg images with png masks beside them."""

from __future__ import annotations

import pathlib

from jaxad.data.files import image_files
from jaxad.data.layouts import is_mvtec, read_layout
from jaxad.data.published.readers.pool import pool_table
from jaxad.data.table import GOOD, SampleTable
from jaxad.run.errors import UserError

_FOLDER = "MT_"
_GOOD = "free"


def read_magnetic_tile(root: pathlib.Path, category: str) -> SampleTable:
    """Reads the data set as shipped, or in the MVTec layout.

    As shipped it has no split: see :mod:`jaxad.data.published.readers.pool`. The masks of good
    images, which mark nothing, are not read.

    Raises:
      UserError: the folder is neither.
    """
    if category:
        raise UserError(f"magnetic_tile has no categories; leave out data.category={category}")
    if is_mvtec(root):
        _, samples = read_layout(root, "mvtec")
        return SampleTable(root=str(root), name="magnetic_tile", category="", samples=samples)
    kinds, masks = {}, {}
    for folder in sorted(root.glob(f"{_FOLDER}*")) if root.is_dir() else ():
        kind = folder.name.removeprefix(_FOLDER).lower()
        files = [f"{folder.name}/{path}" for path in image_files(folder)]
        by_stem = {path.rpartition(".")[0]: path for path in files if path.endswith(".png")}
        for path in files:
            if path.endswith(".png"):
                continue
            kinds[path] = GOOD if kind == _GOOD else kind
            mask = by_stem.get(path.rpartition(".")[0])
            if mask is not None and kind != _GOOD:
                masks[path] = mask
    if not kinds:
        raise UserError(
            f"{root} holds neither folders MT_Free, MT_Blowhole ... nor train/good and "
            "test/<kind>: this is not magnetic_tile"
        )
    return pool_table(root, kinds, name="magnetic_tile", masks=masks)
