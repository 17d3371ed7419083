"""The parts of `restore`: axes against scikit-learn, losses against numpy, what is drawn on images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_backbone
import tiny_features
from scipy import special
from sklearn.decomposition import PCA

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models.base import for_detection
from jaxad.models.layers import folded_pca, training_defects
from jaxad.models.layers.folded_pca import FOLDS
from jaxad.models.layers.restoring_network import (
    RestoringNetwork,
    depth_to_space,
    space_to_depth,
)
from jaxad.models.restore import Restore, RestoreOptions

SHAPE = (16, 24, 3)
SMALL = {"width": 8, "levels": 2, "components": 3, "kinds": "patch"}


def pictures(count=12):
    """A bright disc of random place on a dark background, and noise; 2 x 2 pixels are alike."""
    rng = np.random.default_rng(0)
    h, w, c = SHAPE[0] // 2, SHAPE[1] // 2, SHAPE[2]
    y, x = np.mgrid[:h, :w]
    place = np.array([h / 2, w / 2]) + rng.normal(0, 0.3, (count, 2))
    away = np.hypot(y - place[:, 0, None, None], x - place[:, 1, None, None])
    disc = np.where(away < h / 3, 180.0, 20.0)[..., None] * np.ones(c)
    small = np.uint8(np.clip(disc + rng.normal(0, 6, disc.shape), 0, 255))
    return small.repeat(2, axis=1).repeat(2, axis=2)


def batches_of(images):
    """Two batches, the second filled up with a row that does not count."""
    parts = images[:7], np.concatenate([images[7:], images[:1]])
    rows = np.arange(7, dtype=np.int32), np.int32([*range(7, len(images)), 0])
    valid = np.ones(7, bool), np.arange(len(parts[1])) < len(images) - 7
    return [Batch(*one) for one in zip(parts, rows, valid, strict=True)]


def keys_of(count):
    return jax.random.split(jax.random.key(3), count)


@pytest.fixture(scope="module")
def fitted():
    """The parts, and their variables with a U-Net that is not trained."""
    parts = Restore(SHAPE, RestoreOptions(**SMALL))
    drawn = jax.jit(parts.init)(jax.random.key(0))
    return parts, parts.initialise(drawn, batches_of(pictures()))


@pytest.mark.parametrize("fold", [0, 2, FOLDS])
def test_axes_are_scikit_learns_of_the_images_of_other_folds(fitted, fold):
    parts, variables = fitted
    images = pictures()
    rows = images[:, ::2, ::2].reshape(len(images), -1) / 255
    others = np.arange(len(images)) % FOLDS != fold
    pca = PCA(SMALL["components"], svd_solver="full").fit(rows[others])
    expected = pca.inverse_transform(pca.transform(rows))
    folds = jnp.full(len(rows), fold)
    found = folded_pca.reconstruct(
        variables["linear"], jnp.asarray(rows, jnp.float32).reshape(-1, *parts.small), folds
    )
    # float32 axes by the Gram matrix: four digits of values below 1.
    np.testing.assert_allclose(found.reshape(len(rows), -1), expected, atol=2e-4)


def test_an_image_is_reconstructed_by_the_axes_of_its_own_fold(fitted):
    parts, variables = fitted
    small = jax.random.uniform(jax.random.key(1), (4, *parts.small))
    folds = jnp.array([3, FOLDS, 0, 3])
    together = folded_pca.reconstruct(variables["linear"], small, folds)
    for row, fold in enumerate(folds):
        alone = folded_pca.reconstruct(variables["linear"], small[row][None], fold[None])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


def test_blocks_of_pixels_become_channels_and_pixels_again():
    images = jnp.arange(2 * 6 * 9 * 2, dtype=jnp.float32).reshape(2, 6, 9, 2)
    deep = space_to_depth(images, 3)
    assert deep.shape == (2, 2, 3, 18)
    np.testing.assert_array_equal(deep[1, 1, 2].reshape(3, 3, 2), images[1, 3:, 6:])
    np.testing.assert_array_equal(depth_to_space(deep, 3), images)


def test_an_untrained_network_changes_nothing_and_finds_nothing():
    network = RestoringNetwork((8, 16), 2)
    images = jax.random.uniform(jax.random.key(0), (2, *SHAPE))
    linear = jnp.zeros((2, 8, 12, 3))
    (restored, logits), _ = network.init_with_output(jax.random.key(1), images, linear)
    np.testing.assert_array_equal(restored, images)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), 1 / 55.6, rtol=1e-3)


def test_losses_are_those_of_their_formulas(fitted):
    parts, _ = fitted
    rng = np.random.default_rng(1)
    restored, good = rng.random((2, 3, *SHAPE)).astype(np.float32)
    logits = rng.normal(0, 3, (3, *SHAPE[:2])).astype(np.float32)
    masks = rng.random((3, *SHAPE[:2])) < [[[0.0]], [[0.2]], [[0.9]]]
    terms = parts.losses(*map(jnp.asarray, (restored, logits, good, masks)))
    p = special.expit(logits.astype(np.float64))
    right = np.where(masks, p, 1 - p)
    focal = (-((1 - right) ** 2) * np.log(right)).mean(axis=(1, 2))
    overlap = 2 * (p * masks).sum(axis=(1, 2)) + 1
    dice = 1 - overlap / (p.sum(axis=(1, 2)) + masks.sum(axis=(1, 2)) + 1)
    error = np.abs(np.float64(restored) - good).mean(axis=-1)
    l1 = np.where(masks, 5 * error, error).mean(axis=(1, 2))
    for name, expected in {"focal": focal, "dice": dice, "l1": l1}.items():
        np.testing.assert_allclose(terms[name], expected, rtol=1e-5, err_msg=name)


def test_donors_are_good_images_and_where_the_object_is():
    images = pictures(40)
    donors = training_defects.keep_donors([Batch(images, np.arange(40), np.ones(40, bool))])
    known = {image.tobytes() for image in images}
    kept = [np.asarray(image) for image in donors["images"]]
    assert len(kept) == training_defects.DONORS and all(one.tobytes() in known for one in kept)
    for image, inside in zip(kept, np.asarray(donors["foregrounds"]), strict=True):
        bright = image.mean(axis=-1) > 100
        assert (inside == bright).mean() > 0.95
    # In units of [0, 1], between the noise and the disc's 160 of 255.
    assert 0.1 < float(donors["threshold"]) < 0.6


def test_without_a_background_everything_is_foreground():
    rng = np.random.default_rng(0)
    texture = np.uint8(rng.integers(0, 256, (9, *SHAPE)))
    donors = training_defects.keep_donors([Batch(texture, np.arange(9), np.ones(9, bool))])
    assert donors["foregrounds"].all() and float(donors["threshold"]) < 0


@pytest.fixture(scope="module")
def draw(fitted):
    """``(images, keys) -> (drawn, masks)``, compiled once for every number of images."""
    _, variables = fitted
    how = {"kinds": ("patch",), "good": 0.3}
    return jax.jit(lambda x, k: training_defects.draw_on(variables["donors"], x, k, **how))


def test_what_is_drawn_does_not_depend_on_the_batch(draw):
    images, keys = jnp.asarray(pictures(), jnp.float32) / 255, keys_of(12)
    whole = draw(images, keys)
    for row in (0, 5):
        for of_all, alone in zip(whole, draw(images[row][None], keys[row][None]), strict=True):
            np.testing.assert_allclose(of_all[row], alone[0], atol=1e-6)


def test_defects_are_where_the_masks_are_on_the_object_and_some_images_stay_good(draw):
    images = jnp.asarray(pictures(), jnp.float32) / 255
    keys = jax.random.split(jax.random.key(4), (4, 12))
    drawn, masks = map(np.concatenate, zip(*(draw(images, some) for some in keys), strict=True))
    images = np.tile(images, (4, 1, 1, 1))
    changed, some = np.abs(drawn - images).max(axis=-1) > 0, masks.any(axis=(1, 2))
    assert 10 < some.sum() < 45
    assert not changed[~some].any()
    outside = images.mean(axis=-1) < 0.25
    assert (masks & outside).sum() < 0.2 * masks.sum()


def test_the_maps_follow_from_each_other(fitted):
    parts, variables = fitted
    noise = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(5), x.shape), variables["params"]
    )
    variables = {**variables, "params": noise}
    found = jax.jit(parts.detect)(variables, pictures(4))
    maps = found.maps
    alone = parts.features.detect({"params": variables["features"]}, pictures(4))
    np.testing.assert_allclose(maps["residual"], alone.maps["residual"], rtol=1e-4)
    expected = maps["residual"] * np.sqrt(maps["probability"] + parts.options.floor)
    np.testing.assert_allclose(maps["residual*probability"], expected, rtol=1e-5)
    error = np.abs(pictures(4) / 255.0 - found.reconstruction).mean(axis=-1)
    np.testing.assert_allclose(maps["restoration"], error, atol=1e-6)
    assert float(maps["probability"].std()) > 0


def test_over_a_pretrained_network_the_residual_is_that_of_feature_pca():
    """And what detection leaves out, unused axes and donors, changes no map."""
    images, new = tiny_features.images_of(9), tiny_features.images_of(3, seed=5)
    closed = models.build("feature_pca", tiny_features.SHAPE, backbone=tiny_backbone.NAME)
    network = closed.init(jax.random.key(2))
    network = {name: tree["backbone"] for name, tree in network.items()}
    expected = closed.detect(
        closed.fit(tiny_features.batches_of(images), backbone=network), new
    ).maps["residual"]
    model = models.build("restore", tiny_features.SHAPE, backbone=tiny_backbone.NAME, **SMALL)
    assert model.backbone == tiny_backbone.NAME
    variables = jax.jit(model.init)(jax.random.key(0))
    variables = model.initialise(variables, tiny_features.batches_of(images), backbone=network)
    assert variables["features_batch_stats"]
    whole = jax.jit(model.detect)(variables, new)
    # The fit is repeated in float32, and XLA orders sums otherwise.
    np.testing.assert_allclose(whole.maps["residual"], expected, rtol=2e-3)
    trimmed, kept = for_detection(model, variables)
    assert "donors" not in kept and len(kept["features"]["axes"]) == 8
    found = jax.jit(trimmed.detect)(kept, new)
    for name, values in whole.maps.items():
        np.testing.assert_allclose(found.maps[name], values, rtol=2e-4, atol=1e-6, err_msg=name)


def test_held_out_images_are_reconstructed_by_all_axes(fitted):
    """In training an image's own fold decides; otherwise its row has no meaning."""
    parts, variables = fitted
    batch = Batch(pictures(4), np.int32([0, 1, 2, 3]), np.ones(4, bool))
    moved = batch._replace(index=np.int32([1, 2, 3, 4]))
    # Another start than that which ignores the reconstruction.
    ones = jax.tree.map(lambda x: x + 0.1, variables["params"])
    variables = {**variables, "params": ones}
    loss = jax.jit(parts.loss, static_argnums=3)
    of = lambda one, train: np.asarray(loss(variables, one, keys_of(4), train).per_example)
    np.testing.assert_array_equal(of(batch, False), of(moved, False))
    assert (of(batch, True) != of(moved, True)).any()


@pytest.mark.parametrize(
    "shape, options, sentence",
    [
        ((20, 16, 3), {}, "multiples of 8"),
        ((136, 136, 3), {"levels": 4}, "multiples of 16"),
        ((16, 16, 4), {}, "data.channels=3"),
        ((16, 16, 3), {"kinds": "patch,dust"}, "'dust', which is none of patch"),
        ((16, 16, 3), {"backbone": "resnet99"}, "resnet99"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, sentence):
    with pytest.raises(models.UserError, match=sentence):
        models.build("restore", shape, **options)


def test_two_images_are_not_enough(fitted):
    parts, variables = fitted
    two = Batch(pictures(2), np.arange(2, dtype=np.int32), np.ones(2, bool))
    with pytest.raises(ValueError, match="needs at least 3 training images, it was given 2"):
        parts.initialise(variables, [two])
