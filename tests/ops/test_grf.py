"""Gaussian random fields against dense matrices, scipy, scikit-learn and the authors' functions."""

import functools
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import linalg, stats
from sklearn.gaussian_process.kernels import RBF, Matern

from jaxad.ops import grf

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "grf.npz"
# Square and not, odd and even sides, and sides so short that there is nothing to mirror.
SHAPES = [(4, 4), (5, 5), (3, 8), (6, 5), (1, 2)]
PLANE = {
    "exponential": lambda d, r: np.exp(-d / r),
    "matern32": lambda d, r: (1 + d / r) * np.exp(-d / r),
    "matern32_sqrt3": lambda d, r: Matern(r, nu=1.5)(np.zeros((1, 1)), d.reshape(-1, 1)),
    "matern52": lambda d, r: Matern(r, nu=2.5)(np.zeros((1, 1)), d.reshape(-1, 1)),
    "gaussian": lambda d, r: RBF(r / np.sqrt(2))(np.zeros((1, 1)), d.reshape(-1, 1)),
    "identity": lambda d, r: np.float64(d == 0),
}
# Such that the nearest copies are positive definite on these tori.
RANGES = {
    "exponential": 0.9,
    "matern32": 0.5,
    "matern32_sqrt3": 0.8,
    "matern52": 0.8,
    "gaussian": 0.8,
    "identity": 1.0,
}
# Some roundings each, in float32 times condition numbers of up to 100.
PRECISIONS = {"float32": 1e-5, "float64": 1e-10}


def offsets(shape):
    """(N, N, 2): from every site to every other, in the order of a reshaped field."""
    sites = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2)
    return sites[:, None] - sites[None]


def covariance(shape, family, range_, variance=1.0):
    """The dense N x N matrix of nearest copies."""
    copies = [offsets(shape) + np.array(n) * shape for n in itertools.product((-1, 0, 1), repeat=2)]
    d = np.min(np.linalg.norm(copies, axis=-1), axis=0)
    correlation = PLANE[family](d, range_).reshape(d.shape)
    return correlation if family == "identity" else variance * correlation


def circulant(base):
    """The dense matrix of any base (h, w)."""
    i, j = np.moveaxis(offsets(base.shape) % base.shape, -1, 0)
    return np.asarray(base, np.float64)[i, j]


def columns(x):
    """Fields (b, h, w, c) as (b, c, N), float64 if they come from numpy."""
    if isinstance(x, np.ndarray):
        x = x.astype(np.float64)
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], x.shape[3], -1)


def draw(shape, batch=2, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    size = (batch, *shape, channels)
    return rng.normal(size=size), rng.normal(-1, 0.7, size=size)


def dense_kl(mean, log_variance, sigma):
    """The textbook formula, (b, c)."""
    m, v = columns(mean), np.exp(columns(log_variance))
    precision = np.linalg.inv(sigma)
    quadratic = np.einsum("bci,ij,bcj->bc", m, precision, m)
    trace = v @ np.diag(precision)
    determinants = np.linalg.slogdet(sigma)[1] - np.log(v).sum(-1)
    return 0.5 * (determinants + quadratic + trace - m.shape[-1])


@pytest.fixture(params=PRECISIONS)
def precision(request):
    with jax.enable_x64(request.param == "float64"):
        yield PRECISIONS[request.param]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def precision_product(x, eigenvalues):
    """Sigma^-1 x: half the gradient of the quadratic form."""
    gradient = jax.grad(lambda x: jnp.sum(grf.quadratic_form(x, eigenvalues)))
    return 0.5 * gradient(x.astype(eigenvalues.dtype))


def floored_share(base, floor=grf.FLOOR):
    """How many of the eigenvalues are raised."""
    raised = grf.eigenvalues(base, floor=floor) > grf.raw_eigenvalues(base)
    return jnp.mean(raised, axis=(0, 1), dtype=base.dtype)


# --- against dense matrices -------------------------------------------------------------------


@functools.cache
def jitted_base(shape, family, wrap="nearest"):
    return jax.jit(functools.partial(grf.covariance_base, shape, family, wrap=wrap))


@jax.jit
def everything(base, x, log_variance):
    lam = grf.eigenvalues(base)
    return {
        "eigenvalues": lam,
        "raw": grf.raw_eigenvalues(base),
        "smallest": grf.smallest_eigenvalue(base),
        "floored": floored_share(base),
        "log_determinant": grf.log_determinant(lam),
        "precision_diagonal": grf.precision_diagonal(lam),
        "precision_product": columns(precision_product(x, lam)),
        "quadratic_form": grf.quadratic_form(x, lam),
        "log_density": grf.log_density(x, lam),
        "kl": grf.kl_divergence(x, log_variance, lam),
        "sample": columns(grf.sample(jax.random.key(3), x.shape, lam)),
        "noise": columns(jax.random.normal(jax.random.key(3), x.shape, lam.dtype)),
    }


@pytest.mark.parametrize("family", grf.FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_everything_equals_the_dense_matrix(shape, family, precision):
    range_, variance = RANGES[family], 1.7
    sigma = covariance(shape, family, range_, variance)
    values, inverse = np.linalg.eigvalsh(sigma), np.linalg.inv(sigma)
    close = functools.partial(np.testing.assert_allclose, rtol=precision, atol=precision)
    base = jitted_base(shape, family)(range_, variance)
    close(circulant(base), sigma)
    # Rounded to what float32 holds, so that both start from the same numbers.
    x, log_variance = (np.float32(a) for a in draw(shape))
    result = everything(base, jnp.asarray(x, base.dtype), jnp.asarray(log_variance, base.dtype))
    assert {value.dtype for value in result.values()} == {jnp.result_type(float)}
    fields = columns(x)
    normal = stats.multivariate_normal(np.zeros(len(sigma)), sigma)
    close(np.sort(result["eigenvalues"].ravel()), values)
    close(result["raw"], result["eigenvalues"])
    close(result["smallest"], values[0] / sigma[0, 0])
    close(result["floored"], 0.0)
    close(result["log_determinant"], np.linalg.slogdet(sigma)[1])
    close(np.full(len(sigma), result["precision_diagonal"]), np.diag(inverse))
    close(result["precision_product"], fields @ inverse)
    close(result["quadratic_form"], np.einsum("bci,ij,bcj->bc", fields, inverse, fields))
    close(result["log_density"], normal.logpdf(fields).reshape(2, 3))
    close(result["kl"], dense_kl(x, log_variance, sigma))
    # A sample is the symmetric square root applied to normal noise of that key.
    close(result["sample"], np.asarray(result["noise"]) @ linalg.sqrtm(sigma).real)


@pytest.mark.parametrize("shape", [(6, 7), (5, 4)])
def test_covariances_that_differ_between_the_diagonals(shape, precision):
    """Any stationary covariance will do: b[i, j] = b[-i, -j], not b[i, j] = b[i, -j]."""
    rng = np.random.default_rng(0)
    spectrum = 1 + rng.random(shape)
    spectrum += np.roll(spectrum[::-1, ::-1], 1, axis=(0, 1))
    base = np.fft.ifft2(spectrum).real
    assert np.abs(base - np.roll(base[:, ::-1], 1, axis=1)).max() > 1e-2
    lam = grf.eigenvalues(jnp.asarray(base))
    np.testing.assert_allclose(lam, spectrum, rtol=precision)
    x = jnp.asarray(draw(shape)[0])
    expected = columns(x) @ np.linalg.inv(circulant(base))
    for actual, dense in (
        (columns(precision_product(x, lam)), expected),
        (grf.quadratic_form(x, lam), np.sum(columns(x) * expected, axis=-1)),
    ):
        np.testing.assert_allclose(actual, dense, rtol=precision, atol=precision)


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (1, 1), (2, 1), (1, 7)])
def test_distances_take_the_shorter_way(shape):
    copies = [offsets(shape) + np.array(n) * shape for n in itertools.product((-1, 0, 1), repeat=2)]
    d = np.min(np.linalg.norm(copies, axis=-1), axis=0)[0].reshape(shape)
    np.testing.assert_allclose(grf.torus_distances(shape), d, rtol=1e-7)
    base = grf.covariance_base(shape, "exponential", 2.0)
    np.testing.assert_allclose(base, np.exp(-d / 2), rtol=1e-6)


def test_samples_have_the_covariance():
    shape = (3, 4)
    sigma = covariance(shape, "matern32", 0.7, 2.0)
    lam = grf.eigenvalues(grf.covariance_base(shape, "matern32", 0.7, 2.0))
    n = 20000
    draws = jax.jit(grf.sample, static_argnums=1)(jax.random.key(0), (n // 2, *shape, 2), lam)
    x = columns(np.asarray(draws)).reshape(n, -1)
    # Of n products of two normal values; 4.5 standard errors, as 78 entries are looked at.
    error = np.sqrt((np.outer(np.diag(sigma), np.diag(sigma)) + sigma**2) / n)
    assert np.all(np.abs(x.T @ x / n - sigma) < 4.5 * error)
    assert np.all(np.abs(x.mean(0)) < 4.5 * np.sqrt(2.0 / n))


def test_density_integrates_to_one(x64):
    """On two sites, by the trapezoid rule, whose error is far below rounding for a normal."""
    lam = grf.eigenvalues(grf.covariance_base((1, 2), "exponential", 1.5, 0.8))
    grid = np.linspace(-9, 9, 181)
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 1, 2, 1)
    density = np.exp(grf.log_density(jnp.asarray(x), lam))
    np.testing.assert_allclose(density.sum() * (grid[1] - grid[0]) ** 2, 1.0, rtol=1e-12)


@pytest.mark.parametrize("family", ["identity", "matern32"])
def test_what_each_site_contributes_to_the_divergence(family, precision):
    sigma = covariance((3, 8), family, RANGES[family], 1.7)
    mean, log_variance = draw((3, 8))
    base = jitted_base((3, 8), family)(RANGES[family], 1.7)
    lam = jax.jit(grf.eigenvalues)(base)
    shares = grf.kl_shares(mean.astype(lam.dtype), log_variance.astype(lam.dtype), lam)
    inverse, m, a = np.linalg.inv(sigma), columns(mean), columns(log_variance)
    expected = m * (m @ inverse) + np.exp(a) * np.diag(inverse) - a - 1
    expected = 0.5 * (expected + np.linalg.slogdet(sigma)[1] / 24)
    np.testing.assert_allclose(columns(shares), expected, rtol=precision, atol=10 * precision)
    np.testing.assert_allclose(
        shares.sum(axis=(1, 2)), dense_kl(mean, log_variance, sigma), rtol=10 * precision
    )


def test_identity_gives_the_divergence_from_the_standard_normal():
    mean, log_variance = (np.float32(a) for a in draw((5, 5)))
    for range_, variance in ((1.0, 1.0), (3.0, 5.0)):  # both are ignored
        base = jitted_base((5, 5), "identity")(range_, variance)
        result = everything(base, mean, log_variance)
        np.testing.assert_array_equal(result["eigenvalues"], np.ones((5, 5)))
        expected = 0.5 * np.sum(mean**2 + np.expm1(log_variance) - log_variance, axis=(1, 2))
        np.testing.assert_allclose(result["kl"], expected, rtol=1e-6)
    zero = np.zeros((2, 5, 5, 3), np.float32)
    np.testing.assert_array_equal(everything(base, zero, zero)["kl"], 0.0)


def test_divergence_has_its_least_where_theory_says():
    """At mean 0 and v = 1 / precision; what is left is the price of independent sites, not 0."""
    mean = np.zeros((2, 5, 5, 3), np.float32)
    base = jitted_base((5, 5), "matern32")(0.7, 1.0)
    result = everything(base, mean, mean)
    diagonal = result["precision_diagonal"]
    least = jnp.full_like(mean, -jnp.log(diagonal))
    price = 0.5 * (25 * np.log(diagonal) + result["log_determinant"])
    assert price > 1.0
    np.testing.assert_allclose(everything(base, mean, least)["kl"], price, rtol=1e-5)
    total = lambda m, l: jnp.sum(grf.kl_divergence(m, l, result["eigenvalues"]))
    for part in jax.jit(jax.grad(total, argnums=(0, 1)))(mean, least):
        np.testing.assert_allclose(part, 0.0, atol=1e-6)


# --- positive definiteness --------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, family, range_, smallest, atol",
    [((8, 8), "matern32", 1.3, -0.241, 5e-4), ((32, 32), "gaussian", 4.0, -6.4e-7, 5e-5)],
)
def test_smallest_eigenvalues_that_the_docs_name(shape, family, range_, smallest, atol):
    """By numpy in float64; the gaussian's is below what float32 resolves, so it is told there."""
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    d = np.hypot(rows[:, None], columns[None]) / range_
    correlation = (1 + d) * np.exp(-d) if family == "matern32" else np.exp(-(d**2))
    exact = np.fft.fft2(correlation).real.min()
    np.testing.assert_allclose(exact, smallest, rtol=0.01)
    ours = grf.smallest_eigenvalue(grf.covariance_base(shape, family, range_, wrap="nearest"))
    np.testing.assert_allclose(ours, exact, atol=atol)


def test_nearest_copies_may_not_be_positive_definite():
    result = everything(
        jitted_base((32, 32), "matern32")(4.0, 3.0), *map(np.float32, draw((32, 32)))
    )
    np.testing.assert_allclose(result["smallest"], -0.464, atol=1e-3)
    np.testing.assert_allclose(result["floored"], 74 / 1024)
    np.testing.assert_allclose(np.min(result["eigenvalues"]), 3.0 * grf.FLOOR, rtol=1e-6)
    for name, value in result.items():
        assert np.all(np.isfinite(value)), name


def test_projection_is_the_nearest_positive_definite_matrix(x64):
    base = grf.covariance_base((8, 8), "matern32", 1.3, 2.0)
    values, vectors = np.linalg.eigh(covariance((8, 8), "matern32", 1.3, 2.0))
    assert values[0] < -0.1
    projected = vectors @ np.diag(np.maximum(values, 0.02)) @ vectors.T
    lam = grf.eigenvalues(base, floor=0.01)
    np.testing.assert_allclose(circulant(np.fft.ifft2(lam).real), projected, atol=1e-12)
    np.testing.assert_allclose(jnp.mean(lam), projected[0, 0], rtol=1e-12)
    np.testing.assert_allclose(floored_share(base, floor=0.01), np.mean(values < 0.02))


@pytest.mark.parametrize("family", ["exponential", "matern32", "matern52", "gaussian"])
def test_sum_of_copies(family, x64):
    """Against the sum over 21 x 33 copies, and the nearest copy at short ranges."""
    shape, range_ = (8, 5), 1.2
    total = np.zeros(shape)
    i, j = np.meshgrid(*map(np.arange, shape), indexing="ij")
    for n, m in itertools.product(range(-10, 11), range(-16, 17)):
        d = np.hypot(i + 8 * n, j + 5 * m)
        total += PLANE[family](d, range_).reshape(shape)
    base = grf.covariance_base(shape, family, range_, 2.0, wrap="sum")
    np.testing.assert_allclose(base, 2.0 * total / total[0, 0], atol=1e-6)
    nearest = grf.covariance_base(shape, family, range_, 2.0)
    assert np.abs(nearest - base).max() > 1e-6
    short = [grf.covariance_base((8, 8), family, 0.3, wrap=wrap) for wrap in ("nearest", "sum")]
    np.testing.assert_allclose(*short, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(grf.FAMILIES),
    shape=st.sampled_from([(8, 8), (12, 5)]),
    log_range=st.floats(-4, 8),
)
def test_sum_of_copies_is_positive_definite_at_every_range(family, shape, log_range):
    with jax.enable_x64(True):
        base = jitted_base(shape, family, "sum")(10.0**log_range, 2.0)
        np.testing.assert_allclose(base[0, 0], 1.0 if family == "identity" else 2.0)
        sites = shape[0] * shape[1]
        # What the copies leave out, exp(-20) of each, is all that may be missing.
        assert np.linalg.eigvalsh(circulant(base))[0] > -1e-9 * 2.0 * sites
        assert np.all(np.abs(base) <= base[0, 0] * (1 + 1e-12))


def test_float32_sees_nothing_of_what_the_copies_leave_out():
    for family in grf.FAMILIES:
        base = grf.covariance_base((32, 32), family, 9.0, wrap="sum")
        # Rounding: 1e-7 of the largest eigenvalue, which is 1024 at most.
        assert grf.smallest_eigenvalue(base) > -1e-4
        assert np.all(grf.eigenvalues(base) > 0)


# --- gradients --------------------------------------------------------------------------------


def objective(base):
    """Something of all that models differentiate."""
    lam = grf.eigenvalues(base)
    mean, log_variance = (jnp.asarray(a, lam.dtype) for a in draw(base.shape))
    terms = grf.kl_divergence(mean, log_variance, lam) - grf.log_density(mean, lam)
    return jnp.mean(terms) + jnp.mean(grf.sample(jax.random.key(0), mean.shape, lam) ** 3)


@functools.cache
def gradients_of_the_objective():
    return jax.jit(jax.vmap(jax.value_and_grad(objective)))


@pytest.mark.parametrize("wrap", ["nearest", "sum"])
@pytest.mark.parametrize("family", grf.FAMILIES)
def test_gradients_of_the_base_match_finite_differences(family, wrap, x64):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)))
    weighted = lambda r, v: jnp.sum(weights * grf.covariance_base((5, 6), family, r, v, wrap=wrap))
    # At 2.9 the gaussian that limits the reach of the sum is at work.
    points = np.array([[0.8, 1.3], [2.9, 0.6]])
    step = 1e-5
    shifts = step * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    ranges, variances = jnp.asarray(points[:, None] + shifts).reshape(-1, 2).T
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(weighted, (0, 1))))(ranges, variances)
    values = np.reshape(values, (2, 5))
    for i, gradient in enumerate(gradients):
        difference = (values[:, 1 + 2 * i] - values[:, 2 + 2 * i]) / (2 * step)
        # The rounding of the difference, 1e-16 / step, and its second-order error.
        np.testing.assert_allclose(gradient[::5], difference, rtol=1e-7, atol=1e-9)
        assert np.all(np.abs(difference) > 1e-3) == (family != "identity")


@pytest.mark.parametrize("range_", [0.6, 2.5])
def test_gradients_with_respect_to_the_base_match_finite_differences(range_, x64):
    """The longer range is not positive definite: a third of the eigenvalues is floored."""
    base = grf.covariance_base((5, 6), "matern32", range_, 1.3)
    assert (floored_share(base) > 0.2) == (range_ > 1)
    symmetric = np.random.default_rng(0).normal(size=(3, 4))[[0, 1, 2, 2, 1]][:, [0, 1, 2, 3, 2, 1]]
    step = 1e-6
    bases = jnp.stack([base, base + step * symmetric, base - step * symmetric])
    (value, plus, minus), (gradient, _, _) = gradients_of_the_objective()(bases)
    # At the floor the value is about 1e7, and rounds to 1e-9.
    np.testing.assert_allclose(
        jnp.sum(gradient * symmetric),
        (plus - minus) / (2 * step),
        rtol=1e-6,
        atol=1e-14 * float(value) / step,
    )


@pytest.mark.parametrize("wrap", ["nearest", "sum"])
@pytest.mark.parametrize("family", grf.FAMILIES)
def test_values_and_gradients_are_finite_at_every_scalar(family, wrap):
    ranges = jnp.float32([1e-38, 1e-20, 1e-3, 1 / 64, 0.1, 1, 3, 7, 50, 1e5, 1e20, 3e38])
    variances = jnp.float32([1.5, 1, 1e-12, 1e12, 1e-12, 1e12, 1e-3, 1e3, 1, 1e-12, 1e12, 1])
    bases = jax.jit(jax.vmap(functools.partial(grf.covariance_base, (5, 6), family, wrap=wrap)))
    base, backward = jax.vjp(bases, ranges, variances)
    values, gradient = gradients_of_the_objective()(base)
    for leaf in (values, gradient, *backward(gradient)):
        assert np.all(np.isfinite(leaf))


# --- channels, transformations, types ---------------------------------------------------------


def test_scalars_of_each_channel():
    ranges, variances = jnp.array([0.4, 0.8, 1.2]), jnp.array([1.0, 0.5, 2.0])
    x, log_variance = (jnp.float32(a) for a in draw((6, 5)))
    function = jax.jit(functools.partial(grf.covariance_base, (6, 5), "exponential", wrap="sum"))
    base = function(ranges, variances)
    assert base.shape == (6, 5, 3)
    together = everything(base, x, log_variance)
    for i in range(3):
        own = function(ranges[i], variances[i])
        np.testing.assert_allclose(base[..., i], own, rtol=1e-6)
        alone = everything(own, x[..., i : i + 1], log_variance[..., i : i + 1])
        for name in alone.keys() - {"sample", "noise"}:
            of_fields = together[name].shape[:2] == (2, 3)
            actual = together[name][:, i] if of_fields else together[name][..., i]
            expected = alone[name][:, 0] if of_fields else alone[name]
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    shared = everything(jnp.stack([base[..., 0]] * 3, axis=-1), x, log_variance)
    np.testing.assert_allclose(
        shared["sample"], everything(base[..., 0], x, log_variance)["sample"], rtol=1e-5, atol=1e-5
    )


def test_a_vector_and_a_scalar():
    ranges = jnp.array([0.4, 0.8])
    for arguments in ((ranges, 2.0), (ranges, jnp.float32(2.0)), (0.4, ranges)):
        assert grf.covariance_base((4, 4), "matern32", *arguments).shape == (4, 4, 2)
    assert grf.covariance_base((4, 4), "identity", ranges).shape == (4, 4, 2)


def test_eight_ranges_in_one_vmap():
    ranges = jnp.linspace(0.3, 2.5, 8)
    x, log_variance = (jnp.float32(a) for a in draw((8, 8)))

    def divergence(range_):
        lam = grf.eigenvalues(grf.covariance_base((8, 8), "matern32", range_, wrap="sum"))
        return jnp.sum(grf.kl_divergence(x, log_variance, lam))

    function = jax.value_and_grad(divergence)
    together = jax.jit(jax.vmap(function))(ranges)
    for i in (0, 3, 7):
        alone = jax.jit(function)(ranges[i])
        np.testing.assert_allclose([part[i] for part in together], alone, rtol=1e-3)


def test_bfloat16_is_evaluated_in_float32():
    base = jitted_base((5, 5), "matern32")
    # 0.5 and 1.25 are the same number in both.
    np.testing.assert_array_equal(base(jnp.bfloat16(0.5), jnp.bfloat16(1.25)), base(0.5, 1.25))
    fields = [jnp.bfloat16(a) for a in draw((5, 5))]
    narrow = everything(base(0.5, 1.25), *fields)
    wide = everything(base(0.5, 1.25), *(jnp.float32(a) for a in fields))
    for name, value in wide.items():
        assert narrow[name].dtype == jnp.float32
        # Compiled apart, they may round apart.
        np.testing.assert_allclose(narrow[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_mistakes_are_told():
    for arguments, match in (
        (((4, 4), "matern", 1.0), "exponential, matern32"),
        (((4, 0), "matern32", 1.0), "sizes from 1"),
        (((4, 4), "matern32", 0.0), "range of a field is positive"),
        (((4, 4), "matern32", 1.0, -1), "variance of a field is positive"),
    ):
        with pytest.raises(ValueError, match=match):
            grf.covariance_base(*arguments)
    with pytest.raises(ValueError, match="'nearest' or 'sum'"):
        grf.covariance_base((4, 4), "matern32", 1.0, wrap="mirror")
    x = jnp.zeros((2, 4, 4, 3))
    for shape in ((4, 5), (4, 4, 2), (2, 4, 4, 3)):
        with pytest.raises(ValueError, match="do not fit"):
            grf.quadratic_form(x, jnp.ones(shape))
    with pytest.raises(ValueError, match="do not fit"):
        grf.log_density(x[0], jnp.ones((4, 4)))


# --- the authors' functions -------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


def golden_cases():
    with np.load(GOLDEN) as file:
        return sorted({name.rpartition("/")[0] for name in file.files if name.endswith("/kld")})


def test_golden_values_say_where_they_come_from(golden):
    assert "HGangloff/vae_grf" in json.loads(str(golden["provenance"]))["vae_grf"]
    assert len(golden_cases()) == 18


@pytest.mark.parametrize("case", golden_cases())
def test_equals_the_functions_of_the_authors(case, golden, x64):
    repository, family, _ = case.split("/")
    theirs = {name.split("/")[-1]: golden[name] for name in golden if name.startswith(f"{case}/")}
    field, mean, log_variance = (golden[name] for name in ("field", "mean", "log_variance"))
    sites, close = 64, functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    base = grf.covariance_base((8, 8), family, float(theirs["range"]), float(theirs["sigma"]) ** 2)
    # Their distances are differences of squares expanded by torch.cdist.
    np.testing.assert_allclose(grf.torus_distances((8, 8)), theirs["distances"], atol=1e-7)
    np.testing.assert_allclose(base, theirs["base"], atol=1e-7 * float(base[0, 0]))
    base = jnp.asarray(theirs["base"])
    assert floored_share(base) == 0
    lam = grf.eigenvalues(base)
    # vae_grf adds 1e-6 to each eigenvalue in the logarithm, and to each over sqrt(N) in the
    # inverse; VAE-compare, an older state, does neither.
    jitter = 1e-6 if repository == "vae_grf" else 0.0
    inner = lam + np.sqrt(sites) * jitter
    close(grf.log_determinant(lam + jitter), theirs["log_determinant"])
    close(precision_product(jnp.asarray(field), inner), theirs["product"])
    inverse = np.fft.ifft2(1 / np.asarray(inner)).real
    close(inverse, theirs["inverse_base"])
    close(grf.precision_diagonal(inner), theirs["inverse_base"][0, 0])
    # Without jitter: relative to the smallest eigenvalue.
    off = np.sqrt(sites) * jitter / float(jnp.min(lam)) + 1e-10
    assert off < 0.1
    kl = np.mean(grf.kl_divergence(jnp.asarray(mean), jnp.asarray(log_variance), lam), axis=1)
    divisor = sites if repository == "vae_grf" else 1
    np.testing.assert_allclose(kl / divisor, -theirs["kld"], rtol=off)
