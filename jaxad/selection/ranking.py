"""The ranking of what candidates gave, and how sure it is.

The figure of a score is the mean over kinds of defect of the AUROC of drawn defects against good
images, so that a kind which all find, or none, moves no other. A defect is not compared with the
image that it is drawn on: beside that one, nearly any change stands out. The intervals come from
a bootstrap over the images left out (a good image and all defects on it are drawn together) and
over the kinds, since nobody knows how like these the user's own will be. Every resample is the
same for all scores, so what is hard for all cancels out of their differences (B. Efron, R. J.
Tibshirani, "An Introduction to the Bootstrap", 1993, section 8.3).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jaxad.selection.trial import Split

RESAMPLES = 1000
CONFIDENCE = 0.95


class Row(NamedTuple):
    """One way to judge images: a candidate with one of its scores.

    Attributes:
      order: of the candidate, from 0.
      own: whether the score is that of its config.
      candidate: its name.
      config: of it.
      overrides: keys of the config.
      image_size: height and width.
      map: that is shown with the score.
      score: its name.
      kinds: kind of drawn defect -> AUROC against good images.
      value: their mean.
      low: end of its interval.
      high: likewise.
      behind: how much lower it is than the first of the ranking.
      behind_low: end of its interval; up to 0 where the first one is not clearly better.
      behind_high: likewise.
      pixel_auroc: of the map, mean over kinds.
      seconds: that its candidate took.
      milliseconds: of an image, in batches.
    """

    order: int
    own: bool
    candidate: str
    config: str
    overrides: Mapping[str, str]
    image_size: tuple[int, int]
    map: str
    score: str
    kinds: Mapping[str, float]
    value: float
    low: float
    high: float
    behind: float
    behind_low: float
    behind_high: float
    pixel_auroc: float
    seconds: float
    milliseconds: float

    @property
    def clearly_behind(self) -> bool:
        """Whether the first one is better with confidence."""
        return self.behind_low > 0


class Draws(NamedTuple):
    """Resamples that all scores share.

    Attributes:
      images: for each split how often each image counts, the first time once.
      kinds: how often each kind counts.
    """

    images: list[Float[np.ndarray, "r _"]]
    kinds: Float[np.ndarray, "r k"]


def kinds_of(splits: Sequence[Split]) -> list[str]:
    """The kinds of defect of a trial, in order."""
    return list(dict.fromkeys(kind for split in splits for kind in split.kinds))


def draw(splits: Sequence[Split], *, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """Draws how often images and kinds count; the first row is the data themselves.

    Args:
      splits: of the trial.
      resamples: rows after the first.
      seed: the same one gives the same draws.
    """
    rng = np.random.default_rng(seed)

    def counts(n: int) -> Float[np.ndarray, "r n"]:
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        return np.concatenate([np.ones((1, n)), drawn]).astype(np.float64)

    images = [counts(len(split.good)) for split in splits]
    return Draws(images, counts(len(kinds_of(splits))))


def aurocs(
    good: Sequence[Sequence[float]],
    drawn: Sequence[Sequence[float]],
    splits: Sequence[Split],
    draws: Draws,
) -> Float[np.ndarray, "r k"]:
    """AUROC of each kind in each resample, mean over the splits.

    Args:
      good: a score of the good images, split by split.
      drawn: of the images with defects.
      splits: which these are.
      draws: of :func:`draw`.

    Returns:
      One column per kind; 0.5 where a resample holds no pair of it.
    """
    names = kinds_of(splits)
    shape = (len(draws.kinds), len(names))
    total, parts = np.zeros(shape), np.zeros(shape)
    for split, of_good, of_drawn, weights in zip(splits, good, drawn, draws.images, strict=True):
        other = np.arange(len(of_good))[:, None] != split.base[None]
        wins = _wins(np.asarray(of_good), np.asarray(of_drawn)) * other
        of_each = weights[:, split.base]
        kinds = np.array([names.index(kind) for kind in split.kinds])
        member = (kinds[:, None] == np.arange(len(names))).astype(np.float64)
        pairs = ((weights @ other) * of_each) @ member
        won = ((weights @ wins) * of_each) @ member
        total += np.divide(won, pairs, out=np.zeros(shape), where=pairs > 0)
        parts += pairs > 0
    return np.where(parts > 0, total / np.maximum(parts, 1), 0.5)


def _wins(
    good: Shaped[np.ndarray, " m"], drawn: Shaped[np.ndarray, " d"]
) -> Float[np.ndarray, "m d"]:
    """1 where the defect scores higher, a half where equal."""
    return (drawn[None] > good[:, None]) + 0.5 * (drawn[None] == good[:, None])


def rank(
    results: Sequence[Mapping[str, Any]],
    splits: Sequence[Split],
    *,
    flattered: Container[str] = (),
    seed: int = 0,
) -> list[Row]:
    """Ranks every score of every candidate, the best first.

    Args:
      results: what candidates gave, in the order in which equal ones are named.
      splits: what they were judged on.
      flattered: names of candidates that were trained on drawn defects: these cannot choose among
        their maps, some of which find nothing else, so that the score of the config stands alone.
      seed: of the bootstrap.
    """
    draws = draw(splits, seed=seed)
    names = kinds_of(splits)
    entries = []
    for order, result in enumerate(results):
        scores = _ordered(result)
        for score in scores[:1] if result["candidate"] in flattered else scores:
            each = aurocs(result["good"][score], result["drawn"][score], splits, draws)
            means = (each * draws.kinds).sum(axis=1) / draws.kinds.sum(axis=1)
            entries.append((order, result, score, each[0], means))
    entries.sort(key=lambda entry: -round(float(entry[-1][0]), 9))
    best = entries[0][-1]
    rows = []
    for order, result, score, each, means in entries:
        low, high = _interval(means[1:])
        behind_low, behind_high = _interval((best - means)[1:])
        shown = score.rpartition(":")[0]
        shown = shown if shown in result["maps"] else result["primary_map"]
        rows.append(
            Row(
                order=order,
                own=score == result["primary_score"],
                candidate=result["candidate"],
                config=result["config"],
                overrides=result["overrides"],
                image_size=(result["image_size"][0], result["image_size"][1]),
                map=shown,
                score=score,
                kinds=dict(zip(names, each.tolist(), strict=True)),
                value=float(means[0]),
                low=low,
                high=high,
                behind=float(best[0] - means[0]),
                behind_low=behind_low,
                behind_high=behind_high,
                pixel_auroc=result["pixel_auroc"][shown],
                seconds=result["seconds"],
                milliseconds=result["milliseconds"],
            )
        )
    return rows


def _ordered(result: Mapping[str, Any]) -> list[str]:
    """Its scores, the one of its config first."""
    first = result["primary_score"]
    return [first, *(name for name in result["good"] if name != first)]


def _interval(values: Float[np.ndarray, " r"]) -> tuple[float, float]:
    ends = (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)
    low, high = np.quantile(values, ends)
    return float(low), float(high)


def choose(rows: Sequence[Row]) -> Row:
    """The row to go on with: of the models that are not clearly behind, the first in usual order.

    Where drawn defects cannot tell models apart, what did best on data with real ones is the
    better guess, and that is the order of the candidates. Of this model's scores the highest is
    taken.

    Args:
      rows: of :func:`rank`.
    """
    usual = min(row.order for row in rows if not row.clearly_behind)
    return next(row for row in rows if row.order == usual)


def reasons_for(chosen: Row, rows: Sequence[Row], *, flattered: Container[str] = ()) -> list[str]:
    """Why a row was chosen, in sentences.

    Args:
      chosen: of :func:`choose`.
      rows: of :func:`rank`.
      flattered: names of candidates that were trained on drawn defects.
    """
    first, models = rows[0], len({row.candidate for row in rows})
    reasons = [
        f"Of {len(rows)} scores of {models} model{'s' * (models > 1)}, {first.score} of "
        f"{first.candidate} tells drawn defects from good images best: AUROC {first.value:.3f}, "
        "mean over "
        f"{len(first.kinds)} kinds."
    ]
    if chosen is not first:
        reasons.append(
            f"{chosen.score} of {chosen.candidate} has {chosen.value:.3f}, which is not clearly "
            "less. Where drawn defects cannot tell, the model is taken that usually does better on "
            "data with real ones."
        )
    hardest = min(chosen.kinds, key=lambda kind: chosen.kinds[kind])
    reasons.append(f"The kind that it finds worst is {hardest}: {chosen.kinds[hardest]:.3f}.")
    near = [row for row in rows if not row.clearly_behind]
    reasons += [
        f"{name} is trained on defects that are drawn like these, on other images, so its figures "
        "flatter it beside models that never saw one."
        for name in dict.fromkeys(row.candidate for row in near)
        if name in flattered
    ]
    fast = min(near, key=lambda row: row.milliseconds)
    if fast.milliseconds < chosen.milliseconds / 2:
        reasons.append(
            f"{fast.candidate} ({fast.score}) is not clearly behind either and takes "
            f"{fast.milliseconds:.0f} ms an image instead of {chosen.milliseconds:.0f}."
        )
    return reasons
