"""What ``jaxad train`` says at its end, and what later calls make of a run that it left half done."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from jaxad.cli import main as cli
from jaxad.training.history import History
from jaxad.training.records import Records

PCA = ("train", "--config=pca", "--config.data.image_size=16,16", "--config.model.components=3",
       "--config.train.devices=1", "--config.evaluate.batch_size=4")  # fmt: skip


@pytest.fixture
def good_only(tiny_data, tmp_path) -> pathlib.Path:
    """A flat folder of good images."""
    return pathlib.Path(shutil.copytree(tiny_data / "train" / "good", tmp_path / "good ones"))


def test_the_next_command_can_be_pasted(tiny_data, tmp_path, capsys):
    run = tmp_path / "my run"
    assert cli.main([*PCA, f"--config.data.root={tiny_data}", f"--workdir={run}"]) == 0
    assert capsys.readouterr().out == f"next: jaxad evaluate --workdir='{run}'\n"


def test_a_wrong_folder_leaves_no_run_folder(tmp_path, capsys):
    command = [*PCA, f"--config.data.root={tmp_path}/none", f"--workdir={tmp_path}/run"]
    assert cli.main(command) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert cli.main([*command, f"--exclude={tmp_path}/no.csv"]) == 2
    assert capsys.readouterr().err.endswith("cannot be read: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_is_kept_without_test_images(good_only, tmp_path, capsys):
    """By either command; a call without a threshold still says that there is nothing to measure."""
    run, key = tmp_path / "run", "evaluate.image_threshold"
    train = [*PCA, f"--config.data.root={good_only}", f"--workdir={run}"]
    predict = ["predict", f"--workdir={run}", f"--input={good_only}", f"--output={tmp_path}/out"]
    assert cli.main(train) == 0
    assert capsys.readouterr().out.startswith(f"next: jaxad predict --workdir={run} --input=")
    assert cli.main(["evaluate", f"--workdir={run}"]) == 2
    capsys.readouterr()
    assert cli.main(["evaluate", f"--workdir={run}", "--threshold=0.5"]) == 0
    said = capsys.readouterr().out
    assert f"kept for later calls of evaluate and predict: {key}=0.5\n" in said
    assert "holds no test images" in said
    saved = json.loads((run / "calibration.json").read_text())
    assert (saved["image_threshold"], saved["set_by_hand"]) == (0.5, "0.5")
    assert cli.main([*train, f"--config.{key}=0.25"]) == 0
    said = capsys.readouterr()
    assert "already fitted, nothing to train" in said.err
    assert f"kept for later calls of evaluate and predict: {key}=0.25\n" in said.out
    assert cli.main(predict) == 0
    assert "threshold 0.25 (set by hand: 0.25)" in capsys.readouterr().out
    assert cli.main(train) == 0, "what was kept stays where nothing is asked for"
    assert "kept for" not in capsys.readouterr().out
    assert cli.main(["evaluate", f"--workdir={run}", "--threshold=auto"]) == 0
    assert cli.main(predict) == 0
    assert "set by hand" not in capsys.readouterr().out.rpartition("threshold")[2]
    assert cli.main(["evaluate", f"--workdir={run}", "--threshold=fpr:0.1"]) == 2
    assert "on a data set that has test images" in capsys.readouterr().err


def test_a_run_that_was_stopped_says_so_wherever_it_is_judged(
    tiny, tiny_data, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    train = ["train", "--config=vqvae", f"--workdir={run}", f"--config.data.root={tiny_data}"]
    train += [f"--config.{key}={value}" for key, value in tiny.items()]
    original = History.append

    def append(self, row):
        original(self, row)
        if row["step"] == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History, "append", append)
        assert cli.main(train) == 130
    assert "interrupted; the same command goes on from step 4, its" in capsys.readouterr().err
    words = "training stopped at step 4 of 12, "
    assert cli.main(["evaluate", f"--workdir={run}"]) == 0
    assert words in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["notes"][0].startswith(words)
    assert words in (run / "report.html").read_text()
    predict = ["predict", f"--workdir={run}", f"--input={tiny_data}/test", f"--output={run}/out"]
    assert cli.main(predict) == 0
    assert words in capsys.readouterr().err
    assert json.loads((run / "out" / "predictions.json").read_text())["unfinished"]
    assert cli.main(train) == 0
    assert cli.main(["evaluate", f"--workdir={run}"]) == 0
    assert "training stopped" not in capsys.readouterr().out

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Records, "__init__", stop)
    assert cli.main([*train[:2], f"--workdir={tmp_path}/new", *train[3:]]) == 130
    assert "nothing was saved yet, the same command begins again" in capsys.readouterr().err
