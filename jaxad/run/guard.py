"""A process that watches over one of several that train together, so that its end is a sentence.

When the first of several processes dies, JAX aborts all others at once, from a thread of its own
and with a dump of its stack; nothing in the process can tell why it ends. So the command forks
before it loads JAX: the child trains, the parent relays what is printed, passes signals on, and
says how the child ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections import deque

from jaxad.run import interruption
from jaxad.run.text import say

LOST = (
    "another process of this run has ended, see what it said; the same commands go on from the "
    "last checkpoint"
)
_ABORT = re.compile(rb"Terminating process because the JAX distributed service")
_OF_THE_SERVICE = re.compile(
    rb"^[EWF]\d{4} .*(coordination_service|preemption_sync_manager|client\.h:|distributed/)"
    rb"|^Additional GRPC error information|^:UNKNOWN:|^\*{3} Check failure stack|^ +@ +0x"
)
"""Lines that JAX prints about processes it has lost; shown only where they explain an end."""
_KEPT_LINES = 200
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)
_USER_ERROR = 2


def watch() -> None:
    """Forks: the child returns, the parent stays here and ends with the child's status.

    Only for a command that was started from a shell (:func:`jaxad.run.interruption.listen`), before
    it starts threads; elsewhere, and where processes cannot be forked, nothing happens.
    """
    if not interruption.is_listening() or not hasattr(os, "fork"):
        return
    printed, to_parent = os.pipe()
    alive, held = os.pipe()
    # A signal that comes before the parent passes signals on would end it, and the child with it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        os.close(printed)
        os.close(held)
        _become_child(to_parent, alive)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os.close(to_parent)
    os.close(alive)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, frame: _send(child, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    kept = _relay(printed)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _report(status, kept)
    sys.stderr.flush()
    # Not through `main`, which has nothing to say about signals of the child.
    os._exit(_USER_ERROR if _is_lost(status, kept) else status if status >= 0 else 128 - status)


def _become_child(to_parent: int, alive: int) -> None:
    """Libraries print by way of the parent, Python directly; the child dies with the parent."""
    own = os.dup(2)
    os.dup2(to_parent, 2)
    os.close(to_parent)
    sys.stderr = os.fdopen(own, "w", buffering=1, encoding="utf-8", errors="backslashreplace")

    def wait_for_the_end_of_the_parent() -> None:
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_the_end_of_the_parent, daemon=True).start()


def _send(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _relay(printed: int) -> deque[bytes]:
    """Passes lines on until the child has ended; gives those that were held back."""
    kept: deque[bytes] = deque(maxlen=_KEPT_LINES)
    with os.fdopen(printed, "rb") as lines:
        for line in lines:
            if _OF_THE_SERVICE.search(line) or _ABORT.search(line):
                kept.append(line)
            else:
                os.write(2, line)
    return kept


def _is_lost(status: int, kept: deque[bytes]) -> bool:
    return status == -signal.SIGABRT and any(map(_ABORT.search, kept))


def _report(status: int, kept: deque[bytes]) -> None:
    if _is_lost(status, kept):
        say(f"jaxad: {LOST}", file=sys.stderr)
    elif status < 0:
        # Of any other death they are all that there is to read.
        for line in kept:
            os.write(2, line)
        name = signal.Signals(-status).name
        goes_on = "the same command goes on from its last checkpoint"
        say(f"jaxad: the process was ended by {name}; {goes_on}", file=sys.stderr)
