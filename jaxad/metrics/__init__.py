"""Exact metrics of anomaly detection and localisation, on NumPy arrays and raw scores.

A larger score means more anomalous; label 1 and mask values above 0 mean anomalous. Scores keep
their range and dtype: only their order counts. A metric that has no value for the data raises
`UndefinedMetric`; the summaries report None and the reason.
"""

from jaxad.metrics._inputs import UndefinedMetric
from jaxad.metrics.pro import aupro, pro_curve
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
from jaxad.metrics.streaming import Accumulator
from jaxad.metrics.summary import evaluate_maps, image_metrics, pixel_metrics

__all__ = [
    "Accumulator",
    "UndefinedMetric",
    "aupro",
    "auroc",
    "average_precision",
    "best_f1",
    "evaluate_maps",
    "fpr_at_tpr",
    "image_metrics",
    "partial_auroc",
    "pixel_metrics",
    "pr_auc_trapezoid",
    "precision_recall_curve",
    "pro_curve",
    "roc_curve",
]
