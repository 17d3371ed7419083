"""What every model must do: one suite over every builder.

A new architecture adds one entry to tests/model_cases.py and inherits all of it.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_cases import CASES, cases

from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models import ARCHITECTURES
from jaxad.models.base import parameter_key
from jaxad.run.settings import Augment
from jaxad.training.augment import make_augment
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.parallel import AXIS, Devices
from jaxad.training.state import create_state
from jaxad.training.step import example_keys, make_gradient_fn, make_train_step

BATCH = 8


def test_every_builder_is_covered():
    assert {case.model for case in CASES.values()} == set(ARCHITECTURES)


def images(shape, count=BATCH, seed=0):
    """Smooth random images with some noise: neither flat nor white."""
    rng = np.random.default_rng(seed)
    h, w, c = shape
    y, x = np.mgrid[:h, :w] / max(h, w)
    waves = [
        np.sin(6 * rng.random() * x + 6 * rng.random() * y + 6 * rng.random())
        for _ in range(count * c)
    ]
    smooth = np.stack(waves).reshape(count, c, h, w).transpose(0, 2, 3, 1)
    return np.uint8(np.clip(127 + 90 * smooth + rng.normal(0, 6, smooth.shape), 0, 255))


def batch_of(pictures):
    return Batch(pictures, np.arange(len(pictures), dtype=np.int32), np.ones(len(pictures), bool))


def fitted(model, batch):
    """The variables of a closed form; a network that it builds on is as it is drawn."""
    if not model.backbone:
        return model.fit([batch])
    drawn = jax.jit(model.init)(parameter_key(0))
    network = {collection: tree["backbone"] for collection, tree in drawn.items()}
    return model.fit([batch], backbone=network)


NO_AUGMENT = make_augment(Augment())


class Built:
    """A model of CASES with its variables and compiled functions, made once per case."""

    def __init__(self, case):
        self.builder, self.shape, self.options, _ = CASES[case]
        self.model = models.build(self.builder, self.shape, **self.options)
        self.variables = jax.jit(self.model.init)(parameter_key(0))
        self.batch = batch_of(images(self.shape))
        keys = example_keys(0, jnp.int32(0), BATCH, None)
        self.keys = jax.vmap(jax.random.split, out_axes=1)(keys)[1]  # as the first step has them
        self.gradient = jax.jit(make_gradient_fn(self.model, axis_name=None))
        self.detect = jax.jit(self.model.detect)
        self.optimizer = optax.adam(3e-3)
        step = make_train_step(self.model, self.optimizer, NO_AUGMENT, seed=0)
        chex.clear_trace_counter()  # it counts by name
        self.step = jax.jit(chex.assert_max_traces(step, n=1))


@pytest.fixture(scope="module", params=cases())
def built(request):
    return Built(request.param)


def test_loss_has_the_shapes_and_types_of_the_contract(built):
    arguments = built.variables, built.batch, built.keys
    output, evaluated = (
        jax.eval_shape(lambda *of_loss, train=train: built.model.loss(*of_loss, train), *arguments)
        for train in (True, False)
    )
    assert output.per_example.shape == (BATCH,) and output.per_example.dtype == jnp.float32
    for name, values in output.terms.items():
        assert values.shape == (BATCH,), name
    for name, value in output.scalars.items():
        assert value.shape == (), name
    before = {k: v for k, v in built.variables.items() if k != "params"}
    for name, collection in output.collections.items():
        chex.assert_trees_all_equal_shapes_and_dtypes(collection, before[name])
    assert evaluated.collections == {}, "a validation must not change any collection"


def test_detect_has_the_shapes_and_types_of_the_contract(built):
    h, w, c = built.shape
    detection = built.detect(built.variables, built.batch.image)
    assert detection.maps, "a model needs at least one map"
    for name, values in detection.maps.items():
        assert values.shape == (BATCH, h, w) and values.dtype == jnp.float32, name
    for name, values in detection.scores.items():
        assert values.shape == (BATCH,), name
    assert detection.reconstruction.shape == (BATCH, h, w, c)
    assert float(detection.reconstruction.min()) >= 0.0
    assert float(detection.reconstruction.max()) <= 1.0


OTHER_VALUES = {
    "ssim_window": 7,
    "ssim_constants": (1e-3, 9e-3),
    "dilation": 5,
    "dilate_ssim": True,
    "score_terms": "l2",
    "schedule": "random",
    "block": 2,
    "stride": 1,
    "passes": 9,
    "mask_seed": 3,
    "fill": "gray",
    "passes_at_once": 2,
    "morphology": "closing",
    "morphology_size": 4,
    "map_threshold": 0.1,
}


def other_value(name, option):
    """Another allowed value of an option."""
    if option in OTHER_VALUES:
        return OTHER_VALUES[option]
    options = ARCHITECTURES[name].options
    default, rule = options.defaults()[option], options.rules()[option]
    if rule.choices:
        return next(choice for choice in rule.choices if choice != default)
    return (not default) if isinstance(default, bool) else default + 1


@pytest.mark.parametrize(
    "name, option",
    [(n, o) for n, one in ARCHITECTURES.items() for o in one.options.detection_only()],
)
def test_what_may_change_after_training_changes_no_parameter_and_no_loss(name, option):
    """The program of a training step's loss is the same to the letter, or the closed-form fit."""
    builder, shape, options, _ = CASES[name]
    programs = []
    for changed in (options, options | {option: other_value(name, option)}):
        model = models.build(builder, shape, **changed)
        variables = jax.eval_shape(model.init, parameter_key(0))
        batch = Batch(
            jax.ShapeDtypeStruct((2, *shape), jnp.uint8),
            jax.ShapeDtypeStruct((2,), jnp.int32),
            jax.ShapeDtypeStruct((2,), bool),
        )
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
        loss = jax.make_jaxpr(model.loss, static_argnums=3)(variables, batch, keys, True)
        programs.append((str(jax.make_jaxpr(model.init)(parameter_key(0))), str(loss)))
        if model.fit is not None:
            programs[-1] += (str(fitted(model, batch_of(images(shape)))),)
    assert programs[0] == programs[1]


def test_detect_does_not_depend_on_the_batch(built):
    """Batch 1 = batch 8; float32 sums in another order differ by a few parts in 1e5."""
    whole = built.detect(built.variables, built.batch.image)
    single = [built.detect(built.variables, built.batch.image[i : i + 1]) for i in (0, 5)]
    for row, one in zip((0, 5), single, strict=True):
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, row=row: x[row], whole),
            jax.tree.map(lambda x: x[0], one),
            rtol=2e-4,
            atol=2e-5,
        )


@pytest.mark.parametrize("picture", ["black", "white", "constant"])
def test_gradients_and_maps_are_finite_on_flat_images(built, picture):
    value = {"black": 0, "white": 255, "constant": 128}[picture]
    flat = batch_of(np.full((BATCH, *built.shape), value, np.uint8))
    gradients, output = built.gradient(built.variables, flat, built.keys)
    chex.assert_tree_all_finite((gradients, output.per_example))
    chex.assert_tree_all_finite(built.detect(built.variables, flat.image))


def test_one_trace_over_three_steps_and_the_loss_falls(built):
    if built.model.fit is not None:
        variables = fitted(built.model, built.batch)
        before = built.model.loss(built.variables, built.batch, built.keys, False)
        after = built.model.loss(variables, built.batch, built.keys, False)
        assert float(after.per_example.mean()) < float(before.per_example.mean())
        chex.assert_trees_all_equal_shapes_and_dtypes(
            dict(variables["params"]), dict(built.variables["params"])
        )
        return
    state = create_state(built.variables, built.optimizer)
    for _ in range(16):
        state, metrics = built.step(state, built.batch)
    # By the same keys: a loss may draw crops, masks, noise or defects.
    before, after = (
        built.gradient(variables, built.batch, built.keys)[1].per_example
        for variables in (built.variables, state.variables)
    )
    assert float(after.mean()) < float(before.mean())
    assert int(state.step) == 16 and np.isfinite(metrics.means["loss"])


def test_save_and_restore_is_exact(built, tmp_path):
    state = create_state(built.variables, optax.adam(1e-3))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, validation_loss=1.0)
    checkpoints.wait()
    like = jax.eval_shape(built.model.init, jax.random.key(1))
    restored, step = checkpoints.restore_variables(like)
    checkpoints.close()
    assert step == 0
    chex.assert_trees_all_equal(dict(restored), dict(built.variables))


def four_and_one(built):
    """Metrics and collections after one step, and its gradients: four devices, then one.

    Every one of the four has other images, the one has the whole batch.
    """
    # With plain gradient descent of rate 1 the step's change is the gradient itself, so the very
    # step that training uses is what is compared.
    descent = optax.sgd(1.0)
    mapped = models.build(built.builder, built.shape, axis_name=AXIS, **built.options)
    four = Devices(4)
    step = make_train_step(mapped, descent, NO_AUGMENT, seed=0, axis_name=four.axis_name)
    step = four.compile_step(step, donate_state=False)
    new, metrics = step(
        four.replicate(create_state(built.variables, descent)), four.split(built.batch)
    )
    gradients = jax.tree.map(
        lambda a, b: np.asarray(a) - np.asarray(b), built.variables["params"], new.params
    )
    alone, metrics_alone = built.step(create_state(built.variables, built.optimizer), built.batch)
    gradients_alone, _ = built.gradient(built.variables, built.batch, built.keys)
    return jax.device_get(
        (
            (metrics.means, metrics.sums, metrics.scalars, new.collections, gradients),
            (*metrics_alone[:3], alone.collections, gradients_alone),
        )
    )


def assert_same(four, one):
    """float32 sums in another order: parts in 1e4 of the largest entry of a leaf."""
    for a, b in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        scale = max(float(np.max(np.abs(b))), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-4 * scale)


def test_four_devices_equal_one(built):
    four, one = four_and_one(built)
    chex.assert_trees_all_equal_structs(four, one)
    assert_same(four, one)


@pytest.mark.parametrize("reduction", ["pmean", "psum"])
def test_a_missing_reduction_is_noticed(reduction, monkeypatch):
    """The mutation: one kind of reduction becomes the identity; the comparison must fail."""
    built = Built("vqvae-ema")
    monkeypatch.setattr(jax.lax, reduction, lambda tree, axis_name, **_: tree)
    four, one = four_and_one(built)
    with pytest.raises(AssertionError):
        assert_same(four, one)


@pytest.mark.parametrize("case", ["cae", pytest.param("cae-l2", marks=pytest.mark.slow)])
def test_accumulation_equals_the_whole_batch(case):
    """Without batch statistics, which are per part by definition."""
    built = Built(case)
    parts = jax.jit(make_gradient_fn(built.model, axis_name=None, accumulate=4))
    whole, output = built.gradient(built.variables, built.batch, built.keys)
    split, split_output = parts(built.variables, built.batch, built.keys)
    assert_same((split, split_output.per_example), (whole, output.per_example))
