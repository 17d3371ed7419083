"""Whole runs: repeatable, the same on four devices, resumed only as they were begun."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxad.data.batch import Batch
from jaxad.evaluation.detector import Detector
from jaxad.models import ARCHITECTURES
from jaxad.run.environment import enable_compilation_cache
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.training import records, train as training
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.parallel import Devices

FEW = {"train__steps": 4, "train__log_every": 1, "train__checkpoint_every": 2}


def history(run: RunFolder) -> list[dict[str, float]]:
    with run.history.open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def params(run: RunFolder, checkpoint_of, step: int) -> dict:
    return checkpoint_of(run, step)["variables"]["params"]


@pytest.fixture(scope="module")
def on_one(train_tiny, tmp_path_factory) -> RunFolder:
    """Four steps on one device, every one reported."""
    return train_tiny(tmp_path_factory.mktemp("one") / "run", **FEW)


@pytest.fixture(scope="module")
def on_four(train_tiny, tmp_path_factory) -> RunFolder:
    """The same on four devices, one image each."""
    return train_tiny(tmp_path_factory.mktemp("four") / "run", **FEW, train__devices=4)


def test_the_run_folder_is_complete(finished):
    config = json.loads(finished.config.read_text())
    assert config["schema"] == 1 and config["model"]["width"] == 4
    record = json.loads(finished.data.read_text())
    assert len(record["training"]) == 18 and len(record["holdout"]) == 2
    environment = json.loads(finished.environment.read_text())
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["seed"] == 0 and environment["devices"]
    assert [row["step"] for row in history(finished)] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in history(finished) if "validation_loss" in row] == [4, 8, 12]
    # Four batches of four make an epoch of the 18 images.
    assert [row["epoch"] for row in history(finished)] == [0, 1, 1, 2, 2, 3]
    assert list(finished.path.glob("events.out.tfevents.*"))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    finished, train_tiny, same_run, tmp_path
):
    same_run(train_tiny(tmp_path / "again"), finished, step=12)
    other = train_tiny(tmp_path / "other", seed=1, train__steps=2)
    assert history(other)[0]["loss"] != history(finished)[0]["loss"]


def test_compiled_programs_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXAD_CACHE", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        enable_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")
        jax.config.update("jax_compilation_cache_dir", "/chosen/by/the/user")
        enable_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "/chosen/by/the/user"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize(("chosen", "then"), [(1.0, 0.2), (0.5, 0.5)])
def test_programs_that_compile_in_less_than_a_second_are_kept_too(monkeypatch, chosen, then):
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", chosen)
        enable_compilation_cache()
        assert jax.config.jax_persistent_cache_min_compile_time_secs == then
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


def test_training_turns_the_cache_of_compiled_programs_on(finished):
    assert jax.config.jax_compilation_cache_dir is not None


def assert_close(one: RunFolder, other: RunFolder) -> None:
    """float32 sums in another order, carried on through four steps of Adam."""
    for a, b in zip(history(one), history(other), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=2e-3, atol=1e-6, err_msg=name)


def test_a_row_has_the_learning_rate_that_its_step_was_taken_with(
    train_tiny, checkpoint_of, tmp_path
):
    run = train_tiny(tmp_path / "run", **FEW, train__warmup_steps=4)
    rates = [row["learning_rate"] for row in history(run)]
    np.testing.assert_allclose(rates, [0, 0.0025, 0.005, 0.0075], rtol=1e-6)


def test_validation_columns_are_means_over_the_held_out_images(
    finished, toy, checkpoint_of, tiny_data
):
    names = json.loads(finished.data.read_text())["holdout"]
    images = np.stack([np.asarray(Image.open(tiny_data / name)) for name in names])
    index = np.arange(len(images), dtype=np.int32)
    root = jax.random.fold_in(jax.random.key(0), 2**31 - 1)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, index)
    variables = checkpoint_of(finished, 12)["variables"]
    expected = toy((16, 16, 3)).loss(variables, Batch(images, index, index >= 0), keys, False)
    row = history(finished)[-1]
    np.testing.assert_allclose(row["validation_loss"], expected.per_example.mean(), rtol=1e-5)
    np.testing.assert_allclose(row["validation_l1"], expected.terms["l1"].mean(), rtol=1e-5)


def test_four_devices_write_what_one_writes(on_one, on_four):
    assert_close(on_four, on_one)
    # Files of array data are named at random; all the others by what they hold.
    names = [
        sorted(p.relative_to(run.path).as_posix() for p in run.path.rglob("_METADATA"))
        for run in (on_one, on_four)
    ]
    assert names[0] == names[1] and names[0]


def test_a_run_of_four_devices_is_evaluated_on_one(on_four):
    program = (
        "import jax, sys; assert len(jax.devices()) == 1; import toy_model; "
        "from jaxad.models import ARCHITECTURES; ARCHITECTURES['toy'] = toy_model.TOY; "
        f"import jaxad.cli.main as c; sys.exit(c.main(['evaluate', '--workdir={on_four.path}']))"
    )
    here = os.pathsep.join([str(pathlib.Path(__file__).parents[1]), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": here},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(on_four.metrics.read_text())["checkpoint"] == 4


def test_a_run_of_one_device_goes_on_on_four(train_tiny, on_one, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(records.Records, "_write_timing", killed)
        train_tiny(tmp_path / "run", **FEW)
    assert_close(train_tiny(tmp_path / "run", **FEW, train__devices=4), on_one)


def test_the_mapped_path_runs_on_one_device(train_tiny, on_one, tmp_path):
    run = train_tiny(tmp_path / "run", **FEW, train__force_pmap=True)
    assert_close(run, on_one)


def test_accumulation_sees_the_same_images(train_tiny, on_one, tmp_path):
    run = train_tiny(tmp_path / "run", **FEW, train__accumulate=2)
    # The same images, so the same counts; batch statistics are those of a part, so the loss of
    # the first step, before any update, is near and not equal.
    first, whole = history(run)[0], history(on_one)[0]
    assert first["channels_perplexity"] == whole["channels_perplexity"]
    np.testing.assert_allclose(first["loss"], whole["loss"], rtol=0.1)


def test_bfloat16_computes_in_it_and_keeps_float32_parameters(
    train_tiny, on_one, checkpoint_of, tmp_path
):
    run = train_tiny(tmp_path / "run", **FEW, model__dtype="bfloat16")
    losses = [row["loss"] for row in history(run)]
    assert np.isfinite(losses).all()
    assert losses != [row["loss"] for row in history(on_one)]
    # bfloat16 has 8 bits: parts in 1e2.
    np.testing.assert_allclose(losses[0], history(on_one)[0]["loss"], rtol=0.05)
    leaves = jax.tree.leaves(checkpoint_of(run, 4)["variables"])
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}


def test_the_best_and_the_two_last_checkpoints_are_kept(train_tiny, tmp_path, monkeypatch):
    losses = iter([1.0, 3.0, 2.0, 4.0])
    original = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, state, *, validation_loss: original(self, state, validation_loss=next(losses)),
    )
    run = train_tiny(tmp_path / "run", **FEW | {"train__checkpoint_every": 1})
    assert sorted(f.name for f in run.checkpoints.iterdir()) == ["1", "3", "4"]
    assert Detector.load(run.path, checkpoint="best").step == 1
    assert Detector.load(run.path, checkpoint="last").step == 4


def test_without_held_out_images_the_last_checkpoint_is_the_best(train_tiny, tmp_path):
    run = train_tiny(tmp_path / "run", **FEW, data__holdout=0)
    assert not any("validation_loss" in row for row in history(run))
    assert Detector.load(run.path, checkpoint="best").step == 4


def test_a_multiplier_of_zero_freezes_the_label(train_tiny, on_one, checkpoint_of, tmp_path):
    frozen = {"train__learning_rate_multipliers__decoder": 0.0}
    two, four = (
        params(
            train_tiny(tmp_path / f"{n}", **FEW | {"train__steps": n}, **frozen), checkpoint_of, n
        )
        for n in (2, 4)
    )
    for leaf in ("kernel", "bias"):
        np.testing.assert_array_equal(two["decoder"][leaf], four["decoder"][leaf])
        moving = params(on_one, checkpoint_of, 4)["decoder"][leaf]
        assert not np.array_equal(moving, four["decoder"][leaf])
    assert not np.array_equal(two["encoder"]["kernel"], four["encoder"]["kernel"])


def test_a_loss_that_is_not_finite_stops_with_its_term_and_step(
    train_tiny, toy, tmp_path, monkeypatch
):
    def build(image_shape, options, *, axis_name=None):
        model = toy(image_shape, axis_name=axis_name)

        def loss(variables, batch, keys, train):
            output = model.loss(variables, batch, keys, train)
            # The bias of the last layer starts at zero: after the first update the term breaks.
            bad = jnp.where(jnp.any(variables["params"]["decoder"]["bias"] != 0), jnp.nan, 0.0)
            return output._replace(
                per_example=output.per_example + bad,
                terms=output.terms | {"l2": output.terms["l2"] + bad},
            )

        return model._replace(loss=loss)

    monkeypatch.setitem(ARCHITECTURES, "toy", ARCHITECTURES["toy"]._replace(build=build))
    with pytest.raises(UserError, match=r"stopped at step 2: 'l2' is nan") as caught:
        train_tiny(tmp_path / "run", **FEW | {"train__log_every": 4, "train__checkpoint_every": 4})
    assert "--workdir" in str(caught.value)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_validation_loss_that_is_not_finite_is_not_saved(train_tiny, tmp_path, monkeypatch):
    original = training.make_validation_step

    def broken(model, **options):
        step = original(model, **options)

        def validation(variables, batch):
            totals = step(variables, batch)
            return totals._replace(sums=totals.sums | {"l1": jnp.inf * totals.examples})

        return validation

    monkeypatch.setattr(training, "make_validation_step", broken)
    with pytest.raises(UserError, match=r"step 2: 'l1' is inf on held-out images"):
        train_tiny(tmp_path / "run", **FEW)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    "key, value, there",
    [("train__learning_rate", 0.02, "0.01"), ("model__noise", 0.5, "0.1"), ("seed", 3, "0")],
)
def test_another_config_is_refused_by_its_key(finished, train_tiny, key, value, there):
    before = finished.config.read_text()
    with pytest.raises(UserError, match=f"{key.replace('__', '.')} is {there} there and {value} h"):
        train_tiny(finished.path, **{key: value})
    assert finished.config.read_text() == before


def test_another_model_is_named_as_such(finished, train_tiny):
    config = finished.read_config()
    other = dataclasses.replace(config.model, name="pca")
    finished.write_config(dataclasses.replace(config, model=other))
    with pytest.raises(UserError, match="holds a run of the model 'pca', not 'toy'"):
        train_tiny(finished.path)
    finished.write_config(config)


def test_keys_that_do_not_change_what_is_learned_may_change(finished, train_tiny):
    changed = {"evaluate__smoothing": 1.0, "data__memory_limit_mb": 10, "train__devices": 2}
    before = finished.config.read_text()
    train_tiny(finished.path, **changed)
    train_tiny(finished.path)
    assert finished.config.read_text() == before, "a resumed run keeps what it was started with"


def test_other_training_images_are_refused(finished, train_tiny, tiny_data, tmp_path, edited):
    (tmp_path / "stripes/train").mkdir(parents=True)
    os.symlink(tiny_data / "train/good", tmp_path / "stripes/train/good")
    with pytest.raises(UserError, match=r"data\.root"):
        train_tiny(finished.path, data__root=str(tmp_path / "stripes"))
    kept = finished.data.read_text()
    try:
        with edited(finished.data) as record:
            del record["training"][0]
        with pytest.raises(UserError, match=r"training images in .* are not those"):
            train_tiny(finished.path)
    finally:
        finished.data.write_text(kept)


def test_other_images_under_the_same_names_are_refused(finished, train_tiny, tiny_data, edited):
    one, other = sorted((tiny_data / "train/good").iterdir())[:2]
    contents = one.read_bytes(), other.read_bytes()
    history = finished.history.read_bytes()
    try:
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
        with pytest.raises(UserError, match=r"image files have changed since .* train/good/0.png "):
            train_tiny(finished.path)
        assert finished.history.read_bytes() == history
    finally:
        one.write_bytes(contents[0])
        other.write_bytes(contents[1])
    kept = finished.data.read_text()
    try:  # of before there were digests of images
        with edited(finished.data) as record:
            assert record.pop("bytes").keys() == {f"train/good/{i}.png" for i in range(20)}
            del record["sha256"]
        train_tiny(finished.path)
    finally:
        finished.data.write_text(kept)


def test_a_mistake_in_the_config_does_not_spoil_the_workdir(train_tiny, tmp_path):
    with pytest.raises(UserError, match=r"train.batch_size is 6, which does not .* take 8"):
        train_tiny(tmp_path / "run", **FEW, train__batch_size=6, train__devices=4)
    with pytest.raises(UserError, match=r"batch_size is 19, but there are 18 training images"):
        train_tiny(tmp_path / "run", **FEW, train__batch_size=19)
    with pytest.raises(UserError, match=r"accumulate is 3, which does not divide the 4 images"):
        train_tiny(tmp_path / "run", **FEW, train__accumulate=3)
    with pytest.raises(UserError, match=r"train.devices is 5, but this machine has 4"):
        train_tiny(tmp_path / "run", **FEW, train__devices=5)
    with pytest.raises(UserError, match=r"train.optimizer' must be one of adam, .* not 'adm'"):
        train_tiny(tmp_path / "run", **FEW, train__optimizer="adm")
    assert RunFolder(tmp_path / "run").history.exists() is False
    train_tiny(tmp_path / "run", **FEW | {"train__steps": 1})


def test_two_processes_do_not_train_in_one_folder(finished, train_tiny):
    with finished.locked(), pytest.raises(UserError, match="another process is training in"):
        train_tiny(finished.path)


@pytest.mark.parametrize("devices", [1, 4])
def test_one_compilation_and_no_wait_between_reports(train_tiny, tmp_path, monkeypatch, devices):
    chex.clear_trace_counter()
    compiled, fetched = [], []
    compile_step, make_train_step = Devices.compile_step, training.make_train_step
    calls = {"train": 0}

    def counted(self, step, *, donate_state):
        function = compile_step(self, step, donate_state=donate_state)
        compiled.append(function)
        if not donate_state:
            return function

        def call(*args):
            calls["train"] += 1
            return function(*args)

        return call

    traced_once = lambda *args, **options: chex.assert_max_traces(
        make_train_step(*args, **options), n=1
    )
    monkeypatch.setattr(Devices, "compile_step", counted)
    monkeypatch.setattr(training, "make_train_step", traced_once)
    # Every way from a device to the host (float, numpy, device_get) ends in this property.
    array_type = type(jnp.zeros(()))
    original = array_type._value
    monkeypatch.setattr(
        array_type,
        "_value",
        property(lambda self: (fetched.append(calls["train"]), original.fget(self))[1]),
    )
    train_tiny(tmp_path / "run", train__steps=8, train__log_every=4, train__devices=devices)
    if devices == 1:
        assert [function._cache_size() for function in compiled] == [1, 1]
    assert calls["train"] == 8
    during = [at for at in fetched if at]
    assert during and set(during) == {4, 8}
