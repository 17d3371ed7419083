"""KolektorSDD: folders ``kos01`` ... ``kos50``, one per part, each with views of its surface."""

from __future__ import annotations

import pathlib

from jaxad.data.files import image_files
from jaxad.data.layouts import GOOD_TEST_SHARE, subfolders
from jaxad.data.mask_pairs import sibling_masks
from jaxad.data.masks import read_mask
from jaxad.data.published.readers.pool import pool_table
from jaxad.data.split import split_holdout
from jaxad.data.table import GOOD, SampleTable
from jaxad.run.errors import UserError


def read_kolektor_sdd(root: pathlib.Path, category: str) -> SampleTable:
    """Reads the data set; an image is anomalous where its mask marks anything.

    Views of one part are alike, so the good test images are those of a fifth of the parts, drawn
    by a fixed seed: none of these parts is trained on. Every part has a view with a defect, all
    of which are test images.

    Raises:
      UserError: the folder is no KolektorSDD, or a mask cannot be read.
    """
    folders = subfolders(root) if root.is_dir() else []
    parts = [folder for folder in folders if folder.name.lower().startswith("kos")]
    if not parts:
        raise UserError(f"{root} holds no folders kos01, kos02 ...: this is not kolektor_sdd")
    _, test_rows = split_holdout(len(parts), share=GOOD_TEST_SHARE, seed=0)
    test_parts = {parts[row].name for row in test_rows}
    files = [f"{part.name}/{path}" for part in parts for path in image_files(part)]
    image_of = sibling_masks(files)
    images = [path for path in files if path not in image_of]
    masks = {found.image: mask for mask, found in image_of.items()}
    kinds = {
        image: "defect" if read_mask(root / mask).any() else GOOD for image, mask in masks.items()
    }
    masks_of_defects = {image: masks[image] for image, kind in kinds.items() if kind != GOOD}
    bare = [image for image in images if image not in masks]
    test = {path for path in kinds if path.split("/")[0] in test_parts}
    table = pool_table(root, kinds, name="kolektor_sdd", masks=masks_of_defects, test=test)
    notes = [f"good test images are all those of the parts {', '.join(sorted(test_parts))}"]
    if bare:
        notes.append(f"{len(bare)} images without a label file are left out, first {bare[0]}")
    return table.with_notes(notes)
