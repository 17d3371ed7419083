"""Images that cannot be read: all of them are named at once, not the first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxad.data.threads import CHUNK, map_ahead
from jaxad.run.errors import UserError, joined


class UnreadableImages(UserError):
    """Some images cannot be read.

    Attributes:
      paths: of these.
      failures: path -> why, of all of them; empty where only the sentence is known.
    """

    def __init__(
        self, sentence: str, paths: Sequence[str] = (), failures: Mapping[str, str] | None = None
    ):
        super().__init__(sentence)
        self.paths, self.failures = tuple(paths), dict(failures or {})


def unreadable(failures: Mapping[str, str], *, of: int) -> UnreadableImages:
    """The error for images that cannot be read.

    Args:
      failures: path -> why; one at least.
      of: the number of images that were to be read.
    """
    sentences = list(failures.values())
    count = f"{len(sentences)} of {of} images cannot be read: " * (len(sentences) > 1)
    return UnreadableImages(count + joined(sentences), tuple(failures), failures)


class Search:
    """Looks for all images that cannot be read, once one of a stream could not be."""

    def __init__(self, paths: Sequence[str], read: Callable[[str], Any], *, at_once: int = CHUNK):
        """Keeps what it needs.

        Args:
          paths: of all images of the stream.
          read: reads one of them, or raises a UserError.
          at_once: images that are read at once.
        """
        self._paths, self._read, self._at_once = list(paths), read, at_once
        self._lock = threading.Lock()
        self._found: UnreadableImages | None = None

    def error(self, first: UserError) -> UserError:
        """Reads all images, once however many threads ask.

        Args:
          first: with which reading one of them failed.

        Returns:
          Names all that cannot be read; ``first`` where all can be, by now.
        """
        with self._lock:
            if self._found is None:
                asked = map_ahead(self._failure, self._paths, at_once=self._at_once)
                pairs = zip(self._paths, asked, strict=True)
                failures = {path: why for path, why in pairs if why is not None}
                if not failures:
                    return first
                self._found = unreadable(failures, of=len(self._paths))
            return self._found

    def _failure(self, path: str) -> str | None:
        try:
            self._read(path)
        except UserError as error:
            return str(error)
        return None
