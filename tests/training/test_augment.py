"""Augmentation belongs to an image and its key, to nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jaxad.run.config import load_settings
from jaxad.training.augment import make_augment

EVERYTHING = {
    "flip_left_right": True,
    "flip_up_down": True,
    "rotate_degrees": 30.0,
    "shift": 0.1,
    "brightness": 0.2,
    "crop": 0.5,
}


def augmentation(**changes):
    return make_augment(
        load_settings("pca", {f"augment.{k}": v for k, v in changes.items()}).augment
    )


def pictures(count=8, shape=(10, 14, 3), seed=0):
    return jax.random.uniform(jax.random.key(seed), (count, *shape))


def keys(count=8, seed=1):
    return jax.random.split(jax.random.key(seed), count)


def test_off_is_the_identity():
    images = pictures()
    np.testing.assert_array_equal(augmentation()(images, keys()), images)


def test_batches_and_devices_do_not_matter():
    images, own = pictures(), keys()
    augment = jax.jit(augmentation(**EVERYTHING))
    whole = augment(images, own)
    assert not np.allclose(whole, images)
    for rows in ([3], [5, 1], [7, 6, 0, 2]):
        rows = jnp.array(rows)
        np.testing.assert_allclose(augment(images[rows], own[rows]), whole[rows], atol=1e-6)
    split = jax.pmap(augmentation(**EVERYTHING))(
        images.reshape(4, 2, *images.shape[1:]), own.reshape(4, 2)
    )
    np.testing.assert_allclose(np.reshape(split, whole.shape), whole, atol=1e-6)


@pytest.mark.parametrize("key, axis", [("flip_left_right", 2), ("flip_up_down", 1)])
def test_a_flip_is_exact_and_happens_half_of_the_time(key, axis):
    images = jnp.tile(pictures(1), (200, 1, 1, 1))
    found = augmentation(**{key: True})(images, keys(200))
    turned = np.all(found == np.flip(images, axis), axis=(1, 2, 3))
    kept = np.all(found == images, axis=(1, 2, 3))
    assert np.all(turned ^ kept)
    # 200 tosses: within four standard deviations of 100.
    assert 72 <= turned.sum() <= 128


def test_a_rotation_by_nothing_is_the_identity():
    images = pictures()
    found = augmentation(rotate_degrees=1e-6)(images, keys())
    np.testing.assert_allclose(found, images, atol=1e-5)


def test_rotation_and_shift_against_scipy():
    """The angle and shift are those of the key; scipy resamples with the same matrix."""
    (image,), (key,) = pictures(1), keys(1)
    found = augmentation(rotate_degrees=40.0, shift=0.2)(image[None], key[None])[0]
    _, _, angle, shift, _ = jax.random.split(key, 5)
    uniform = lambda k, shape: np.asarray(jax.random.uniform(k, shape, minval=-1.0, maxval=1.0))
    radians = np.deg2rad(40.0) * uniform(angle, ())
    h, w = image.shape[:2]
    by = 0.2 * uniform(shift, (2,)) * (h, w)
    matrix = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    centre = np.array([(h - 1) / 2, (w - 1) / 2])
    offset = centre - matrix @ (centre + by)
    for channel in range(3):
        expected = scipy.ndimage.affine_transform(
            np.asarray(image[..., channel], np.float64), matrix, offset, order=1, mode="nearest"
        )
        # float32 coordinates: a few parts in 1e5 of a pixel.
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)


def test_brightness_is_one_number_per_image():
    images = 0.4 + 0.2 * pictures()
    change = augmentation(brightness=0.2)(images, keys()) - images
    np.testing.assert_allclose(
        change, jnp.broadcast_to(change[:, :1, :1, :1], change.shape), atol=1e-6
    )
    amounts = np.asarray(change[:, 0, 0, 0])
    assert len(np.unique(amounts)) == 8 and np.all(np.abs(amounts) <= 0.2 + 1e-6)


def test_values_stay_in_the_unit_interval_and_are_finite():
    extremes = jnp.round(pictures())
    found = augmentation(**EVERYTHING)(extremes, keys())
    assert float(found.min()) >= 0.0 and float(found.max()) <= 1.0
    assert bool(jnp.all(jnp.isfinite(found)))


def test_a_crop_enlarges_a_part_of_the_allowed_area_and_shape():
    """A ramp stays a ramp, and its slopes say which share of either side is seen."""
    side, count = 60, 60
    ramp = jnp.linspace(0.25, 0.75, side)
    image = jnp.stack(jnp.meshgrid(ramp, ramp, indexing="ij"), axis=-1)
    found = np.asarray(augmentation(crop=0.2)(jnp.tile(image, (count, 1, 1, 1)), keys(count)))
    inner = found[:, 12:-12, 12:-12]  # the cubic's reach at the border, twice enlarged
    steps = np.diff(inner[..., 0], axis=1), np.diff(inner[..., 1], axis=2)
    shares = [step.mean((1, 2)) / (0.5 / (side - 1)) for step in steps]
    for step, share in zip(steps, shares, strict=True):
        np.testing.assert_allclose(step, step.mean((1, 2), keepdims=True) + 0 * step, atol=1e-5)
        assert 0 < share.min() < share.max() <= 1.001
    area, ratio = shares[0] * shares[1], shares[1] / shares[0]
    assert 0.2 * 0.999 <= area.min() < 0.35 and 0.8 < area.max() <= 1.001
    assert 0.75 * 0.999 <= ratio.min() < 0.85 and 1.2 < ratio.max() <= 4 / 3 * 1.001
    assert found.min() >= 0 and np.ptp(inner.mean((1, 2)), axis=0).min() > 0.1  # other places
