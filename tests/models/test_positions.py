"""Models of positions: fitted by one program as one after the other, applied each to its tile."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.data.pipeline import BatchLoader
from jaxad.models import positions
from jaxad.models.positions import at_position, fit_positions, per_position

SIDE, PHOTOGRAPHS, PLACES = 16, 7, 5
OPTIONS = {
    "whole": {"components": 4, "ssim_window": 3},
    "patch": {"components": 4, "patch": 4, "stride": 2, "ssim_window": 3},
}


def tiles():
    """Of every photograph the tiles of all places: (photograph, place, h, w, c)."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(60, 190, (PLACES, SIDE, SIDE, 3))
    waves = rng.normal(size=(PLACES, 3, SIDE, SIDE, 3))
    weights = 25.0 * rng.normal(size=(PHOTOGRAPHS, PLACES, 3)) * [1.0, 0.6, 0.3]
    varied = np.einsum("npk,pkhwc->nphwc", weights, waves) / 4
    noise = rng.normal(0, 2, (PHOTOGRAPHS, PLACES, SIDE, SIDE, 3))
    return np.clip(scenes + varied + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=list(OPTIONS))
def fitted(request):
    """A model of one tile, the tiles, and the variables of all places."""
    model = models.build("pca", (SIDE, SIDE, 3), **OPTIONS[request.param])
    cut = tiles()
    rows = cut.reshape(-1, SIDE, SIDE, 3)
    return model, cut, fit_positions(model, rows, PLACES)


def test_one_program_fits_what_is_fitted_one_after_the_other(fitted):
    """Against the fit by passes, whose eigenvectors are of float64: what differs is float32.

    Axes are equal up to their signs, so the projection on them is compared. Its error is that of
    products of float32 (1e-7 of the largest variance) over the distance of the last axis' variance,
    about a hundredth of the largest, to the noise.
    """
    model, cut, variables = fitted
    for place in (0, PLACES - 1):
        own = cut[:, place]
        numbers = np.arange(PHOTOGRAPHS, dtype=np.int32)
        alone = model.fit([Batch(own, numbers, np.ones(PHOTOGRAPHS, bool))])
        expected = jax.device_get(alone["params"])
        found = at_position(variables, place)["params"]
        np.testing.assert_allclose(found["mean"], expected["mean"], atol=1e-6)
        for name in ("log_variances", "log_noise"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
        projections = [p["axes"].T @ p["axes"] for p in (found, expected)]
        np.testing.assert_allclose(*projections, atol=2e-4)
        maps = [jax.jit(model.detect)(each, own[:2]).maps for each in ({"params": found}, alone)]
        for name in maps[0]:
            np.testing.assert_allclose(maps[0][name], maps[1][name], rtol=1e-3, atol=1e-4)


def test_blocks_of_positions_give_the_same_and_are_compiled_once(fitted, monkeypatch):
    model, cut, variables = fitted
    rows, blocks = cut.reshape(-1, SIDE, SIDE, 3), []
    program = positions._program(model.solve)
    monkeypatch.setattr(
        positions, "_program", lambda _: lambda x, _: (blocks.append(x.shape), program(x, None))[1]
    )
    monkeypatch.setattr(
        positions, "BLOCK_BYTES", 2 * 3 * 4 * PHOTOGRAPHS * SIDE * SIDE * 3 + 200_000
    )
    again = fit_positions(model, rows, PLACES)
    assert len(set(blocks)) == 1 and 1 <= blocks[0][0] < PLACES
    assert len(blocks) == -(-PLACES // blocks[0][0])
    # Products of float32 in an order of their own.
    for name in ("mean", "log_variances", "log_noise"):
        np.testing.assert_allclose(again["params"][name], variables["params"][name], atol=1e-5)
    axes = np.abs(np.einsum("pkd,pkd->pk", again["params"]["axes"], variables["params"]["axes"]))
    np.testing.assert_allclose(axes, 1.0, atol=1e-4)


def test_a_tile_is_judged_by_the_model_of_its_place(fitted):
    model, cut, variables = fitted
    stacked = per_position(model, PLACES)
    places = np.array([3, 0, 3, 4])
    images = cut[[0, 1, 2, 3], places]
    found = jax.jit(stacked.detect)(variables, images, places)
    for row, place in enumerate(places.tolist()):
        alone = model.detect(at_position(variables, place), images[row : row + 1])
        for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(found), strict=True):
            # nll is some hundreds; products of float32 in another order.
            np.testing.assert_allclose(other[row], one[0], rtol=1e-4, atol=1e-5)
    in_order = stacked.detect(variables, cut[0])
    by_place = stacked.detect(variables, cut[0], np.arange(PLACES))
    jax.tree.map(np.testing.assert_array_equal, in_order, by_place)


def test_the_stacked_model_is_fitted_from_rows_and_keeps_its_shapes(fitted):
    model, cut, variables = fitted
    stacked = per_position(model, PLACES)
    again = stacked.fit(BatchLoader(cut.reshape(-1, SIDE, SIDE, 3)))
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    shapes = jax.eval_shape(stacked.init, jax.random.key(0))
    assert jax.tree.map(np.shape, again) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    assert stacked.left_out is stacked.solve is stacked.sample is None
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    np.testing.assert_allclose(positions.megabytes(model, PLACES) * 2**20, size)


def test_the_models_that_take_places_are_those_that_say_so():
    for name, options in (
        ("pca", {}),
        ("feature_pca", {"covariance": "pooled"}),
        ("own_features", {"covariance": "pooled"}),
        ("restore", {}),
        ("cae", {}),
    ):
        solve = models.build(name, (64, 64, 3), **options).solve
        assert (solve is not None) == (name in models.PER_POSITION)


def test_a_loop_and_a_vectorised_program_give_the_same(fitted, monkeypatch):
    """The former is for a CPU, the latter for accelerators."""
    model, cut, _ = fitted
    some = np.moveaxis(cut, 1, 0)[:2]
    loop = jax.jit(positions.mapped(model.solve))
    assert "while" in loop.lower(some).as_text()
    expected = loop(some)["params"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = jax.jit(positions.mapped(model.solve))(some)["params"]
    for name in ("mean", "log_variances", "log_noise"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    stacked = per_position(model, 2)
    maps = stacked.detect({"params": found}, some[:, 0]).maps
    monkeypatch.undo()
    for name, values in stacked.detect({"params": expected}, some[:, 0]).maps.items():
        np.testing.assert_allclose(maps[name], values, rtol=1e-3, atol=1e-4)
