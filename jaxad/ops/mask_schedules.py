"""Which patches are masked in which pass, when every patch of an image is to be masked once.

A masked autoencoder is shown an image several times, each time without some of its patches. A
schedule fixes those patches. It is made with NumPy when a model is built, so every pass has the
same number of masked patches: where a grid does not divide, some passes mask more patches than
they need, and what is predicted for those is not used.

Patches are numbered row by row. Any schedule of this module uses at least one prediction of every
patch, and leaves at least one patch visible in every pass.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxad.ops.arrays import AnyArray

MOST_BLOCK = 4
"""The largest side of a block, in patches."""


class MaskSchedule(NamedTuple):
    """Passes over a grid of n patches, v of which are visible and m = n - v masked in each.

    Attributes:
      visible: numbers of the visible patches.
      masked: numbers of the masked patches.
      used: whether the prediction of a masked patch is used.
    """

    visible: Int[np.ndarray, "p v"]
    masked: Int[np.ndarray, "p m"]
    used: Bool[np.ndarray, "p m"]


def sliding(grid: tuple[int, int], *, block: int, stride: int) -> MaskSchedule:
    """One square block in each pass, from left to right and from top to bottom.

    Where the last step would reach over the border, the block lies at the border instead. Patches
    that several blocks cover have several predictions.

    Args:
      grid: numbers of rows and columns of patches.
      block: side of the block in patches, 1 to :data:`MOST_BLOCK`.
      stride: from block to block in patches, 1 to ``block``.

    Raises:
      ValueError: the block does not fit, covers the whole grid, or would leave out patches.
    """
    _check_block(grid, block)
    if not 1 <= stride <= block:
        raise ValueError(
            f"A mask of {block} x {block} patches slides by 1 to {block} patches, not {stride}: a "
            "longer step would leave out patches."
        )
    starts = [sorted({*range(0, side - block, stride), side - block}) for side in grid]
    passes = np.zeros((len(starts[0]) * len(starts[1]), *grid), bool)
    for number, (top, left) in enumerate((t, s) for t in starts[0] for s in starts[1]):
        passes[number, top : top + block, left : left + block] = True
    return _schedule(passes, passes)


def interleaved(grid: tuple[int, int], *, block: int, passes: int) -> MaskSchedule:
    """Many blocks in each pass, no two of which share an edge; every block in one pass.

    With 2 passes the blocks lie as the black and the white squares of a chessboard; with k * k
    passes, a pass takes every k-th block of every k-th row of blocks.

    Args:
      grid: numbers of rows and columns of patches.
      block: side of a block in patches, 1 to :data:`MOST_BLOCK`; blocks at the right and the
        lower border are cut off where the grid does not divide.
      passes: 2, or the square of 2 or more.

    Raises:
      ValueError: no such number of passes, or more than the grid has blocks for.
    """
    _check_block(grid, block)
    k = round(passes**0.5) if passes > 0 else 0
    if passes != 2 and (k < 2 or k * k != passes):
        raise ValueError(f"Interleaved masks take 2, 4, 9, 16 ... passes, not {passes}.")
    rows, columns = (np.arange(side) // block for side in grid)
    needed = 2 if passes == 2 else k
    if min(rows[-1], columns[-1]) + 1 < needed:
        raise ValueError(
            f"{passes} passes need {needed} x {needed} blocks or more; a grid of {grid[0]} x "
            f"{grid[1]} patches has {rows[-1] + 1} x {columns[-1] + 1} of {block} x {block}."
        )
    if passes == 2:
        number = (rows[:, None] + columns[None, :]) % 2
    else:
        number = rows[:, None] % k * k + columns[None, :] % k
    used = number[None] == np.arange(passes)[:, None, None]
    return _schedule(used, _filled_up(used))


def random_ensemble(
    grid: tuple[int, int], *, block: int, passes: int, mask_ratio: float, seed: int
) -> MaskSchedule:
    """Random masks, as in training; the predictions of a patch in several passes are averaged.

    The patches are put in a random order (of blocks; inside a block they stay together) that
    successive passes walk along, and in a new order when all have been masked. So no patch is left
    to chance.

    Args:
      grid: numbers of rows and columns of patches.
      block: side in patches of the blocks that are masked together, 1 to :data:`MOST_BLOCK`.
      passes: enough for the masks to reach every patch.
      mask_ratio: share of the patches that are masked in each pass, in (0, 1).
      seed: of the orders.

    Raises:
      ValueError: too few passes, or a ratio that masks nothing or everything.
    """
    _check_block(grid, block)
    n = grid[0] * grid[1]
    masked = n - int(n * (1.0 - mask_ratio))
    if not 0 < masked < n:
        raise ValueError(
            f"A mask ratio of {mask_ratio} masks {masked} of {n} patches; some must be visible."
        )
    round_trip = -(-n // masked)
    if passes < round_trip:
        raise ValueError(
            f"{passes} passes with a mask ratio of {mask_ratio} cannot reach all patches: take "
            f"{round_trip} or more."
        )
    # The one generator of NumPy whose numbers are the same in all versions.
    random = np.random.RandomState(seed)
    rows, columns = (-(-side // block) for side in grid)
    block_of = (np.arange(grid[0]) // block * columns)[:, None] + (np.arange(grid[1]) // block)
    masks = np.zeros((passes, n), bool)
    for number in range(passes):
        turn = number % round_trip
        if turn == 0:
            rank = random.permutation(rows * columns)
            order = np.argsort(rank[block_of.ravel()], kind="stable")
        # Spread evenly over the order, so that no patch is masked much more often than others.
        first = turn * n // round_trip
        masks[number, np.take(order, np.arange(first, first + masked), mode="wrap")] = True
    pictures = masks.reshape(passes, *grid)
    return _schedule(pictures, pictures)


def assemble(
    predictions: Float[AnyArray, "b p m d"], schedule: MaskSchedule
) -> Float[Array, "b n d"]:
    """The mean of the predictions of every patch that are used, patch by patch.

    Args:
      predictions: of the masked patches of every pass, in the order of ``schedule.masked``.
      schedule: the passes.
    """
    b, p, m, d = predictions.shape
    n = schedule.visible.shape[1] + m
    places = [np.flatnonzero((schedule.masked == i) & schedule.used) for i in range(n)]
    most = max(map(len, places))
    # As many gathers as a patch has predictions at most: one, unless masks overlap.
    source = np.stack([np.resize(place, most) for place in places], axis=1)
    weight = np.stack([(np.arange(most) < len(x)) / len(x) for x in places], axis=1)
    flat = predictions.reshape(b, p * m, d)
    total = jnp.zeros((b, n, d), predictions.dtype)
    for rank in range(most):
        share = jnp.asarray(weight[rank], predictions.dtype)
        total = total + share[None, :, None] * jnp.take(flat, source[rank], axis=1)
    return total


def _check_block(grid: tuple[int, int], block: int) -> None:
    """Refuses blocks that cannot be masked in this grid."""
    if not 1 <= block <= MOST_BLOCK:
        raise ValueError(f"A block has a side of 1 to {MOST_BLOCK} patches, not {block}.")
    if min(grid) < block or grid[0] * grid[1] <= block * block:
        raise ValueError(
            f"A block of {block} x {block} patches leaves nothing visible of a grid of {grid[0]} x "
            f"{grid[1]}: take a smaller block or larger images."
        )


def _filled_up(used: Bool[np.ndarray, "p r c"]) -> Bool[np.ndarray, "p r c"]:
    """Masks as many patches in every pass as in the fullest one, far away from those it is for."""
    passes, rows, columns = used.shape
    most = int(used.sum(axis=(1, 2)).max())
    place = np.argwhere(np.ones((rows, columns), bool))
    # Among patches of equal distance, some order that is not that of the rows.
    shuffled = np.random.RandomState(0).permutation(len(place))
    result = used.reshape(passes, -1).copy()
    for mask in result:
        away = np.abs(place[:, None] - place[mask][None]).max(axis=-1).min(axis=1)
        candidates = shuffled[np.argsort(-away[shuffled], kind="stable")]
        mask[candidates[: most - int(mask.sum())]] = True
    return result.reshape(used.shape)


def _schedule(used: Bool[np.ndarray, "p r c"], masked: Bool[np.ndarray, "p r c"]) -> MaskSchedule:
    """Lists of patches from pictures of the passes."""
    used, masked = used.reshape(len(used), -1), masked.reshape(len(masked), -1)
    numbers = np.broadcast_to(np.arange(used.shape[1], dtype=np.int32)[None], used.shape)
    pick = lambda values, where: values[where].reshape(len(used), -1)
    return MaskSchedule(pick(numbers, ~masked), pick(numbers, masked), pick(used, masked))
