"""Autocorrelation against all pairs counted one by one, and against fields of known length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.ops import grf
from jaxad.ops.correlation import correlation_length, radial_autocorrelation


def by_pairs(images):
    """Every pair of pixels, written out; pairs of one offset averaged, then offsets."""
    h, w = images.shape[1:]
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    offsets = {}
    for i in range(-h + 1, h):
        for j in range(-w + 1, w):
            one = centred[:, max(0, i) : h + min(0, i), max(0, j) : w + min(0, j)]
            other = centred[:, max(0, -i) : h - max(0, i), max(0, -j) : w - max(0, j)]
            offsets.setdefault(int(np.rint(np.hypot(i, j))), []).append((one * other).mean())
    curve = [np.mean(offsets[k]) for k in range(min(h, w) // 2 + 1)]
    return np.array(curve) / curve[0]


@pytest.mark.parametrize("shape", [(2, 6, 9), (3, 7, 7)])
def test_equals_all_pairs(shape):
    images = np.random.default_rng(0).random(shape)
    ours = radial_autocorrelation(jnp.float32(images))
    # float32 transforms of some hundred values.
    np.testing.assert_allclose(ours, by_pairs(images), atol=2e-6)


@pytest.mark.parametrize("range_", [2.0, 4.0])
def test_the_length_of_an_exponential_field_is_its_range(range_):
    """exp(-d / r) is 1/e at d = r.

    The mean takes a share of about 2 pi r^2 / 96^2, under 1.1 %; the bins of a pixel and the
    scatter of 24 images some per cent.
    """
    eigenvalues = grf.eigenvalues(grf.covariance_base((96, 96), "exponential", range_))
    fields = grf.sample(jax.random.key(0), (24, 96, 96, 1), eigenvalues)[..., 0]
    curve = radial_autocorrelation(fields)
    assert curve.shape == (49,)
    assert correlation_length(curve) == pytest.approx(range_, rel=0.1)


def test_scale_and_level_do_not_matter():
    images = jnp.float32(np.random.default_rng(1).random((2, 8, 8)))
    np.testing.assert_allclose(
        radial_autocorrelation(5.0 + 3.0 * images), radial_autocorrelation(images), atol=1e-5
    )


def test_a_curve_that_never_falls_has_no_length():
    assert np.isnan(correlation_length(jnp.ones(8)))
    assert np.isnan(correlation_length(radial_autocorrelation(jnp.ones((2, 8, 8)))))


@pytest.mark.parametrize("family", [f for f in grf.FAMILIES if f != "identity"])
def test_the_length_of_a_family_is_where_its_covariance_falls_to_one_over_e(family):
    length = 16.0
    range_ = length / grf.length_of_unit_range(family)
    base = grf.covariance_base((1, 256), family, range_)
    assert float(base[0, 16]) == pytest.approx(np.exp(-1), rel=1e-4)
