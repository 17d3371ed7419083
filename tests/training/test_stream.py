"""Training from shards and on images decoded batch by batch: the run of the images in memory."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.cli import main as cli
from jaxad.data.streamed import StreamedImages
from jaxad.run.errors import UserError
from jaxad.run.files import read_csv
from jaxad.training import session
from jaxad.training.history import History

pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def shards(tiny_data, tmp_path_factory):
    from jaxad.data.published.tfds_builders import prepare_shards

    place = tmp_path_factory.mktemp("shards")
    return prepare_shards(tiny_data, "mvtec", image_size=(16, 16), data_dir=place)


@pytest.fixture
def streamed_only(monkeypatch):
    """Whoever trains on anything but streamed images fails."""
    original = session.training_batches

    def checked(images, **options):
        assert isinstance(images, StreamedImages)
        return original(images, **options)

    monkeypatch.setattr(session, "training_batches", checked)


@pytest.mark.parametrize("pipeline", ["memory", "tf"])
@pytest.mark.parametrize("source", ["folder", "shards"])
def test_a_streamed_run_is_the_run_in_memory(
    source, pipeline, finished, train_tiny, same_run, shards, tmp_path, streamed_only
):
    changes = {"data__root": str(shards)} if source == "shards" else {}
    run = train_tiny(tmp_path / "run", data__stream=True, data__pipeline=pipeline, **changes)
    same_run(run, finished, step=12)
    named = [json.loads(r.data.read_text())["training"] for r in (run, finished)]
    assert named[0] == named[1]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "shards"])
def test_leaks_of_a_streamed_run_are_named(source, train_tiny, tiny_data, tmp_path, finished):
    from jaxad.data.published.tfds_builders import prepare_shards

    leaking = shutil.copytree(tiny_data, tmp_path / "leaking")
    first = sorted((leaking / "train/good").iterdir())[0]
    shutil.copy(first, leaking / "test/good/999.png")
    root = leaking
    if source == "shards":
        place = tmp_path / "shards"
        root = prepare_shards(leaking, "mvtec", image_size=(16, 16), data_dir=place)
    run = train_tiny(tmp_path / "run", data__stream=True, data__root=str(root))
    record = json.loads(run.data.read_text())
    assert any(note.startswith("pictures in training and test") for note in record["notes"])
    in_memory = json.loads(finished.data.read_text())
    assert record["pixels"] == in_memory["pixels"]
    assert jaxad.evaluate(run.path)["counts"]["test_images_seen_in_training"] == 1


def test_a_run_in_memory_goes_on_streamed(finished, train_tiny, same_run, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    original, calls = History.append, []

    def interrupted(self, row):
        original(self, row)
        calls.append(row)
        if len(calls) == 4:
            raise Killed

    monkeypatch.setattr(History, "append", interrupted)
    with pytest.raises(Killed):
        train_tiny(tmp_path / "run")
    monkeypatch.undo()
    same_run(train_tiny(tmp_path / "run", data__stream=True), finished, step=12)


@pytest.mark.slow
def test_shards_alone_are_evaluated_reported_and_predicted(
    finished, train_tiny, shards, tmp_path, capsys
):
    alone = shutil.copytree(shards, tmp_path / "alone")  # no images anywhere near
    run = train_tiny(tmp_path / "run", data__root=str(alone), data__stream=True)
    jaxad.evaluate(run.path)
    jaxad.evaluate(finished.path)
    one, other = (json.loads(r.metrics.read_text()) for r in (run, finished))
    assert one["maps"] == other["maps"] and one["maps"]["l2"]["aupro"] is not None
    assert run.scores.read_text() == finished.scores.read_text()
    assert run.report.stat().st_size > 10_000
    command = ["predict", f"--workdir={run.path}", f"--input={alone}", "--tiff"]
    assert cli.main([*command, f"--output={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out/overlays/test/hole/0.png").is_file()
    assert len(list((tmp_path / "out").rglob("test/hole/*.tiff"))) == 3
    # The folder that the shards were made of is the same data set, by the same names.
    jaxad.evaluate(finished.path, data_root=str(alone))
    assert json.loads(finished.metrics.read_text())["maps"] == other["maps"]


@pytest.mark.slow
def test_a_closed_form_fit_passes_over_streamed_images(tiny, shards, tiny_data, tmp_path):
    keys = {k: v for k, v in tiny.items() if k.startswith(("data.", "evaluate."))}
    runs = [
        jaxad.train(jaxad.load_config("pca", keys | changes), tmp_path / name)
        for name, changes in {
            "memory": {"data.root": str(tiny_data)},
            "streamed": {"data.root": str(shards), "data.stream": "True"},
        }.items()
    ]
    figures = [jaxad.evaluate(run.path)["maps"] for run in runs]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("when", ["resumed", "calibrated"])
def test_an_image_replaced_by_one_of_the_same_size_is_named(when, train_tiny, tiny_data, tmp_path):
    """A bitmap has the bytes of any other; no file is hashed before a streamed training."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for file in (data / "train/good").iterdir():
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    keys = {"data__stream": True, "data__root": str(data)}
    run = train_tiny(tmp_path / "run", **keys)
    record = json.loads(run.data.read_text())
    part = "training" if when == "resumed" else "holdout"
    replaced = data / record[part][0]
    Image.fromarray(255 - np.asarray(Image.open(replaced))).save(replaced)
    with pytest.raises(
        UserError, match=f"{replaced.name}.* (changed|content)|changed.*{replaced.name}"
    ):
        if when == "resumed":
            train_tiny(tmp_path / "run", **keys, train__steps=30)
        else:
            jaxad.evaluate(run.path)


def test_an_image_damaged_in_mid_training_is_named(train_tiny, tiny_data, tmp_path, monkeypatch):
    root = shutil.copytree(tiny_data, tmp_path / "data")

    def damage(self, row):
        for file in (root / "train/good").iterdir():
            file.write_bytes(file.read_bytes()[:40])

    monkeypatch.setattr(History, "append", damage)
    # Images are read ahead, so the first failure may be met before the last file is damaged.
    with pytest.raises(UserError, match=r"\d+ of 18 images cannot be read: .*train/good"):
        train_tiny(tmp_path / "run", data__root=str(root), data__stream=True, train__steps=40)


def test_two_devices_share_streamed_batches(train_tiny, finished, shards, tmp_path):
    """float32 sums in another order, carried on through a dozen steps of Adam."""
    run = train_tiny(tmp_path / "run", data__root=str(shards), data__stream=True, train__devices=2)
    losses = [[float(row["loss"]) for row in read_csv(r.history)] for r in (run, finished)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
