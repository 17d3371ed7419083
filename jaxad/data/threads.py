"""Files are decoded by threads: Pillow decodes and resizes without the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 64
"""Items that are worked on at once, at most."""


def decoding_threads() -> ThreadPoolExecutor:
    """As many threads as there are processor cores, at most 16."""
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1))


def map_ahead(
    function: Callable[[Item], Result], items: Sequence[Item], *, at_once: int = CHUNK
) -> Iterator[Result]:
    """Yields ``function(item)`` in order; up to ``at_once`` are made at once, never all."""
    with decoding_threads() as pool:
        for start in range(0, len(items), at_once):
            yield from list(pool.map(function, items[start : start + at_once]))
