"""The options of detection: the same values by other kernels, and none where they do not belong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.run import compilation
from jaxad.run.compilation import detection_options


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    compilation._known.cache_clear()
    yield
    compilation._known.cache_clear()


def test_detection_takes_other_kernels_and_gives_the_same_values():
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 8))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 8, 8))

    def convolve(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        return jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 5, 5, 1), (1, 1, 1, 1), "VALID")

    options = detection_options()
    own = jax.jit(convolve, compiler_options=options).lower(x, kernel).compile()
    if options:  # this XLA has them
        assert "ynn_fusion" not in own.as_text()
    # Sums of 1,800 products of float32 in another order.
    np.testing.assert_allclose(own(x, kernel), jax.jit(convolve)(x, kernel), atol=2e-3)


def test_there_are_none_where_the_user_has_chosen_or_elsewhere(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
    assert detection_options() == {}
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert detection_options() == {}


def test_a_version_that_does_not_know_them_compiles_without(monkeypatch):
    monkeypatch.setattr(compilation, "_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert detection_options() == {}
    assert float(jax.jit(jnp.sin, compiler_options=detection_options())(0.0)) == 0.0
