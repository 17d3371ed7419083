"""Filters and features against scikit-learn and numpy; the model on images with a planted spot."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.data.pipeline import BatchLoader
from jaxad.models import own_features
from jaxad.models.layers import feature_fitting, whitened_patches
from jaxad.models.layers.whitened_patches import WhitenedPatches, averaged, fit_patches, rectified
from jaxad.models.positions import at_position, per_position

SIDE, FIRST, SECOND = 5, 4, 6


def pictures(count=10, side=32, channels=3):
    """Stripes of one place and direction, of random contrast and hue, and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    stripes = np.sin(x / 2.0 + y / 5.0)[None, :, :, None] * rng.normal(1, 0.2, (count, 1, 1, 1))
    hue = rng.uniform(0.5, 1, (count, 1, 1, channels))
    noise = rng.normal(0, 4, (count, side, side, channels))
    return np.uint8(np.clip(128 + 50 * stripes * hue + noise, 0, 255))


def batches_of(images):
    """Two batches, the second filled up with a row that does not count."""
    parts = images[:6], np.concatenate([images[6:], images[:1]])
    valid = np.ones(6, bool), np.arange(len(parts[1])) < len(images) - 6
    return [
        Batch(part, np.arange(len(part), dtype=np.int32), which)
        for part, which in zip(parts, valid, strict=True)
    ]


@pytest.fixture(scope="module")
def fitted():
    """Images, the module, its fitted variables."""
    images = pictures()
    module = WhitenedPatches(FIRST, SECOND, SIDE)
    drawn = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return images, module, fit_patches(module, drawn, batches_of(images))


def patches_of(maps, side, step):
    """Patches by numpy, flattened in the order of a kernel: rows, columns, channels."""
    around = ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0))
    maps = np.pad(maps, around, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(maps, (side, side), axis=(1, 2))
    windows = windows[:, ::step, ::step].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(*windows.shape[:3], -1)


def whitened_by_sklearn(maps, side, features):
    """Responses at all positions, by axes of every second one."""
    training = patches_of(maps, side, 2).reshape(-1, side**2 * maps.shape[-1])
    pca = PCA(features, svd_solver="full").fit(training)
    variances = pca.explained_variance_ * (len(training) - 1) / len(training)
    floor = whitened_patches.FLOOR * variances.mean() + whitened_patches.ROUNDING
    every = patches_of(maps, side, 1)
    codes = pca.transform(every.reshape(-1, every.shape[-1])) / np.sqrt(variances + floor)
    return codes.reshape(*every.shape[:3], features)


@pytest.mark.parametrize("level", [0, 1])
def test_responses_are_those_of_scikit_learns_whitened_axes(fitted, level):
    images, module, variables = fitted
    unit = jnp.asarray(images, jnp.float32) / 255
    for layers, method, side, features in (
        ("layers1", "before_first", SIDE, FIRST),
        ("layers2", "before_second", whitened_patches.SECOND_SIDE, SECOND),
    ):
        maps = module.apply(variables, unit, method=method)[level]
        layer = whitened_patches.Whitening(features, side)
        ours = layer.apply({"params": variables["params"][f"{layers}_{level}"]}, maps)
        theirs = whitened_by_sklearn(np.asarray(maps, np.float64), side, features)
        # Up to the sign of an axis. Float32 moments of values near 0.5, of variances to 1e-4.
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=0.02)
        assert np.abs(theirs).max() > 1


def test_the_sign_of_a_filter_is_that_of_its_largest_entry(fitted):
    for layer in fitted[2]["params"].values():
        filters = np.asarray(layer["filters"])
        largest = np.abs(filters).argmax(axis=0)
        assert (filters[largest, np.arange(filters.shape[1])] > 0).all()


def test_rectified_means_tell_sign_and_strength():
    maps = jnp.array([4.0, -9.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    both = averaged(rectified(maps), 2)
    # sqrt(4) and sqrt(9) among four places each; the root starts 1e-3 below 0 so as to be smooth.
    np.testing.assert_allclose(both.ravel(), [0.5, 0.75], atol=2e-3)
    assert float(rectified(jnp.zeros((1, 1, 1, 1))).max()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("covariance", ["pooled", "position"])
def test_a_spot_stands_out(covariance):
    images = pictures()
    small = {"first": FIRST, "second": SECOND, "components": 4, "covariance": covariance}
    model = models.build("own_features", (32, 32, 3), **small)
    variables = model.fit(batches_of(images[:9]))
    bad = images[9:].copy()
    bad[:, 8:12, 20:24] = 255 - bad[:, 8:12, 20:24]
    good, spotted = (model.detect(variables, one).maps["residual"][0] for one in (images[9:], bad))
    peak = np.unravel_index(np.argmax(spotted - good), good.shape)
    assert 4 <= peak[0] < 16 and 16 <= peak[1] < 28
    assert float(spotted.max()) > 1.5 * float(good.max())


def test_one_image_is_not_enough():
    model = models.build("own_features", (16, 16, 3), first=2, second=2)
    with pytest.raises(ValueError, match="needs at least 2 training images, it was given 1"):
        model.fit([Batch(pictures(1, 16), np.zeros(1, np.int32), np.ones(1, bool))])


@pytest.mark.parametrize("shape, word", [((20, 16, 3), "image_size"), ((16, 16, 4), "channels")])
def test_images_that_do_not_fit_are_refused(shape, word):
    with pytest.raises(models.UserError, match=word):
        models.build("own_features", shape)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"first": 76}, "model.first is 76, but its patches have 75 values"),
        ({"first": 1}, "model.second is 24, but its patches have 18 values"),
        ({"second": 217}, "model.second is 217, but its patches have 216 values"),
    ],
)
def test_more_filters_than_values_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        own_features.build((16, 16, 3), own_features.OwnFeaturesOptions(**options))
    own_features.build((16, 16, 3), own_features.OwnFeaturesOptions(first=75, second=1))


def test_places_have_models_of_their_own_and_filters_of_all_tiles():
    """Against the filters of all tiles by hand, and the fit by passes behind them.

    Its eigenvectors are of float64, and the whitening divides by roots of variances down to a
    thousandth of the mean, so maps are equal to about a thousandth.
    """
    places, photographs, side = 3, 8, 16
    large = pictures(photographs, side=2 * side)
    tiles = np.stack([large[:, :side, :side], large[:, 5:][:, :side, :side], large[:, 16:, 16:]], 1)
    rows = tiles.reshape(-1, side, side, 3)
    options = {"first": FIRST, "second": SECOND, "components": 4, "covariance": "pooled"}
    model = models.build("own_features", (side, side, 3), **options)
    variables = per_position(model, places).fit(BatchLoader(rows))
    filters = model.learn_backbone(BatchLoader(rows))
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["backbone"], filters["params"])

    stacked = per_position(model, places)
    detect = jax.jit(model.detect)
    found = stacked.detect(variables, tiles[0]).maps["residual"]
    of_fit = own_features.OwnFeaturesOptions(**options).of_fit()
    for place in range(places):
        own = BatchLoader(tiles[:, place])
        alone = feature_fitting.fit(model.module, of_fit, own, backbone=filters)
        expected = detect(alone, tiles[:1, place]).maps["residual"][0]
        np.testing.assert_allclose(found[place], expected, rtol=3e-3)
        by_itself = detect(at_position(variables, place), tiles[:1, place]).maps["residual"]
        np.testing.assert_allclose(found[place], by_itself[0], rtol=1e-5)
