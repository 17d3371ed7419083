"""Training runs that several tests look at, and how their files are read."""

from __future__ import annotations

import pathlib

import numpy as np
import orbax.checkpoint as ocp
import pytest

import jaxad
from jaxad.run_folder import RunFolder


@pytest.fixture(scope="session")
def train_tiny(tiny, tiny_data):
    """``(workdir, **changes) -> RunFolder``; a change ``train__steps=4`` sets ``train.steps``."""

    def run(workdir: pathlib.Path, config: str = "vqvae", **changes) -> RunFolder:
        overrides = {"data.root": str(tiny_data), **tiny}
        overrides |= {name.replace("__", "."): value for name, value in changes.items()}
        return jaxad.train(jaxad.load_config(config, overrides), workdir)

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
        {str(path): leaf for path, leaf in tree_leaves(read_checkpoint(run, step))}
        for run in (one, other)
    ]
    assert flat[0].keys() == flat[1].keys() and len(flat[0]) > 20
    for path, leaf in flat[0].items():
        np.testing.assert_array_equal(leaf, flat[1][path], err_msg=path)


def tree_leaves(tree):
    import jax

    return jax.tree_util.tree_leaves_with_path(tree)


@pytest.fixture(scope="session")
def same_run():
    return assert_same_run


@pytest.fixture(scope="session")
def checkpoint_of():
    return read_checkpoint
