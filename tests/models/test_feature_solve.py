"""``feature_pca`` as one pure function of images, and at every place of a tile by itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tiny_features import SHAPE, build, fitted, images_of, network

from jaxad import models
from jaxad.data.pipeline import BatchLoader
from jaxad.models import positions
from jaxad.models.positions import at_position, per_position
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError

OPTIONS = {
    "all axes": {"components": 30, "covariance": "pooled"},
    "few axes": {"components": 3, "covariance": "pooled"},
    "both residuals": {"components": 30, "covariance": "pooled", "plain": 0.5},
    "squares": {"components": 5, "covariance": "none"},
    "the mean alone": {"components": 0, "covariance": "pooled"},
}
IMAGES = 21


@pytest.mark.parametrize("case", OPTIONS)
def test_the_function_gives_what_the_fit_by_passes_gives(case):
    """Whose eigenvectors are of float64. Axes are equal up to signs, so what they do is compared.

    Products of float32 are exact to 1e-7 of the largest; the whitening divides by the roots of
    variances down to a thousandth of the mean.
    """
    images = images_of(IMAGES)
    model, expected = fitted(images, **OPTIONS[case])
    found = jax.jit(model.solve)(images, backbone=network())["params"]
    own = {name: leaf for name, leaf in expected["params"].items() if name != "backbone"}
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in own.items()}
    for name in ("mean", "deviation", "picture_mean", "shrinkage", "level"):
        if name in own:
            np.testing.assert_allclose(found[name], own[name], rtol=1e-4, atol=1e-6)
    joined = {**expected, "params": {**found, "backbone": expected["params"]["backbone"]}}
    new = images_of(3, seed=9)
    maps = [model.detect(variables, new).maps["residual"] for variables in (joined, expected)]
    np.testing.assert_allclose(*maps, rtol=2e-3)
    shown = [model.detect(variables, new).reconstruction for variables in (joined, expected)]
    np.testing.assert_allclose(*shown, atol=1e-4)


def test_images_that_are_alike_leave_a_finite_fit():
    """Two are the same: an eigenvalue is 0 but for rounding; then all are."""
    images = images_of(6)
    images[1] = images[0]
    new = images_of(2, seed=9)
    for some in (images, np.repeat(images[:1], 3, axis=0)):
        model = build(components=30, covariance="pooled")
        found = model.solve(some, backbone=network())["params"]
        given = {name: {"backbone": tree} for name, tree in network().items()}
        found = {**given, "params": {**found, **given["params"]}}
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        assert np.isfinite(model.detect(found, new).maps["residual"]).all()


def test_covariances_that_the_fit_chooses_on_the_way_have_no_function():
    for covariance in ("auto", "position"):
        assert build(covariance=covariance).solve is None
    with pytest.raises(ValueError, match="at least 2 training images, it was given 1"):
        build(covariance="pooled").solve(images_of(1), backbone=network())
    keys = {"data.tiles": (64, 16), "data.tile_models": "per_position", "data.root": "parts"}
    with pytest.raises(UserError, match=r"feature_pca with model.covariance=pooled or none, own_f"):
        models.build_from(load_settings("feature_pca", keys))
    settings = load_settings("feature_pca", {**keys, "model.covariance": "pooled"})
    assert models.build_from(settings).solve is not None


def test_places_have_models_of_their_own_and_one_network():
    places, photographs = 3, 8
    tiles = np.stack([images_of(photographs, seed=place) for place in range(places)], axis=1)
    model = build(components=5, covariance="pooled")
    stacked = per_position(model, places)
    assert stacked.backbone == model.backbone
    variables = stacked.fit(BatchLoader(tiles.reshape(-1, *SHAPE)), backbone=network())
    shapes = jax.eval_shape(stacked.init, jax.random.key(0))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    for collection, tree in network().items():
        jax.tree.map(np.testing.assert_array_equal, variables[collection]["backbone"], tree)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    np.testing.assert_allclose(positions.megabytes(model, places) * 2**20, size)

    order = np.array([2, 0, 2, 1])
    images = np.stack([images_of(1, seed=50 + place)[0] for place in order])
    found = jax.jit(stacked.detect)(variables, images, order)
    for row, place in enumerate(order.tolist()):
        own = tiles[:, place]
        _, alone = fitted(own, components=5, covariance="pooled")
        for each, tolerance in ((at_position(variables, place), 1e-5), (alone, 2e-3)):
            expected = jax.jit(model.detect)(each, images[row : row + 1]).maps["residual"][0]
            np.testing.assert_allclose(found.maps["residual"][row], expected, rtol=tolerance)
