"""One run in several processes (hosts): start, barriers that pass errors on, broadcasts, exit.

Every process runs the same program and decodes its own rows of every batch. The first one alone
touches the run folder; what it reads there, it broadcasts. An error in one process becomes the
error of all at the next barrier, so that none waits for one that has gone. With one process
everything here is free.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxad.run import interruption
from jaxad.run.errors import UserError
from jaxad.run.guard import LOST
from jaxad.run.text import say

T = TypeVar("T")

_MESSAGE_BYTES = 2000
"""Of an error that is passed on; what is longer is cut."""
_SHUTDOWN_SECONDS = 60
_FLAG = b"!"
_SECONDS_TO_LEAVE = 5.0
"""In which a process that cannot go on says so and ends; then it is ended."""
# What a step that others take part in says when one of them is not there any more.
_LOST = re.compile(r"gloo|nccl|coordination|heartbeat|connection|peer", re.IGNORECASE)


class EndedTogether(KeyboardInterrupt):
    """All processes have agreed to end here: none is lost, and JAX's last barrier is passed."""


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the processes of a run; before anything asks JAX for its devices.

    Args:
      coordinator: ``HOST:PORT`` of the first process; empty where the cluster tells it (Slurm,
        Open MPI, TPU pods, GKE), as :func:`jax.distributed.initialize` finds out.
      processes: how many there are; with a coordinator.
      process: which of them this is, from 0; with a coordinator.

    Raises:
      UserError: the numbers contradict each other, or the others cannot be reached.
    """
    options: dict[str, Any] = {}
    if coordinator or processes or process >= 0:
        if not coordinator or not 0 <= process < processes:
            raise UserError(
                "several processes need all of --coordinator=HOST:PORT, --processes=N and "
                f"--process=I with I from 0 to N - 1; got {coordinator!r}, {processes}, {process}"
            )
        options = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    try:
        jax.distributed.initialize(**options, shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
        jax.devices()
        # JAX's preemption service has taken SIGTERM, and would hush it.
        interruption.listen_again()
    except KeyboardInterrupt:
        _leave_soon(128 + (interruption.came() or signal.SIGINT))
        raise
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the processes of this run did not come together ({reason}); check that all of them "
            "were started, with the same --coordinator, and give --processes and --process where "
            "the cluster cannot be recognised"
        ) from error


def count() -> int:
    """How many processes there are."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def log(text: str) -> None:
    """Prints to standard error, in the first process alone."""
    if is_first():
        say(text, file=sys.stderr)


@contextlib.contextmanager
def abort_on_failure() -> Iterator[None]:
    """Keeps a process that fails from waiting for others which it has lost or leaves behind.

    Raises:
      UserError: a step failed because another process has ended.
    """
    try:
        yield
    except (UserError, EndedTogether):
        raise  # passed on at a barrier: all processes end with it
    except KeyboardInterrupt:
        _skip_shutdown_barrier(128 + (interruption.came() or signal.SIGINT))
        raise
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # collectives raise both
        lost = count() > 1 and _LOST.search(str(error))
        _skip_shutdown_barrier(2 if lost else 1)
        if not lost:
            raise
        raise UserError(LOST) from error
    except BaseException:
        _skip_shutdown_barrier(1)
        raise


def _skip_shutdown_barrier(status: int) -> None:
    """Ends this process without JAX's last barrier, which waits for all others, then aborts."""
    if count() > 1:
        _leave_soon(status)


def _leave_soon(status: int) -> None:
    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # The last to be registered is the first to run.
    atexit.register(leave)
    # Python waits for threads before that, and one of Orbax may wait for the others too.
    timer = threading.Timer(_SECONDS_TO_LEAVE, leave)
    timer.daemon = True
    timer.start()


class DeferredErrors:
    """Holds an error of this process back until the next barrier, where all processes raise it."""

    def __init__(self) -> None:
        self._error: UserError | None = None

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Holds back an error raised inside; a single process raises it at once."""
        try:
            yield
        except UserError as error:
            if count() == 1:
                raise
            self._error = self._error or error

    def replacing(self, items: Iterator[T], placeholder: Callable[[], T]) -> Iterator[T]:
        """Yields the items; after an error, placeholders for ever.

        Until the next barrier the other processes wait for the part of this one in every step.
        """
        with self.deferring():
            yield from items
        while True:
            yield placeholder()

    def barrier(self, flag: bool = False) -> bool:
        """Waits for all processes.

        Returns:
          Whether the flag was set in any of them.

        Raises:
          UserError: the error held back here, or one of another process.
        """
        if count() == 1:
            return flag
        others = _all_gather((_FLAG if flag else b" ") + str(self._error or "").encode())
        if self._error:
            raise self._error
        for number, other in enumerate(others):
            if other[1:]:
                raise UserError(f"process {number}: {other[1:].decode(errors='replace')}")
        return any(other[:1] == _FLAG for other in others)


def on_all(work: Callable[[], T]) -> T:
    """Calls a function in every process, with a barrier behind it.

    Returns:
      What it returned here.

    Raises:
      UserError: it failed in any process.
    """
    errors, results = DeferredErrors(), list[T]()
    with errors.deferring():
        results.append(work())
    errors.barrier()
    return results[0]


def check_same(**values: str) -> None:
    """Checks that every process was given the same.

    Args:
      **values: what it is -> its text, such as the config.

    Raises:
      UserError: names what differs, and where.
    """
    if count() == 1:
        return
    for name, text in values.items():
        found = _all_gather(hashlib.sha256(text.encode()).digest())
        other = next((i for i, each in enumerate(found) if each != found[0]), None)
        if other is not None:
            raise UserError(
                f"process {other} has {name.replace('_', ' ')} that differ from those of process "
                "0; start all processes with the same command, on the same data"
            )


def broadcast_from_first(tree: T) -> T:
    """The values that a tree has in the first process, to the bit.

    Args:
      tree: of arrays; those of the other processes have the same shapes and dtypes.

    Returns:
      The tree, as numpy arrays; as it is with one process.
    """
    if count() == 1:
        return tree
    leaves = jax.tree.map(np.asarray, jax.device_get(tree))
    # As bytes: JAX broadcasts by adding zeros, which is exact for integers alone.
    content = multihost_utils.broadcast_one_to_all(
        jax.tree.map(lambda leaf: np.frombuffer(leaf.tobytes(), np.uint8), leaves)
    )
    return jax.tree.map(
        lambda leaf, found: np.frombuffer(found.tobytes(), leaf.dtype).reshape(leaf.shape),
        leaves,
        content,
    )


def _all_gather(text: bytes) -> list[bytes]:
    """What every process brought, without trailing zero bytes."""
    text = text[:_MESSAGE_BYTES]
    padded = np.frombuffer(text.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    found = multihost_utils.process_allgather(padded).reshape(count(), -1)
    return [row.tobytes().rstrip(b"\0") for row in found]
