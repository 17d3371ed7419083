"""The published data sets that are read by name: what each needs, from where, and its numbers.

The facts are in ``catalogue.toml`` beside this file.
"""

from __future__ import annotations

import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.data.published.counts import Counts, Published
from jaxad.data.published.forms import Form
from jaxad.run.errors import UserError, did_you_mean


def _one_class(
    names: Sequence[str], train: Sequence[int], test: Sequence[int], size: Sequence[int]
) -> dict[str, Counts]:
    """One class is normal; the test images of the others are anomalous, their class the kind."""
    return {
        normal: Counts(
            train={"good": count},
            test={"good" if c == normal else c: n for c, n in zip(names, test, strict=True)},
            size=(size[0], size[1]),
        )
        for normal, count in zip(names, train, strict=True)
    }


def _counts(size: Sequence[int] | None = None, **fields: Any) -> Counts:
    return Counts(size=None if size is None else (size[0], size[1]), **fields)


def _published(
    classes: Mapping[str, Any] | None = None,
    categories: Mapping[str, Mapping[str, Any]] | None = None,
    form: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Published:
    parts = {name: _counts(**fields) for name, fields in (categories or {}).items()}
    return Published(
        categories=_one_class(**classes) if classes else parts, form=Form(**(form or {})), **facts
    )


CATALOGUE: Mapping[str, Published] = {
    name: _published(**facts)
    for name, facts in tomllib.loads(
        pathlib.Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    ).items()
}
"""``data.name`` -> what is published."""


def published_categories(name: str) -> tuple[str, ...]:
    """Returns what ``data.category`` may be for a published data set; ``""`` is left out.

    Raises:
      UserError: there is none of this name.
    """
    if name not in CATALOGUE:
        raise UserError(f"no published data set {name!r}{did_you_mean(name, CATALOGUE)}")
    return tuple(category for category in CATALOGUE[name].categories if category)
