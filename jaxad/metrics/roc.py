"""ROC and precision-recall metrics of scores against binary labels, exact and for raw scores.

A larger score means more anomalous; label 1 is anomalous. Scores may have any range and any real
dtype: only their order counts, and they are compared as they are, never squashed or binned.
Labels and scores may have any shape, the same for both; equal scores are one threshold.
Every function raises `UndefinedMetric` where the metric has no value (one class only, no samples)
and ``ValueError`` for labels other than 0 and 1, scores with NaN or infinity, or shapes that
differ. Sums are float64.

Cost: O(n log n) time for one sort by value, and about one copy of the scores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from jaxad.metrics import _counts
from jaxad.metrics._curves import area_up_to, corners
from jaxad.metrics._inputs import as_labels_scores


def roc_curve(
    labels: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Receiver operating characteristic at every distinct score.

    Equal to scikit-learn's ``roc_curve(..., drop_intermediate=False)``.

    Args:
      labels: 0 or 1.
      scores: as many, raw.

    Returns:
      ``(fpr, tpr, thresholds)``: the rates in [0, 1] of samples with a score >= threshold,
      thresholds falling from infinity (nothing is called anomalous).

    Raises:
      UndefinedMetric: only one class is there.

    Examples:
      >>> from jaxad import metrics
      >>> fpr, tpr, thresholds = metrics.roc_curve([0, 0, 1, 1], [1.0, 4.0, 3.0, 8.0])
      >>> fpr.tolist(), tpr.tolist()
      ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
      >>> thresholds.tolist()
      [inf, 8.0, 4.0, 3.0, 1.0]
    """
    tp, fp, thresholds = _counts_at_every_score(labels, scores)
    return (
        np.concatenate([[0.0], fp / fp[-1]]),
        np.concatenate([[0.0], tp / tp[-1]]),
        np.concatenate([[np.inf], thresholds]),
    )


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve, in [0, 1]; 0.5 is chance.

    It is the probability that an anomalous sample scores higher than a good one, ties counting
    half (Mann-Whitney U over the number of pairs). Equal to scikit-learn's ``roc_auc_score``.

    Args:
      labels: 0 or 1.
      scores: as many, raw.

    Raises:
      UndefinedMetric: only one class is there.

    Examples:
      >>> from jaxad import metrics
      >>> metrics.auroc([0, 0, 1, 1], [1.0, 4.0, 3.0, 8.0])
      0.75
      >>> metrics.auroc([0, 0, 1, 1], [31.0, 34.0, 33.0, 38.0])  # only the order counts
      0.75
      >>> metrics.auroc([1, 1], [0.3, 0.4])
      Traceback (most recent call last):
      ...
      jaxad.metrics.UndefinedMetric: all 2 labels are anomalous
    """
    return _counts.auroc_of(_count(labels, scores))


def precision_recall_curve(
    labels: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], Float[np.ndarray, " k"]]:
    """Precision and recall at every distinct score.

    Equal to scikit-learn's function of that name.

    Args:
      labels: 0 or 1.
      scores: as many, raw.

    Returns:
      ``(precision, recall, thresholds)``: thresholds rising; precision and recall in [0, 1] of
      samples with a score >= threshold, and a last point, precision 1 at recall 0, which has no
      threshold.

    Raises:
      UndefinedMetric: only one class is there.

    Examples:
      >>> from jaxad import metrics
      >>> precision, recall, _ = metrics.precision_recall_curve([0, 1, 0, 1], [1, 2, 3, 4])
      >>> precision.round(3).tolist(), recall.tolist()
      ([0.5, 0.667, 0.5, 1.0, 1.0], [1.0, 1.0, 0.5, 0.5, 0.0])
    """
    tp, fp, thresholds = _counts_at_every_score(labels, scores)
    return (
        np.concatenate([(tp / (tp + fp))[::-1], [1.0]]),
        np.concatenate([(tp / tp[-1])[::-1], [0.0]]),
        thresholds[::-1],
    )


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision, in (0, 1]: the area under the precision-recall steps.

    The sum over thresholds of (recall step) x precision, without interpolation. Equal to
    scikit-learn's ``average_precision_score``. Chance is the share of anomalous samples.

    Args:
      labels: 0 or 1.
      scores: as many, raw.

    Raises:
      UndefinedMetric: only one class is there.

    Examples:
      >>> from jaxad import metrics
      >>> round(metrics.average_precision([0, 1, 0, 1], [1, 2, 3, 4]), 4)
      0.8333
    """
    return _counts.average_precision_of(_count(labels, scores))


def pr_auc_trapezoid(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision-recall curve joined by straight lines, in [0, 1].

    Equal to scikit-learn's ``precision_recall_curve`` followed by ``auc``: the metric which
    several papers print as PR-AUC. It is not `average_precision`, and tends to flatter.

    Args:
      labels: 0 or 1.
      scores: as many, raw.

    Raises:
      UndefinedMetric: only one class is there.

    Examples:
      >>> from jaxad import metrics
      >>> round(metrics.pr_auc_trapezoid([0, 1, 0, 1], [1, 2, 3, 4]), 4)
      0.7917
    """
    return _counts.pr_auc_trapezoid_of(_count(labels, scores))


def best_f1(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float, float]:
    """The best F1 that any threshold reaches on these data, and that threshold.

    The threshold is chosen with the labels at hand, so no threshold fixed beforehand can reach
    more; never use it to decide on new images.

    Args:
      labels: 0 or 1.
      scores: as many, raw.

    Returns:
      ``(f1, threshold)``: F1 in (0, 1] of calling scores >= threshold anomalous. Of equally good
      thresholds the highest.

    Raises:
      UndefinedMetric: only one class is there.

    Examples:
      >>> from jaxad import metrics
      >>> metrics.best_f1([0, 1, 0, 1], [1, 2, 3, 4])
      (0.8, 2.0)
    """
    return _counts.best_f1_of(_count(labels, scores))


def fpr_at_tpr(labels: npt.ArrayLike, scores: npt.ArrayLike, *, tpr: float = 0.95) -> float:
    """False-positive rate at the highest threshold that finds a share of the anomalous samples.

    The "FPR95" of the literature for ``tpr=0.95``: a step of the ROC curve, not interpolated.

    Args:
      labels: 0 or 1.
      scores: as many, raw.
      tpr: the true-positive rate to reach, in (0, 1].

    Raises:
      UndefinedMetric: only one class is there.

    Examples:
      >>> from jaxad import metrics
      >>> metrics.fpr_at_tpr([0, 0, 1, 1], [1.0, 4.0, 3.0, 8.0])
      0.5
      >>> metrics.fpr_at_tpr([0, 0, 1, 1], [1.0, 4.0, 3.0, 8.0], tpr=0.5)
      0.0
    """
    _check_rate("tpr", tpr)
    return _counts.fpr_at_tpr_of(_count(labels, scores), tpr)


def partial_auroc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, *, max_fpr: float, standardise: bool = True
) -> float:
    """Area under the ROC curve up to a false-positive rate, interpolated linearly there.

    Equal to scikit-learn's ``roc_auc_score(max_fpr=...)`` while standardised.

    Args:
      labels: 0 or 1.
      scores: as many, raw.
      max_fpr: where the area ends, in (0, 1].
      standardise: rescale so that 0.5 is chance and 1 perfect (McClish 1989); else the mean
        true-positive rate over [0, max_fpr], whose chance is ``max_fpr / 2``.

    Raises:
      UndefinedMetric: only one class is there.

    References:
      D. K. McClish, "Analyzing a portion of the ROC curve", Medical Decision Making 9, 1989.

    Examples:
      >>> from jaxad import metrics
      >>> labels, scores = [0, 0, 1, 1], [1.0, 4.0, 3.0, 8.0]
      >>> metrics.partial_auroc(labels, scores, max_fpr=0.5, standardise=False)
      0.5
      >>> round(metrics.partial_auroc(labels, scores, max_fpr=0.5), 4)
      0.6667
    """
    _check_rate("max_fpr", max_fpr)
    counts = _count(labels, scores)
    roc = corners(counts, counts.tp / counts.positives, counts.negatives)
    mean = area_up_to(*roc, max_fpr)
    chance = 0.5 * max_fpr
    return 0.5 * (1.0 + (mean - chance) / (1.0 - chance)) if standardise else mean


def _check_rate(name: str, rate: float) -> None:
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"{name} must be a rate in (0, 1], not {rate}")


def _count(labels: npt.ArrayLike, scores: npt.ArrayLike) -> _counts.Counts:
    anomalous, values = as_labels_scores(labels, scores)
    positive, negative = values[anomalous], values[~anomalous]
    _counts.require_both_classes(positive.size, negative.size, "labels")
    return _counts.count(np.sort(positive), [np.sort(negative)])


def _counts_at_every_score(
    labels: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    anomalous, values = as_labels_scores(labels, scores)
    positives = int(np.count_nonzero(anomalous))
    _counts.require_both_classes(positives, anomalous.size - positives, "labels")
    order = np.argsort(values)[::-1]
    values = values[order]
    # The last of a run of equal scores has counted the whole run.
    last = np.append(np.flatnonzero(values[1:] != values[:-1]), values.size - 1)
    tp = np.cumsum(anomalous[order], dtype=np.int64)[last]
    return tp, last + 1 - tp, values[last].astype(np.float64)
