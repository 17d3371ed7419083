"""The benchmark compares one architecture: with either convolutions it computes the same."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench(load_tool):
    return load_tool("benchmarks/rows")


def test_both_jax_rows_take_the_same_steps(bench):
    losses, facts = [], []
    for row in ("lax", "jaxad"):
        step, of_row = bench.jax_step(row, 2, 16, 8)
        losses.append([step() for _ in range(3)])
        facts.append(of_row)
    assert facts[0]["parameters"] == facts[1]["parameters"]
    # Adam divides by gradients' sizes, so rounding grows with the steps; a wrong gradient shows in
    # the first digits of the second loss.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][2] < losses[0][0]


def test_multiplications_of_a_layer(bench):
    layers = {layer[0]: layer for layer in bench.layer_table(256, 256)}
    # 4 images of 32 x 32 positions, 9 taps, 256 by 256 channels, a product and a sum each.
    assert bench.layer_flop(layers["conv 3x3"], 4) == 2 * 4 * 32 * 32 * 9 * 256 * 256
    # The transposed layer multiplies as often as the convolution that it mirrors.
    mirrored = bench.layer_flop(layers["conv 4x4/2 second"], 4)
    assert bench.layer_flop(layers["transposed 4x4/2 second"], 4) == mirrored
