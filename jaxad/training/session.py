"""The steps of one start of a run: its batches, and what is recorded of it.

Every process takes all the steps, each with its rows of every batch, and computes the same rows
of the history. The first one alone writes them. An error in one process (an image that cannot be
read, a full disk) is held back until the next barrier, there is one at every report, and ends all.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax

from jaxad.data.batch import Batch
from jaxad.data.pipeline import placeholder_batch, training_batches
from jaxad.run import interruption
from jaxad.training import processes
from jaxad.training.history import summarise_steps
from jaxad.training.optimizer import make_schedule
from jaxad.training.preparation import Setup
from jaxad.training.records import Records
from jaxad.training.state import TrainState
from jaxad.training.step import StepMetrics

Validate = Callable[[TrainState, int], dict[str, float]]


class Session:
    """Iterates over the steps that are left, and records them; a context manager.

    It is used as follows::

        with Session(...) as session:
            for step, batch in session:
                state, metrics = step_fn(state, batch)
                session.record(step, metrics, state)

    Leaving it waits until the last checkpoint is on disk.
    """

    def __init__(self, setup: Setup, validate: Validate, *, first: int, total: int):
        """Opens the batches and, in the first process, the files of the run.

        Args:
          setup: of the run.
          validate: ``(state, step) -> columns``, called at every checkpoint in every process.
          first: steps that earlier sessions took; what was written of later ones is dropped.
          total: steps in all.

        Raises:
          UserError: the batches or the files cannot be had in any process.
        """
        config, devices, images = setup.config, setup.devices, setup.inputs.train
        options = config.train
        rows = devices.local_rows(options.batch_size)
        self._options, self._devices, self._validate = options, devices, validate
        self._steps = range(first + 1, total + 1)
        self._steps_per_epoch = len(images) // options.batch_size
        self._schedule = make_schedule(options, total_steps=total)
        self._pending: list[StepMetrics] = []
        self._errors = processes.DeferredErrors()
        self._stack = contextlib.ExitStack()

        batches = processes.on_all(
            lambda: training_batches(
                images,
                batch_size=options.batch_size,
                seed=config.seed,
                start_step=first,
                pipeline=config.data.pipeline,
                local_rows=rows,
            )
        )
        self._batches = self._errors.replacing(
            batches, lambda: placeholder_batch(images, rows.stop - rows.start)
        )
        sizes = {"first": first, "total": total, "images_each": options.batch_size}
        self._records = processes.on_all(
            lambda: Records(setup.run, setup.checkpoints, **sizes) if setup.checkpoints else None
        )

    def __enter__(self) -> Session:
        if self._records:
            self._stack.enter_context(self._records)
        self._stack.enter_context(interruption.ending_by_itself())
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if failure is not None:
                return
            self._wait()

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        """Steps, counted from 1, and batches split among the local devices."""
        for step in self._steps:
            interruption.check()
            yield step, self._devices.split(next(self._batches))

    def record(self, step: int, metrics: StepMetrics, state: TrainState) -> None:
        """Keeps the metrics of a step; writes a row of them at a report, a checkpoint at a save.

        Args:
          step: that was taken.
          metrics: on the devices.
          state: after it.

        Raises:
          UserError: something failed in any process since the last report, or a value is not
            finite.
          KeyboardInterrupt: a SIGTERM came to any process; a checkpoint of this step is on disk.
        """
        # Kept on the device until the next report: reading them here would wait for it.
        self._pending.append(metrics)
        saving = step % self._options.checkpoint_every == 0 or step == self._steps[-1]
        if not (saving or step % self._options.log_every == 0):
            return
        # Here, where no step waits for its row: what goes on from it gives the same rows.
        terminated = self._errors.barrier(interruption.came() is not None)
        ending = terminated and step != self._steps[-1]
        row = self._row(step) | (self._validate(state, step) if saving else {})
        if self._records:
            with self._errors.deferring():
                self._records.write(row, state if saving or ending else None)
        if ending:
            self._wait()
            interruption.adopt(signal.SIGTERM)
            raise processes.EndedTogether

    def _wait(self) -> None:
        """Waits in every process until the last checkpoint is on disk."""
        if self._records:
            with self._errors.deferring():
                self._records.wait()
        self._errors.barrier()

    def _row(self, step: int) -> dict[str, int | float]:
        """Columns of the history: means over the steps since the last report."""
        steps, self._pending = jax.device_get(self._pending), []
        row: dict[str, int | float] = {"step": step, "epoch": step // self._steps_per_epoch}
        row |= summarise_steps(steps, first_step=step - len(steps) + 1)
        return row | {"learning_rate": float(self._schedule(step - 1))}
