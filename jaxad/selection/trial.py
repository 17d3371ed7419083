"""What all candidates are judged on: good images left out, and defects drawn on these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxad.data.defects.draw import draw_defects
from jaxad.data.defects.foreground import find_foregrounds
from jaxad.data.defects.kinds import KINDS
from jaxad.data.digests import check_unchanged
from jaxad.data.images import resize, spread
from jaxad.data.masks import resize_mask
from jaxad.run.config import load_settings, with_absolute_root
from jaxad.run.errors import UserError
from jaxad.run.lists import listed_paths
from jaxad.run.settings import Settings
from jaxad.selection.records import TRIAL, SelectionFolder, digest_of, read_record, write_record
from jaxad.training.inputs import open_table, prepare_inputs

FEWEST = 12
"""Good images: with fewer, three at most would judge."""
FEW = 80
"""Good images below which several splits are taken: one alone leaves too few images out."""
SPLITS = 3
SHARES = (0.3, 0.25)
"""Left out of few images, and of many at most."""
MOST_LEFT_OUT = 50
MOST_IMAGES = 300
"""Good images that are drawn from the folder, where there are more."""
PER_KIND = 16
"""Defects of a kind in a split, at most one an image."""
FEWEST_SEEN = 0.25
"""Share of a kind's defects that have to be visible for it to count."""
FEWEST_KINDS = 3

OWN_KEYS = ("data.image_size", "data.holdout", "data.calibration", "data.folds", "data.tiles",
            "data.tile_models", "data.stream", "data.limit", "data.limit_seed")  # fmt: skip
"""That selecting sets itself."""


class Split(NamedTuple):
    """Images that the models of a split have not seen.

    Attributes:
      seed: of the models' config; it says which images are left out.
      names: of these.
      good: the images.
      base: for each defect the row of ``good`` that it is drawn on.
      kinds: of the defects.
      drawn: the images with defects.
      masks: where these are.
    """

    seed: int
    names: tuple[str, ...]
    good: UInt8[np.ndarray, "m h w c"]
    base: Int[np.ndarray, " d"]
    kinds: tuple[str, ...]
    drawn: UInt8[np.ndarray, "d h w c"]
    masks: Bool[np.ndarray, "d h w"]

    def at(self, size: tuple[int, int]) -> Split:
        """The same at the size of a model: good images and defects come the same way."""
        if self.good.shape[1:3] == tuple(size):
            return self
        good, drawn = (np.stack([resize(x, size) for x in of]) for of in (self.good, self.drawn))
        masks = np.stack([resize_mask(mask, size) for mask in self.masks])
        return self._replace(good=good, drawn=drawn, masks=masks)


class Trial(NamedTuple):
    """What all candidates are judged on.

    Attributes:
      digest: of the record of it.
      root: of the images.
      keys: of every candidate's config.
      images: good ones in all.
      splits: each judges models of its own.
      faint: kind -> in how many of its drawings no defect could be seen, of kinds left out.
    """

    digest: str
    root: str
    keys: Mapping[str, Any]
    images: int
    splits: tuple[Split, ...]
    faint: Mapping[str, str]


def make_trial(
    folder: SelectionFolder, keys: Mapping[str, Any], *, image_size: tuple[int, int], seed: int
) -> Trial:
    """Leaves images out, draws defects on them, and writes down which; the same when called again.

    Args:
      folder: of the selection.
      keys: ``data.*`` of every candidate's config.
      image_size: at which defects are drawn: the largest of the candidates.
      seed: of the images left out and of the defects.

    Raises:
      UserError: there are no images or too few of them, defects cannot be placed, or the folder
        was begun with other images or other settings.
    """
    settings = _settings(keys, image_size, seed)
    table = open_table(settings.data)
    apart = sum(sample.split == "validation" for sample in table.train_good())
    excluded = len(listed_paths(settings.data.exclude, key="data.exclude"))
    count = len(table.train_good()) - excluded
    if not len(table.train_good()):
        raise UserError(
            f"{table.root} holds no good training image; put them into train/good "
            "(or a folder named good)"
        )
    _check_enough(count, table.root)
    limit = MOST_IMAGES if count - apart > MOST_IMAGES else 0
    count = limit + apart if limit else count
    few = count < FEW and not apart
    share = SHARES[0] if few else min(SHARES[1], MOST_LEFT_OUT / count)
    own = {
        "data.holdout": share,
        "data.calibration": "held_out",
        "data.limit": limit,
        # What is decoded is found again by every candidate of the same size, and by a second call.
        "data.memory_limit_mb": 0,
    }
    keys = {**keys, **own}
    splits: list[Split] = []
    digests: dict[str, Any] = {}
    for number in range(SPLITS if few else 1):
        one = _settings(keys, image_size, seed + number)
        split, record = _split(one)
        splits.append(split)
        digests |= {key: digests.get(key, {}) | record[key] for key in ("bytes", "sha256")}
    splits, faint = _visible(splits, table.root)
    record = {
        "root": table.root,
        "keys": keys,
        "seed": seed,
        "image_size": list(image_size),
        "splits": [
            {
                "seed": split.seed,
                "left_out": list(split.names),
                "drawn_on": split.base.tolist(),
                "kinds": list(split.kinds),
            }
            for split in splits
        ],
        **digests,
    }
    _same_as_before(folder, record)
    return Trial(digest_of(record), table.root, keys, count, tuple(splits), faint)


def _settings(keys: Mapping[str, Any], image_size: tuple[int, int], seed: int) -> Settings:
    """As a closed form has them; the keys of the data alone are read."""
    own = {"data.image_size": image_size, "seed": seed}
    return with_absolute_root(load_settings("pca", {**own, **keys}))


def _check_enough(count: int, root: str) -> None:
    if count < FEWEST:
        raise UserError(
            f"jaxad select leaves a part of the good images out to judge with, and needs {FEWEST} "
            f"of them at least; {root} has {count}"
        )


def _split(settings: Settings) -> tuple[Split, dict[str, Any]]:
    """Images left out with defects on them, and the record of all images."""
    inputs = prepare_inputs(settings)
    _check_enough(len(inputs.train) + len(inputs.holdout), inputs.record["root"])
    rows = spread(list(range(len(inputs.holdout))), MOST_LEFT_OUT)
    good = np.asarray(inputs.holdout)[rows]
    names = tuple(inputs.record["holdout"][i] for i in rows)
    number = min(PER_KIND, len(good))
    # Each kind on other images, as far as there are others.
    base = np.concatenate(
        [np.sort((np.arange(number) + k * number) % len(good)) for k in range(len(KINDS))]
    )
    kinds = tuple(kind for kind in KINDS for _ in range(number))
    foregrounds = find_foregrounds(good)
    drawn, masks = draw_defects(good[base], foregrounds[base], kinds, seed=settings.seed)
    return Split(settings.seed, names, good, base, kinds, drawn, masks), inputs.record


def _visible(splits: list[Split], root: str) -> tuple[list[Split], dict[str, str]]:
    """The defects that can be seen, of kinds that mostly can; and the other kinds.

    Raises:
      UserError: there are hardly any.
    """
    seen = {kind: [0, 0] for kind in KINDS}
    for split in splits:
        for kind, mask in zip(split.kinds, split.masks, strict=True):
            seen[kind][0] += bool(mask.any())
            seen[kind][1] += 1
    kept = {kind for kind, (n, of) in seen.items() if n >= max(2, FEWEST_SEEN * of)}
    faint = {kind: f"{of - n} of {of}" for kind, (n, of) in seen.items() if kind not in kept}
    if len(kept) < FEWEST_KINDS:
        raise UserError(
            f"defects drawn on the good images of {root} could be seen for {len(kept)} of "
            f"{len(KINDS)} kinds, and {FEWEST_KINDS} are needed; look at them with jaxad data "
            f"defects --root={root} --sheet=FILE: images need an object, or a surface that is not "
            "of one colour"
        )
    shown = []
    for split in splits:
        rows = [
            i
            for i, (kind, mask) in enumerate(zip(split.kinds, split.masks, strict=True))
            if kind in kept and mask.any()
        ]
        shown.append(
            split._replace(
                base=split.base[rows],
                kinds=tuple(split.kinds[i] for i in rows),
                drawn=split.drawn[rows],
                masks=split.masks[rows],
            )
        )
    return shown, faint


def _same_as_before(folder: SelectionFolder, record: dict[str, Any]) -> None:
    """Writes the record, or holds it against the one that is there.

    Raises:
      UserError: the folder was begun with other images or settings.
    """
    before = read_record(folder.trial, TRIAL)
    if before is None:
        write_record(folder.trial, TRIAL, record)
        return
    _check_parts(folder, before, record, ("root", "seed", "image_size", "keys"))
    check_unchanged(before, record, run=folder.path)
    _check_parts(folder, before, record, ("splits",))


_DIFFERENCES = {
    "root": "images of another folder",
    "seed": "another seed",
    "image_size": "models of other image sizes",
    "keys": "other keys of data",
    "splits": "other images",
}


def _check_parts(
    folder: SelectionFolder, before: dict[str, Any], now: dict[str, Any], parts: tuple[str, ...]
) -> None:
    for part in parts:
        # Lists and tuples are the same thing once they have been through JSON.
        if digest_of({part: before[part]}) != digest_of({part: now[part]}):
            raise UserError(
                f"{folder.path} holds a selection with {_DIFFERENCES[part]}; use a new --workdir"
            )
