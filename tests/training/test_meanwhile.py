"""A run is evaluated and used while it trains: from its last whole checkpoint, and unharmed."""

from __future__ import annotations

import jaxad
from jaxad.training.checkpoints import Checkpoints


def test_a_run_is_evaluated_while_it_trains(
    train_tiny, finished, same_run, tiny_data, tmp_path, monkeypatch
):
    original, steps, workdir = Checkpoints.save, [], tmp_path / "run"

    def save(self, state, **options):
        original(self, state, **options)  # goes on writing in the background
        if int(state.step) > 4:
            steps.append(jaxad.evaluate(workdir)["checkpoint"])
            (one,) = jaxad.load_detector(workdir).predict([tiny_data / "test/good/0.png"])
            assert one.decision is not None

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        run = train_tiny(workdir)
    # The one that is being written, where it is whole by then, or the one before.
    assert steps[0] in (4, 8) and steps[1] in (8, 12)
    same_run(run, finished, step=12)
    # What was computed with an older checkpoint is not taken for the last one's.
    assert jaxad.evaluate(workdir)["checkpoint"] == 12
    assert run.read_json(run.calibration)["checkpoint"] == 12
