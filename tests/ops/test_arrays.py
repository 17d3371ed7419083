"""The dtypes in which everything is computed, and that annotations are checked in these tests."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jaxad.ops.arrays import at_least_float32, in_common_dtype, pad_axis
from jaxad.ops.blur import gaussian_blur


@jax.enable_x64(True)
def test_narrow_dtypes_become_float32_and_wide_ones_stay():
    for given, computed in (
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ):
        assert at_least_float32(jnp.ones(2, given)).dtype == computed
    pair = in_common_dtype(jnp.ones(2, "bfloat16"), np.ones(2, np.float16))
    assert [x.dtype for x in pair] == ["float32", "float32"]
    pair = in_common_dtype(jnp.ones(2, "bfloat16"), np.ones(2))
    assert [x.dtype for x in pair] == ["float64", "float64"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_axis_is_padded_as_numpy_pads(axis):
    x = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    width = [(0, 0)] * 3
    width[axis] = (1, 2)
    np.testing.assert_array_equal(pad_axis(x, axis, (1, 2)), np.pad(x, width))
    np.testing.assert_array_equal(
        pad_axis(x, axis, (1, 2), mode="wrap"), np.pad(x, width, mode="wrap")
    )


@pytest.mark.parametrize("arguments", [{"maps": np.ones(3, np.float32)}, {"sigma": "1"}])
def test_annotations_are_checked(arguments):
    with pytest.raises(jaxtyping.TypeCheckError, match="checking the parameters"):
        gaussian_blur(**{"maps": np.ones((3, 3), np.float32), "sigma": 1} | arguments)
