"""Resized position embeddings against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

from jaxad.convert.positions import resize_positions


@pytest.mark.parametrize("side", [2, 5, 7])
def test_resizing_is_pytorchs_bicubic(values, side):
    found = resize_positions(values["positions/3"], (3, 3), (side, side))
    # PyTorch interpolates in float32; values are about 1.
    np.testing.assert_allclose(found, values[f"positions/{side}"], atol=1e-6)
    assert found.dtype == np.float32


def test_the_same_size_changes_nothing(values):
    table = values["positions/3"]
    np.testing.assert_array_equal(resize_positions(table, (3, 3), (3, 3)), table)


def test_sides_may_differ():
    """Along columns only, a constant stays one and rows are independent."""
    table = np.concatenate([[9.0], np.repeat(np.arange(3.0), 4)])[None, :, None]
    found = resize_positions(table, (3, 4), (3, 7))
    np.testing.assert_allclose(found[0, 1:, 0], np.repeat(np.arange(3.0), 7), atol=1e-12)
    assert found[0, 0, 0] == 9.0
