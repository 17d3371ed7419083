"""The files that the evaluation server of MVTec AD 2 reads, as its public utilities lay them out.

For every image ``anomaly_images/CATEGORY/SPLIT/NAME.tiff``, the map in float16, and
``anomaly_images_thresholded/CATEGORY/SPLIT/NAME.png``, 0 and 255, at the size of the image.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tifffile
from PIL import Image

from jaxad.evaluation.names import SUBMITTED
from jaxad.evaluation.prediction import Prediction
from jaxad.run.errors import UserError
from jaxad.run.files import writing

_LARGEST = float(np.finfo(np.float16).max)


class Submission:
    """Writes both files of images.

    Maps are divided by the run's pixel threshold, so that half precision resolves them whatever
    their range; only their order counts.

    Args:
      paths: of all images.
      category: of the run.
      pixel_threshold: of the run.
      reason: why it is None.

    Raises:
      UserError: there is no threshold, or two images would be written to one place.
    """

    def __init__(
        self,
        paths: Sequence[str],
        category: str,
        pixel_threshold: float | None,
        reason: str | None,
    ):
        if pixel_threshold is None:
            raise UserError(
                f"--submission needs a pixel threshold, and this run has none: {reason}"
            )
        self._scale = abs(pixel_threshold) or 1.0
        self._stems = {path: f"{category}/{_below_split(path)}" for path in paths}
        places: dict[str, str] = {}
        for path, stem in self._stems.items():
            if stem in places:
                raise UserError(
                    f"{places[stem]} and {path} would both be submitted as {stem}; give --input "
                    "the images of one category"
                )
            places[stem] = path

    def write(
        self, path: str, prediction: Prediction, place: Callable[[str], pathlib.Path]
    ) -> dict[str, str]:
        """Writes the files of an image.

        Args:
          path: of the image.
          prediction: of it; it could be read.
          place: a path in the output folder -> where that is.

        Returns:
          ``"submitted_map"`` and ``"submitted_mask"``, in the output folder.

        Raises:
          UserError: a file cannot be written.
        """
        names = [f"{folder}/{self._stems[path]}" for folder in SUBMITTED]
        maps, masks = f"{names[0]}.tiff", f"{names[1]}.png"
        scaled = np.clip(prediction.map / self._scale, -_LARGEST, _LARGEST)
        with writing(place(maps)) as temporary:
            tifffile.imwrite(temporary, scaled.astype(np.float16))
        mask = prediction.mask
        assert mask is not None  # there is a threshold
        with writing(place(masks)) as temporary:
            Image.fromarray(mask * np.uint8(255)).save(temporary, format="PNG")
        return {"submitted_map": maps, "submitted_mask": masks}


def _below_split(path: str) -> str:
    """``SPLIT/NAME``, or ``SPLIT/KIND/NAME``, from the last folder whose name begins with test."""
    *folders, name = pathlib.PurePath(os.path.abspath(path)).with_suffix("").parts
    tests = [i for i, folder in enumerate(folders) if folder.lower().startswith("test")]
    return "/".join([*(folders[tests[-1] :] if tests else ("test",)), name])
