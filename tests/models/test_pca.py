"""Probabilistic PCA: scikit-learn's values by every way of fitting, likelihood, patches, memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models import pca
from jaxad.models.layers import pca_passes
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError

K = 5
SHAPE = (8, 7, 3)
D = 8 * 7 * 3


def batch_of(images, valid=None):
    count = len(images)
    valid = np.ones(count, bool) if valid is None else valid
    return Batch(images, np.arange(count, dtype=np.int32), valid)


def batches_of(images, size=16):
    """The last batch is padded with white images that are not valid."""
    batches = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padding = np.ones((size - len(part), *part.shape[1:]), part.dtype)
        valid = np.arange(size) < len(part)
        batches.append(batch_of(np.concatenate([part, padding]), valid))
    return batches


def images_with_spectrum(count, shape=SHAPE, seed=0):
    """Images around a mean, with variances that fall by a sixth from axis to axis, and noise."""
    rng = np.random.default_rng(seed)
    d = int(np.prod(shape))
    axes = np.linalg.qr(rng.normal(size=(d, 40)))[0].T
    codes = rng.normal(size=(count, 40)) * np.sqrt(0.05 * 0.85 ** np.arange(40))
    flat = rng.uniform(0.4, 0.6, d) + codes @ axes + 0.002 * rng.normal(size=(count, d))
    assert flat.min() > 0 and flat.max() < 1
    return flat.reshape(count, *shape).astype(np.float32)


def sklearn_fit(vectors, k=K):
    """scikit-learn's, with the maximum-likelihood variances: over n, and over d - k left out.

    Its variances divide by n - 1 where the likelihood's maximum (Tipping & Bishop, eqs. 7 and 8)
    divides by n, and its noise is the mean over min(n, d) - k of the left-out variances.
    """
    n, d = vectors.shape
    fitted = PCA(k, svd_solver="full").fit(vectors.astype(np.float64))
    fitted.explained_variance_ = fitted.explained_variance_ * (n - 1) / n
    total = np.var(vectors.astype(np.float64), axis=0).sum()
    fitted.noise_variance_ = (total - fitted.explained_variance_.sum()) / (d - k)
    return fitted


def assert_same_axes(ours, expected, tolerance):
    """Unit rows, equal up to their signs."""
    signs = np.sign(np.sum(ours * expected, axis=1))
    np.testing.assert_allclose(ours * signs[:, None], expected, rtol=0, atol=tolerance)


# way -> images, EXACT_UP_TO. The real limit is kept where it already selects the way.
WAYS = {
    "scatter": (200, pca_passes.EXACT_UP_TO),
    "gram": (40, 100),
    "subspace iteration": (200, 100),
    "solve by covariance": (200, 0),
    "solve by gram": (40, 0),
}


@pytest.fixture(params=["scatter", "gram", "subspace iteration", "patches"])
def way_of(request):
    """Number of images, EXACT_UP_TO, whether by patches."""
    return (*WAYS.get(request.param, (20, pca_passes.EXACT_UP_TO)), request.param == "patches")


@pytest.fixture(scope="module", params=list(WAYS))
def way(request):
    """Model, images, variables, scikit-learn's, by each way of fitting."""
    count, limit = WAYS[request.param]
    images = images_with_spectrum(count)
    model = models.build("pca", SHAPE, components=K, ssim_window=3)
    if request.param.startswith("solve"):
        variables = jax.jit(model.solve)(images)
        return model, images, variables, sklearn_fit(images.reshape(count, D))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pca_passes, "EXACT_UP_TO", limit)
        called = []
        for name in ("scatter_of", "gram_of", "_by_subspace_iteration"):
            original = getattr(pca_passes, name)

            def spy(*a, name=name, original=original):
                called.append(name)
                assert jax.config.jax_default_matmul_precision == "highest"
                return original(*a)

            patch.setattr(pca_passes, name, spy)
        variables = model.fit(batches_of(images))
    assert len(called) == 1 and request.param.replace(" ", "_") in called[0]
    return model, images, variables, sklearn_fit(images.reshape(count, D))


def test_folds_together_are_as_folds_one_by_one(way_of, monkeypatch):
    """The models of all folds, and the same images without a fold fitted alone.

    Both ways measure the vectors from other points and add them in another order, so they differ
    by float32's rounding of the matrices' entries over the distance of neighbouring variances.
    """
    count, limit, patch = way_of
    monkeypatch.setattr(pca_passes, "EXACT_UP_TO", limit)
    images = images_with_spectrum(count)
    folds = np.random.default_rng(1).permutation(np.arange(count) % 3)
    options = {"patch": 4, "stride": 2, "components": 12} if patch else {"components": K}
    model = models.build("pca", SHAPE, ssim_window=3, **options)
    together = model.fit_to_others([batches_of(images[folds == i]) for i in range(3)])
    assert len(together) == 3
    for number, found in enumerate(together):
        alone = jax.device_get(model.fit(batches_of(images[folds != number]))["params"])
        found = jax.device_get(found["params"])
        np.testing.assert_allclose(found["mean"], alone["mean"], atol=1e-6)
        for name in ("log_variances", "log_noise"):
            np.testing.assert_allclose(found[name], alone[name], atol=2e-5)
        assert_same_axes(found["axes"], alone["axes"], 2e-4)
    # A fold changes the model by far more than that.
    moved = together[0]["params"]["mean"] - together[1]["params"]["mean"]
    assert np.abs(moved).max() > 1e-3


def test_more_axes_than_the_other_folds_span():
    images = images_with_spectrum(6)
    model = models.build("pca", SHAPE, components=8, ssim_window=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pca_passes, "EXACT_UP_TO", 100)
        (found, _) = model.fit_to_others([batches_of(images[:2]), batches_of(images[2:])])
        alone = model.fit(batches_of(images[2:]))
    axes = np.asarray(found["params"]["axes"])
    np.testing.assert_allclose(axes @ axes.T, np.diag([1.0] * 3 + [0.0] * 5), atol=1e-5)
    assert_same_axes(axes[:3], np.asarray(alone["params"]["axes"])[:3], 1e-4)
    scores = [np.asarray(model.detect(one, images[:2]).scores["nll"]) for one in (found, alone)]
    np.testing.assert_allclose(*scores, rtol=1e-3)


def test_a_fold_that_holds_all_images_but_one_is_refused():
    images = images_with_spectrum(4)
    model = models.build("pca", SHAPE, components=2, ssim_window=3)
    with pytest.raises(ValueError, match="at least 2 training images, it was given 1"):
        model.fit_to_others([batches_of(images[:1]), batches_of(images[1:])])


def test_mean_axes_and_variances_equal_scikit_learn(way):
    """The subspace iteration is about as exact as the others.

    The part of another axis in axis i falls as (l_i / l_j)^6 in its 6 iterations, for the first l_j
    outside its 5 + 16 axes: about 0.85^(17 * 6) = 6e-8 for the fifth (1e-4 after three). What is
    left is float32's error of the matrices over the distance of neighbouring variances.
    """
    _, _, variables, expected = way
    p = jax.device_get(variables["params"])
    np.testing.assert_allclose(p["mean"], expected.mean_, atol=1e-6)
    np.testing.assert_allclose(np.exp(p["log_variances"]), expected.explained_variance_, rtol=2e-6)
    assert_same_axes(p["axes"], expected.components_, 5e-5)
    np.testing.assert_allclose(p["axes"] @ p["axes"].T, np.eye(K), atol=1e-5)


def test_noise_is_the_mean_of_the_left_out_variances(way):
    _, images, variables, expected = way
    noise = float(np.exp(variables["params"]["log_noise"]))
    # A difference of float32 sums of its own size, of some hundred thousand terms.
    np.testing.assert_allclose(noise, expected.noise_variance_, rtol=3e-6)
    n = len(images)
    if n > D:  # then scikit-learn's own figure averages over the same d - k
        fitted = PCA(K, svd_solver="full").fit(images.reshape(n, D).astype(np.float64))
        np.testing.assert_allclose(noise, fitted.noise_variance_ * (n - 1) / n, rtol=3e-6)


def test_likelihood_and_reconstruction_equal_scikit_learn(way):
    model, images, variables, expected = way
    vectors = np.concatenate([images, images_with_spectrum(3, seed=1)]).reshape(-1, D)[-8:]
    reconstruction, log_likelihood = model.module.apply(variables, vectors)
    projected = expected.inverse_transform(expected.transform(vectors.astype(np.float64)))
    np.testing.assert_allclose(reconstruction, projected, atol=1e-5)
    # The noise's error (above) is that of the residual's part, of some hundred nats.
    expected_likelihood = expected.score_samples(vectors.astype(np.float64))
    np.testing.assert_allclose(log_likelihood, expected_likelihood, rtol=5e-6)


def test_loss_and_detection_are_made_of_them(way):
    """Not where they are computed, which is above, but what is done with them."""
    model, images, variables, _ = way
    images = images[:2]
    reconstruction, log_likelihood = model.module.apply(variables, images.reshape(2, D))
    reconstruction = np.asarray(reconstruction).reshape(images.shape)
    output = model.loss(variables, batch_of(images), None, False)
    np.testing.assert_allclose(output.per_example, -log_likelihood / D, rtol=1e-6)
    squared = np.mean(np.square(images - reconstruction), axis=(1, 2, 3))
    np.testing.assert_allclose(output.terms["l2"], squared, rtol=1e-5)
    detection = jax.jit(model.detect)(variables, images)
    np.testing.assert_allclose(detection.scores["nll"], -log_likelihood, rtol=1e-6)
    l1 = np.mean(np.abs(images - reconstruction), axis=-1)
    ssim = np.stack(
        [
            1 - structural_similarity(a, b, win_size=3, data_range=1.0, channel_axis=-1, full=True)[1].mean(axis=-1)
            for a, b in zip(images, reconstruction, strict=True)
        ]
    )  # fmt: skip
    assert set(detection.maps) == {"l1", "ssim", "l1*ssim"}
    np.testing.assert_allclose(detection.maps["l1"], l1, atol=1e-6)
    # Windows of 3 x 3 and residuals of 0.002: variances of 1e-6, beside C2 = 9e-4, in float32.
    np.testing.assert_allclose(detection.maps["ssim"], ssim, atol=2e-5)
    np.testing.assert_allclose(detection.maps["l1*ssim"], l1 * ssim, atol=1e-6)


def test_products_keep_float32_on_accelerators():
    """A CPU computes them exactly in any case, so it is the program that is looked at."""
    model = models.build("pca", SHAPE, components=K, ssim_window=3)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *SHAPE), np.float32)
    program = jax.jit(model.detect).lower(variables, images).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert len(products) == 2
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


# --- the density ------------------------------------------------------------------------------


def covariance_of(p):
    """V L V' + s2 (I - V V') in float64, of the axes that are not 0, made orthonormal again."""
    spanned = np.any(p["axes"] != 0, axis=1)
    axes = np.linalg.qr(p["axes"][spanned].T.astype(np.float64))[0]
    inside = (axes * np.exp(p["log_variances"][spanned].astype(np.float64))[None]) @ axes.T
    return inside + np.exp(np.float64(p["log_noise"])) * (np.eye(len(axes)) - axes @ axes.T)


def test_the_density_integrates_to_one_and_is_the_normal_one():
    module = pca.ProbabilisticPCA(dimension=2, components=1)
    p = {
        "mean": np.float32([0.3, -0.2]),
        "axes": np.float32([[0.6, 0.8]]),
        "log_variances": np.float32([np.log(0.5)]),
        "log_noise": np.float32(np.log(0.02)),
    }
    side = np.linspace(-6, 6, 481, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    _, log_likelihood = module.apply({"params": p}, grid)
    # The rule of rectangles is exact to rounding for a smooth function that ends within the grid.
    area = (12 / 480) ** 2
    np.testing.assert_allclose(np.exp(log_likelihood).sum() * area, 1.0, rtol=1e-5)
    normal = multivariate_normal(p["mean"], covariance_of(p)).logpdf(grid[::50])
    np.testing.assert_allclose(log_likelihood[::50], normal, rtol=1e-4)


def model_of_six_values(log_variances, log_noise):
    """A model of 2 x 3 images around mid-gray, with two axes."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 2)))[0].T
    params = {
        "mean": np.full(6, 0.5, np.float32),
        "axes": axes.astype(np.float32),
        "log_variances": np.float32(log_variances),
        "log_noise": np.float32(log_noise),
    }
    return models.build("pca", (2, 3, 1), components=2, ssim_window=3), params


@pytest.mark.parametrize("noise", [0.0016, 0.006], ids=["less", "more"])
def test_samples_have_the_covariance_of_the_density(noise):
    """Also where the noise exceeds the variance of an axis, which a fit does not give."""
    model, params = model_of_six_values(np.log([0.01, 0.0025]), np.log(noise))
    samples = model.sample({"params": params}, jax.random.key(0), 20_000)
    assert samples.shape == (20_000, 2, 3, 1)
    assert samples.min() >= 0 and samples.max() <= 1
    # Within [0, 1] at 5 standard deviations. An entry's error is 0.01 / sqrt(20000) = 7e-5.
    samples = np.asarray(samples).reshape(-1, 6)
    np.testing.assert_allclose(samples.mean(axis=0), 0.5, atol=4e-3)
    np.testing.assert_allclose(np.cov(samples.T), covariance_of(params), atol=4e-4)


def test_samples_are_clipped():
    model, params = model_of_six_values([0.0, 0.0], -20.0)
    samples = model.sample({"params": params}, jax.random.key(0), 100)
    assert samples.min() == 0.0 and samples.max() == 1.0


def test_diagnostics_are_the_spectrum_and_the_first_axes():
    model, params = model_of_six_values(np.log([0.03, 0.01]), np.log(0.0025))
    images = np.zeros((2, 2, 3, 1), np.uint8)
    told = jax.jit(model.diagnostics)({"params": params}, images)
    # Two axes and four directions of noise: 0.03 + 0.01 + 4 * 0.0025 = 0.05 in all.
    np.testing.assert_allclose(told["share_of_variance_per_axis"], [0.6, 0.2], rtol=1e-6)
    np.testing.assert_allclose(told["variance_explained_by_all_axes"], 0.8, rtol=1e-6)
    np.testing.assert_allclose(told["standard_deviation_of_the_noise"], 0.05, rtol=1e-6)
    np.testing.assert_allclose(told["mean"], np.full((1, 2, 3, 1), 0.5))
    shown = np.asarray(told["first_axes"]).reshape(2, 6) - 0.5
    np.testing.assert_allclose(np.abs(shown).max(axis=1), 0.5, rtol=1e-6)
    np.testing.assert_allclose(
        shown / np.linalg.norm(shown, axis=1, keepdims=True), params["axes"], atol=1e-6
    )


# --- singular sets of images ------------------------------------------------------------------


@pytest.mark.parametrize(
    "limit", [pca_passes.EXACT_UP_TO, 4, None], ids=["covariance", "gram", "solve"]
)
def test_more_components_than_images(limit, monkeypatch):
    """Four images span three directions; the others carry the noise and change nothing."""
    monkeypatch.setattr(pca_passes, "EXACT_UP_TO", limit)
    shape = (4, 4, 1)
    images = np.random.default_rng(0).random((4, *shape), np.float32)
    model = models.build("pca", shape, components=9, ssim_window=3)
    variables = model.fit([batch_of(images)]) if limit else jax.jit(model.solve)(images)
    p = jax.device_get(variables["params"])
    assert p["axes"].shape == (9, 16) and p["log_variances"].shape == (9,)
    np.testing.assert_array_equal(p["axes"][3:], 0.0)
    reconstruction, log_likelihood = model.module.apply(variables, images.reshape(4, 16))
    np.testing.assert_allclose(reconstruction, images.reshape(4, 16), atol=1e-5)
    # Nothing is left out but rounding, so the noise is around its floor, and the density a normal
    # one of dimension 16 all the same. Residuals of 1e-7 weigh 1e-6 at a noise of 1e-8.
    assert 1e-8 <= np.exp(p["log_noise"]) * 1.001 < 1e-6
    normal = multivariate_normal(p["mean"], covariance_of(p))
    # At the mean what counts is the determinant, far from it the noise: 1e8 nats.
    vectors = np.stack([p["mean"], np.random.default_rng(1).random(16, np.float32)])
    expected = normal.logpdf(vectors)
    np.testing.assert_allclose(model.module.apply(variables, vectors)[1], expected, rtol=1e-4)
    assert np.all(np.isfinite(log_likelihood))


@pytest.mark.parametrize("by", ["fit", "solve"])
@pytest.mark.parametrize("patch", [0, 4])
def test_constant_images_are_finite_and_anything_else_is_far(patch, by):
    model = models.build("pca", (12, 12, 1), components=3, patch=patch, stride=4, ssim_window=3)
    flat = np.full((6, 12, 12, 1), 128, np.uint8)
    variables = model.fit([batch_of(flat)]) if by == "fit" else jax.jit(model.solve)(flat)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(variables))
    other = flat[:1].copy()
    other[0, 5, 5] = 129
    detection = jax.jit(model.detect)(variables, np.concatenate([flat[:1], other]))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(detection))
    assert detection.scores["nll"][1] > detection.scores["nll"][0]


def test_one_image_is_refused_and_padding_is_no_image():
    model = models.build("pca", (4, 4, 1), components=2)
    images = np.random.default_rng(0).random((4, 4, 4, 1), np.float32)
    only = np.array([True, False, False, False])
    with pytest.raises(ValueError, match="needs at least 2 training images, it was given 1"):
        model.fit([batch_of(images, only)])
    for options in ({}, {"patch": 2, "stride": 2}):
        model = models.build("pca", (4, 4, 1), components=2, **options)
        with pytest.raises(ValueError, match="needs at least 2 training images, it was given 1"):
            model.solve(images[:1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"components": 0}, "'model.components' must be at least 1, not 0"),
        ({"patch": 20}, "model.patch 20 with model.stride 4 does not fit images of 16 x 24"),
        ({"patch": 8, "stride": 9}, "model.patch 8 with model.stride 9"),
        ({"patch": 8, "stride": 0}, "'model.stride' must be at least 1, not 0"),
    ],
)
def test_impossible_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build("pca", (16, 24, 3), **options)


# --- patches ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["fit", "solve"])
def patches(request):
    """Model, images, variables, and the patches in a loop: the last ones end at the border."""
    images = images_with_spectrum(6, (11, 14, 2))
    model = models.build("pca", (11, 14, 2), components=K, patch=5, stride=3, ssim_window=3)
    places = [(row, column) for row in (0, 3, 6) for column in (0, 3, 6, 9)]
    cut = lambda image: np.stack([image[r : r + 5, c : c + 5].ravel() for r, c in places])
    by_fit = request.param == "fit"
    variables = model.fit(batches_of(images, 4)) if by_fit else jax.jit(model.solve)(images)
    return model, images, variables, places, cut


def test_patches_are_fitted_as_vectors(patches):
    _, images, variables, _, cut = patches
    vectors = np.concatenate([cut(image) for image in images])
    assert vectors.shape == (72, 50)
    fitted = PCA(K, svd_solver="full").fit(vectors.astype(np.float64))
    p = jax.device_get(variables["params"])
    np.testing.assert_allclose(p["mean"], fitted.mean_, atol=1e-6)
    n = len(vectors)
    variances = fitted.explained_variance_ * (n - 1) / n
    np.testing.assert_allclose(np.exp(p["log_variances"]), variances, rtol=1e-5)
    # More vectors than values: scikit-learn averages over the same d - k.
    noise = fitted.noise_variance_ * (n - 1) / n
    np.testing.assert_allclose(np.exp(p["log_noise"]), noise, rtol=1e-4)
    # Neighbouring variances of patches differ by a few per cent: their axes by 1e-6 over that.
    assert_same_axes(p["axes"], fitted.components_, 1e-3)


def test_patches_are_averaged_where_they_overlap(patches):
    model, images, variables, places, cut = patches
    p = jax.device_get(variables["params"])
    normal = multivariate_normal(p["mean"], covariance_of(p))
    detection = jax.jit(model.detect)(variables, images[:2])
    for i, image in enumerate(images[:2]):
        vectors = cut(image)
        nll = -normal.logpdf(vectors)
        total, nll_map, covers = np.zeros((11, 14, 2)), np.zeros((11, 14)), np.zeros((11, 14))
        for (row, column), vector, value in zip(places, vectors, nll, strict=True):
            place = (slice(row, row + 5), slice(column, column + 5))
            projected = p["mean"] + (vector - p["mean"]) @ p["axes"].T @ p["axes"]
            total[place] += projected.reshape(5, 5, 2)
            nll_map[place] += value / 50
            covers[place] += 1
        expected = np.clip(total / covers[..., None], 0, 1)
        np.testing.assert_allclose(detection.reconstruction[i], expected, atol=1e-5)
        np.testing.assert_allclose(detection.maps["nll"][i], nll_map / covers, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(detection.scores["nll"][i], nll.mean(), rtol=1e-4)
        l1 = np.mean(np.abs(image - expected), axis=-1)
        np.testing.assert_allclose(detection.maps["l1"][i], l1, atol=1e-5)


# --- memory -----------------------------------------------------------------------------------


class Watched:
    """Batches made one by one, and how many bytes of arrays live when the next is asked for."""

    def __init__(self, images, size):
        self.images, self.size, self.peak = images, size, 0
        self.start = self._live()

    @staticmethod
    def _live():
        return sum(array.nbytes for array in jax.live_arrays())

    def __iter__(self):
        for first in range(0, len(self.images), self.size):
            self.peak = max(self.peak, self._live() - self.start)
            yield batch_of(self.images[first : first + self.size])


@pytest.mark.parametrize("limit", [2048, 50, 10], ids=["covariance", "gram", "subspace"])
def test_memory_does_not_grow_with_the_number_of_images(limit, monkeypatch):
    monkeypatch.setattr(pca_passes, "EXACT_UP_TO", limit)
    shape = (16, 16, 1)
    images = np.random.default_rng(0).integers(0, 256, (44, *shape), np.uint8)
    model = models.build("pca", shape, components=2)
    peaks = []
    for count in (24, 44):
        watched = Watched(images[:count], 4)
        model.fit(watched)
        peaks.append(watched.peak)
    # Twenty images more are five blocks of floats.
    block = 4 * images[0].size * 4
    assert peaks[0] > block and peaks[1] < peaks[0] + 0.5 * block, peaks


def test_bytes_and_floats_give_the_same_fit():
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 5, 1), np.uint8)
    model = models.build("pca", (5, 5, 1), components=3, ssim_window=3)
    of_bytes = model.fit([batch_of(images)])
    of_floats = model.fit([batch_of(np.float32(images) / np.float32(255))])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), of_bytes, of_floats)
    assert jnp.all(of_bytes["params"]["log_noise"] > np.log(1e-4))


def test_large_images_are_fitted_in_bands_to_the_same_model(patches, monkeypatch):
    model, images, variables, _, _ = patches
    monkeypatch.setattr(pca, "BLOCK_VALUES", 1000)  # of 50 in a patch, 4 in a row
    parted = model.fit(batches_of(images, 4))
    one, other = (jax.device_get(v["params"]) for v in (parted, variables))
    for name in ("mean", "log_variances", "log_noise"):
        # Sums of float32 in another order.
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    assert_same_axes(one["axes"], other["axes"], 1e-4)


def test_images_below_the_ssim_window_are_refused_before_training():
    small = {"data.image_size": (8, 128)}
    with pytest.raises(UserError, match=r"8 x 128 pixels are smaller than model\.ssim_window=11"):
        models.build_from(load_settings("pca", small))
    models.build_from(load_settings("pca", {**small, "model.ssim_window": 7}))
