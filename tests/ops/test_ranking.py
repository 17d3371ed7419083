"""Against sorting."""

import jax
import numpy as np
import pytest

from jaxad.ops.ranking import limit_of_highest, mean_of_highest

CASES = {
    "noise": np.random.default_rng(0).normal(size=5000),
    "small and negative": -1e-20 * np.random.default_rng(1).gamma(0.3, size=5000),
    "ties": np.random.default_rng(2).integers(0, 6, 5000),
    "one value": np.full(50, 3.5),
    "zeros": np.zeros(50),
    "one is far above": np.r_[np.zeros(50), 1e30],
    "some do not count": np.r_[np.random.default_rng(3).normal(size=90), np.full(40, -np.inf)],
}


@pytest.mark.parametrize("name", CASES)
def test_the_highest_are_those_of_sorting(name):
    values = CASES[name].astype(np.float32)
    ordered = np.sort(values)[::-1]
    limit, mean = (jax.jit(f, static_argnums=1) for f in (limit_of_highest, mean_of_highest))
    for count in (1, 2, 37, 50):
        reach = values >= np.asarray(limit(values, count))
        np.testing.assert_array_equal(reach, values >= ordered[count - 1], err_msg=str(count))
        # Differences to the lowest are added up in float32.
        exact = ordered[:count].mean(dtype=np.float64)
        np.testing.assert_allclose(mean(values, count), exact, rtol=1e-6)


def test_what_nobody_asks_for_costs_nothing():
    values = CASES["noise"].astype(np.float32)
    assert limit_of_highest(values, 10, wanted=False) == values.min()
