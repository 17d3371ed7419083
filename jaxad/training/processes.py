"""One run in several processes (hosts): who writes, what all agree on, how all end together.

Every process runs the same program and decodes its own rows of every batch. The first one alone
touches the run folder; what it reads there, it tells the others. A mistake in one process becomes
the mistake of all at the next moment at which all of them meet, so that none waits for one that
has gone. With one process everything here is free.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxad.run.errors import UserError

T = TypeVar("T")

_LONGEST = 2000
"""Bytes of a sentence that is passed on."""
_SHUTDOWN_SECONDS = 60
# What a step that others take part in says when one of them is not there any more.
_LOST = re.compile(r"gloo|nccl|coordination|heartbeat|connection|peer", re.IGNORECASE)


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


def say(text: str) -> None:
    """Prints to standard error, in the first process alone."""
    if is_first():
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Keeps a process from waiting for others that it has lost, or that it leaves behind.

    Raises:
      UserError: a step failed because another process has ended.
    """
    try:
        yield
    except UserError:
        raise  # all processes have met, and end with it
    except KeyboardInterrupt:
        _leave_at_once(130)
        raise
    except jax.errors.JaxRuntimeError as error:
        lost = count() > 1 and _LOST.search(str(error))
        _leave_at_once(2 if lost else 1)
        if not lost:
            raise
        raise UserError(
            "another process of this run has ended, see what it said; the same commands go on "
            "from the last checkpoint"
        ) from error
    except BaseException:
        _leave_at_once(1)
        raise


def _leave_at_once(status: int) -> None:
    """Leaves out JAX's farewell when this process ends: it waits for all others, then aborts."""
    if count() == 1:
        return

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # The last to be registered is the first to run.
    atexit.register(leave)


class Meetings:
    """Keeps a mistake of this process until all meet; then all end with it."""

    def __init__(self) -> None:
        self._kept: UserError | None = None

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Keeps a mistake made inside; a single process makes it at once."""
        try:
            yield
        except UserError as error:
            if count() == 1:
                raise
            self._kept = self._kept or error

    def going_on(self, items: Iterator[T], stand_in: Callable[[], T]) -> Iterator[T]:
        """The items; after a mistake a stand-in for ever.

        The others wait for the part of this process in every step until all meet.
        """
        with self.keeping():
            yield from items
        while True:
            yield stand_in()

    def meet(self) -> None:
        """Waits for all processes.

        Raises:
          UserError: the mistake that was kept here, or one of another process.
        """
        if count() == 1:
            return
        text = str(self._kept) if self._kept else ""
        others = _gather(text.encode()[:_LONGEST])
        if self._kept:
            raise self._kept
        for number, other in enumerate(others):
            if other:
                raise UserError(f"process {number}: {other.decode(errors='replace')}")


def together(work: Callable[[], T]) -> T:
    """Does something in every process.

    Returns:
      What it gave here.

    Raises:
      UserError: it was a mistake in any process.
    """
    meetings, results = Meetings(), []
    with meetings.keeping():
        results.append(work())
    meetings.meet()
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
        found = _gather(hashlib.sha256(text.encode()).digest())
        other = next((i for i, each in enumerate(found) if each != found[0]), None)
        if other is not None:
            raise UserError(
                f"process {other} has {name.replace('_', ' ')} that differ from those of process "
                "0; start all processes with the same command, on the same data"
            )


def from_first(tree: Any) -> Any:
    """The values that a tree has in the first process, to the bit.

    Args:
      tree: of arrays; those of the other processes have the same shapes and dtypes.

    Returns:
      The tree, as numpy arrays; as it is with one process.
    """
    if count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    leaves = [np.asarray(leaf) for leaf in leaves]
    # As bytes: JAX passes values on as sums with zeros, which is exact for integers alone.
    content = np.concatenate([np.frombuffer(leaf.tobytes(), np.uint8) for leaf in leaves])
    content = np.asarray(multihost_utils.broadcast_one_to_all(content))
    places = np.cumsum([0] + [leaf.nbytes for leaf in leaves])
    return jax.tree.unflatten(
        structure,
        [
            np.frombuffer(content[at : at + leaf.nbytes].tobytes(), leaf.dtype).reshape(leaf.shape)
            for leaf, at in zip(leaves, places, strict=False)
        ],
    )


def _gather(text: bytes) -> list[bytes]:
    """What every process brought, without trailing zero bytes of texts."""
    padded = np.zeros(_LONGEST, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    found = np.asarray(multihost_utils.process_allgather(padded)).reshape(count(), _LONGEST)
    return [row.tobytes().rstrip(b"\0") for row in found]
