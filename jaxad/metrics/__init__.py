"""Metrics of anomaly detection and localisation, exact, on NumPy arrays and raw scores.

They need neither JAX nor a model: maps of any tool can be scored. `evaluate_maps` gives all
metrics at once, `Accumulator` the same of more maps than fit into memory.

A larger score means more anomalous; label 1 and mask values above 0 mean anomalous. Scores keep
their range and dtype: only their order counts. A metric that has no value for the data raises
`UndefinedMetric`; the summaries report None and the reason.
"""

from jaxad.metrics._inputs import UndefinedMetric
from jaxad.metrics.bootstrap import bootstrap_difference, bootstrap_image_metrics
from jaxad.metrics.pimo import aupimo
from jaxad.metrics.pro import aupro, pro_curve
from jaxad.metrics.regions import region_recall, threshold_at_fpr
from jaxad.metrics.roc import (
    auroc,
    average_precision,
    best_f1,
    fpr_at_tpr,
    partial_auroc,
    pr_auc_trapezoid,
    precision_recall_curve,
    roc_curve,
)
from jaxad.metrics.spro import SaturatedOverlap, au_spro, saturation_area
from jaxad.metrics.streaming import Accumulator
from jaxad.metrics.summary import evaluate_maps, image_metrics, pixel_curves, pixel_metrics

__all__ = [
    "Accumulator",
    "SaturatedOverlap",
    "UndefinedMetric",
    "au_spro",
    "aupimo",
    "aupro",
    "auroc",
    "average_precision",
    "best_f1",
    "bootstrap_difference",
    "bootstrap_image_metrics",
    "evaluate_maps",
    "fpr_at_tpr",
    "image_metrics",
    "partial_auroc",
    "pixel_curves",
    "pixel_metrics",
    "pr_auc_trapezoid",
    "precision_recall_curve",
    "pro_curve",
    "region_recall",
    "roc_curve",
    "saturation_area",
    "threshold_at_fpr",
]
