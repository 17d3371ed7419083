"""Changes of light that are undone, against numbers that are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops.illumination import (
    MATCH,
    Reference,
    gain_planes,
    level_of,
    match_gradient,
    match_level,
)


@pytest.fixture(scope="module")
def scene():
    """A part that lies the same way in every picture, and its reference."""
    rng = np.random.default_rng(0)
    image = 0.3 + 0.2 * rng.random((20, 30, 3), np.float32)
    image[5:12, 8:20] += 0.2
    reference = Reference(*map(jnp.asarray, (image.mean(), image.std(), image.mean(axis=-1))))
    return jnp.asarray(image), reference


def light(height, width, right, down):
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return (1 + right * u + down * v)[..., None].astype(np.float32)


@pytest.mark.parametrize("match", MATCH.values())
@pytest.mark.parametrize(("gain", "offset"), [(1, 0), (1, 0.04), (0.7, 0), (1.2, -0.1)])
def test_gain_and_offset_are_undone(scene, match, gain, offset):
    image, reference = scene
    found = match((gain * image + offset)[None], reference)[0]
    np.testing.assert_allclose(found, image, atol=2e-6)  # of float32


def test_the_level_is_numpys_mean_and_deviation_of_each_image(scene):
    images = jnp.stack([scene[0], scene[0] ** 2, jnp.full_like(scene[0], 0.4)])
    mean, deviation = level_of(images)
    images = np.asarray(images, np.float64)
    np.testing.assert_allclose(mean, [one.mean() for one in images], rtol=1e-6)
    np.testing.assert_allclose(deviation, [one.std() for one in images], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("right", "down"), [(0.2, 0.0), (-0.1, 0.3)])
def test_a_gradient_is_undone(scene, right, down):
    image, reference = scene
    lit = image * light(*image.shape[:2], right, down)
    before = np.abs(match_level(lit[None], reference)[0] - image).mean()
    found = match_gradient(lit[None], reference)[0]
    # The level is matched before the plane is fitted, which bends it a little.
    assert np.abs(found - image).mean() < 0.1 * before


def test_the_plane_is_that_of_least_squares(scene):
    """Against NumPy's solver on the same equations."""
    image, reference = scene
    rng = np.random.default_rng(1)
    other = jnp.asarray(rng.random((2, *image.shape), np.float32))
    height, width = image.shape[:2]
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(u), u, v], axis=-1)
    design = (terms * np.asarray(reference.luminance)[..., None]).reshape(-1, 3)
    for one, plane in zip(other, gain_planes(other, reference.luminance), strict=True):
        want, *_ = np.linalg.lstsq(design, one.mean(axis=-1).ravel(), rcond=None)
        np.testing.assert_allclose(plane, terms @ want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("match", MATCH.values())
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_images_stay_finite(scene, match, value):
    found = np.asarray(match(jnp.full_like(scene[0], value)[None], scene[1]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.mean(), scene[1].mean, atol=1e-3)
