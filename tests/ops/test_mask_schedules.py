"""Every patch is predicted, every pass has the same shape, and averages are averages."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops.mask_schedules import assemble, interleaved, random_ensemble, sliding

GRIDS = [(14, 14), (16, 16), (5, 7), (9, 4), (8, 13)]
BLOCKS = [1, 2, 3, 4]


def all_schedules():
    for grid, block in itertools.product(GRIDS, BLOCKS):
        if min(grid) < block:
            continue
        for stride in range(1, block + 1):
            yield (
                f"sliding {grid} {block} {stride}",
                grid,
                sliding(grid, block=block, stride=stride),
            )
        for passes, sides in ((2, 2), (4, 2), (9, 3), (16, 4)):
            if -(-min(grid) // block) >= sides:
                schedule = interleaved(grid, block=block, passes=passes)
                yield f"interleaved {grid} {block} {passes}", grid, schedule
        for passes, ratio in ((2, 0.75), (5, 0.5), (16, 0.75), (7, 0.2)):
            schedule = random_ensemble(grid, block=block, passes=passes, mask_ratio=ratio, seed=3)
            yield f"random {grid} {block} {passes} {ratio}", grid, schedule


def test_every_patch_is_predicted_and_every_pass_has_one_shape():
    names = []
    for name, grid, (visible, masked, used) in all_schedules():
        names.append(name.split()[0])
        n = grid[0] * grid[1]
        assert masked.shape == used.shape and visible.shape[1] > 0, name
        together = np.sort(np.concatenate([visible, masked], axis=1), axis=1)
        assert np.array_equal(together, np.tile(np.arange(n), (len(masked), 1))), name
        assert set(masked[used]) == set(range(n)), name
    assert set(names) == {"sliding", "interleaved", "random"}


@pytest.mark.parametrize("side, passes", [(16, 64), (14, 49)])
def test_the_papers_masks_tile_the_image(side, passes):
    _, masked, used = sliding((side, side), block=2, stride=2)
    assert masked.shape == (passes, 4) and used.all()
    assert list(masked[0]) == [0, 1, side, side + 1]
    assert list(masked[1]) == [2, 3, side + 2, side + 3]
    assert sorted(masked.ravel()) == list(range(side * side))


def test_a_block_that_does_not_divide_the_grid_ends_at_the_border():
    _, masked, used = sliding((4, 7), block=3, stride=3)
    starts = [divmod(int(row[0]), 7) for row in masked]
    assert starts == [(0, 0), (0, 3), (0, 4), (1, 0), (1, 3), (1, 4)] and used.all()


@pytest.mark.parametrize("passes", [2, 4, 9, 16])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_interleaved_blocks_share_no_edge_and_are_used_once(passes, block):
    grid = (16, 14)
    _, masked, used = interleaved(grid, block=block, passes=passes)
    assert len(masked) == passes
    assert sorted(masked[used]) == list(range(16 * 14))
    for row, counts in zip(masked, used, strict=True):
        picture = np.zeros(grid, bool)
        picture.ravel()[row[counts]] = True
        blocks = np.arange(16)[:, None] // block * 100 + np.arange(14)[None] // block
        for a, b, u, v in (
            (picture[1:], picture[:-1], blocks[1:], blocks[:-1]),
            (picture[:, 1:], picture[:, :-1], blocks[:, 1:], blocks[:, :-1]),
        ):
            assert np.all(u[a & b] == v[a & b])


def test_passes_are_equal_where_blocks_divide_the_grid():
    for passes in (2, 4, 16):
        _, masked, used = interleaved((16, 16), block=2, passes=passes)
        assert used.all() and masked.shape == (passes, 256 // passes)


def test_random_masks_are_the_same_again_balanced_and_of_the_training_ratio():
    options = {"block": 1, "passes": 8, "mask_ratio": 0.75}
    first = random_ensemble((16, 16), seed=1, **options)
    again = random_ensemble((16, 16), seed=1, **options)
    other = random_ensemble((16, 16), seed=2, **options)
    assert np.array_equal(first.masked, again.masked)
    assert not np.array_equal(first.masked, other.masked)
    assert first.visible.shape == (8, 64)
    times = np.bincount(first.masked.ravel())
    # Half of the patches once, half of them twice in every turn of two passes.
    assert len(set(times)) > 1 and times.min() >= 4 and times.max() <= 8


def test_assembled_predictions_are_means_of_the_used_ones():
    rng = np.random.default_rng(0)
    for schedule, n in (
        (sliding((5, 6), block=3, stride=1), 30),
        (interleaved((5, 6), block=2, passes=4), 30),
        (random_ensemble((5, 6), block=1, passes=7, mask_ratio=0.6, seed=0), 30),
    ):
        predictions = rng.normal(size=(2, *schedule.masked.shape, 4)).astype(np.float32)
        total, count = np.zeros((2, n, 4)), np.zeros(n)
        for (i, j), patch in np.ndenumerate(schedule.masked):
            if schedule.used[i, j]:
                total[:, patch] += predictions[:, i, j]
                count[patch] += 1
        result = assemble(jnp.asarray(predictions), schedule)
        # Up to nine float32 terms of order 1.
        np.testing.assert_allclose(result, total / count[None, :, None], atol=1e-5)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: sliding((8, 8), block=2, stride=3), "leave out patches"),
        (lambda: sliding((8, 8), block=5, stride=1), "side of 1 to 4"),
        (lambda: sliding((4, 4), block=4, stride=4), "nothing visible"),
        (lambda: sliding((2, 8), block=3, stride=3), "nothing visible"),
        (lambda: interleaved((8, 8), block=2, passes=8), "2, 4, 9, 16"),
        (lambda: interleaved((8, 8), block=2, passes=1), "2, 4, 9, 16"),
        (lambda: interleaved((8, 8), block=4, passes=9), "3 x 3 blocks or more"),
        (
            lambda: random_ensemble((8, 8), block=1, passes=1, mask_ratio=0.75, seed=0),
            "take 2 or more",
        ),
        (
            lambda: random_ensemble((8, 8), block=1, passes=4, mask_ratio=1.0, seed=0),
            "some must be visible",
        ),
    ],
)
def test_what_cannot_cover_an_image_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
