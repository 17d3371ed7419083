"""The pure steps: keys, accumulation, collections and sums over the global batch."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxad.data.batch import Batch
from jaxad.run.config import load_settings
from jaxad.training.augment import make_augment
from jaxad.training.parallel import AXIS, Devices
from jaxad.training.state import create_state
from jaxad.training.step import (
    example_keys,
    make_gradient_fn,
    make_train_step,
    make_validation_step,
)

SHAPE = (6, 8, 3)


def batch(count=8, seed=0, valid=None):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
    valid = np.ones(count, bool) if valid is None else valid
    return Batch(images, np.arange(count, dtype=np.int32), valid)


def augment(**changes):
    return make_augment(
        load_settings("pca", {f"augment.{k}": v for k, v in changes.items()}).augment
    )


def state_of(model, optimizer):
    return create_state(jax.jit(model.init)(jax.random.key(0)), optimizer)


def test_keys_depend_on_seed_step_and_place_only():
    key_data = lambda *args: np.asarray(jax.random.key_data(example_keys(*args, None)))
    whole = key_data(3, jnp.int32(5), 8)
    np.testing.assert_array_equal(key_data(3, jnp.int32(5), 4), whole[:4])
    assert len(np.unique(whole, axis=0)) == 8
    assert not np.any(np.all(key_data(3, jnp.int32(6), 8) == whole, axis=1))
    assert not np.any(np.all(key_data(4, jnp.int32(5), 8) == whole, axis=1))
    split = jax.pmap(
        lambda _: jax.random.key_data(example_keys(3, jnp.int32(5), 2, AXIS)), axis_name=AXIS
    )(jnp.arange(4))
    np.testing.assert_array_equal(np.reshape(split, whole.shape), whole)


def test_four_devices_take_the_step_of_one(toy):
    """With augmentation and noise: whatever is drawn is drawn for the image, not the device."""
    results = []
    for devices in (Devices(1), Devices(1, force_pmap=True), Devices(4)):
        model = toy(SHAPE, axis_name=devices.axis_name)
        optimizer = optax.sgd(0.1)
        step = make_train_step(
            model,
            optimizer,
            augment(flip_left_right=True, brightness=0.1),
            seed=2,
            axis_name=devices.axis_name,
        )
        state = devices.replicate(state_of(model, optimizer))
        compiled = devices.compile_step(step, donate_state=True)
        for seed in range(2):
            state, metrics = compiled(state, devices.split(batch(seed=seed)))
        results.append(jax.device_get((state, metrics)))
    assert int(results[0][0].step) == 2
    assert results[0][1].sums["channels"].sum() == 8 * 6 * 8
    for other in results[1:]:
        chex.assert_trees_all_close(other, results[0], rtol=1e-4, atol=1e-6)


def test_the_model_draws_other_numbers_than_the_augmentation(toy):
    """With one key for both, the noise of a model would repeat the brightness of its image."""
    draw = lambda keys: jax.vmap(jax.random.uniform)(keys)
    model = toy(SHAPE)

    def brightness(images, keys):
        return jnp.zeros_like(images) + draw(keys)[:, None, None, None]

    def loss(variables, images, keys, train):
        output = model.loss(variables, images, keys, train)
        of_both = jnp.concatenate([draw(keys), images.image[:, 0, 0, 0]])
        return output._replace(sums={"drawn": of_both})

    step = make_train_step(model._replace(loss=loss), optax.sgd(0.1), brightness, seed=2)
    _, metrics = jax.jit(step)(state_of(model, optax.sgd(0.1)), batch())
    assert len(np.unique(metrics.sums["drawn"])) == 16


def test_augmentation_takes_and_gives_values_from_0_to_1(toy):
    model = toy(SHAPE)

    def loss(variables, images, keys, train):
        output = model.loss(variables, images, keys, train)
        return output._replace(sums={"seen": images.image})

    step = make_train_step(
        model._replace(loss=loss), optax.sgd(0.1), lambda images, keys: 1 - images, seed=0
    )
    _, metrics = jax.jit(step)(state_of(model, optax.sgd(0.1)), batch())
    np.testing.assert_allclose(metrics.sums["seen"], 1 - batch().image / 255, atol=1e-6)


def test_a_collection_that_a_loss_leaves_alone_stays(toy):
    model, optimizer = toy(SHAPE), optax.sgd(0.1)
    state = state_of(model, optimizer)
    state = state.replace(collections={**state.collections, "fixed": {"table": jnp.arange(3.0)}})
    new, _ = jax.jit(make_train_step(model, optimizer, seed=0))(state, batch())
    assert new.collections.keys() == {"batch_stats", "fixed"}
    np.testing.assert_array_equal(new.collections["fixed"]["table"], np.arange(3.0))


@pytest.mark.parametrize("devices", [1, 4])
def test_the_gradient_norm_is_that_of_the_whole_batch_before_the_optimiser(toy, devices):
    """Neither of the updates, which a rate of 0.1 and a low clip make small, nor of one device."""
    devices = Devices(devices)
    model, alone = toy(SHAPE, axis_name=devices.axis_name), toy(SHAPE)
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1))
    step = make_train_step(model, optimizer, seed=2, axis_name=devices.axis_name)
    state = state_of(alone, optimizer)
    _, metrics = devices.compile_step(step, donate_state=False)(
        devices.replicate(state), devices.split(batch())
    )
    keys = jax.vmap(lambda key: jax.random.split(key)[1])(example_keys(2, jnp.int32(0), 8, None))

    def mean_loss(params):
        variables = {**state.variables, "params": params}
        return alone.loss(variables, batch(), keys, True).per_example.mean()

    gradients = jax.tree.leaves(jax.jit(jax.grad(mean_loss))(state.params))
    norm = np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in gradients]))
    assert norm > 0.01
    np.testing.assert_allclose(metrics.means["gradient_norm"], norm, rtol=1e-4)


@pytest.mark.parametrize("count, force", [(1, False), (1, True), (2, False)])
def test_a_state_is_put_whole_on_the_first_devices(count, force):
    devices = Devices(count, force_pmap=force)
    state = devices.replicate({"kernel": np.ones((4, 3)), "step": np.int32(1)})
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.device_set == set(jax.local_devices()[:count])
        assert leaf.is_fully_replicated
    assert devices.axis_name == (AXIS if force or count > 1 else None)


@pytest.mark.parametrize("count", [1, 4])
def test_the_state_is_donated_and_the_batch_is_not(toy, count):
    devices, optimizer = Devices(count), optax.adam(1e-2)
    model = toy(SHAPE, axis_name=devices.axis_name)
    step = make_train_step(model, optimizer, augment(), seed=0, axis_name=devices.axis_name)
    compiled = devices.compile_step(step, donate_state=True)
    state = devices.replicate(state_of(toy(SHAPE), optimizer))
    images = jax.device_put(devices.split(batch()))
    new, _ = compiled(state, images)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not images.image.is_deleted()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_accumulation_against_the_parts_one_after_the_other(toy):
    model = toy(SHAPE)
    loss = model.loss
    model = model._replace(
        loss=lambda variables, images, keys, train: loss(variables, images, keys, train)._replace(
            scalars={"place": images.index[0]}
        )
    )
    variables = jax.jit(model.init)(jax.random.key(0))
    keys = example_keys(0, jnp.int32(0), 8, None)
    whole = batch()
    gradients, output = jax.jit(make_gradient_fn(model, axis_name=None, accumulate=4))(
        variables, whole, keys
    )
    alone = jax.jit(make_gradient_fn(model, axis_name=None))
    found, losses, counts = [], [], []
    for part in range(4):
        rows = slice(2 * part, 2 * part + 2)
        g, o = alone(variables, jax.tree.map(lambda x, r=rows: x[r], whole), keys[rows])
        # The statistics of one part are what the next one starts from.
        variables = {**variables, **o.collections}
        found.append(g)
        losses.append(o.per_example)
        counts.append(o.sums["channels"])
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *found)
    chex.assert_trees_all_close(gradients, mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(output.per_example, jnp.concatenate(losses), rtol=1e-6)
    np.testing.assert_allclose(output.sums["channels"], sum(counts))
    assert output.scalars["place"] == 6  # of the last part
    last = {k: v for k, v in variables.items() if k != "params"}
    chex.assert_trees_all_close(output.collections, last, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4])
def test_padding_does_not_count_in_a_validation(toy, count):
    devices = Devices(count)
    model = toy(SHAPE, axis_name=devices.axis_name)
    variables = devices.replicate(dict(jax.jit(model.init)(jax.random.key(0))))
    step = devices.compile_step(
        make_validation_step(model, seed=3, axis_name=devices.axis_name), donate_state=False
    )
    valid = np.arange(8) < 5
    # What is drawn for an image follows from its index, not from its place in the batch.
    index = np.arange(8, dtype=np.int32)[::-1]
    padded = step(variables, devices.split(batch(valid=valid)._replace(index=index)))
    assert float(padded.examples) == 5.0
    alone = toy(SHAPE)
    root = jax.random.fold_in(jax.random.key(3), 2**31 - 1)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, index[:5])
    images = jax.tree.map(lambda x: x[:5], batch())
    expected = jax.jit(alone.loss, static_argnums=3)(jax.device_get(variables), images, keys, False)
    np.testing.assert_allclose(padded.sums["loss"], expected.per_example.sum(), rtol=1e-5)
    np.testing.assert_allclose(padded.sums["l1"], expected.terms["l1"].sum(), rtol=1e-5)


def test_a_padded_image_that_is_not_finite_does_not_spoil_a_validation(toy):
    model = toy(SHAPE)

    def loss(variables, images, keys, train):
        output = model.loss(variables, images, keys, train)
        return output._replace(per_example=jnp.where(images.valid, output.per_example, jnp.nan))

    step = make_validation_step(model._replace(loss=loss), seed=0)
    totals = jax.jit(step)(jax.jit(model.init)(jax.random.key(0)), batch(valid=np.arange(8) < 5))
    assert bool(jnp.isfinite(totals.sums["loss"]))
