"""Checkpoints: exact, safe beside donation, and a sentence for everything that can be wrong."""

from __future__ import annotations

import contextlib
import itertools
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxad.run.errors import UserError
from jaxad.training import checkpoints as module
from jaxad.training.checkpoints import Checkpoints
from jaxad.training.parallel import Devices
from jaxad.training.state import TrainState, create_state

OPTIMIZER = optax.adam(1e-3)


def make_state(step: int, size: int = 64) -> TrainState:
    variables = {
        "params": {"kernel": jnp.full((size, 3), float(step)), "bias": jnp.arange(3.0)},
        "batch_stats": {"mean": jnp.full((3,), -float(step))},
    }
    return create_state(variables, OPTIMIZER).replace(step=jnp.int32(step))


def like() -> dict:
    return jax.eval_shape(lambda: dict(make_state(0).variables))


@pytest.fixture
def saved(tmp_path):
    """Steps 1 (validation loss 1) and 2 (validation loss 2)."""
    checkpoints = Checkpoints(tmp_path / "c")
    for step in (1, 2):
        checkpoints.save(make_state(step), validation_loss=float(step))
    checkpoints.wait()
    checkpoints.close()
    return tmp_path / "c"


def assert_step(variables, step: int) -> None:
    np.testing.assert_array_equal(variables["params"]["kernel"], np.full((64, 3), float(step)))
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.full(3, -float(step)))


def test_what_an_interrupted_write_left_goes_when_training_goes_on(saved):
    left = saved / "7.orbax-checkpoint-tmp"
    (left / "variables.orbax-checkpoint-tmp").mkdir(parents=True)
    (left / "variables.orbax-checkpoint-tmp" / "part").write_bytes(b"0")
    Checkpoints(saved, read_only=True).close()
    assert left.exists()
    Checkpoints(saved).close()
    assert not left.exists()


@pytest.mark.parametrize("seconds", [1e6, -1e6])
def test_a_clock_that_is_set_while_a_checkpoint_is_written(saved, monkeypatch, seconds):
    original, looks = time.time, itertools.count()
    checkpoints = Checkpoints(saved)
    # At every look, since it is Orbax that looks, and takes the time of day for a duration.
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: original() + seconds * next(looks))
        ended = pytest.raises(UserError, match="the clock was set forth; run the same command")
        with ended if seconds > 0 else contextlib.nullcontext():
            checkpoints.save(make_state(3), validation_loss=1.0)
            checkpoints.wait()
    checkpoints.close()
    checkpoints = Checkpoints(saved)
    variables, step = checkpoints.restore_variables(like(), "last")
    assert step == (2 if seconds > 0 else 3)
    assert_step(variables, step)
    checkpoints.save(make_state(4), validation_loss=1.0)
    checkpoints.wait()
    assert checkpoints.latest_step() == 4
    checkpoints.close()


@pytest.mark.parametrize("which, step", [("last", 2), ("best", 1), ("1", 1), ("2", 2)])
def test_a_checkpoint_by_its_name(saved, which, step):
    checkpoints = Checkpoints(saved, read_only=True)
    variables, found = checkpoints.restore_variables(like(), which)
    checkpoints.close()
    assert found == step
    assert_step(variables, step)


def test_the_state_comes_back_on_every_device(saved):
    for count in (1, 4):
        state = Devices(count).replicate(make_state(0))
        checkpoints = Checkpoints(saved)
        restored = checkpoints.restore_state(state, 2)
        checkpoints.close()
        assert int(restored.step) == 2
        assert_step(restored.variables, 2)
        for leaf, before in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
            assert leaf.sharding.is_equivalent_to(before.sharding, leaf.ndim)


def test_an_unknown_step_is_answered_with_the_known_ones(saved):
    checkpoints = Checkpoints(saved, read_only=True)
    with pytest.raises(UserError, match=r"no checkpoint '7' .* last, best or one of 1, 2$"):
        checkpoints.restore_variables(like(), "7")
    with pytest.raises(UserError, match=r"no checkpoint 'latest'"):
        checkpoints.restore_variables(like(), "latest")


def test_an_empty_or_missing_folder_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"holds no finished checkpoint; run `jaxad train`"):
        Checkpoints(tmp_path / "none", read_only=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no finished checkpoint; run `jaxad train`"):
        Checkpoints(tmp_path / "empty", read_only=True).restore_variables(like())


@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed", "item"])
def test_a_damaged_checkpoint_is_a_sentence_and_the_other_one_is_read(saved, damage):
    item = saved / "2" / "variables"
    if damage == "item":
        shutil.rmtree(item)
    for file in [f for f in item.rglob("*") if f.is_file()]:
        if damage == "truncated":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        elif damage == "emptied":
            file.write_bytes(b"")
        else:
            file.unlink()
    checkpoints = Checkpoints(saved, read_only=True)
    with pytest.raises(UserError, match=r"c/2 cannot be read, it is damaged or of another model"):
        checkpoints.restore_variables(like())
    assert_step(checkpoints.restore_variables(like(), "1")[0], 1)
    checkpoints.close()


def test_a_checkpoint_of_another_model_is_a_sentence(saved):
    checkpoints = Checkpoints(saved, read_only=True)
    other = like() | {"params": {"kernel": jax.ShapeDtypeStruct((5, 3), jnp.float32)}}
    with pytest.raises(UserError, match=r"cannot be read, it is damaged or of another model"):
        checkpoints.restore_variables(other)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_save_is_not_touched_by_the_donated_steps_after_it(tmp_path, devices):
    """Orbax writes views of host buffers; the steps that follow may not write into them."""
    devices = Devices(devices)
    scale = lambda state, batch: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state)
    step = devices.compile_step(scale, donate_state=True)
    batch = devices.split(np.zeros((4, 1), np.float32))
    state = step(devices.replicate(make_state(2, size=4096)), batch)
    expected = jax.tree.map(np.array, jax.device_get(state))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, validation_loss=None)
    for _ in range(20):
        state = step(state, batch)
    checkpoints.wait()
    restored = checkpoints.restore_state(state, 3)
    checkpoints.close()
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class LimitedFiles:
    """No file may grow beyond so many bytes: what a full disk does, without needing one."""

    def __init__(self, size: int):
        self.size = size

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_a_full_disk_is_met_before_anything_is_written(saved):
    checkpoints = Checkpoints(saved)
    with (
        LimitedFiles(50_000),
        pytest.raises(UserError, match=r"could not be written to .*c: File too large; make room"),
    ):
        checkpoints.save(make_state(3), validation_loss=0.5)
    checkpoints.close()
    assert sorted(f.name for f in saved.iterdir()) == ["1", "2"]


def test_room_for_the_whole_state_is_asked_for_once_the_write_before_is_over(saved, monkeypatch):
    asked = []
    monkeypatch.setattr(
        module,
        "reserve",
        lambda folder, size: asked.append((size, sorted(f.name for f in folder.iterdir()))),
    )
    checkpoints = Checkpoints(saved)
    big = make_state(3, size=40_000)
    checkpoints.save(big, validation_loss=3.0)
    checkpoints.save(make_state(4), validation_loss=4.0)
    checkpoints.close()
    # Parameters and both moments of Adam.
    assert asked[0][0] >= 3 * 40_000 * 3 * 4 + module.SPACE_BESIDE_VALUES
    assert [names for _, names in asked] == [["1", "2"], ["1", "2", "3"]]


def test_without_validation_the_two_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    for step in (1, 2, 3, 4):
        checkpoints.save(make_state(step), validation_loss=None)
    checkpoints.wait()
    checkpoints.close()
    assert sorted(f.name for f in (tmp_path / "c").iterdir()) == ["3", "4"]


@pytest.mark.parametrize("surfaces", ["at the end", "at the next save"])
def test_a_disk_that_fills_up_during_the_asynchronous_write(saved, surfaces, monkeypatch, capfd):
    monkeypatch.setattr(Checkpoints, "_check_space", lambda self, state: None)
    checkpoints = Checkpoints(saved)
    big = lambda step: make_state(step).replace(
        params={"kernel": jax.random.normal(jax.random.key(0), (20_000, 3))}
    )
    refused = pytest.raises(UserError, match=r"could not be written to .*c: File too large; make")
    with LimitedFiles(50_000), refused:
        checkpoints.save(big(3), validation_loss=0.5)
        if surfaces == "at the end":
            checkpoints.wait()
        else:
            checkpoints.save(big(4), validation_loss=0.5)
    checkpoints.close()
    assert "absl" not in capfd.readouterr().err  # where Orbax logs tracebacks of its threads

    again = Checkpoints(saved)  # removes what was left half written
    assert again.latest_step() == 2
    assert_step(again.restore_variables(like())[0], 2)
    again.save(make_state(3), validation_loss=0.5)
    again.wait()
    assert again.latest_step() == 3
    again.close()
    assert sorted(f.name for f in saved.iterdir()) == ["2", "3"]


def flipped(file, place: int) -> bytes:
    """The file's content before one of its bits is changed."""
    before = file.read_bytes()
    changed = bytearray(before)
    changed[place // 8] ^= 1 << place % 8
    file.write_bytes(changed)
    return before


def test_the_digest_tells_values_places_types_and_shapes_apart():
    tree = {"a": np.arange(6, dtype=np.float32), "b": np.float32(1)}
    others = [
        tree,
        tree | {"b": np.float32(-1)},
        tree | {"b": np.int32(1)},
        tree | {"a": tree["a"].reshape(2, 3)},
        {"b": tree["a"], "a": tree["b"]},
        {"a": tree["a"]},
    ]
    assert len({module.digest_of(one) for one in others}) == len(others)
    # Where the arrays are, and in which order the keys, says nothing.
    again = {"b": jnp.float32(1), "a": Devices(4).replicate(jnp.arange(6, dtype=jnp.float32))}
    assert module.digest_of(again) == module.digest_of(tree)


def test_a_flipped_bit_gives_the_same_values_or_a_sentence(saved):
    """Over the file of a checkpoint that holds the values."""
    checkpoints = Checkpoints(saved)
    state = make_state(3).replace(params={"kernel": jax.random.normal(jax.random.key(0), (64, 3))})
    checkpoints.save(state, validation_loss=3.0)
    checkpoints.wait()
    checkpoints.close()
    (file,) = (saved / "3" / "variables" / "d").iterdir()
    wanted, shapes = dict(state.variables), jax.eval_shape(lambda: dict(state.variables))
    refused = 0
    for place in range(5, 8 * file.stat().st_size, 8 * file.stat().st_size // 12):
        before = flipped(file, place)
        checkpoints = Checkpoints(saved, read_only=True)
        try:
            found = checkpoints.restore_variables(shapes)[0]
            jax.tree.map(np.testing.assert_array_equal, found, wanted)
        except UserError as error:
            refused += 1
            assert "c/3 cannot be read, it is damaged" in str(error)
        checkpoints.close()
        file.write_bytes(before)
    assert refused > 3


def damage(saved, monkeypatch, step: int) -> None:
    """Other values than those that were written, which Orbax reads without a word."""
    checkpoints = Checkpoints(saved)
    monkeypatch.setattr(module, "digest_of", lambda tree: "0" * 64)
    shutil.rmtree(saved / str(step), ignore_errors=True)
    checkpoints.save(make_state(step), validation_loss=float(step))
    checkpoints.wait()
    checkpoints.close()
    monkeypatch.undo()


def test_training_goes_on_from_the_one_before_a_damaged_one(saved, monkeypatch, capsys):
    damage(saved, monkeypatch, 3)
    checkpoints = Checkpoints(saved)
    with pytest.raises(UserError, match=r"c/3 cannot be read.*its variables are not what was"):
        checkpoints.restore_variables(like())
    restored = checkpoints.restore_newest(make_state(0))
    assert int(restored.step) == 2
    assert_step(restored.variables, 2)
    said = capsys.readouterr().err
    assert "c/3 cannot be read" in said and "it is now" in said and said.count("\n") == 1
    checkpoints.save(make_state(3), validation_loss=0.5)
    checkpoints.wait()
    assert_step(checkpoints.restore_variables(like())[0], 3)
    checkpoints.close()
    kept = sorted(f.name.partition("-")[0] for f in saved.iterdir())
    assert kept == ["2", "3", "damaged"]


def test_where_all_are_damaged_nothing_is_renamed(saved):
    for step in ("1", "2"):
        shutil.rmtree(saved / step / "optimizer")
    checkpoints = Checkpoints(saved)
    with pytest.raises(UserError, match=r"c/2 cannot be read"):
        checkpoints.restore_newest(make_state(0))
    checkpoints.close()
    assert sorted(f.name for f in saved.iterdir()) == ["1", "2"]


def test_the_best_is_not_chosen_by_a_changed_loss(saved):
    file = saved / "2" / "metrics" / "metrics"
    file.write_text(file.read_text().replace("2.0", "0.2"))
    checkpoints = Checkpoints(saved, read_only=True)
    with pytest.raises(UserError, match=r"c/2 cannot be read.*validation_loss is not what was"):
        checkpoints.restore_variables(like(), "best")
    assert_step(checkpoints.restore_variables(like(), "last")[0], 2)
    checkpoints.close()


def test_checkpoints_without_a_record_are_read(saved):
    for step in ("1", "2"):
        shutil.rmtree(saved / step / "record")
    checkpoints = Checkpoints(saved, read_only=True)
    assert_step(checkpoints.restore_variables(like(), "best")[0], 1)
    assert int(checkpoints.restore_newest(make_state(0)).step) == 2
    checkpoints.close()
