"""Coordinate attention against its authors' module, and what it can do to features."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.models.base import parameter_key
from jaxad.models.layers.coordinate_attention import CoordinateAttention

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "vit_memory.npz"


@pytest.fixture(scope="module")
def published():
    with np.load(GOLDEN) as file:
        start = "coordinate_attention/"
        return {k.removeprefix(start): file[k] for k in file.files if k.startswith(start)}


def variables_of(values):
    """The published weights in our names and layouts."""
    weight = lambda name: values[f"weight/{name}"]
    conv = lambda name: {
        "kernel": weight(f"{name}.weight").transpose(2, 3, 1, 0),
        "bias": weight(f"{name}.bias"),
    }
    return {
        "params": {
            "squeeze": conv("conv1"),
            "rows": conv("conv_h"),
            "columns": conv("conv_w"),
            "norm": {"scale": weight("bn1.weight"), "bias": weight("bn1.bias")},
        },
        "batch_stats": {
            "norm": {"mean": weight("bn1.running_mean"), "var": weight("bn1.running_var")}
        },
    }


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs_equal_the_published_module(published, mode):
    module, variables = CoordinateAttention(), variables_of(published)
    start = jax.eval_shape(
        lambda: module.init(parameter_key(0), jnp.zeros((1, 5, 7, 48)), train=False)
    )
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(start))
    output, _ = module.apply(
        variables, jnp.asarray(published["input"]), train=mode == "train", mutable=["batch_stats"]
    )
    # The golden values are float64; ours are float32 through three layers.
    np.testing.assert_allclose(output, published[mode], rtol=1e-4, atol=2e-6)


def test_gates_follow_rows_and_columns_and_only_weaken():
    module = CoordinateAttention()
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, 4, 6, 8)))
    variables = module.init(parameter_key(0), x, train=False)
    gate = np.asarray(module.apply(variables, x, train=False)) / x
    assert np.all((gate > 0) & (gate < 1))
    # A product of a row's and a column's gate: every 2 x 2 minor vanishes.
    minor = gate[:, :1, :1] * gate[:, 1:, 1:] - gate[:, 1:, :1] * gate[:, :1, 1:]
    np.testing.assert_allclose(minor, 0, atol=1e-6)


def test_the_squeezed_width_is_a_share_of_the_channels_but_at_least_eight():
    for channels, reduction, squeezed in ((768, 32, 24), (64, 32, 8), (64, 2, 32)):
        module = CoordinateAttention(reduction)
        shapes = jax.eval_shape(
            lambda m=module, c=channels: m.init(
                parameter_key(0), jnp.zeros((1, 2, 2, c)), train=False
            )
        )
        assert shapes["params"]["squeeze"]["kernel"].shape == (1, 1, channels, squeezed)
