"""Signals that end a command (Ctrl-C, a scheduler): none is lost, and training keeps a checkpoint.

Python raises KeyboardInterrupt wherever the program happens to be. Where that is a callback of a
library, or an import of one in C, it is hushed or becomes another error; so the signal is noted as
well, and long loops ask for it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator

_came: list[int] = []
"""Signals so far."""
_patient: list[bool] = []
"""Not empty where a loop will end by itself soon after a SIGTERM."""
_SAME_SECONDS = 1.0
"""A signal that comes again so soon is the same: job schedulers and wrappers both pass it on."""
_last: list[tuple[int, float]] = []
"""The last signal, and when it came."""


def listen() -> None:
    """Notes SIGINT and SIGTERM from now on; for the command line, in the main thread.

    Both raise KeyboardInterrupt at once, but for a first SIGTERM within :func:`ending_by_itself`.
    """
    _install()
    before = sys.unraisablehook

    def hook(failure: sys.UnraisableHookArgs) -> None:
        if isinstance(failure.exc_value, KeyboardInterrupt):
            # Hushed where it was raised: raised again, until it comes through.
            _last.clear()
            main, number = threading.main_thread().ident, came() or signal.SIGINT
            threading.Timer(0.01, signal.pthread_kill, [main, number]).start()
        else:
            before(failure)

    sys.unraisablehook = hook


def _install() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def listen_again() -> None:
    """Takes the signals back from a library that has put a handler of its own in place, in C."""
    if is_listening():  # as far as Python knows
        _install()


def is_listening() -> bool:
    """Whether this process is a command that was started from a shell."""
    return signal.getsignal(signal.SIGTERM) is _handle


def adopt(number: int) -> None:
    """Ends as if a signal had come that another process of the same run was sent."""
    if not _came:
        _came.append(number)


def _handle(number: int, frame: types.FrameType | None) -> None:
    now = time.monotonic()
    if _last and _last[-1][0] == number and now - _last[-1][1] < _SAME_SECONDS:
        return
    _last[:] = [(number, now)]
    first = number not in _came
    _came.append(number)
    if not (number == signal.SIGTERM and first and _patient):
        raise KeyboardInterrupt


def came() -> int | None:
    """The signal that is to end this command; None where there was none."""
    return _came[-1] if _came else None


def check() -> None:
    """To be called in long loops.

    Raises:
      KeyboardInterrupt: a signal came, and what it raised got lost.
    """
    waits = _patient and _came == [signal.SIGTERM]
    if _came and not waits:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ending_by_itself() -> Iterator[None]:
    """A first SIGTERM inside raises nothing: the loop asks :func:`came`, tidies up and ends."""
    _patient.append(True)
    try:
        yield
    finally:
        _patient.pop()
