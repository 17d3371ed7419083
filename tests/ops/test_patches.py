"""Patches against explicit slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops.patches import patch_grid, patchify, unpatchify


@pytest.mark.parametrize(
    ("shape", "patch"), [((2, 6, 4, 3), 2), ((1, 5, 5, 1), 5), ((2, 3, 2, 2), 1)]
)
def test_patches_are_slices_by_row_column_channel(shape, patch):
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    rows, columns = patch_grid(shape[1:3], patch)
    patches = jax.jit(lambda x: patchify(x, patch=patch))(images)
    assert patches.dtype == np.uint8
    for i in range(rows):
        for j in range(columns):
            window = images[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            np.testing.assert_array_equal(patches[:, i * columns + j], window.reshape(shape[0], -1))
    again = unpatchify(patches, patch=patch, grid=(rows, columns))
    np.testing.assert_array_equal(again, images)


@pytest.mark.usefixtures("unchecked")
def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="6 x 5 pixels cannot be cut into patches of 2 x 2"):
        patchify(jnp.zeros((1, 6, 5, 3)), patch=2)
    for size, patch in (((4, 4), 0), ((0, 4), 2), ((4, 0), 2)):
        with pytest.raises(ValueError, match="cannot be cut"):
            patch_grid(size, patch)
    with pytest.raises(ValueError, match=r"shape \(b, h, w, c\)"):
        patchify(jnp.zeros((6, 6, 3)), patch=2)
    with pytest.raises(ValueError, match=r"\(b, 6, d\), not \(1, 5, 12\)"):
        unpatchify(jnp.zeros((1, 5, 12)), patch=2, grid=(2, 3))
    with pytest.raises(ValueError, match="no whole number of channels"):
        unpatchify(jnp.zeros((1, 6, 13)), patch=2, grid=(2, 3))
