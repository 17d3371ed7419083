"""Held-out good images: what thresholds and calibration are measured on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def split_holdout(
    n: int, *, share: float, seed: int
) -> tuple[Int[np.ndarray, " n_train"], Int[np.ndarray, " n_holdout"]]:
    """Splits ``n`` rows at random into rows to train on and rows to hold out.

    Args:
      n: number of rows.
      share: held-out share in [0, 1]. ``round(n * share)`` rows are held out, at least one when
        ``share > 0`` and ``n > 1``, and all of them only when the share is 1.
      seed: the split depends on ``(n, share, seed)`` only; with the same seed a smaller share
        holds out a subset of what a larger one does.

    Returns:
      ``(train, holdout)``: sorted int64 row numbers, disjoint, together ``0 .. n - 1``.

    Raises:
      ValueError: the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the held-out share must be in [0, 1], got {share}")
    count = min(max(round(n * share), 1), n - 1) if share > 0 and n > 1 else 0
    if share == 1:
        count = n
    order = random_order(n, seed, 0)
    return np.sort(order[count:]), np.sort(order[:count])


def split_folds(n: int, *, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """Deals ``n`` rows at random into folds whose sizes differ by at most one.

    Args:
      n: number of rows.
      folds: how many; with more than there are rows, each row is a fold of its own.
      seed: the folds depend on ``(n, folds, seed)`` only.

    Returns:
      The fold of each row, from 0.
    """
    numbers = np.empty(n, np.int64)
    numbers[random_order(n, seed, 0)] = np.arange(n) % min(folds, max(n, 1))
    return numbers


def random_order(n: int, seed: int, stream: int) -> Int[np.ndarray, " n"]:
    """Returns the permutation of ``0 .. n - 1`` that belongs to ``(seed, stream)``.

    It sorts raw Philox output, whose stream NumPy keeps fixed over its versions, which it does
    not promise for ``Generator.permutation``.
    """
    bits = np.random.Philox(np.random.SeedSequence([seed % 2**64, stream]))
    return np.argsort(bits.random_raw(n), kind="stable")
