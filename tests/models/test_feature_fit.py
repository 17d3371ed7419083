"""The closed-form fit of feature maps, against dense computations in float64 and explicit refits."""

from __future__ import annotations

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from skimage.transform import resize
from sklearn.decomposition import PCA

from jaxad.models.layers import feature_covariance as fc, feature_fit as ff
from jaxad.models.layers.influence import alone

LAYOUT = ff.Layout(((4, 6, 2), (2, 3, 3)))
COUNT = 12
RIDGE = 0.03


def maps_of(count=COUNT, seed=0):
    """Feature maps that vary along few directions, with noise, means and scales of their own."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(count, 3)) * [3.0, 2.0, 1.0]
    maps = []
    for shape in LAYOUT.stages:
        axes = rng.normal(size=(3, *shape))
        noise = 0.3 * rng.normal(size=(count, *shape))
        scale = np.arange(1, shape[2] + 1)
        varied = np.einsum("nk,khwc->nhwc", codes, axes) + rng.normal(size=shape)
        maps.append((varied + noise) * scale)
    return maps


def vectors_of(maps):
    return np.array(LAYOUT.to_vectors(tuple(jnp.asarray(x, jnp.float32) for x in maps)))


@pytest.fixture(scope="module")
def rows():
    """Standardised vectors, as float64."""
    vectors = vectors_of(maps_of())
    ff.standardise(vectors, LAYOUT, per_position=True)
    return np.float64(vectors)


@pytest.fixture(scope="module")
def axes(rows):
    return ff.ridge_axes(jnp.asarray(rows, jnp.float32), components=100, ridge=RIDGE)


@pytest.fixture(scope="module")
def residuals(rows, axes):
    (left,) = ff.left_out_residuals(axes, jnp.asarray(rows, jnp.float32))
    assert len(left) == ff.ROWS_AT_ONCE and not np.any(left[COUNT:])
    return np.asarray(left)[:COUNT]


def test_a_layout_gives_its_maps_back():
    maps = maps_of()
    vectors = vectors_of(maps)
    assert vectors.shape == (COUNT, LAYOUT.values) and LAYOUT.channels == 5
    for back, x in zip(LAYOUT.to_maps(jnp.asarray(vectors)), maps, strict=True):
        np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)
    # Every stage has the weight of one position.
    for stage, x in enumerate(maps):
        alone = [y if i == stage else 0 * y for i, y in enumerate(maps)]
        np.testing.assert_allclose(
            np.sum(np.square(vectors_of(alone)), axis=1),
            np.mean(np.square(x), axis=(1, 2)).sum(axis=1),
            rtol=1e-5,
        )


def test_stages_are_interpolated_to_the_finest_grid():
    fine, coarse = maps_of()
    both = LAYOUT.on_finest_grid(jnp.asarray(vectors_of([fine, coarse])))
    both = np.asarray(both).reshape(COUNT, 4, 6, 5)
    np.testing.assert_allclose(both[..., :2], fine, rtol=1e-5, atol=1e-5)
    expected = np.stack([resize(x, (4, 6), order=1, mode="edge") for x in coarse])
    np.testing.assert_allclose(both[..., 2:], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("per_position", [True, False])
def test_standardised_features_have_mean_0_and_deviation_1(per_position):
    maps = maps_of()
    vectors = vectors_of(maps)
    before = vectors.copy()
    scale = ff.standardise(vectors, LAYOUT, per_position=per_position)
    for x, y in zip(maps, LAYOUT.to_maps(jnp.asarray(vectors)), strict=True):
        mean = x.mean(axis=0 if per_position else (0, 1, 2))
        np.testing.assert_allclose(y, (x - mean) / x.std(axis=(0, 1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose((before - scale.mean) / scale.deviation, vectors, atol=1e-6)


def kernel_ridge(basis, z, size):
    """Regression of z on rows, with the constant: dense, by the kernel."""
    kernel = basis @ basis.T + ff.MEAN_WEIGHT * size
    kernel += RIDGE * size * np.eye(len(basis))
    return np.linalg.solve(kernel, basis @ z + ff.MEAN_WEIGHT * size) @ basis


def test_all_axes_reconstruct_as_kernel_ridge_regression_does(rows, axes):
    z = np.random.default_rng(1).normal(size=rows.shape[1])
    size = np.mean(np.sum(np.square(rows), axis=1))
    found, codes = ff.reconstruct(
        jnp.asarray(z[None], jnp.float32), axes.axes, jnp.asarray(axes.shrinkage, jnp.float32)
    )
    np.testing.assert_allclose(found[0], kernel_ridge(rows, z, size), atol=1e-4)
    # The codes are combinations of the images of the basis.
    np.testing.assert_allclose(codes @ axes.mixture @ rows, found, atol=1e-4)


def test_residuals_are_those_of_refits_without_each_image(rows, residuals):
    size = np.mean(np.sum(np.square(rows), axis=1))
    for i in range(COUNT):
        others = np.delete(rows, i, axis=0)
        expected = rows[i] - kernel_ridge(others, rows[i], size)
        np.testing.assert_allclose(residuals[i], expected, atol=2e-4)


def test_without_axes_the_mean_of_the_others_is_subtracted(rows):
    mean_alone = ff.ridge_axes(jnp.asarray(rows, jnp.float32), components=0, ridge=1e-9)
    assert mean_alone.axes.shape[0] == 0
    (left,) = ff.left_out_residuals(mean_alone, jnp.asarray(rows, jnp.float32))
    for i in range(COUNT):
        np.testing.assert_allclose(
            left[i], rows[i] - np.delete(rows, i, axis=0).mean(axis=0), atol=1e-5
        )


def test_axes_are_principal_axes(rows):
    few = ff.ridge_axes(jnp.asarray(rows, jnp.float32), components=3, ridge=RIDGE)
    expected = PCA(3).fit(rows)
    signs = np.sign(np.sum(few.axes * expected.components_, axis=1))
    np.testing.assert_allclose(few.axes * signs[:, None], expected.components_, atol=1e-4)
    variances = expected.explained_variance_ * (COUNT - 1)
    size = np.mean(np.sum(np.square(rows), axis=1))
    np.testing.assert_allclose(few.shrinkage, variances / (variances + RIDGE * size), rtol=1e-4)


def test_equal_images_have_finite_axes():
    """Twins have no direction of their own, and flat images none at all."""
    vectors = np.repeat(vectors_of(maps_of(3)), 2, axis=0)
    ff.standardise(vectors, LAYOUT, per_position=True)
    twins = ff.ridge_axes(jnp.asarray(vectors), components=100, ridge=RIDGE)
    assert len(twins.shrinkage) == 2 and np.isfinite(twins.axes).all()
    flat = ff.ridge_axes(jnp.zeros((4, LAYOUT.values)), components=100, ridge=RIDGE)
    assert len(flat.shrinkage) == 0 and np.isfinite(flat.leave_one_out).all()


CHANNELS = (0, 3, 4)


@pytest.fixture(scope="module")
def moments(residuals):
    parts = [jnp.asarray(residuals[:5]), jnp.asarray(residuals[5:])]
    return fc.moments_of(parts, LAYOUT, CHANNELS, count=COUNT)


@pytest.fixture(scope="module")
def fine(residuals):
    return np.float64(LAYOUT.on_finest_grid(jnp.asarray(residuals)))


def test_moments_and_whitening(moments, fine):
    assert moments.images == COUNT
    flat = fine.reshape(-1, 5)
    np.testing.assert_allclose(moments.pooled, flat.T @ flat / len(flat), rtol=1e-4, atol=1e-5)
    for p in (0, 7, 23):
        some = fine[:, p, CHANNELS]
        np.testing.assert_allclose(moments.per_position[p], some.T @ some, rtol=1e-4, atol=1e-4)
    white = flat @ fc.whitening(moments.pooled, floor=1e-9)
    np.testing.assert_allclose(white.T @ white / len(flat), np.eye(5), atol=1e-3)


def test_products_of_stages_of_any_size_are_those_on_the_finest_grid():
    """Against interpolation, and channels of one stage alone against the same of all."""
    # The finest in the middle, two alike, one that is finer in rows and coarser in columns.
    layout = ff.Layout(((2, 3, 2), (6, 12, 3), (2, 3, 1), (6, 2, 2)))
    left = np.random.default_rng(8).normal(size=(4, layout.values)).astype(np.float32)
    fine = np.float64(layout.on_finest_grid(jnp.asarray(left)))
    found = fc.pooled_products(jnp.asarray(left), layout)
    expected = np.einsum("npi,npj->ij", fine, fine) / 72
    # Sums of 288 products in float32, in an order that depends on the processor: they round by
    # about sqrt(288) times 6e-8 of the largest.
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * expected.max())
    for channels in ((0, 2, 5, 7), (2, 4)):
        some = layout.some_on_finest_grid(jnp.asarray(left), channels)
        np.testing.assert_allclose(some, fine[:, :, channels], atol=1e-6)


def test_a_shared_subspace_is_that_of_scikit_learn(fine):
    centred = fine.reshape(-1, 5)
    centred = centred - centred.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    for share in (0.5, 0.9):
        fitted = PCA(share, svd_solver="full").fit(centred)
        left = centred - fitted.inverse_transform(fitted.transform(centred))
        outside = centred @ fc.outside_subspace(covariance, share=share)
        np.testing.assert_allclose(
            np.sum(np.square(outside), axis=1), np.sum(np.square(left), axis=1), atol=1e-9
        )


HOW = {"weight": 0.5, "floor": 1e-2}


def test_distances_at_a_position(moments, fine):
    covariances = fc.position_covariances(moments, CHANNELS, **HOW)
    pooled = moments.pooled[np.ix_(CHANNELS, CHANNELS)]
    some = fine[:, :, CHANNELS]
    own = np.einsum("npi,npj->pij", some, some) / (COUNT - 1)
    floor = 1e-2 * np.mean(np.diag(pooled)) * np.eye(3)
    np.testing.assert_allclose(covariances, 0.5 * own + 0.5 * pooled + floor, rtol=1e-4, atol=1e-5)
    white = fc.whiten_positions(
        jnp.asarray(some, jnp.float32), fc.inverse_factors(jnp.asarray(covariances, jnp.float32))
    )
    expected = np.einsum("npi,pij,npj->np", some, np.linalg.inv(covariances), some)
    np.testing.assert_allclose(jnp.sum(jnp.square(white), axis=-1), expected, rtol=1e-3)


def test_likelihoods_are_those_of_covariances_without_each_image(moments, fine):
    covariances = fc.position_covariances(moments, CHANNELS, **HOW)
    weight = HOW["weight"] / (COUNT - 1)
    some = fine[:, :, CHANNELS]
    found = fc.left_out_log_likelihoods(
        alone(jnp.asarray(some, jnp.float32)),
        fc.inverse_factors(covariances),
        jnp.float32(weight),
    )
    constant = 0.5 * 3 * np.log(2 * np.pi)
    for i in (0, 4):
        without = covariances - weight * np.einsum("pi,pj->pij", some[i], some[i])
        expected = [
            multivariate_normal(np.zeros(3), without[p]).logpdf(some[i, p]) + constant
            for p in range(some.shape[1])
        ]
        np.testing.assert_allclose(found[i], np.mean(expected), rtol=1e-3)


@pytest.mark.parametrize("own, expected", [(True, True), (False, False)])
def test_covariances_of_positions_are_used_where_positions_differ(own, expected):
    """Residuals that are noise of one kind everywhere, or of another at every position."""
    # Of one stage: interpolation would make positions differ.
    layout = ff.Layout(((4, 6, 5),))
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(40, layout.values))
    scale = np.exp(rng.normal(size=layout.values)) if own else 1.0
    parts = [jnp.asarray(noise * scale, jnp.float32)]
    moments = fc.moments_of(parts, layout, CHANNELS, count=40)
    factors = fc.inverse_factors(fc.position_covariances(moments, CHANNELS, **HOW))
    told = [alone(part) for part in parts]
    assert fc.prefers_positions(told, layout, moments, CHANNELS, factors, **HOW) == expected


def test_a_basis_does_not_depend_on_batches():
    vectors = np.arange(50.0, dtype=np.float32)[:, None]
    pictures = 100 + vectors

    def drawn(size, limit):
        parts = [
            ff.Features(vectors[i : i + size], pictures[i : i + size]) for i in range(0, 50, size)
        ]
        return ff.draw_basis(parts, limit)

    one, other = drawn(7, 20), drawn(50, 20)
    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.pictures, 100 + one.vectors)
    assert one.chosen.sum() == 20
    np.testing.assert_array_equal(np.sort(one.vectors[:, 0]), np.flatnonzero(one.chosen))
    assert drawn(7, 50).chosen.all()
    with pytest.raises(ValueError, match="at least 2"):
        ff.draw_basis([ff.Features(vectors[:1], pictures[:1])], 20)


def test_a_basis_keeps_no_part_in_memory():
    """With a row of it each part would stay, and the budget of memory would mean nothing."""
    parts, alive = [], []

    def pass_over():
        for seed in range(12):
            arrays = np.random.default_rng(seed).normal(size=(2, 5, 7)).astype(np.float32)
            alive.append(sum(part() is not None for part in parts))
            parts.append(weakref.ref(arrays))
            yield ff.Features(arrays[0], arrays[1])
            del arrays

    basis = ff.draw_basis(pass_over(), 10)
    assert basis.vectors.shape == (10, 7)
    # The loop that draws holds the last part.
    assert max(alive) <= 1


def test_one_image_is_reconstructed_without_a_copy_of_the_axes():
    """A transposed copy for every image takes a CPU longer than the network itself."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 4096), (64, 4096), (64,))]
    program = jax.jit(ff.reconstruct).lower(*shapes).compile()
    axes_bytes = 4 * 64 * 4096
    assert program.memory_analysis().temp_size_in_bytes < axes_bytes / 2
