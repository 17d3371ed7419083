"""The files of a selection: what was judged on, and what each candidate gave.

Each is written whole or not at all, held against its schema when it is read, and carries a digest
of its content; what a candidate gave also names the trial that it belongs to.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jaxad.run import schema
from jaxad.run.errors import UserError
from jaxad.run.files import plain, write_text
from jaxad.run.folder import RunFolder
from jaxad.run.schema import COUNT, NUMBER, PLAIN, POSITIVE, TEXT, Schema, list_of, object_of

_SCORES = object_of(list_of(list_of(NUMBER)))
"""Name of a score -> split -> image."""

TRIAL = Schema(
    keys={
        "root": TEXT,
        "keys": object_of(PLAIN),
        "seed": schema.WHOLE,
        "image_size": list_of(COUNT, 2),
        "splits": list_of(object_of(PLAIN)),
        "bytes": object_of(COUNT),
        "sha256": object_of(TEXT),
    },
    advice="restore it from a copy, or use a new --workdir",
)
RESULT = Schema(
    keys={
        "trial": TEXT,
        "candidate": TEXT,
        "config": TEXT,
        "overrides": object_of(TEXT),
        "image_size": list_of(COUNT, 2),
        "primary_map": TEXT,
        "primary_score": TEXT,
        "maps": list_of(TEXT),
        "seconds": POSITIVE,
        "expected_seconds": POSITIVE,
        "milliseconds": POSITIVE,
        "good": _SCORES,
        "drawn": _SCORES,
        "pixel_auroc": object_of(NUMBER),
    },
    more={"settings": TEXT},
    advice="remove it, and the candidate is judged again",
)
STOPPED = Schema(
    keys={"trial": TEXT, "seconds": POSITIVE},
    advice="remove it, and the candidate is tried again",
)


class SelectionFolder:
    """Names the files of one selection.

    Attributes:
      path: the folder (``--workdir``).
    """

    def __init__(self, workdir: str | os.PathLike):
        self.path = pathlib.Path(os.path.expanduser(workdir))

    trial = property(lambda self: self.path / "trial.json")
    results = property(lambda self: self.path / "results")
    report = property(lambda self: self.path / "report.html")
    ranking = property(lambda self: self.path / "ranking.csv")

    def result(self, candidate: str) -> pathlib.Path:
        """What a candidate gave, by its name."""
        return self.results / f"{_as_file(candidate)}.json"

    def stopped(self, candidate: str) -> pathlib.Path:
        """That a candidate was ended since it would exceed the budget."""
        return self.results / f"{_as_file(candidate)}.stopped.json"

    def run(self, candidate: str, split: int) -> RunFolder:
        """The run of a candidate without the images of one split."""
        return RunFolder(self.path / "runs" / _as_file(candidate) / str(split))


def _as_file(candidate: str) -> str:
    """A name as that of a file; the end of a long one tells more."""
    return re.sub(r"[^\w.+=,-]+", "-", candidate)[-100:].strip("-.")


def write_record(path: pathlib.Path, kind: Schema, values: Mapping[str, Any]) -> None:
    """Writes a file of the selection whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    write_text(path, kind.write(plain(dict(values))), durable=True)


def read_record(path: pathlib.Path, kind: Schema) -> dict[str, Any] | None:
    """What a file of the selection holds; None where there is none.

    Raises:
      UserError: it is damaged, or of another version of jaxad.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return kind.read(text, str(path))


def digest_of(values: Mapping[str, Any]) -> str:
    """By which results name their trial, and the settings of their candidate."""
    return schema.digest_of(plain(dict(values)))
