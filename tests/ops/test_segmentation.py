"""Focal loss and Dice against optax, scipy and counts of pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from scipy.spatial import distance

from jaxad.ops.segmentation import dice_loss, focal_loss

LOGITS = np.array([-90.0, -30.0, -4.0, -0.3, 0.0, 1e-4, 2.0, 17.0, 88.0], np.float32)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_focal_loss_is_the_papers_formula(gamma, target):
    """In float64 by scipy; float32 has seven digits."""
    wide = LOGITS.astype(np.float64)
    towards = wide if target else -wide
    expected = -(special.expit(-towards) ** gamma) * special.log_expit(towards)
    found = focal_loss(jnp.asarray(LOGITS), jnp.full(len(LOGITS), target), gamma=gamma)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-37)


def test_focal_loss_is_that_of_optax():
    logits = jnp.asarray(LOGITS[2:-2])
    targets = jnp.asarray(np.arange(len(logits)) % 2, jnp.float32)
    theirs = optax.losses.sigmoid_focal_loss(logits, targets, alpha=None, gamma=2.0)
    np.testing.assert_allclose(focal_loss(logits, targets), theirs, rtol=1e-5)


def test_gradients_are_finite_where_the_exponential_is_not():
    for gamma in (0.0, 0.5, 2.0):
        for target in (0.0, 1.0):
            of = lambda x, g=gamma, t=target: focal_loss(x, jnp.full(x.shape, t), gamma=g).sum()
            gradient = jax.grad(of)(jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4]))
            assert np.isfinite(gradient).all(), (gamma, target)


def test_dice_of_masks_is_that_of_scipy():
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 3, 6, 5)) < 0.4
    found = dice_loss(jnp.float32(one), jnp.float32(two), smooth=0.0)
    expected = [distance.dice(a.ravel(), b.ravel()) for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_dice_of_nothing():
    nothing, one = jnp.zeros((1, 4, 4)), jnp.zeros((1, 4, 4)).at[0, 1, 2].set(1.0)
    assert float(dice_loss(nothing, nothing)[0]) == 0.0
    # (2 * 0 + 1) / (0 + 1 + 1): half.
    assert float(dice_loss(nothing, one)[0]) == pytest.approx(0.5)
    gradient = jax.grad(lambda x: dice_loss(x, nothing).sum())(nothing)
    assert np.isfinite(gradient).all()
