"""Saturation thresholds of defects: how much of one has to be found (MVTec LOCO AD).

A file beside the images (``defects_config.json``) gives each kind of defect the pixel value with
which masks draw it, and a threshold: a number of pixels, or a share of the defect's area. Every
file of masks holds one defect. What is measured with them: ``jaxad.metrics.spro``.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import ImageOps

from jaxad.data.images import image_dimensions, opened
from jaxad.data.table import Sample, Saturation
from jaxad.run import schema
from jaxad.run.errors import UserError


class Region(NamedTuple):
    """One annotated defect.

    Attributes:
      mask: ``(h, w)`` of the whole image.
      saturation: of its kind.
    """

    mask: Bool[np.ndarray, "h w"]
    saturation: Saturation


def read_saturations(base: pathlib.Path, file: str) -> dict[int, Saturation]:
    """Reads the thresholds of a category.

    Args:
      base: its folder.
      file: relative path; ``""`` for data sets without thresholds.

    Returns:
      Pixel value -> saturation; empty where the file is not there.

    Raises:
      UserError: it holds something else.
    """
    place = base / file
    if not file or not place.is_file():
        return {}
    try:
        rows = schema.parse(place.read_text(encoding="utf-8"))
        return dict(map(_entry, rows))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{place} is no list of defects with pixel_value, saturation_threshold and "
            f"relative_saturation ({error}); restore it, or remove it to go without AU-sPRO"
        ) from error


def _entry(row: Mapping[str, Any]) -> tuple[int, Saturation]:
    value, threshold, relative = (
        row[key] for key in ("pixel_value", "saturation_threshold", "relative_saturation")
    )
    most = 1 if relative else np.inf
    if type(value) is not int or type(relative) is not bool or not 0 < threshold <= most:
        raise ValueError(f"{dict(row)}")
    return value, Saturation(str(row.get("defect_name", value)), float(threshold), relative)


def read_regions(sample: Sample, saturations: Mapping[int, Saturation]) -> list[Region]:
    """Reads the defects of an image, one from each of its masks; none of one that marks nothing.

    Raises:
      UserError: a mask cannot be read, has another size than its image or several values, or one
        for which there is no threshold.
    """
    files = (sample.mask,) if isinstance(sample.mask, str) else sample.mask or ()
    size = image_dimensions(sample.path)
    regions = []
    for file in files:
        with opened(file) as image:
            values = np.asarray(ImageOps.exif_transpose(image))
        if values.shape != size:
            raise UserError(f"the mask {file} is no gray image of the size of {sample.path}")
        drawn = np.unique(values[values > 0])
        if not drawn.size:
            continue
        if drawn.size > 1 or int(drawn[0]) not in saturations:
            known = ", ".join(map(str, sorted(saturations)))
            raise UserError(
                f"the mask {file} draws the values {', '.join(map(str, drawn[:5]))}; with "
                f"saturation thresholds each holds one defect, of a value among {known}"
            )
        regions.append(Region(values > 0, saturations[int(drawn[0])]))
    return regions
