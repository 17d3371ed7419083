"""The model on feature maps: what its options make of it, batches, budgets, few images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_backbone
from sklearn.decomposition import PCA
from tiny_features import SHAPE, D, P, batches_of, build, fitted, images_of, network

from jaxad import models
from jaxad.models.layers import feature_fitting
from jaxad.models.layers.backbones import backbone
from jaxad.models.layers.feature_passes import to_vectors
from jaxad.run.errors import UserError


def fine_maps(images):
    """The features of images at 8 pixels a position, in float64: ``(n, p, d)``."""
    maps = backbone(tiny_backbone.NAME).module.apply(network(), jnp.asarray(images) / 255.0)
    fine, coarse = (np.float64(x) for x in maps)
    fine = fine.reshape(len(images), 4, 2, 6, 2, 3).mean(axis=(2, 4))
    coarse = jax.image.resize(jnp.asarray(coarse), (len(images), 4, 6, 4), "linear")
    return np.concatenate([fine, coarse], axis=-1).reshape(len(images), P, D)


def squares_of(model, variables, images):
    """The map on the grid of features."""
    residuals, _ = model.module.apply(variables, jnp.asarray(images) / 255.0)
    grid = model.module.apply(variables, residuals, method="distances")
    return np.asarray(grid).reshape(len(images), P)


@pytest.fixture(scope="module")
def good():
    return images_of(40)


@pytest.fixture(scope="module")
def default(good):
    return fitted(good, components=10, position_channels=D)


def test_the_result_does_not_depend_on_batches(good, default):
    _, variables = default
    _, other = fitted(good, size=7, components=10, position_channels=D)
    new = images_of(3, seed=9)
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(other), strict=True):
        assert a.shape == b.shape
    for name, one in default[0].detect(variables, new).maps.items():
        np.testing.assert_allclose(one, default[0].detect(other, new).maps[name], rtol=1e-3)


def test_a_defect_stands_out_where_it_is(good, default):
    model, variables = default
    picture = images_of(1, seed=5)
    scratched = picture.copy()
    scratched[0, 20:28, 4:12] = (200, 30, 200)
    clean, found = (
        np.asarray(model.detect(variables, x).maps["residual"][0]) for x in (picture, scratched)
    )
    assert found.shape == SHAPE[:2]
    top, left = np.unravel_index(found.argmax(), found.shape)
    assert 16 <= top < 32 and 0 <= left < 16
    assert found.max() > 5 * clean.max()


def test_unseen_good_images_are_near_one(good):
    """A mean over channels of whitened squares: residuals of images left out have mean 1 by
    construction, those of unseen images about that; in-sample ones would be far below."""
    model, variables = fitted(good, components=100, covariance="pooled")
    unseen = squares_of(model, variables, images_of(40, seed=1))
    assert 0.8 < unseen.mean() < 1.3


def test_the_network_and_its_statistics_become_part_of_the_model(default):
    _, variables = default
    for collection, tree in network().items():
        for a, b in zip(
            jax.tree.leaves(variables[collection]["backbone"]), jax.tree.leaves(tree), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("count", [2, 5])
def test_a_few_images_are_enough(count):
    model, variables = fitted(images_of(count), components=10, position_channels=D)
    assert float(variables["params"]["by_position"]) == 0.0  # fewer images than channels
    detection = model.detect(variables, images_of(2, seed=4))
    assert np.isfinite(detection.maps["residual"]).all()
    assert np.count_nonzero(variables["params"]["shrinkage"]) <= count - 1


def test_positions_have_covariances_of_their_own_where_images_support_it(good, default):
    """The square's border differs from its surroundings in more than scale, on 40 images."""
    _, variables = default
    assert float(variables["params"]["by_position"]) == 1.0
    by_rule = squares_of(*default, good[:2])
    asked, also = fitted(good, components=10, position_channels=D, covariance="position")
    np.testing.assert_allclose(by_rule, squares_of(asked, also, good[:2]), rtol=1e-4)
    pooled, alike = fitted(good, components=10, covariance="pooled")
    off = {"params": {**variables["params"], "by_position": jnp.float32(0.0)}}
    off = {**variables, **off}
    np.testing.assert_allclose(
        squares_of(default[0], off, good[:2]), squares_of(pooled, alike, good[:2]), rtol=1e-4
    )


def test_more_images_than_the_budget_holds(good, monkeypatch):
    """A random half is the basis; the other half still counts in the covariance."""
    values = build().module.layout.values
    # A value of this size makes 1 MB hold 20 images.
    monkeypatch.setattr(feature_fitting, "BYTES", 2**20 // (feature_fitting.COPIES * values * 20))
    model, variables = fitted(good, components=40, covariance="pooled", memory_limit_mb=1)
    assert np.count_nonzero(variables["params"]["shrinkage"]) == 19
    unseen = squares_of(model, variables, images_of(40, seed=1))
    assert 0.8 < unseen.mean() < 1.3
    _, other = fitted(good, size=9, components=40, covariance="pooled", memory_limit_mb=1)
    np.testing.assert_allclose(
        variables["params"]["mean"], other["params"]["mean"], rtol=1e-4, atol=1e-5
    )


def standard(train, images, *, per_position):
    """Standardised features, and those of the training images."""
    known, new = fine_maps(train), fine_maps(images)
    mean = known.mean(axis=0 if per_position else (0, 1))
    # Of the maps as they are kept, before they are interpolated.
    maps = backbone(tiny_backbone.NAME).module.apply(network(), jnp.asarray(train) / 255.0)
    fine = np.float64(maps[0]).reshape(len(train), 4, 2, 6, 2, 3).mean(axis=(2, 4))
    deviation = np.concatenate([x.std(axis=(0, 1, 2)) for x in (fine, np.float64(maps[1]))])
    return (known - mean) / deviation, (new - mean) / deviation


def test_padim_is_a_normal_density_per_position(good):
    """Mahalanobis distances by covariances of the leave-one-out deviations from the mean."""
    options = {"components": 0, "covariance": "position", "position_channels": D}
    model, variables = fitted(good, position_weight=1.0, floor=1e-3, **options)
    new = images_of(3, seed=2)
    known, other = standard(good, new, per_position=True)
    n = len(good)
    left_out = known * n / (n - 1)
    pooled = np.einsum("npi,npj->ij", left_out, left_out) / (n * P)
    for p in (0, 11):
        covariance = left_out[:, p].T @ left_out[:, p] / (n - 1)
        covariance += 1e-3 * np.trace(pooled) / D * np.eye(D)
        expected = np.einsum("ni,ij,nj->n", other[:, p], np.linalg.inv(covariance), other[:, p])
        np.testing.assert_allclose(squares_of(model, variables, new)[:, p] * D, expected, rtol=1e-2)


def test_anywhere_is_one_subspace_for_all_positions(good):
    model, variables = fitted(good, components=0, covariance="shared", share=0.9)
    new = images_of(3, seed=2)
    known, other = standard(good, new, per_position=False)
    # The mean over images and positions of interpolated features is not quite 0.
    covariance = np.einsum("npi,npj->ij", known, known) / (len(good) * P)
    values, axes = np.linalg.eigh(covariance)
    kept = int(np.searchsorted(np.cumsum(values[::-1]), 0.9 * values.sum())) + 1
    left = other @ axes[:, : D - kept]
    np.testing.assert_allclose(
        squares_of(model, variables, new) * D,
        np.sum(np.square(left), axis=-1),
        rtol=2e-2,
        atol=1e-3,
    )


def test_the_finest_maps_alone_are_a_model_of_their_own(good):
    """Distances from the mean by the first map's channels, whatever the second has."""
    model, variables = fitted(good, stages=1, components=0, covariance="none")
    first = fine_maps(good)[..., :3]
    others = fine_maps(new := images_of(3, seed=2))[..., :3]
    # Of each position the mean, of each channel the deviation from its mean over all positions.
    left = (others - first.mean(axis=0)) / first.std(axis=(0, 1))
    expected = np.mean(np.square(left), axis=-1)
    # The deviation of the map before it is averaged to 8 pixels does not enter.
    np.testing.assert_allclose(squares_of(model, variables, new), expected, rtol=1e-3)


def test_fre_is_the_squared_residual_of_principal_axes(good):
    model, variables = fitted(good, components=5, covariance="none", ridge=1e-9)
    new = images_of(3, seed=2)
    module = model.module
    maps = lambda images: np.float64(
        to_vectors(module.layout, module.backbone.apply(network(), jnp.asarray(images) / 255.0))
    )
    deviation = np.float64(variables["params"]["deviation"])
    fit = PCA(5).fit(maps(good) / deviation)
    rows = maps(new) / deviation
    left = rows - fit.inverse_transform(fit.transform(rows))
    fine = module.layout.on_finest_grid(jnp.asarray(left, jnp.float32))
    np.testing.assert_allclose(
        squares_of(model, variables, new), np.mean(np.square(fine), axis=-1), rtol=1e-2, atol=1e-4
    )


def test_the_plain_residual_has_its_share_of_the_map(good):
    model, variables = fitted(good, components=100, covariance="pooled", plain=0.25)
    new = images_of(40, seed=1)
    white = squares_of(*fitted(good, components=100, covariance="pooled"), new)
    plain = squares_of(*fitted(good, components=100, covariance="none"), new)
    level = float(variables["params"]["level"])
    assert 0.8 < plain.mean() / level < 1.3  # these images are as unseen as those left out
    np.testing.assert_allclose(
        squares_of(model, variables, new), white**0.75 * (plain / level) ** 0.25, rtol=1e-4
    )


def test_the_picture_follows_the_image(good, default):
    """It is a weighted mean of good images: nearer to the image than their mean is."""
    model, variables = default
    new = images_of(6, seed=7)
    shown = np.asarray(model.detect(variables, new).reconstruction)
    mean = good.mean(axis=0) / 255.0
    assert shown.shape == new.shape
    assert np.mean(np.square(shown - new / 255.0)) < 0.7 * np.mean(np.square(mean - new / 255.0))


def test_what_does_not_fit_is_refused(good):
    with pytest.raises(UserError, match=r"model\.components=0"):
        build(covariance="shared")
    with pytest.raises(UserError, match=r"model\.stages is 3, but .* has 2 maps"):
        build(stages=3)
    with pytest.raises(UserError, match=r"model\.plain=0"):
        build(covariance="none", plain=0.5)
    with pytest.raises(UserError, match=r"data\.image_size"):
        models.build("feature_pca", (40, 40, 3), backbone=tiny_backbone.NAME)
    with pytest.raises(UserError, match="no backbone named"):
        models.build("feature_pca", SHAPE, backbone="tinny")
    with pytest.raises(ValueError, match="pretrained network"):
        build().fit(batches_of(good))
    with pytest.raises(ValueError, match="at least 2"):
        build().fit(batches_of(good[:1]), backbone=network())
