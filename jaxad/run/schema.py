"""What the JSON files of a run folder may hold; nothing of one is used before it is checked.

A file carries its version and a digest of all its other content, so that damage which leaves
valid JSON behind (another digit of a threshold) is found too. Files from before there were
digests are held against the schema alone; whoever edits a file by hand removes its digest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from jaxad.run.errors import UserError

VERSION = "schema"
DIGEST = "content_sha256"
_SHOWN = 60
DEEPEST = 30
"""Lists and objects in one another; no file of jaxad or of others that it reads has as many."""


class Kind(NamedTuple):
    """What a value may be.

    Attributes:
      words: for an error: "a finite number".
      fits: whether a value is one.
    """

    words: str
    fits: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    largest = sys.float_info.max
    return type(value) in (int, float) and -largest <= value <= largest


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool) or is_number(value)


TEXT = Kind("text", lambda value: isinstance(value, str))
NUMBER = Kind("a finite number", is_number)
POSITIVE = Kind("a number from 0", lambda value: is_number(value) and value >= 0)
SHARE = Kind("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
WHOLE = Kind("a whole number", lambda value: type(value) is int and is_number(value))
COUNT = Kind("a whole number from 0", lambda value: WHOLE.fits(value) and value >= 0)
PLAIN = Kind("made of text, finite numbers, true, false and null", _is_plain)


def optional(kind: Kind) -> Kind:
    """The kind, or null."""
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.fits(value))


def list_of(kind: Kind, length: int | None = None) -> Kind:
    """A list of values of one kind, of any length or of one."""
    return Kind(
        f"a list (each {kind.words})" if length is None else f"{length} values (each {kind.words})",
        lambda value: (
            isinstance(value, list)
            and length in (None, len(value))
            and all(map(kind.fits, value))
        ),
    )  # fmt: skip


def object_of(kind: Kind) -> Kind:
    """An object with any keys and values of one kind."""
    return Kind(
        f"an object (each value {kind.words})",
        lambda value: isinstance(value, dict) and all(map(kind.fits, value.values())),
    )


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What one JSON file holds.

    Attributes:
      keys: those that it always has.
      more: those that it may have.
      others: what keys with any other name hold; None: there are none.
      version: that is written and read; a file without one is of version 1.
      advice: what to do about a damaged file, a clause that ends the sentence.
    """

    keys: Mapping[str, Kind]
    more: Mapping[str, Kind] = field(default_factory=dict)
    others: Kind | None = None
    version: int = 1
    advice: str

    def write(self, values: Mapping[str, Any]) -> str:
        """The file's text, with version and digest.

        Args:
          values: plain, as JSON gives them back.
        """
        return json.dumps(with_digest({VERSION: self.version, **values}), indent=2) + "\n"

    def read(self, text: str, source: str) -> dict[str, Any]:
        """The values in a file's text, without version and digest.

        Args:
          text: of the file.
          source: the file, for messages.

        Raises:
          UserError: it is no JSON, of another version, lacks a key, has an unknown one, holds a
            value of another kind, or is not what was written.
        """
        try:
            values = parse(text, parse_constant=_refuse_constant)
            if not isinstance(values, dict):
                raise self._damaged(source, "it holds no object")
            digest, version = values.pop(DIGEST, None), values.get(VERSION, 1)
            now = digest_of(values)
        except ValueError as error:
            raise self._damaged(source, str(error)) from None
        if type(version) is not int or version != self.version:
            raise UserError(
                f"{source} has schema {_shown(version)}, this jaxad reads {self.version}; use the "
                "version of jaxad that wrote it (a run's is in its environment.json)"
            )
        if digest is not None and digest != now:
            raise self._damaged(
                source,
                "its content is not what was written; if it was edited on purpose, remove the line "
                f'"{DIGEST}"',
            )
        values.pop(VERSION, None)
        self._check(values, source)
        return values

    def _check(self, values: Mapping[str, Any], source: str) -> None:
        known = {**self.keys, **self.more}
        for key, value in values.items():
            kind = known.get(key, self.others)
            if kind is None:
                raise self._damaged(source, f"it holds an unknown key {_shown(key)}")
            if not kind.fits(value):
                raise self._damaged(source, f"{_shown(key)} is {_shown(value)}, not {kind.words}")
        for key in self.keys:
            if key not in values:
                raise self._damaged(source, f"it lacks {key!r}")

    def _damaged(self, source: str, how: str) -> UserError:
        return UserError(f"{source} is damaged ({how}); {self.advice}")


def parse(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """JSON's values; the one place that reads JSON which was not written a moment ago.

    Args:
      text: of a file.
      parse_constant: what NaN and infinities become; None takes them.

    Raises:
      ValueError: it is none, or lists and objects lie more than :data:`DEEPEST` in one another:
        Python, and what uses the values, would run out of its stack.
    """
    deep = ValueError(f"lists and objects lie more than {DEEPEST} deep in one another")
    try:
        values = json.loads(text, parse_constant=parse_constant)
    except RecursionError:
        raise deep from None
    level = [values]
    for _ in range(DEEPEST):
        inside = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [each for one in inside if isinstance(one, list) for each in one]
        if not level:
            return values
    if any(isinstance(one, dict | list) for one in level):
        raise deep
    return values


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values and, as another one, their digest."""
    return {**values, DIGEST: digest_of(values)}


def digest_of(values: Mapping[str, Any]) -> str:
    """The digest of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_AGAIN = "restore it from a copy, or train into a new workdir"

CONFIG = Schema(
    keys={},
    more={
        "variants": TEXT,
        "seed": WHOLE,
        **dict.fromkeys(("data", "augment", "model", "train", "evaluate"), object_of(PLAIN)),
    },
    advice=_AGAIN,
)
DATA = Schema(
    keys={
        "name": TEXT,
        "root": TEXT,
        "category": TEXT,
        "notes": list_of(TEXT),
        "range_16bit": Kind(
            "two finite numbers, the lower first",
            lambda value: list_of(NUMBER, 2).fits(value) and value[0] < value[1],
        ),
        "training": list_of(TEXT),
        "holdout": list_of(TEXT),
    },
    more={
        "folds": list_of(COUNT),
        "bytes": object_of(COUNT),
        "sha256": object_of(TEXT),
        "pixels": object_of(TEXT),
        "photograph": list_of(COUNT, 2),
    },
    advice=_AGAIN,
)
ENVIRONMENT = Schema(
    keys={
        "versions": object_of(TEXT),
        "platform": TEXT,
        "processor": TEXT,
        "devices": list_of(object_of(TEXT)),
        "commit": optional(TEXT),
        "seed": WHOLE,
        "command": list_of(TEXT),
    },
    more={"weights": object_of(PLAIN), "processes": COUNT},
    advice=_AGAIN,
)
TIMING = Schema(
    keys={"train_seconds": POSITIVE, "steps": COUNT},
    more={"history": TEXT, "of_steps": COUNT},
    advice="restore it from a copy, or remove it to count the time anew",
)
CALIBRATION = Schema(
    keys={
        "checkpoint": COUNT,
        "model": object_of(PLAIN),
        "primary_map": TEXT,
        "primary_score": TEXT,
        "smoothing": POSITIVE,
        "false_positive_rate": SHARE,
        "pixel_false_positive_rate": SHARE,
        "held_out": COUNT,
        "smallest_false_positive_rate": optional(SHARE),
        "image_threshold": optional(NUMBER),
        "pixel_threshold": optional(NUMBER),
        "heat_map_low": optional(NUMBER),
        "heat_map_high": optional(NUMBER),
        "reason": optional(TEXT),
    },
    more={
        "method": optional(TEXT),
        "promised_false_positive_rate": optional(SHARE),
        "promised_interval": optional(list_of(SHARE, 2)),
        "held_out_rejected": optional(COUNT),
        "calibrated_threshold": optional(NUMBER),
        "set_by_hand": TEXT,
        "region_threshold": optional(NUMBER),
        "region_mask": optional(TEXT),
        "region_masks_sha256": TEXT,
        "coarse": optional(TEXT),
        "joined": optional(object_of(object_of(list_of(NUMBER, 2)))),
        "odd_limit": optional(NUMBER),
        "odd_images": list_of(object_of(PLAIN)),
        "trained_on": optional(object_of(list_of(NUMBER, 2))),
    },
    advice="remove it, and the next evaluation computes it again",
)
METRICS = Schema(
    keys={
        "checkpoint": COUNT,
        "primary_map": TEXT,
        "primary_score": TEXT,
        **dict.fromkeys(
            ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro"), optional(NUMBER)
        ),
        "maps": object_of(object_of(PLAIN)),
        "undefined": object_of(TEXT),
    },
    more={
        "protocol": TEXT,
        "protocol_figures": object_of(PLAIN),
        "protocol_maps": object_of(object_of(PLAIN)),
        "image_threshold": optional(NUMBER),
        "pixel_threshold": optional(NUMBER),
    },
    others=PLAIN,
    advice="run `jaxad evaluate` again",
)
OUTCOME = Schema(
    keys={"error": TEXT, "time": POSITIVE},
    more={"config": TEXT, "category": TEXT, "seed": WHOLE},
    advice="remove it, and the cell is run again",
)
