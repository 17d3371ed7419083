"""How far a long piece of work is: a line with its speed and the time left, and calls of a program.

:func:`reporting_to` is how ``on_progress`` of the Python API hears of all work inside a call.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import NamedTuple

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_REWRITES = 0.2


class Update(NamedTuple):
    """What a program hears of the progress of a call.

    Attributes:
      label: what is counted, "step" or "image".
      done: of them.
      total: of them.
      seconds: since this piece of work began. One call may hold several, one after the other.
      values: of a step of training: the columns of history.csv, such as ``loss``; else empty.
    """

    label: str
    done: int
    total: int
    seconds: float
    values: Mapping[str, float] = {}


OnProgress = Callable[[Update], None]
"""Is called again and again; what it raises ends the work."""

_listener: ContextVar[OnProgress | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def reporting_to(listener: OnProgress | None) -> Iterator[None]:
    """All progress inside is told to the listener too; None changes nothing."""
    if listener is None:
        yield
        return
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Progress:
    """Prints progress to standard error, as a context manager.

    On a terminal one line is rewritten; elsewhere (files, pipes) a line is printed at most every
    few seconds, so that logs stay short. The last update is always printed; work that is over
    before the first line was due prints none, unless ``always``.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        done: int = 0,
        images_each: int = 1,
        always: bool = False,
        warm_up: bool = False,
        stream=None,
    ):
        """Starts the clock.

        Args:
          label: what is counted, "step" or "image".
          total: of them.
          done: before this work began.
          images_each: images in one of them, for the speed.
          always: print even when the work is short.
          warm_up: the work up to the first update, which carries the compilation, is left out of
            the speed until the end, and no time left is told before it; else the speed is that of
            all the time since the start.
          stream: instead of standard error.
        """
        self._label, self._total, self._first, self._images = label, total, done, images_each
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._begun = self._said = time.perf_counter()
        self._steady: tuple[float, int] | None = None
        self._always, self._open, self._any = always, False, False
        self._warm_up = warm_up

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._open:
            # What is said next stands below the line.
            self._stream.write("\n")
            self._stream.flush()

    def images_per_second(self, done: int, *, warm: bool = True) -> float:
        """Speed since the start or, with ``warm_up``, since the first update.

        Args:
          done: of the total.
          warm: False: since the start in any case.
        """
        begun, first = self._steady if self._steady and warm else (self._begun, self._first)
        return (done - first) * self._images / max(time.perf_counter() - begun, 1e-9)

    def update(self, done: int, note: str = "", values: Mapping[str, float] | None = None) -> None:
        """Says that ``done`` of the total are done, with a few words on the state.

        Args:
          done: of the total.
          note: for the line.
          values: for a program that listens.
        """
        if listener := _listener.get():
            seconds = time.perf_counter() - self._begun
            listener(Update(self._label, done, self._total, seconds, values or {}))
        over = done >= self._total
        # At the end, all the time that it took, the compilation too.
        speed = self.images_per_second(done, warm=not over)
        now = time.perf_counter()
        warming_up = self._warm_up and self._steady is None
        if warming_up:
            self._steady = (now, done)
        pause = _SECONDS_BETWEEN_REWRITES if self._live else _SECONDS_BETWEEN_LINES
        first_line = self._always and not self._any
        if not (first_line or now - self._said >= pause or (over and (self._any or self._always))):
            return
        self._said, self._any = now, True
        text = f"{self._label} {done}/{self._total}"
        text += f"  {note}" if note else ""
        text += f"  {speed:.1f} images/s"
        # The time that compilation took says nothing of the time that is left.
        if not over and not warming_up:
            left = (self._total - done) * self._images / max(speed, 1e-9)
            text += f"  {duration(left)} left"
        self._stream.write(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        self._stream.flush()
        self._open = self._live


def duration(seconds: float | int) -> str:
    """``m:ss``, or hours and minutes."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{seconds:02d}"
