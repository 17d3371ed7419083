"""Which of the good training images a run takes."""

from __future__ import annotations

import pytest

from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.training.inputs import prepare_inputs


def record(root, **data):
    overrides = {"data.root": str(root), "data.image_size": "16,16"}
    overrides |= {f"data.{name}": str(value) for name, value in data.items()}
    inputs = prepare_inputs(load_settings("pca", overrides))
    assert len(inputs.train) == len(inputs.record["training"])
    return inputs.record


def test_a_limit_draws_so_many_images_before_some_are_held_out(tiny_data):
    drawn = record(tiny_data, limit=10, holdout=0.2)
    assert (len(drawn["training"]), len(drawn["holdout"])) == (8, 2)
    assert not set(drawn["training"]) & set(drawn["holdout"])
    all_of_ten = record(tiny_data, limit=10, holdout=0.0)["training"]
    assert set(all_of_ten) == {*drawn["training"], *drawn["holdout"]}
    whole = record(tiny_data, holdout=0.0)["training"]
    assert len(whole) == 20 and all_of_ten == [name for name in whole if name in all_of_ten]
    # Not the first ten, nested for studies of how many images are needed, and another by seed.
    assert all_of_ten != whole[:10]
    assert set(record(tiny_data, limit=5, holdout=0.0)["training"]) < set(all_of_ten)
    assert record(tiny_data, limit=10, holdout=0.0, limit_seed=1)["training"] != all_of_ten
    assert record(tiny_data, limit=20, holdout=0.0)["training"] == whole


def test_more_than_there_are_is_told(tiny_data):
    with pytest.raises(UserError, match=r"data\.limit is 21, but there are 20 good training"):
        record(tiny_data, limit=21)
