"""Grey morphology against scipy.ndimage, even footprints and borders included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxad.ops import morphology

NAMES = ["grey_dilation", "grey_erosion", "grey_opening", "grey_closing"]


@pytest.fixture
def maps():
    return np.random.default_rng(0).standard_normal((2, 9, 13)).astype(np.float32)


# 20 and 41 exceed the maps, which are then mirrored several times.
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 20, 41])
@pytest.mark.parametrize("name", NAMES)
def test_equals_scipy(maps, name, size):
    expected = [getattr(ndimage, name)(x, size=(size, size), mode="reflect") for x in maps]
    actual = jax.jit(getattr(morphology, name), static_argnames="size")(maps, size=size)
    # Values are chosen, not computed: equal to the last bit.
    np.testing.assert_array_equal(actual, np.stack(expected))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_order_idempotence_and_duality(maps, size):
    opened = morphology.grey_opening(maps, size=size)
    assert np.all(opened <= maps)
    assert np.all(morphology.grey_closing(maps, size=size) >= maps)
    np.testing.assert_array_equal(morphology.grey_opening(opened, size=size), opened)


def test_opening_removes_a_speck_and_keeps_a_square_in_place():
    scene = np.zeros((12, 12), np.float32)
    scene[2, 2] = 1.0
    square = np.zeros_like(scene)
    square[6:9, 5:8] = 1.0
    for size in (2, 3):
        opened = morphology.grey_opening(scene + square, size=size)
        np.testing.assert_array_equal(opened, square)


def test_vmap_and_gradient(maps):
    for name in NAMES:
        function = lambda x, name=name: getattr(morphology, name)(x, size=3)
        np.testing.assert_array_equal(jax.vmap(function)(maps), function(maps))
        gradient = jax.grad(lambda x, f=function: jnp.sum(f(x)))(jnp.asarray(maps))
        # Each output pixel is one input pixel, so that the gradient counts how often it is chosen.
        np.testing.assert_array_equal(gradient, np.round(gradient))
        assert gradient.sum() == maps.size
        constant = jax.grad(lambda x, f=function: jnp.sum(f(x)))(jnp.zeros((6, 6)))
        assert np.all(np.isfinite(constant))
        assert constant.sum() == 36


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(maps):
    with pytest.raises(ValueError, match="1 pixel or more"):
        morphology.grey_dilation(maps, size=0)
    with pytest.raises(ValueError, match="h, w"):
        morphology.grey_erosion(maps[0, 0], size=3)
