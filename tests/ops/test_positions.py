"""The sine-cosine table entry by entry."""

import math

import numpy as np
import pytest

from jaxad.ops.positions import sincos_positions


@pytest.mark.parametrize(("grid", "features"), [((3, 5), 8), ((16, 16), 12), ((1, 1), 4)])
def test_columns_come_first_sines_before_cosines(grid, features):
    table = np.asarray(sincos_positions(grid, features))
    quarter = features // 4
    expected = np.empty((grid[0] * grid[1], features))
    for row in range(grid[0]):
        for column in range(grid[1]):
            for k in range(quarter):
                rate = 10000 ** (-k / quarter)
                entry = expected[row * grid[1] + column]
                entry[k], entry[quarter + k] = math.sin(column * rate), math.cos(column * rate)
                entry[2 * quarter + k] = math.sin(row * rate)
                entry[3 * quarter + k] = math.cos(row * rate)
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, expected.astype(np.float32))


@pytest.mark.parametrize("features", [0, 6, -4])
def test_features_are_four_to_a_frequency(features):
    with pytest.raises(ValueError, match="multiple of 4 features"):
        sincos_positions((2, 2), features)
