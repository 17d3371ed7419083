"""ROC, precision-recall and PRO curves of pixels as exact polylines, and the areas under them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxad.metrics import _counts

Curves = dict[str, tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]
"""Name -> its two axes."""


class PixelCurve(NamedTuple):
    """All thresholds of a set of pixels, from which every area and curve follows.

    Attributes:
      counts: at the k distinct scores of defect pixels, the highest first.
      overlap: PRO at each of them: the mean covered share of the components.
      normal: number of all normal pixels, the denominator of the false-positive rate. Where only
        the highest were counted the curves end at their share; PRO is flat there.
    """

    counts: _counts.Counts
    overlap: Float[np.ndarray, " k"]
    normal: int

    def aupro(self, limit: float) -> float:
        """Area under the PRO curve up to a false-positive rate, divided by it."""
        return area_up_to(*corners(self.counts, self.overlap, self.normal), limit)

    def ranking_metrics(self, limit: float, tpr: float = 0.95) -> dict[str, float]:
        """The pooled metrics which no defect pixel that scores higher can make worse.

        Args:
          limit: false-positive rate to which AUPRO integrates.
          tpr: recall at which the false-positive rate is taken.
        """
        return {
            "pixel_auroc": _counts.auroc_of(self.counts),
            "aupro": self.aupro(limit),
            "pixel_f1_max": _counts.best_f1_of(self.counts)[0],
            "pixel_fpr95": _counts.fpr_at_tpr_of(self.counts, tpr),
        }

    def curves(self) -> Curves:
        """Corners of the curves: ``"roc"``, ``"pr"`` (recall first) and ``"pro"``."""
        recall = self.counts.tp / self.counts.positives
        precision = self.counts.tp / (self.counts.tp + self.counts.fp)
        return {
            "roc": corners(self.counts, recall, self.normal),
            "pr": (np.append(0.0, recall), np.append(1.0, precision)),
            "pro": corners(self.counts, self.overlap, self.normal),
        }


def corners(
    counts: _counts.Counts, height: Float[np.ndarray, " k"], normal: int
) -> tuple[Float[np.ndarray, " corners"], Float[np.ndarray, " corners"]]:
    """Corners of a curve over the false-positive rate: (0, 0), two for each score, the end.

    Args:
      counts: at the k distinct defect scores.
      height: of the curve at each of them (PRO or recall).
      normal: number of all normal pixels.
    """
    before = np.concatenate([[0.0], height])[:-1]
    heights = np.stack([before, height], axis=1).reshape(-1)
    false = np.stack([counts.fp_above, counts.fp], axis=1).reshape(-1)
    fpr = np.concatenate([[0], false, [counts.negatives]]) / normal
    return fpr, np.concatenate([[0.0], heights, [height[-1] if height.size else 0.0]])


def area_up_to(x: Float[np.ndarray, " k"], y: Float[np.ndarray, " k"], limit: float) -> float:
    """Mean height of a polyline over [0, limit], x rising from 0 to at least the limit."""
    end = int(np.searchsorted(x, limit, side="left"))  # x[end - 1] < limit <= x[end]
    share = (limit - x[end - 1]) / (x[end] - x[end - 1])
    at_limit = y[end - 1] + share * (y[end] - y[end - 1])
    area = np.trapezoid(np.append(y[:end], at_limit), np.append(x[:end], limit))
    return min(float(area / limit), 1.0)
