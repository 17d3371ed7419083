"""One line on how far a long piece of work is: done, speed, time left."""

from __future__ import annotations

import sys
import time

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_REWRITES = 0.2


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
        stream=None,
    ):
        """Starts the clock.

        Args:
          label: what is counted, "step" or "image".
          total: of them.
          done: before this work began.
          images_each: images in one of them, for the speed.
          always: print even when the work is short.
          stream: instead of standard error.
        """
        self._label, self._total, self._first, self._images = label, total, done, images_each
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._begun = self._said = time.perf_counter()
        self._steady: tuple[float, int] | None = None
        self._always, self._open, self._any = always, False, False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._open:
            # What is said next stands below the line.
            self._stream.write("\n")
            self._stream.flush()

    def images_per_second(self, done: int) -> float:
        """Speed since the first update, which carries the compilation; 0 before it."""
        begun, first = self._steady or (self._begun, self._first)
        return (done - first) * self._images / max(time.perf_counter() - begun, 1e-9)

    def _mean_speed(self, done: int) -> float:
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        return (done - self._first) * self._images / seconds

    def update(self, done: int, note: str = "") -> None:
        """Says that ``done`` of the total are done, with a few words on the state."""
        over = done >= self._total
        # At the end, all the time that it took, the compilation too.
        speed = self._mean_speed(done) if over else self.images_per_second(done)
        now = time.perf_counter()
        if self._steady is None:
            self._steady = (now, done)
        pause = _SECONDS_BETWEEN_REWRITES if self._live else _SECONDS_BETWEEN_LINES
        first_line = self._always and not self._any
        if not (first_line or now - self._said >= pause or (over and (self._any or self._always))):
            return
        self._said, self._any = now, True
        text = f"{self._label} {done}/{self._total}"
        text += f"  {note}" if note else ""
        text += f"  {speed:.1f} images/s"
        if not over:
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
