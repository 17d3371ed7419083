"""Against Pillow, by which images are resized everywhere else."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxad.data.images import resize
from jaxad.evaluation.resize import resize_map
from jaxad.ops.antialias import resize_maps, resize_pictures, to_luma, triangle_weights

SIDES = [(32, 32), (96, 32), (37, 32), (20, 32), (300, 16), (1, 8), (8, 1)]


@pytest.mark.parametrize(("before", "after"), SIDES)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_become_pillows_to_the_bit(before, after, channels):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, before, before, channels), np.uint8)
    # Black and white alone: the largest sums.
    images = np.concatenate([noise, np.where(noise > 127, 255, 0).astype(np.uint8)])
    found = jax.jit(resize_pictures, static_argnums=1)(images, (after, after))
    for image, one in zip(images, found, strict=True):
        np.testing.assert_array_equal(one, resize(image, (after, after)))


def test_sides_are_resized_apart():
    image = np.random.default_rng(1).integers(0, 256, (40, 24, 3), np.uint8)
    (found,) = resize_pictures(image[None], (30, 12))
    np.testing.assert_array_equal(found, resize(image, (30, 12)))


@pytest.mark.parametrize(("before", "after"), SIDES)
def test_maps_become_those_of_the_host(before, after):
    values = np.random.default_rng(2).gamma(0.5, size=(3, before, before)).astype(np.float32)
    found = resize_maps(values, (after, after))
    for one, value in zip(found, values, strict=True):
        # Pillow adds up in float64, and rounds to float32 after each axis.
        np.testing.assert_allclose(one, resize_map(value, (after, after)), rtol=3e-6)


def test_weights_are_pillows_response_to_single_pixels():
    weights = triangle_weights(50, 13)
    for place in range(50):
        line = np.zeros((1, 50), np.float32)
        line[0, place] = 1.0
        row = Image.fromarray(line, mode="F").resize((13, 1), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(weights[:, place], np.asarray(row)[0], atol=1e-7)


def test_gray_is_pillows():
    images = np.random.default_rng(3).integers(0, 256, (2, 50, 60, 3), np.uint8)
    for image, gray in zip(images, to_luma(images), strict=True):
        np.testing.assert_array_equal(gray[..., 0], Image.fromarray(image).convert("L"))
