"""Upsampling by repetition, and by linear interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxad.ops.resize import bilinear_resize_align_corners, repeat_upsample


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 1, 3, 2)])
@pytest.mark.parametrize("factor", [1, 2, np.int64(8)])
def test_equals_a_kronecker_product(shape, factor):
    maps = np.random.default_rng(0).random(shape).astype(np.float32)
    actual = jax.jit(repeat_upsample, static_argnums=1)(maps, factor)
    block = np.ones((1,) * (len(shape) - 2) + (factor, factor), np.float32)
    np.testing.assert_array_equal(actual, np.kron(maps, block))


def test_dtype_is_kept_and_gradients_count_the_copies():
    assert repeat_upsample(jnp.ones((2, 2), bool), 3).dtype == bool
    gradient = jax.grad(lambda x: jnp.sum(repeat_upsample(x, 4)))(jnp.ones((2, 3)))
    np.testing.assert_array_equal(gradient, 16.0)


@pytest.mark.parametrize("factor", [0, -2, 2.0, 1.5, None])
@pytest.mark.usefixtures("unchecked")
def test_factors_are_whole_numbers(factor):
    with pytest.raises(ValueError, match="whole number"):
        repeat_upsample(jnp.ones((2, 2)), factor)


@pytest.mark.usefixtures("unchecked")
def test_maps_have_two_axes():
    with pytest.raises(ValueError, match="h, w"):
        repeat_upsample(jnp.ones(3), 2)


@pytest.mark.parametrize(
    ("before", "after"), [((3, 4), (7, 9)), ((9, 7), (4, 5)), ((1, 5), (3, 5))]
)
def test_bilinear_equals_scipy_at_the_same_positions(before, after):
    """scipy interpolates at any position: here those that keep the corners where they are."""
    images = np.random.default_rng(0).random((2, *before, 3)).astype(np.float32)
    positions = np.meshgrid(
        *(np.linspace(0, b - 1, a) for b, a in zip(before, after, strict=True)), indexing="ij"
    )
    expected = np.stack(
        [
            [ndimage.map_coordinates(one[..., c], positions, order=1) for c in range(3)]
            for one in images
        ]
    )
    resized = jax.jit(bilinear_resize_align_corners, static_argnums=1)(images, after)
    np.testing.assert_allclose(resized, expected.transpose(0, 2, 3, 1), atol=1e-6)


def test_bilinear_keeps_corners_planes_and_sizes():
    y, x = np.mgrid[:5, :6].astype(np.float32)
    plane = (2 * y + 3 * x)[None, ..., None]
    resized = np.asarray(bilinear_resize_align_corners(plane, (33, 41)))[0, ..., 0]
    np.testing.assert_allclose(np.diff(resized, 2, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.diff(resized, 2, axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(resized[[0, 0, -1, -1], [0, -1, 0, -1]], [0, 15, 8, 23], atol=1e-5)
    np.testing.assert_array_equal(bilinear_resize_align_corners(plane, (5, 6)), plane)
    assert float(bilinear_resize_align_corners(plane, (1, 1))[0, 0, 0, 0]) == 0.0
    assert bilinear_resize_align_corners(jnp.bfloat16(plane), (3, 3)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("shape", "size"), [((4, 4), (2, 2)), ((4, 4, 1), (0, 2))])
@pytest.mark.usefixtures("unchecked")
def test_bilinear_refuses_what_is_no_image_or_no_size(shape, size):
    with pytest.raises(ValueError, match=r"Resizing takes images|Images are resized"):
        bilinear_resize_align_corners(jnp.ones(shape), size)
