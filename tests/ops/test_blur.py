"""Gaussian blur against scipy.ndimage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxad.ops.blur import gaussian_blur


@pytest.fixture
def maps():
    return np.random.default_rng(0).random((2, 17, 23)).astype(np.float32)


# Sigmas past the size of the map: the kernel folds over the border several times.
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.4, 4.0, 9.0, 60.0])
@pytest.mark.parametrize("truncate", [4.0, 1.5])
def test_equals_scipy(maps, sigma, truncate):
    expected = gaussian_filter(
        maps.astype(np.float64), (0, sigma, sigma), mode="reflect", truncate=truncate
    )
    actual = gaussian_blur(maps, sigma=sigma, truncate=truncate)
    # Weighted means of values in [0, 1] in float32: a few roundings of 6e-8.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-7)


def test_maps_of_one_pixel_row_equal_scipy():
    row = np.random.default_rng(1).random((1, 9)).astype(np.float32)
    np.testing.assert_allclose(
        gaussian_blur(row, sigma=2.0), gaussian_filter(row, 2.0), rtol=0, atol=5e-7
    )


def test_sigma_zero_is_the_identity(maps):
    np.testing.assert_array_equal(gaussian_blur(maps, sigma=0), maps)


def test_mean_and_constants_are_kept(maps):
    np.testing.assert_allclose(
        gaussian_blur(maps, sigma=5.0).mean((1, 2)), maps.mean((1, 2)), rtol=2e-6
    )
    np.testing.assert_allclose(gaussian_blur(jnp.full((8, 9), 3.0), sigma=2.0), 3.0, rtol=1e-6)


def test_transforms_and_leading_axes(maps):
    blur = jax.jit(lambda x: gaussian_blur(x, sigma=2.0))
    np.testing.assert_allclose(blur(maps)[1], blur(maps[1]), rtol=0, atol=5e-7)
    np.testing.assert_allclose(jax.vmap(blur)(maps), blur(maps), rtol=0, atol=5e-7)
    # A mirrored blur is self-adjoint: the gradient of <blur(x), y> is blur(y).
    weights = jnp.asarray(maps[::-1])
    gradient = jax.grad(lambda x: jnp.sum(blur(x) * weights))(jnp.asarray(maps))
    np.testing.assert_allclose(gradient, blur(weights), rtol=0, atol=5e-7)


def test_bfloat16_is_summed_in_float32(maps):
    actual = gaussian_blur(jnp.bfloat16(maps), sigma=4.0)
    assert actual.dtype == jnp.bfloat16
    exact = gaussian_blur(jnp.float32(jnp.bfloat16(maps)), sigma=4.0)
    np.testing.assert_array_equal(actual, jnp.bfloat16(exact))


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(maps):
    with pytest.raises(ValueError, match="sigma"):
        gaussian_blur(maps, sigma=-1.0)
    with pytest.raises(ValueError, match="sigma"):
        gaussian_blur(maps, sigma=float("nan"))
    with pytest.raises(ValueError, match="h, w"):
        gaussian_blur(maps[0, 0], sigma=1.0)
