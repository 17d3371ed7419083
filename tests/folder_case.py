"""What a case of a folder is, and how its files are written."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import re
from collections.abc import Mapping

import numpy as np
from PIL import Image

SIZE = (12, 16)


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture of many colours."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def mask(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A box of defective pixels."""
    marked = np.zeros(size, np.uint8)
    marked[3:7, 4 : 8 + seed % 3] = 255
    return marked


def empty(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask of nothing."""
    return np.zeros(size, np.uint8)


def ids(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask whose values are small numbers of kinds, as VisA's."""
    return mask(seed, size) // 255 * np.uint8(1 + seed % 5)


def compressed(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A mask that was saved with loss once: many levels around each outline."""
    stream = io.BytesIO()
    large = mask(seed).repeat(size[0] // 12, axis=0).repeat(size[1] // 16, axis=1)
    Image.fromarray(np.roll(large, (3, 5), (0, 1))).save(stream, "JPEG", quality=75)
    return np.asarray(Image.open(stream))


def large(seed: int) -> np.ndarray:
    """A photograph of that size."""
    return photo(seed, (48, 64))


PICTURES = {
    "large": large,
    "compressed": compressed,
    "photo": photo,
    "mask": mask,
    "empty": empty,
    "ids": ids,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A folder and what is made of it.

    Attributes:
      files: patterns such as ``good/{0-4}.png`` -> what the files are, of `PICTURES`.
      read: what `summary` says of the table; of an error, a part of its sentence.
      notes: a part of each note that the table must have.
      options: of `read_table`.
      refused: reading ends in an error.
      texts: other files -> their content.
    """

    files: Mapping[str, str]
    read: str
    notes: tuple[str, ...] = ()
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refused: bool = False
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write(root: pathlib.Path, case: Case) -> None:
    """Writes the files of a case."""
    seed = 0
    for pattern, content in case.files.items():
        for path in expanded(pattern):
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PICTURES[content](seed)).save(place)
            seed += 1
    for path, text in case.texts.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def expanded(pattern: str) -> list[str]:
    """``a{0-2}`` -> ``a0``, ``a1``, ``a2``."""
    match = re.search(r"\{(\d)-(\d)\}", pattern)
    if match is None:
        return [pattern]
    numbers = range(int(match[1]), int(match[2]) + 1)
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [path for n in numbers for path in expanded(f"{before}{n}{after}")]
