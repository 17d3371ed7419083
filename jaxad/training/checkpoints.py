"""Checkpoints: written by Orbax in the background, whole or not at all, read on any device count.

``checkpoints/<step>/`` holds the items ``variables`` (all that evaluation needs), ``optimizer`` and
``record``: digests of the other two and the validation loss. What is read is compared with them;
the compression that Orbax uses has no checksums, so most flipped bits give other values and no
error. The two newest and the best (lowest validation loss) are kept; where the newest turns out to
be damaged, training goes on from the one before.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxad.models.base import Variables
from jaxad.run.errors import UserError
from jaxad.run.files import make_folder, reserve, sync, sync_below
from jaxad.run.schema import NUMBER, TEXT, Schema, optional
from jaxad.run.text import say
from jaxad.training.state import TrainState

METRIC = "validation_loss"
RECORD = Schema(
    keys={"variables": TEXT, "optimizer": TEXT, METRIC: optional(NUMBER)},
    advice="take another checkpoint",
)
NEWEST_KEPT = 2
UNFINISHED = "*.orbax-checkpoint-tmp*"
"""Folders of writes that did not end."""
SPACE_BESIDE_VALUES = 2**20
"""Bytes on disk that a checkpoint takes beside its values: indices, metadata, unfilled blocks."""


def silence_orbax() -> None:
    """Keeps Orbax from narrating every step and printing the traceback of every failing thread.

    A run's own progress says what matters, and :func:`explaining` a failure.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def explaining(before: str, after: str = "") -> Iterator[None]:
    """Raises any failure of Orbax inside as one sentence: ``before``, the reason, ``after``.

    Orbax and tensorstore wrap an operating-system error in several types of their own, and raise
    many for files that are not theirs.

    Raises:
      UserError: something failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{before}{_reason(error)}{after}") from error


def abstract(tree: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    """Shapes and dtypes of a tree of arrays, as Orbax restores them.

    Args:
      tree: of arrays or their shapes.
      sharding: of all; None takes that of each array.
    """
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), tree
    )


def one_device() -> jax.sharding.Sharding:
    """Where what is read for evaluation lies."""
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def digest_of(tree: Any) -> str:
    """SHA-256 of all arrays of a tree: their places, types, shapes and values."""

    def line(path: Any, leaf: Any) -> str:
        array = np.asarray(leaf)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        return f"{place} {array.dtype} {array.shape} {hashlib.sha256(content).hexdigest()}"

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    with ThreadPoolExecutor() as threads:
        lines = sorted(threads.map(lambda one: line(*one), leaves))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one run; where several processes train, one of them opens them."""

    def __init__(self, folder: str | os.PathLike, *, read_only: bool = False):
        """Opens the folder.

        Args:
          folder: ``RUN/checkpoints``.
          read_only: evaluation: nothing is created or cleaned up.

        Raises:
          UserError: there is nothing to read.
        """
        silence_orbax()
        self._folder = pathlib.Path(folder).resolve()
        self._unsynced: int | None = None
        if read_only and not self._folder.is_dir():
            raise self._nothing_here()
        several = jax.process_count() > 1
        if several:
            make_folder(self._folder)
        policies = [
            preservation_policy.LatestN(NEWEST_KEPT),
            preservation_policy.BestN(
                get_metric_fn=lambda metrics: metrics[METRIC],
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        if not read_only:
            # A write of this process that was given up may still be at work there. Orbax, which
            # can clean up too, takes what disappears meanwhile for a failure of the next write.
            for unfinished in self._folder.glob(UNFINISHED):
                shutil.rmtree(unfinished, ignore_errors=True)
        with explaining(f"the checkpoints in {self._folder} cannot be opened: "):
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                    best_fn=lambda metrics: metrics[METRIC],
                    best_mode="min",
                    create=not read_only and not several,
                    read_only=read_only,
                    multiprocessing_options=_of_this_process_alone() if several else _DEFAULT,
                ),
                item_names=("variables", "optimizer", "record"),
            )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, *, validation_loss: float | None) -> None:
        """Starts writing a checkpoint; training may go on meanwhile.

        Raises:
          UserError: this or an earlier write failed (disk full); older checkpoints stay.
        """
        step = int(state.step)
        if jax.process_count() > 1:
            # Orbax takes arrays that belong to one of several processes for a mistake.
            state = jax.device_get(state)
        # A failure of the write before this one surfaces here, and what it removes makes room.
        self.wait()
        loss = None if validation_loss is None else float(validation_loss)
        items = _items(state)
        with self._writing():
            self._check_space(state)
            record = {name: digest_of(tree) for name, tree in items.items()} | {METRIC: loss}
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    record=ocp.args.JsonSave({"text": RECORD.write(record)}),
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                ),
                metrics=None if loss is None else {METRIC: loss},
            )
            self._unsynced = step

    def _check_space(self, state: TrainState) -> None:
        """Reserves and frees the room: a full disk is better met before a dozen threads write.

        Raises:
          OSError: the disk is full, or a quota reached.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + SPACE_BESIDE_VALUES
        reserve(self._folder, size)

    def wait(self) -> None:
        """Waits until everything is on disk, also after a power cut.

        Raises:
          UserError: a write failed.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if self._unsynced is not None:
                sync_below(self._folder / str(self._unsynced))
                sync(self._folder)
                self._unsynced = None

    def close(self) -> None:
        """Releases threads; call :meth:`wait` first to see failures."""
        with contextlib.suppress(Exception):
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        before = f"a checkpoint could not be written to {self._folder}: "
        after = "run the same command again, it goes on from the last one"
        with explaining(before, f"; make room there and {after}"):
            try:
                yield
            except TimeoutError as error:  # Orbax goes by the time of day
                reason = "the disk does not answer, or the clock was set forth"
                raise UserError(f"{before}{reason}; {after}") from error

    def _reading(self, step: int) -> contextlib.AbstractContextManager[None]:
        return explaining(
            f"checkpoint {self._folder / str(step)} cannot be read, it is damaged or of another "
            "model (",
            "); take another one, or remove its folder to go on from the one before",
        )

    def _record(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of itself; {} in one of before there were records."""
        if not (self._folder / str(step) / "record").is_dir():
            return {}
        with self._reading(step):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )
            return RECORD.read(restored.record["text"], "its record")

    def _restore(self, step: int, like: dict[str, Any]) -> Any:
        """Reads items of a checkpoint and compares them with what was written.

        Args:
          step: which checkpoint.
          like: shapes of each item, by its name.

        Raises:
          UserError: the checkpoint is damaged or of another model.
        """
        wanted = {name: ocp.args.StandardRestore(shapes) for name, shapes in like.items()}
        with self._reading(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
            record = self._record(step)
            for name in like:
                if record and record[name] != digest_of(restored[name]):
                    raise ValueError(f"its {name} are not what was written")
        return restored

    def restore_newest(self, state: TrainState) -> TrainState:
        """Reads the newest checkpoint that is whole; damaged ones are renamed and told of.

        Args:
          state: as of :meth:`restore_state`.

        Raises:
          UserError: there is none.
        """
        errors: dict[int, UserError] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self.restore_state(state, step)
            except UserError as error:
                errors[step] = error
                continue
            for damaged in errors:
                self.set_aside(damaged, errors[damaged])
            return restored
        raise errors[max(errors)] if errors else self._nothing_here()

    def set_aside(self, step: int, error: UserError) -> None:
        """Renames a damaged checkpoint, so that another one of its step can be written.

        Raises:
          UserError: it cannot be renamed.
        """
        place = self._folder / f"damaged-{step}-{os.urandom(4).hex()}"
        with explaining(f"{error}; it could not be renamed: "):
            (self._folder / str(step)).rename(place)
            self._manager.reload()
        reason = str(error).partition("; ")[0]
        say(f"{reason}; it is now {place}", file=sys.stderr)

    def restore_state(self, state: TrainState, step: int) -> TrainState:
        """Reads a whole training state.

        Args:
          state: a state of the same structure and placement (its values are not used).
          step: which checkpoint.

        Raises:
          UserError: the checkpoint is damaged or of another model.
        """
        restored = self._restore(step, abstract(_items(state)))
        variables = dict(restored.variables)
        placement = jax.tree.leaves(variables)[0].sharding
        return state.replace(
            step=jax.device_put(jax.numpy.int32(step), placement),
            params=variables.pop("params"),
            collections=variables,
            opt_state=restored.optimizer["opt_state"],
        )

    def restore_variables(self, like: Variables, which: str = "last") -> tuple[Variables, int]:
        """Reads what evaluation needs.

        Args:
          like: variables of the same structure, or their shapes (``jax.eval_shape``).
          which: ``"last"``, ``"best"`` (lowest validation loss) or a step number.

        Returns:
          The variables and the step they are from.

        Raises:
          UserError: there is no such checkpoint, or it is damaged or of another model.
        """
        step = self._find(which)
        restored = self._restore(step, {"variables": abstract(dict(like), one_device())})
        return restored.variables, step

    def _find(self, which: str) -> int:
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise self._nothing_here()
        if which == "last":
            return steps[-1]
        if which == "best":
            for step in steps:
                record, metrics = self._record(step), self._manager.metrics(step) or {}
                with self._reading(step):
                    if record and record[METRIC] != metrics.get(METRIC):
                        raise ValueError(f"its {METRIC} is not what was written")
            best = self._manager.best_step()
            return steps[-1] if best is None else best
        if which.isdigit() and int(which) in steps:
            return int(which)
        raise UserError(
            f"there is no checkpoint {which!r} in {self._folder}; "
            f"give last, best or one of {', '.join(map(str, steps))}"
        )

    def _nothing_here(self) -> UserError:
        return UserError(
            f"{self._folder} holds no finished checkpoint; run `jaxad train` with this workdir"
        )


def _items(state: TrainState) -> dict[str, Any]:
    """The arrays of a checkpoint, by the names of its items."""
    return {"variables": dict(state.variables), "optimizer": {"opt_state": state.opt_state}}


_DEFAULT = ocp.options.MultiprocessingOptions()


def _of_this_process_alone() -> ocp.options.MultiprocessingOptions:
    """Orbax then waits for no other process."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"jaxad{me}"
    )


def _reason(error: BaseException) -> str:
    """The operating system's words where there are any, else the start of the message."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    words = " ".join(str(error).split())
    return words[:200] if words else type(error).__name__
