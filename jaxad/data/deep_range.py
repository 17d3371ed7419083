"""The range of values by which gray images of more than 8 bits are brought to 8 bits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import numpy as np

from jaxad.data.crop import WHOLE, Crop, cut
from jaxad.data.images import (
    FULL_RANGE,
    deep_values,
    is_deep,
    on_16bit_scale,
    only_full_range,
    opened,
    spread,
    strips,
    upright,
)
from jaxad.data.sixteen_bit import has_16bit_colour
from jaxad.run.errors import UserError, joined

PERCENTILES = (0.1, 99.9)
"""What ``range_16bit="percentiles"`` takes from all training pixels together."""

_BITS_TAG, _MOST_TAG = 258, 281


def resolve_range_16bit(
    paths: Sequence[str | os.PathLike], spec: str | int, *, crop: Crop = WHOLE
) -> tuple[float, float]:
    """Turns ``data.range_16bit`` into the numbers that every later image is read with.

    Args:
      paths: the training images. Those with at most 8 bits do not count.
      spec: ``"full"`` (0 to 65535, or the depth that the tags of the files give, see
        :func:`stated_bits`), a bit depth such as ``"12"`` (0 to 4095), or
        ``"percentiles"`` (the :data:`PERCENTILES` of all their pixels together).
      crop: the part of every image whose pixels count.

    Returns:
      ``(low, high)`` with ``low < high``; (0, 65535) when no depth is given and no image has
      more than 8 bits.

    Raises:
      UserError: the spec is none of these, a training image exceeds the bit depth or is 16-bit
        colour, which only ``"full"`` reads, or an image cannot be read.
    """
    spec = str(spec)
    bits = int(spec) if spec.isdecimal() else None
    if spec not in ("full", "percentiles") and (bits is None or not 8 <= bits <= 16):
        raise UserError(
            f"data.range_16bit must be full, percentiles or a bit depth from 8 to 16, got {spec!r}"
        )
    if spec == "full":
        stated = stated_bits(paths)
        return FULL_RANGE if stated is None else (0.0, float(2**stated - 1))
    histogram, faults = np.zeros(65536, np.int64), []
    for path in paths:
        try:
            with opened(path) as image:
                if has_16bit_colour(image) and bits != 16:
                    raise only_full_range(path)
                if not is_deep(image):
                    continue
                values = cut(deep_values(upright(image), path), crop)
        except UserError as error:
            faults.append(str(error))
            continue
        own = np.zeros(65536, np.int64)
        for rows in strips(values):
            whole = np.rint(on_16bit_scale(values[rows])).astype(np.uint16)
            own += np.bincount(whole.ravel(), minlength=65536)
        highest = int(np.flatnonzero(own)[-1])
        if bits is not None and highest >= 2**bits:
            faults.append(
                f"{path} holds the value {highest}, more than the {bits} bits of data.range_16bit"
            )
        histogram += own
    if faults:
        count = f"{len(faults)} of {len(paths)} images cannot be read: " * (len(faults) > 1)
        raise UserError(count + joined(faults))
    if bits is not None:  # of test images, where those for training have 8 bits
        return (0.0, float(2**bits - 1))
    if not histogram.any():
        return FULL_RANGE
    shares = np.cumsum(histogram) / histogram.sum()
    low, high = (float(np.searchsorted(shares, percent / 100)) for percent in PERCENTILES)
    return (low, max(high, low + 1.0))


def stated_bits(paths: Sequence[str | os.PathLike]) -> int | None:
    """The bit depth that the tags of deep TIFF files give (BitsPerSample, MaxSampleValue).

    Returns:
      9 to 15; None where some of the files, which stand for all, give none or several. Files that
      cannot be read do not count: whoever decodes them says so.
    """
    found = set()
    for path in spread(paths):
        with contextlib.suppress(UserError), opened(path, header_only=True) as image:
            if is_deep(image):
                tags = getattr(image, "tag_v2", {})
                most = int(np.max(tags.get(_MOST_TAG, FULL_RANGE[1])))
                found.add(min(int(np.max(tags.get(_BITS_TAG, 16))), most.bit_length()))
    bits = found.pop() if len(found) == 1 else 16
    return bits if 8 < bits < 16 else None
