"""AU-sPRO of a data set with saturation thresholds, for evaluations and for maps in files.

As MVTec LOCO AD publishes it: each kind of defect against the good images, and the mean over the
kinds, to a false-positive rate of 0.05.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxad import metrics
from jaxad.data.crop import WHOLE, Crop, cut
from jaxad.data.masks import shrink_mask
from jaxad.data.saturation import read_regions
from jaxad.data.table import Sample, SampleTable

LIMIT = 0.05
"""False-positive rate to which the area goes."""


class SaturatedFigures:
    """Takes maps one by one; nothing of a data set without saturation thresholds.

    Args:
      table: of the data set.
      pixels: of all maps together, or more.
      crop: the part of every image that the maps are of.
    """

    def __init__(self, table: SampleTable, *, pixels: int, crop: Crop = WHOLE):
        self._table, self._crop = table, crop
        kinds = table.kinds() if table.saturations else ()
        self._overlaps = {
            kind: metrics.SaturatedOverlap(pixels=pixels, limit=LIMIT) for kind in kinds
        }

    def update(self, samples: Sequence[Sample], maps: Sequence[Float[np.ndarray, "_ _"]]) -> None:
        """Adds images; anomalous ones without a mask are left out.

        Raises:
          UserError: a mask cannot be read, or has no saturation threshold.
        """
        if not self._overlaps:
            return
        for sample, values in zip(samples, maps, strict=True):
            if not sample.label:
                for overlap in self._overlaps.values():
                    overlap.update(values, [], [])
            elif sample.mask is not None:
                self._overlaps[sample.defect].update(values, *self._regions(sample, values.shape))

    def added_to(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """What `jaxad.metrics.evaluate_maps` gave, with ``au_spro`` of each kind and their mean.

        Args:
          result: of the same maps, with ``per_defect``.

        Returns:
          The same without thresholds; else with ``au_spro``, ``au_spro_limit``,
          ``per_defect.KIND.au_spro`` and reasons under ``undefined`` where there is no value.
        """
        rows, undefined = dict(result["per_defect"]), dict(result["undefined"])
        if not self._overlaps:
            return dict(result)
        for kind, overlap in self._overlaps.items():
            try:
                value = overlap.compute()
            except metrics.UndefinedMetric as reason:
                value, undefined[f"per_defect.{kind}.au_spro"] = None, str(reason)
            rows[kind] = {**rows[kind], "au_spro": value}
        known = [row["au_spro"] for row in rows.values()]
        if None in known:
            undefined["au_spro"] = "a kind of defect has none, and it is the mean over the kinds"
        return {
            **result,
            "au_spro": None if None in known else float(np.mean(known)),
            "au_spro_limit": LIMIT,
            "per_defect": rows,
            "undefined": undefined,
        }

    def _regions(self, sample: Sample, size: tuple[int, int]) -> tuple[list[np.ndarray], list[int]]:
        """The defects of an image at the size of its map, and their saturation areas.

        A number of pixels is scaled as the image is; a share stays one.
        """
        masks, areas = [], []
        for region in read_regions(sample, self._table.saturations):
            part = cut(region.mask, self._crop)
            mask = shrink_mask(part, size).mask
            if mask is None or not mask.any():
                continue  # it lies outside the crop
            _, threshold, relative = region.saturation
            scale = 1.0 if relative else mask.size / part.size
            area = int(np.count_nonzero(mask))
            areas.append(metrics.saturation_area(area, threshold * scale, relative=relative))
            masks.append(mask)
        return masks, areas
