"""Batches from a uint8 array, or from what decodes its rows: two pipelines over one order.

The order is decided here, in numpy, so that the tf.data pipeline and the in-memory pipeline yield
the same batches, and so that each of several processes can read its rows of every batch and no
others. Images stay uint8: normalisation and augmentation run on the device.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxad.data.batch import Batch
from jaxad.data.rows import ImageRows
from jaxad.data.split import random_order
from jaxad.data.streamed import StreamedImages
from jaxad.data.tensorflow import import_tensorflow
from jaxad.data.tiled import TiledImages
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.progress import Progress

PIPELINES = ("auto", "memory", "tf")
_PREFETCH = 3
_LOADER_BATCH, _LOADER_BYTES = 64, 2**25

Images = UInt8[np.ndarray, "n h w c"] | StreamedImages | TiledImages | ImageRows
"""An array, in memory or memory-mapped, images or tiles that are decoded when rows are asked for,
or some of either."""


def training_batches(
    images: Images,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    pipeline: str = "auto",
    local_rows: slice = slice(None),
) -> Iterator[Batch]:
    """Yields shuffled batches for ever.

    Epoch ``e`` visits the rows in a permutation of its own, fixed by ``(seed, e)``, and drops
    the ``n % batch_size`` rows at its end. Step ``s`` therefore gives the same batch whether it
    is reached by running or by starting there.

    Args:
      images: ``(n, h, w, c)`` uint8; rows are taken batch by batch.
      batch_size: rows of every batch, over all processes.
      seed: fixes the order.
      start_step: number of batches to leave out, without reading them.
      pipeline: ``"memory"`` (one background thread), ``"tf"`` (tf.data) or ``"auto"`` (tf.data
        where TensorFlow is installed). All yield the same.
      local_rows: which rows of every batch this process reads and yields.

    Yields:
      :class:`~jaxad.data.batch.Batch` with every row valid.

    Raises:
      UserError: the batch is larger than the data set, the pipeline cannot be had, or an image
        that is streamed cannot be read.
    """
    n = len(images)
    if not 1 <= batch_size <= n:
        raise UserError(
            f"train.batch_size is {batch_size} but there are {n} training images; "
            f"choose a batch size from 1 to {n}"
        )
    steps = n // batch_size

    @functools.lru_cache(maxsize=2)  # batches of two epochs may be under way
    def rows_of_epoch(epoch: int) -> np.ndarray:
        order = _order(images, seed, epoch)
        batches = order[: steps * batch_size].reshape(steps, batch_size)
        return batches[:, local_rows].astype(np.int32)

    def batch_at(step: int) -> Batch:
        rows = rows_of_epoch(step // steps)[step % steps]
        return Batch(np.asarray(images[rows]), rows, np.ones(len(rows), bool))

    return _started(batch_at, range(start_step, sys.maxsize), pipeline)


def _order(images: Images, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """The order of an epoch: at random, where there are groups of rows one after the other."""
    order = random_order(len(images), seed, epoch)
    groups = getattr(images, "groups", None)
    if groups is None:
        return order
    # Groups in the order in which the random order first meets them.
    _, first = np.unique(groups[order], return_index=True)
    rank = np.argsort(np.argsort(first))
    return order[np.argsort(rank[np.unique(groups, return_inverse=True)[1][order]], kind="stable")]


def evaluation_batches(
    images: Images, *, batch_size: int, pipeline: str = "auto", local_rows: slice = slice(None)
) -> Iterator[Batch]:
    """Yields every row once, in order, in batches of one size.

    Args:
      images: ``(n, h, w, c)`` uint8.
      batch_size: rows of every batch, over all processes; may exceed ``n``.
      pipeline: as in :func:`training_batches`.
      local_rows: as in :func:`training_batches`.

    Yields:
      :class:`~jaxad.data.batch.Batch`; the last one is filled with copies of row 0 (``index`` 0)
      that have ``valid`` False.

    Raises:
      UserError: the batch size is below 1, the pipeline cannot be had, or an image that is
        streamed cannot be read.
    """
    if batch_size < 1:
        raise UserError(f"the batch size of an evaluation must be at least 1, got {batch_size}")
    n = len(images)

    def batch_at(start: int) -> Batch:
        rows = np.arange(start, start + batch_size, dtype=np.int32)[local_rows]
        valid = rows < n
        rows = np.where(valid, rows, 0).astype(np.int32)
        return Batch(np.asarray(images[rows]), rows, valid)

    return _started(batch_at, range(0, n, batch_size), pipeline)


class BatchLoader:
    """Batches of all images in order, as often as it is iterated: what a closed-form fit takes.

    Attributes:
      images: of the batches.
    """

    def __init__(self, images: Images):
        self.images = images

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.images)
        each = int(np.prod(self.images.shape[1:]))
        size = min(_LOADER_BATCH, count, max(1, _LOADER_BYTES // each))
        with Progress("image", count) as progress:
            # Re-reading an array needs no input pipeline; the memory one starts at once.
            batches = evaluation_batches(self.images, batch_size=size, pipeline="memory")
            for number, batch in enumerate(batches, start=1):
                yield batch
                progress.update(min(number * size, count))


def placeholder_batch(images: Images, rows: int) -> Batch:
    """Returns a batch of black images, instead of one that cannot be read."""
    pixels = np.zeros((rows, *images.shape[1:]), np.uint8)
    return Batch(pixels, np.zeros(rows, np.int32), np.ones(rows, bool))


def _started(batch_at: Callable[[int], Batch], places: range, pipeline: str) -> Iterator[Batch]:
    """The batches at the places, a few of them made ahead by the pipeline."""
    if pipeline not in PIPELINES:
        raise UserError(f"unknown data.pipeline {pipeline!r}{did_you_mean(pipeline, PIPELINES)}")
    installed = pipeline != "memory" and importlib.util.find_spec("tensorflow") is not None
    if pipeline == "tf" and not installed:
        raise UserError(
            "data.pipeline=tf needs TensorFlow, which is not installed; "
            "install jaxad[tf] or set data.pipeline=memory"
        )
    if len(places) == 1:  # nothing can be made ahead, and a thread costs a millisecond
        return map(batch_at, places)
    if not installed:
        return _prefetched(map(batch_at, places))
    return _by_tf_data(batch_at, places)


def _prefetched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Takes the batches in one background thread, a few ahead.

    The thread ends with the batches, or as soon as this generator is closed or collected.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="jaxad-batches")
    try:
        ready = deque(thread.submit(next, batches, None) for _ in range(_PREFETCH))
        while (batch := ready.popleft().result()) is not None:
            ready.append(thread.submit(next, batches, None))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)


def _by_tf_data(batch_at: Callable[[int], Batch], places: range) -> Iterator[Batch]:
    tf = import_tensorflow()
    failures: list[UserError | MemoryError] = []

    def arrays_at(place: np.integer) -> tuple[np.ndarray, ...]:
        try:
            return tuple(batch_at(int(place)))
        except (UserError, MemoryError) as error:
            failures.append(error)  # TensorFlow passes on but a text of it
            raise

    def gather(place: Any) -> Any:
        # Through numpy, so that neither the array nor the memory map enters the graph.
        types = (tf.uint8, tf.int32, tf.bool)
        return tf.numpy_function(arrays_at, [place], types, stateful=False)

    options = tf.data.Options()
    options.deterministic = True
    dataset = tf.data.Dataset.range(places.start, places.stop, places.step)
    dataset = dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE).with_options(options)
    batches = dataset.prefetch(_PREFETCH).as_numpy_iterator()
    while True:
        try:
            batch = Batch(*next(batches))
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise failures[0] if failures else error from None
        yield batch
