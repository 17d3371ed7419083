"""The membrane against a direct solution of the sparse system, and what it must keep."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from jaxad.ops.membrane import clone_seamlessly, fill_by_membrane


def random_hole(rng, shape):
    """A hole of several parts, some at the image's edge."""
    field = rng.normal(size=shape)
    for axis in (0, 1):
        field = sum(np.roll(field, k, axis) for k in range(-3, 4))
    return field > np.quantile(field, 0.7)


def direct(values, hole):
    """Each unknown times its number of neighbours, less the unknown ones, equals the known ones."""
    h, w = hole.shape
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(hole.sum())
    matrix = sparse.lil_matrix((hole.sum(), hole.sum()))
    right = np.zeros((hole.sum(), values.shape[-1]))
    for y, x in np.argwhere(hole):
        row = number[y, x]
        for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= ny < h and 0 <= nx < w:
                matrix[row, row] += 1
                if hole[ny, nx]:
                    matrix[row, number[ny, nx]] -= 1
                else:
                    right[row] += values[ny, nx]
    filled = values.copy()
    filled[hole] = spsolve(matrix.tocsr(), right).reshape(-1, values.shape[-1])
    return filled


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_direct_solution(seed):
    rng = np.random.default_rng(seed)
    values = rng.random((31, 40, 3))
    hole = random_hole(rng, (31, 40))
    filled = fill_by_membrane(jnp.float32(values), hole, tolerance=1e-6)
    # Residuals of 1e-6 are multiplied by the condition of the system, about the hole's width
    # squared.
    np.testing.assert_allclose(filled, direct(values, hole), atol=2e-4)


def test_a_ramp_is_filled_by_itself_and_nothing_outside_changes():
    y, x = np.mgrid[:24, :24]
    ramp = np.float32(np.stack([0.1 * x, 0.3 * y - 0.2 * x], axis=-1))
    hole = (np.hypot(y - 12, x - 10) < 7) | ((y == 3) & (x > 4) & (x < 9))
    broken = np.where(hole[..., None], np.nan, ramp)
    filled = np.asarray(fill_by_membrane(jnp.asarray(broken), hole, tolerance=1e-7))
    np.testing.assert_allclose(filled, ramp, atol=1e-4)
    np.testing.assert_array_equal(filled[~hole], ramp[~hole])


def test_no_extremum_lies_inside():
    rng = np.random.default_rng(5)
    values, hole = np.float32(rng.random((40, 40, 1))), random_hole(rng, (40, 40))
    filled = np.asarray(fill_by_membrane(jnp.asarray(values), hole))
    assert values[~hole].min() - 1e-4 <= filled.min()
    assert filled.max() <= values[~hole].max() + 1e-4


@pytest.mark.parametrize("hole", [np.zeros((5, 5), bool), np.ones((5, 5), bool)])
def test_without_a_border_or_a_hole_values_stay(hole):
    values = jnp.linspace(0, 1, 25, dtype=jnp.float32).reshape(5, 5, 1)
    np.testing.assert_array_equal(fill_by_membrane(values, hole), values)


def test_cloning_keeps_gradients_and_takes_the_level_of_the_target():
    rng = np.random.default_rng(1)
    target = np.full((30, 30, 1), 0.7, np.float32)
    source = np.float32(0.1 + 0.2 * rng.random((30, 30, 1)))
    source[6:24, 6:24] = np.float32(0.2 * np.sin(np.arange(18.0)))[None, :, None]
    source[5, :], source[24, :] = source[6, :], source[23, :]
    region = np.zeros((30, 30), bool)
    region[6:24, 6:24] = True
    cloned = np.asarray(clone_seamlessly(jnp.asarray(target), jnp.asarray(source), region))
    np.testing.assert_array_equal(cloned[~region], target[~region])
    membrane = direct(np.float64(target) - source, region)
    expected = np.where(region[..., None], source + membrane, target)
    np.testing.assert_allclose(cloned, expected, atol=1e-3)


def test_a_source_that_differs_by_a_constant_leaves_the_target_as_it_is():
    target = np.random.default_rng(2).random((20, 20, 3)).astype(np.float32)
    region = np.zeros((20, 20), bool)
    region[4:15, 3:17] = True
    cloned = clone_seamlessly(jnp.asarray(target), jnp.asarray(target + 0.3), region)
    np.testing.assert_allclose(cloned, target, atol=1e-5)


def test_many_are_filled_at_once_as_one_by_one():
    rng = np.random.default_rng(3)
    values = jnp.float32(rng.random((2, 16, 16, 1)))
    holes = jnp.stack([random_hole(rng, (16, 16)) for _ in range(2)])
    together = jax.vmap(fill_by_membrane)(values, holes)
    for one, value, hole in zip(together, values, holes, strict=True):
        np.testing.assert_allclose(one, fill_by_membrane(value, hole), atol=1e-4)
