"""SSIM maps against scikit-image and dm_pix, and at the points where moments degenerate."""

import functools

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from jaxad.ops import ssim
from jaxad.ops.ssim import BACKENDS, mean_ssim, ssim_map


def images(shape=(2, 26, 33, 3), seed=0):
    """Smooth images with flat areas, and noisy copies of them that share a region."""
    rng = np.random.default_rng(seed)
    a = gaussian_filter(rng.random(shape), (*(0,) * (len(shape) - 3), 2, 2, 0))
    a = np.clip((a - a.mean()) / a.std() * 0.25 + 0.5, 0, 1)
    b = np.clip(a + 0.1 * rng.standard_normal(shape), 0, 1)
    b[..., :14, :, :] = a[..., :14, :, :]
    a[..., :12, :], b[..., :12, :] = 0.9, 0.85
    return a, b


def skimage_map(a, b, **options):
    """scikit-image's full-size map in float64 (versions after 0.26 crop it unless told not to)."""
    maps = [
        structural_similarity(x, y, channel_axis=-1, full=True, **options)[1]
        for x, y in zip(a, b, strict=True)
    ]
    if maps[0].shape != a[0].shape:
        pytest.skip("this scikit-image crops its map")
    return np.stack(maps)


# Against float64: one rounding of a mean of squares near 0.25 is 3e-8, and the smallest
# denominator is C2 = 9e-4, so that some 1e-4 is the worst that float32 can be held to in flat
# areas. The typical error is 1e-6.
def assert_close(actual, expected):
    error = np.asarray(actual, np.float64) - expected
    assert np.abs(error).max() < 1e-4
    assert np.sqrt(np.mean(error**2)) < 5e-6


@pytest.mark.parametrize("size", [7, 11, 15])
def test_uniform_symmetric_equals_scikit_image(size):
    a, b = images()
    expected = skimage_map(a, b, win_size=size, data_range=1.0)
    assert_close(ssim_map(jnp.float32(a), jnp.float32(b), window_size=size), expected)


def test_gaussian_symmetric_equals_scikit_image():
    a, b = images()
    expected = skimage_map(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    actual = ssim_map(jnp.float32(a), jnp.float32(b), window="gaussian", sample_covariance=False)
    assert_close(actual, expected)


def test_data_range_and_stabilisers_equal_scikit_image():
    a, b = images()
    options = {"data_range": 255.0, "K1": 0.02, "K2": 0.05}
    expected = skimage_map(255 * a, 255 * b, win_size=9, **options)
    actual = ssim_map(
        jnp.float32(255 * a),
        jnp.float32(255 * b),
        window_size=9,
        data_range=255.0,
        k1=0.02,
        k2=0.05,
    )
    assert_close(actual, expected)


@pytest.mark.parametrize(("size", "sigma"), [(11, 1.5), (7, 0.8)])
def test_gaussian_valid_equals_dm_pix(size, sigma):
    a, b = images()
    with jax.enable_x64(True):
        expected = dm_pix.ssim(
            jnp.asarray(a), jnp.asarray(b), filter_size=size, filter_sigma=sigma, return_map=True
        )
        assert expected.dtype == jnp.float64
    actual = ssim_map(
        jnp.float32(a),
        jnp.float32(b),
        window="gaussian",
        window_size=size,
        sigma=sigma,
        sample_covariance=False,
        border="valid",
    )
    assert actual.shape == (2, 26 - size + 1, 33 - size + 1, 3)
    assert_close(actual, np.asarray(expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_figure_per_image_whoever_computes_it(backend):
    a, b = images()
    expected = [
        structural_similarity(
            x, y, channel_axis=-1, data_range=1.0, gaussian_weights=True,
            use_sample_covariance=False, full=True,
        )[1][5:-5, 5:-5].mean()
        for x, y in zip(a, b, strict=True)
    ]  # fmt: skip
    a, b = jnp.float32(a), jnp.float32(b)
    figure = jax.jit(functools.partial(mean_ssim, backend=backend))
    # Means of errors of 1e-6, most of one sign in flat areas.
    np.testing.assert_allclose(figure(a, b), expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(
        mean_ssim(a, b, backend=backend, window_size=7, sigma=0.8),
        dm_pix.ssim(a, b, filter_size=7, filter_sigma=0.8), rtol=0, atol=2e-5,
    )  # fmt: skip
    # Flat and equal images have gradients that are numbers: a network begins with them.
    for level in (0.0, 0.5, 1.0):
        flat = jnp.full((1, 16, 16, 3), level)
        assert np.isfinite(jax.grad(lambda x, f=flat: figure(x, f).sum())(flat)).all()


def test_the_backend_that_auto_means(monkeypatch):
    """Ours on a CPU; on other devices dm_pix's, told apart here by which is called."""
    called = []
    monkeypatch.setattr(ssim.dm_pix, "ssim", lambda a, b, **how: called.append(how) or jnp.ones(2))
    a, b = (jnp.float32(x) for x in images())
    assert float(mean_ssim(a, b)[0]) < 1 and not called
    monkeypatch.setattr(ssim.jax, "default_backend", lambda: "gpu")
    assert float(mean_ssim(a, b)[0]) == 1
    assert called == [{"filter_size": 11, "filter_sigma": 1.5}]
    with pytest.raises(ValueError, match="one of auto, jaxad, dm_pix, not 'pix'"):
        mean_ssim(a, b, backend="pix")


def test_valid_is_the_inside_of_symmetric():
    a, b = (jnp.float32(x) for x in images())
    inside = ssim_map(a, b, window_size=7)[:, 3:-3, 3:-3]
    np.testing.assert_allclose(
        ssim_map(a, b, window_size=7, border="valid"), inside, rtol=0, atol=1e-6
    )


def test_equal_images_give_exactly_one_and_the_map_is_symmetric_in_its_arguments():
    a, b = (jnp.float32(x) for x in images())
    assert np.all(np.asarray(ssim_map(a, a)) == 1.0)
    np.testing.assert_array_equal(ssim_map(a, b), ssim_map(b, a))


def test_any_leading_axes_and_vmap_and_jit():
    a, b = (jnp.float32(x) for x in images((2, 3, 12, 13, 1)))
    whole = jax.jit(ssim_map)(a, b)
    # The compiler may contract products and sums differently: the rounding of flat areas again.
    np.testing.assert_allclose(whole[1, 2], ssim_map(a[1, 2], b[1, 2]), rtol=0, atol=5e-5)
    np.testing.assert_allclose(whole, jax.vmap(ssim_map)(a, b), rtol=0, atol=5e-5)


@pytest.mark.parametrize("border", ["symmetric", "valid"])
@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_derivatives_match_finite_differences_in_both_modes(window, border):
    def value(x, y):
        maps = ssim_map(x, y, window=window, window_size=5, border=border)
        return jnp.sum(maps * jnp.cos(jnp.arange(maps.size).reshape(maps.shape)))

    with jax.enable_x64(True):
        a, b = (jnp.asarray(x, jnp.float64) for x in images((9, 10, 2)))
        direction = jnp.asarray(np.random.default_rng(1).standard_normal(a.shape))
        step = 1e-6
        expected = (value(a + step * direction, b) - value(a - step * direction, b)) / (2 * step)
        forward = jax.jvp(lambda x: value(x, b), (a,), (direction,))[1]
        reverse = jnp.sum(jax.jit(jax.grad(value))(a, b) * direction)
        # Central differences with this step are good to some 1e-5 here: terms of order 1 nearly
        # cancel in the sum.
        np.testing.assert_allclose(forward, expected, rtol=1e-4)
        np.testing.assert_allclose(reverse, forward, rtol=1e-10)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
@pytest.mark.parametrize("levels", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.5, 0.5), (0.3, 0.31)])
def test_gradient_is_finite_on_constant_images(levels, window):
    a, b = (jnp.full((12, 12, 3), level) for level in levels)
    mean, gradient = jax.value_and_grad(lambda x: jnp.mean(ssim_map(x, b, window=window)))(a)
    ma, mb = levels
    expected = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)  # no variance: luminance alone
    np.testing.assert_allclose(mean, expected, atol=1e-4)
    assert np.all(np.isfinite(gradient))
    if ma == mb:
        np.testing.assert_array_equal(gradient, 0.0)


def test_values_far_outside_the_range_stay_bounded():
    """An untrained decoder may return them; the variance of 1e4 + noise is all rounding."""
    a, b = (1e4 * jnp.float32(1.0 + 1e-6 * x) for x in images())
    maps, gradient = ssim_map(a, b), jax.grad(lambda x: jnp.mean(ssim_map(x, b)))(a)
    assert np.all(np.isfinite(gradient))
    assert np.all(maps <= 1.0)


def test_bfloat16_images_have_float32_moments():
    a, b = (jnp.bfloat16(x) for x in images())
    actual = ssim_map(a, b)
    assert actual.dtype == jnp.float32
    np.testing.assert_array_equal(actual, ssim_map(jnp.float32(a), jnp.float32(b)))
    gradient = jax.grad(lambda x: jnp.mean(ssim_map(x, b)))(a)
    assert gradient.dtype == jnp.bfloat16
    assert np.all(np.isfinite(np.float32(gradient)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": np.zeros((12, 12, 1), np.float32)}, "one shape"),
        ({"a": np.zeros((12, 12, 3), np.uint8)}, "floating-point"),
        ({"a": np.zeros((12, 12), np.float32), "b": np.zeros((12, 12), np.float32)}, "h, w, c"),
        ({"window": "box"}, "'box'"),
        ({"border": "same"}, "'same'"),
        ({"window_size": 8}, "odd"),
        ({"window_size": 1}, "at least 3"),
        ({"window": "gaussian", "sigma": 0.0}, "sigma"),
        ({"data_range": 0.0}, "data range"),
        ({"window_size": 13}, "12x12 pixels are smaller"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_arguments_are_named(change, message):
    arguments = {"a": np.zeros((12, 12, 3), np.float32), "b": np.zeros((12, 12, 3), np.float32)}
    arguments |= change
    with pytest.raises(ValueError, match=message):
        ssim_map(arguments.pop("a"), arguments.pop("b"), **arguments)
