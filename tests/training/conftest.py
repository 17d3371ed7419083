"""Runs of a model of two layers that several tests look at."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from toy_model import CONFIG, TOY, build_toy

import jaxad
from jaxad.models import ARCHITECTURES
from jaxad.run.folder import RunFolder


@pytest.fixture(scope="module", autouse=True)
def toy():
    """The toy among the builders, for the tests of this folder only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "toy", TOY)
        yield build_toy


@pytest.fixture(scope="session")
def toy_config(tmp_path_factory) -> pathlib.Path:
    """Its config file, outside the folder of the shipped ones."""
    path = tmp_path_factory.mktemp("configs") / "toy.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def train_tiny(tiny, tiny_data, toy_config):
    """``(workdir, **changes) -> RunFolder``; a change ``train__steps=4`` sets ``train.steps``."""

    def run(workdir: pathlib.Path, **changes) -> RunFolder:
        overrides = {key: value for key, value in tiny.items() if not key.startswith("model.")}
        overrides |= {"data.root": str(tiny_data)}
        overrides |= {name.replace("__", "."): value for name, value in changes.items()}
        with pytest.MonkeyPatch.context() as patch:
            # A session's fixture comes before the one of a module; a test's own model stays.
            patch.setitem(ARCHITECTURES, "toy", ARCHITECTURES.get("toy", TOY))
            return jaxad.train(jaxad.load_config(str(toy_config), overrides), workdir)

    return run


@pytest.fixture(scope="session")
def finished(train_tiny, tmp_path_factory) -> RunFolder:
    """A run that nothing has interrupted."""
    return train_tiny(tmp_path_factory.mktemp("finished") / "run")


def read_checkpoint(run: RunFolder, step: int) -> dict:
    """Every array of a checkpoint, as written."""
    folder = run.checkpoints / str(step)
    return {
        item: ocp.PyTreeCheckpointer().restore(folder / item) for item in ("variables", "optimizer")
    }


def assert_same_run(one: RunFolder, other: RunFolder, step: int) -> None:
    """The same history to the byte, the same parameters and optimiser state to the bit."""
    assert one.history.read_bytes() == other.history.read_bytes()
    flat = [
        {str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (read_checkpoint(one, step), read_checkpoint(other, step))
    ]
    assert flat[0].keys() == flat[1].keys() and len(flat[0]) > 10
    for path, leaf in flat[0].items():
        np.testing.assert_array_equal(leaf, flat[1][path], err_msg=path)


@pytest.fixture(scope="session")
def same_run():
    return assert_same_run


@pytest.fixture(scope="session")
def checkpoint_of():
    return read_checkpoint
