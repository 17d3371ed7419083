"""Pictures that are there more than once: in training and test, good and defective, or in training.

They are found by keys: digests of what files hold, of pixels at the size of the file, or of pixels
as a model sees them. Files are read for it only where their sizes are equal.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxad.data.digests import sha256_of
from jaxad.data.files import split_member
from jaxad.data.shards import shard_digest
from jaxad.data.table import Sample, SampleTable
from jaxad.data.threads import map_ahead

_SHOWN = 3


class Repeats(NamedTuple):
    """Groups of samples that are one picture.

    Attributes:
      leaked: some are for training (or held out), others for testing.
      contradicting: some are good, others defective.
      trained: several are for training.
    """

    leaked: tuple[tuple[Sample, ...], ...]
    contradicting: tuple[tuple[Sample, ...], ...]
    trained: tuple[tuple[Sample, ...], ...]

    def test_images(self) -> int:
        """How many test images are training images too."""
        return sum(sample.split == "test" for group in self.leaked for sample in group)

    def notes(self, table: SampleTable, how: str) -> list[str]:
        """What has to be known of them.

        Args:
          table: that the samples are of.
          how: they are equal, such as ``"byte for byte"``.
        """
        notes = []
        for what, groups in (
            ("in training and test", self.leaked),
            ("good and defective", self.contradicting),
            ("more than once in training", self.trained),
        ):
            if groups:
                first = ", ".join(table.relative(s) for s in groups[0][:_SHOWN])
                notes.append(f"pictures {what}, {how}: {len(groups)}, first {first}")
        return notes


def find_repeats(keys: Mapping[Sample, str | bytes]) -> Repeats:
    """Groups samples of equal keys, in their order.

    Args:
      keys: of those that are compared.
    """
    same: dict[str | bytes, list[Sample]] = defaultdict(list)
    for sample, key in keys.items():
        same[key].append(sample)
    groups = [tuple(some) for some in same.values() if len(some) > 1]
    in_test = [{s.split == "test" for s in some} for some in groups]
    return Repeats(
        tuple(some for some, tests in zip(groups, in_test, strict=True) if len(tests) == 2),
        tuple(some for some in groups if len({s.label for s in some}) == 2),
        tuple(some for some in groups if sum(s.split != "test" for s in some) > 1),
    )


def keys_of_files(
    samples: Iterable[Sample], known: Mapping[str, str] | None = None
) -> dict[Sample, str]:
    """Keys by what files hold, of samples that may be equal to another.

    Only files of one size are read. Shards have keys of their own, by their pixels; other files of
    many images have none.

    Args:
      samples: any. Files that are gone have no key: whoever decodes them says so.
      known: path -> digest in hexadecimal digits of files that need not be read again.
    """
    known = known or {}
    keys: dict[Sample, str] = {}
    sizes: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        member = split_member(sample.path)
        if member is not None:
            if digest := shard_digest(*member):
                keys[sample] = digest
            continue
        try:
            sizes[os.stat(sample.path).st_size].append(sample)
        except OSError:
            continue
    alike = [sample for some in sizes.values() if len(some) > 1 for sample in some]
    read = [sample for sample in alike if sample.path not in known]
    digests = dict(zip(read, map_ahead(_digest_or_none, read), strict=True))
    for sample in alike:
        if digest := known.get(sample.path) or digests[sample]:
            keys[sample] = digest
    return keys


def _digest_or_none(sample: Sample) -> str | None:
    try:
        return sha256_of(sample.path)
    except OSError:
        return None


def pixel_digest(image: UInt8[np.ndarray, "h w c"]) -> str:
    """A digest of a decoded image, in hexadecimal digits."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()


def joined_digest(digests: Iterable[str]) -> str:
    """One digest of several in their order: those of the tiles of a photograph."""
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def pixel_digests(images: UInt8[np.ndarray, "n h w c"]) -> Sequence[str]:
    """Those of many."""
    return [pixel_digest(image) for image in images]
