"""The optimisers of the config against optax put together by hand."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.training.optimizer import make_optimizer, make_schedule

PARAMS = {"a": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]])}, "b": jnp.array([0.1, -0.7])}
LABELS = {"a": {"kernel": "default"}, "b": "codes"}


def options(**changes):
    return load_settings(
        "pca", {f"train.{k.replace('__', '.')}": v for k, v in changes.items()}
    ).train


def descend(optimizer, steps=5):
    """Parameters after some steps on gradients that grow and turn."""
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(steps):
        gradients = jax.tree.map(lambda p, s=step: jnp.sin(7.0 * p + s) * (1.0 + s), params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    "changes, by_hand",
    [
        ({"optimizer": "adam"}, lambda: optax.adam(0.1)),
        ({"optimizer": "adam", "betas": (0.5, 0.95)}, lambda: optax.adam(0.1, b1=0.5, b2=0.95)),
        (
            {"optimizer": "adamw", "betas": (0.5, 0.95)},
            lambda: optax.adamw(0.1, b1=0.5, b2=0.95, weight_decay=0.0),
        ),
        ({"optimizer": "sgd"}, lambda: optax.sgd(0.1, momentum=0.9)),
        ({"optimizer": "adamw", "weight_decay": 0.2}, lambda: optax.adamw(0.1, weight_decay=0.2)),
        (
            {"optimizer": "adam", "weight_decay": 0.2},
            lambda: optax.chain(optax.add_decayed_weights(0.2), optax.adam(0.1)),
        ),
        (
            {"optimizer": "sgd", "gradient_clip": 0.5},
            # Over all parameters together, not label by label.
            lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9)),
        ),
    ],
)
def test_against_optax(changes, by_hand):
    ours = make_optimizer(options(learning_rate=0.1, **changes), LABELS, total_steps=10)
    chex.assert_trees_all_close(descend(ours), descend(by_hand()), rtol=1e-6)


def test_l2_is_in_the_gradient_of_adam_as_pytorch_has_it():
    """One step of Adam by its formula: with L2 the sign of g + wd p decides, here against g."""
    optimizer = make_optimizer(
        options(learning_rate=0.1, optimizer="adam", weight_decay=2.0), LABELS, total_steps=1
    )
    gradients = jax.tree.map(lambda p: -p, PARAMS)
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    expected = jax.tree.map(lambda p: -0.1 * jnp.sign(p), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_multipliers_scale_a_label_and_zero_freezes_it():
    plain = descend(
        make_optimizer(options(learning_rate=0.1, optimizer="sgd"), LABELS, total_steps=9)
    )
    for factor in (0.0, 0.25):
        changes = {"learning_rate_multipliers__codes": factor}
        optimizer = make_optimizer(
            options(learning_rate=0.1, optimizer="sgd", **changes), LABELS, total_steps=9
        )
        found = descend(optimizer)
        chex.assert_trees_all_close(found["a"], plain["a"])
        slow = descend(optax.sgd(0.1 * factor, momentum=0.9))
        chex.assert_trees_all_close(found["b"], slow["b"], rtol=1e-6)
    # Weight decay does not move what is frozen.
    frozen = make_optimizer(
        options(weight_decay=0.5, optimizer="adamw", learning_rate_multipliers__codes=0.0),
        LABELS,
        total_steps=9,
    )
    np.testing.assert_array_equal(descend(frozen)["b"], PARAMS["b"])
    # Nor does it cost memory: there are moments of the other label alone.
    shapes = {leaf.shape for leaf in jax.tree.leaves(frozen.init(PARAMS))}
    assert shapes == {(), PARAMS["a"]["kernel"].shape}


def test_cosine_with_warmup():
    schedule = make_schedule(
        options(learning_rate=0.2, schedule="cosine", warmup_steps=4), total_steps=24
    )
    values = [float(schedule(step)) for step in range(25)]
    np.testing.assert_allclose(values[:5], [0.0, 0.05, 0.1, 0.15, 0.2], rtol=1e-6)
    rest = 0.1 * (1 + np.cos(np.pi * np.arange(21) / 20))
    np.testing.assert_allclose(values[4:], rest, atol=1e-7)


def test_a_warmup_of_epochs_is_their_share_of_the_run():
    by_epochs = options(learning_rate=0.2, schedule="cosine", epochs=30, warmup_epochs=5)
    by_steps = options(learning_rate=0.2, schedule="cosine", warmup_steps=4)
    for step in (0, 3, 4, 11, 24):
        a, b = (float(make_schedule(o, total_steps=24)(step)) for o in (by_epochs, by_steps))
        assert a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_vectors_need_not_decay(optimizer):
    """Without a gradient only the decay moves a parameter: the matrix, not the vector."""
    given = options(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5, decay_vectors=False)
    own = make_optimizer(given, LABELS, total_steps=1)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = own.update(zero, own.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["b"], 0.0)
    np.testing.assert_allclose(updates["a"]["kernel"], -0.05 * PARAMS["a"]["kernel"], rtol=1e-6)


def test_constant_with_and_without_warmup():
    assert float(make_schedule(options(learning_rate=0.2), total_steps=5)(3)) == pytest.approx(0.2)
    warm = make_schedule(options(learning_rate=0.2, warmup_steps=2), total_steps=5)
    np.testing.assert_allclose([float(warm(s)) for s in range(5)], [0, 0.1, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            {"optimizer": "adma"},
            r"train.optimizer' must be one of adam, adamw, sgd, none, not 'adma'",
        ),
        ({"schedule": "cosin"}, r"train.schedule' must be one of constant, cosine, not 'cosin'"),
        (
            {"learning_rate_multipliers__code": 0.5},
            r"learning_rate_multipliers names 'code', .* did you mean 'codes'",
        ),
    ],
)
def test_mistakes_are_named(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        make_optimizer(options(**changes), LABELS, total_steps=5)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weight_decay_leaves_scalars_alone(name):
    train = options(optimizer=name, weight_decay=0.5)
    params = {"kernel": jnp.ones((2, 2)), "log_range": jnp.float32(1.0)}
    optimizer = make_optimizer(train, jax.tree.map(lambda _: "default", params), total_steps=9)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert float(updates["log_range"]) == 0.0 and bool((updates["kernel"] < 0).all())
