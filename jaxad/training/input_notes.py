"""What is said of the images of a run when its training begins."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxad.data.images import spread
from jaxad.data.notes import contrast_notes, mask_files
from jaxad.data.pipeline import Images
from jaxad.data.repeats import find_repeats, keys_of_files
from jaxad.data.table import Sample, SampleTable
from jaxad.training.processes import log


def told(notes: list[str]) -> list[str]:
    """The notes, once they have been logged."""
    for note in notes:
        log(f"data: {note}")
    return notes


def test_files(table: SampleTable) -> list[str]:
    """The test images and their masks."""
    return [*(s.path for s in table.test()), *mask_files(table.test())]


def sameness_notes(images: Images, *, dark: bool = False) -> list[str]:
    """Says when decoded images are all the same picture, or have hardly any contrast.

    Args:
      images: good ones to train on.
      dark: whether it was said that they use a small part of their range.
    """
    if not isinstance(images, np.ndarray) or not len(images):
        return []
    some, what = images[spread(range(len(images)))], "training images that were looked at"
    notes = [] if dark else contrast_notes(int(some.min()), int(some.max()), what)
    if len(images) < 2 or not all(np.array_equal(images[0], image) for image in images[1:]):
        return notes
    return [
        f"the {len(images)} training images are equal to the last pixel, as the model sees "
        "them: nothing but that picture can be learned"
    ]


def repeat_notes(
    table: SampleTable, used: list[Sample], digests: Mapping[str, str], pixels: Mapping[str, str]
) -> list[str]:
    """Names pictures that are there several times over: files, and training images as seen.

    Args:
      table: of the data set, whose test images are looked at too.
      used: its good training images that are used.
      digests: relative path -> digest of what the file holds, of those that were read.
      pixels: relative path -> digest of the decoded image, of those that were decoded.
    """
    unused = set(table.train_good()) - set(used)
    compared = [sample for sample in table.samples if sample not in unused]
    known = {s.path: digests[n] for s in used if (n := table.relative(s)) in digests}
    files = find_repeats(keys_of_files(compared, known))
    notes = files.notes(table, "byte for byte")
    seen = find_repeats({s: pixels[n] for s in used if (n := table.relative(s)) in pixels})
    if sum(map(len, seen.trained)) > sum(map(len, files.trained)):
        notes += seen.notes(table, "equal to the last pixel as the model sees them")
    if seen.trained or files.trained:
        notes.append("a copy among the held-out images makes thresholds too low")
    return notes
