"""The measured length is that of fields whose correlation is known."""

import importlib.util

import jax
import numpy as np
import pytest

from jaxad.ops import grf


@pytest.fixture(scope="module")
def tool(project_root):
    path = project_root / "tools" / "prior_samples.py"
    spec = importlib.util.spec_from_file_location("prior_samples", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("range_", [2.0, 4.0])
def test_the_length_of_an_exponential_field_is_its_range(tool, range_):
    """exp(-d / r) is 1/e at d = r.

    Removing the mean of each image takes a share of about 2 pi r^2 / 96^2, under 1.1 %, of the
    covariance at every distance; binning and 24 images' scatter add some per cent.
    """
    eigenvalues = grf.eigenvalues(grf.covariance_base((96, 96), "exponential", range_))
    fields = np.asarray(grf.sample(jax.random.key(0), (24, 96, 96, 1), eigenvalues))
    curve = tool.autocorrelation(fields)
    assert curve[0] == 1.0 and len(curve) == 49
    assert tool.length(curve) == pytest.approx(range_, rel=0.1)


def test_colour_weighs_as_gray(tool):
    gray = np.random.default_rng(0).random((3, 16, 20, 1))
    np.testing.assert_allclose(
        tool.autocorrelation(gray.repeat(3, axis=-1)), tool.autocorrelation(gray), atol=1e-3
    )


def test_a_curve_that_never_falls_has_no_length(tool):
    assert np.isnan(tool.length(np.ones(8)))
