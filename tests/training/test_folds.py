"""Cross-fitting of a model that is trained by steps: one more training per fold, each resumable."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

import jaxad
from jaxad.run.errors import UserError

FEW = {"train__steps": 4, "data__calibration": "cross_fitted", "data__folds": 2}


@pytest.fixture(scope="module")
def crossed(train_tiny, tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("crossed") / "run", **FEW)


def test_every_image_is_trained_on_and_judged_by_a_model_that_has_not_seen_it(crossed):
    record = json.loads(crossed.data.read_text())
    assert len(record["training"]) == 20 and record["holdout"] == []
    assert np.bincount(record["folds"]).tolist() == [10, 10]
    result = jaxad.evaluate(crossed.path)
    calibration = json.loads(crossed.calibration.read_text())
    assert (calibration["method"], calibration["held_out"]) == ("cross_fitted", 20)
    assert result["image_threshold"] == calibration["image_threshold"] is not None


def test_an_interrupted_fold_is_trained_to_the_same_model(
    crossed, train_tiny, tmp_path, checkpoint_of
):
    again = shutil.copytree(crossed.path, tmp_path / "run")
    shutil.rmtree(again / "folds" / "1")
    run = train_tiny(again, **FEW)
    one, other = (checkpoint_of(whole.fold(1), 4)["variables"] for whole in (run, crossed))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    first = checkpoint_of(run.fold(0), 4)["variables"]
    assert not np.array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(one)[0])


def test_a_batch_larger_than_the_other_folds_is_refused(train_tiny, tmp_path):
    with pytest.raises(
        UserError, match=r"train\.batch_size is 12, but there are 10 .*another fold"
    ):
        train_tiny(tmp_path / "run", train__batch_size=12, **FEW)
