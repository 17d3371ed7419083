"""Detection by what a fitted ``feature_pca`` uses is detection by all of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_features import fitted, images_of

from jaxad.models.base import for_detection
from jaxad.models.layers.feature_fit import Layout

CASES = {
    "covariances of positions": (
        {"covariance": "position", "components": 5, "position_channels": 4},
        "judged_axes",
    ),
    "both residuals": ({"covariance": "position", "components": 5, "plain": 0.5}, None),
    "axes of zeros": ({"covariance": "pooled", "components": 200}, None),
    "the fit decides": ({"covariance": "auto", "components": 200}, None),
    "the mean alone": ({"covariance": "position", "components": 0}, None),
}
IMAGES = 9


@pytest.mark.parametrize("case", CASES)
def test_the_same_maps_and_pictures_by_fewer_parameters(case):
    """Sums of products in another order: float32."""
    options, added = CASES[case]
    model, variables = fitted(images_of(IMAGES), **options)
    trimmed, kept = for_detection(model, variables)
    new = images_of(3, seed=9)
    expected, found = (
        jax.jit(one.detect)(own, new) for one, own in ((model, variables), (trimmed, kept))
    )
    np.testing.assert_allclose(found.maps["residual"], expected.maps["residual"], rtol=2e-4)
    np.testing.assert_allclose(found.reconstruction, expected.reconstruction, atol=1e-5)
    names = set(kept["params"]) - set(variables["params"])
    assert names == ({added} if added else set())
    _, compact = for_detection(model, variables, compact=True)
    assert set(compact["params"]) <= set(variables["params"])
    if options["components"] == 200:
        assert len(kept["params"]["axes"]) == IMAGES - 1 < len(variables["params"]["axes"])


def test_of_two_covariances_one_is_kept():
    model, variables = fitted(images_of(IMAGES), covariance="auto", components=4)
    for decided, unused in ((1.0, {"whitening"}), (0.0, {"factors", "by_position"})):
        params = {**variables["params"], "by_position": np.float32(decided)}
        trimmed, kept = for_detection(model, {**variables, "params": params})
        assert set(params) - set(kept["params"]) == unused
        expected = jax.jit(model.detect)({**variables, "params": params}, images_of(2, seed=3))
        found = jax.jit(trimmed.detect)(kept, images_of(2, seed=3))
        np.testing.assert_allclose(found.maps["residual"], expected.maps["residual"], rtol=2e-4)


def test_images_that_are_alike_have_no_axis():
    model, variables = fitted(np.repeat(images_of(1), 3, axis=0), covariance="pooled", components=4)
    trimmed, kept = for_detection(model, variables)
    assert "axes" not in kept["params"]
    expected, found = (
        jax.jit(one.detect)(own, images_of(2, seed=5)).maps["residual"]
        for one, own in ((model, variables), (trimmed, kept))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_part_of_a_layout_holds_the_channels_by_stage():
    layout = Layout(((2, 2, 3), (1, 1, 2)))
    values = jnp.arange(layout.values, dtype=jnp.float32)[None]
    part = layout.part((0, 2, 4))
    assert part.stages == ((2, 2, 2), (1, 1, 1))
    maps, found = layout.to_maps(values), part.to_maps(values[:, layout.columns((0, 2, 4))])
    np.testing.assert_array_equal(found[0], maps[0][..., [0, 2]])
    np.testing.assert_array_equal(found[1], maps[1][..., [1]])
    fine = layout.on_finest_grid(values)[:, :, [0, 2, 4]]
    np.testing.assert_allclose(part.on_finest_grid(values[:, layout.columns((0, 2, 4))]), fine)
