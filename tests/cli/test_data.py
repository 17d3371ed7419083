"""`jaxad data list`, `inspect` and `prepare` as a user meets them."""

import pathlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from jaxad.cli import data as data_module, main as cli
from jaxad.data.datasets import read_table
from jaxad.data.images import image_dimensions
from jaxad.data.published.catalogue import CATALOGUE
from jaxad.data.synthetic.dataset import ensure_dataset


def save(place):
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(place)


def test_list_says_what_each_needs(capsys):
    assert cli.main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    for name, published in CATALOGUE.items():
        for words in (name, published.needs, published.source, published.licence):
            assert words in shown
    assert cli.main(["data", "list", "--name=btad"]) == 0
    shown = capsys.readouterr().out
    assert "counts: " in shown and "MVTec AD" not in shown
    assert cli.main(["data", "list", "--name=btat"]) == cli.USER_ERROR
    assert "did you mean 'btad'" in capsys.readouterr().err


def test_generate_draws_a_folder_that_can_be_inspected(tmp_path, capsys, monkeypatch):
    small = partial(ensure_dataset, tmp_path / "cache", train=3, test_good=1, test_per_defect=1)
    monkeypatch.setattr(data_module, "ensure_dataset", small)
    command = ["data", "generate", f"--root={tmp_path}/parts", "--category=wood"]
    assert cli.main(command) == 0
    next_one = capsys.readouterr().out.strip().removeprefix("next: jaxad ")
    assert cli.main(next_one.split()) == 0
    assert "read as mvtec" in capsys.readouterr().out
    assert cli.main(command) == cli.USER_ERROR
    assert "parts exists; give --root a new folder" in capsys.readouterr().err
    assert cli.main(command[:2]) == cli.USER_ERROR
    assert "needs --root" in capsys.readouterr().err


def test_inspect(tiny_data, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert cli.main(["data", "inspect", f"--root={tiny_data}", f"--sheet={sheet}"]) == 0
    shown = capsys.readouterr().out
    assert "read as mvtec" in shown
    assert "sizes: 26 of 16 x 16" in shown and "26 .png" in shown
    # A hole of 4 x 4 pixels in 16 x 16.
    hole = next(line for line in shown.splitlines() if "hole" in line)
    assert hole.split() == ["test", "hole", "3", "3", "6.2500", "6.2500"]
    assert Image.open(sheet).width > 1000


def test_inspect_a_published_data_set(tmp_path, capsys):
    save(tmp_path / "01/train/ok/0.png")
    save(tmp_path / "02/train/ok/0.bmp")
    assert cli.main(["data", "inspect", f"--root={tmp_path}", "--name=btad"]) == 0
    shown = capsys.readouterr().out
    assert "2 categories" in shown
    assert "categories that are not there: 03" in shown
    assert "01: train/good: 399 of 400 published images are missing" in shown
    assert cli.main(["data", "inspect", f"--root={tmp_path}", "--name=btad", "--category=02"]) == 0
    assert "read as btad, 02" in capsys.readouterr().out


def test_inspect_needs_a_root(capsys):
    assert cli.main(["data", "inspect"]) == cli.USER_ERROR
    assert "needs --root" in capsys.readouterr().err
    assert cli.main(["data", "inspect", "--config.seed=1"]) == cli.USER_ERROR
    assert "takes no keys" in capsys.readouterr().err
    assert cli.main(["data", "prepare"]) == cli.USER_ERROR
    assert "needs --config" in capsys.readouterr().err


@pytest.fixture
def prepared(tiny_data, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXAD_CACHE", str(tmp_path / "cache"))
    overrides = {**tiny, "data.root": str(tiny_data)}
    words = [f"--config.{key}={value}" for key, value in overrides.items()]
    assert cli.main(["data", "prepare", "--config=vqvae", *words]) == 0
    return overrides, capsys.readouterr().out


def test_prepare_writes_what_training_and_evaluation_read(prepared, monkeypatch):
    from jaxad.data import cache
    from jaxad.run.config import load_settings
    from jaxad.training.inputs import decode, open_table, prepare_inputs

    overrides, shown = prepared
    files = [pathlib.Path(line.rpartition(": ")[2]) for line in shown.splitlines()]
    assert [line.split()[0] for line in shown.splitlines()] == ["18", "2", "6"]
    assert all(file.is_file() for file in files)

    def no_decoding(*arguments, **options):
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr(cache, "read_image", no_decoding)
    config = load_settings("vqvae", overrides)
    inputs = prepare_inputs(config)
    test = decode(list(open_table(config.data).test()), config.data, (0.0, 65535.0))
    arrays = (inputs.train, inputs.holdout, test)
    assert all(isinstance(array, np.memmap) for array in arrays)
    assert {pathlib.Path(array.filename) for array in arrays} == set(files)


def test_prepare_shards(tiny_data, tiny, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    words = [f"--config.{key}={value}" for key, value in tiny.items()]
    command = ["data", "prepare", "--config=vqvae", *words, f"--shards={tmp_path}"]
    assert cli.main(command) == cli.USER_ERROR
    assert "set data.root" in capsys.readouterr().err
    assert cli.main([*command, f"--config.data.root={tiny_data}"]) == 0
    folder = capsys.readouterr().out.strip().rpartition("--config.data.root=")[2]
    table = read_table(folder)
    assert {image_dimensions(sample.path) for sample in table.samples} == {(16, 16)}
    assert len(table.test()) == len(read_table(tiny_data).test())


def test_notes_of_the_data_stand_in_the_run_folders_record(tmp_path, capsys):
    from jaxad.run.config import load_settings
    from jaxad.training.inputs import prepare_inputs

    for i in range(20):
        save(tmp_path / f"01/train/ok/{i}.png")
    options = {"data.root": str(tmp_path), "data.name": "btad", "data.category": "01"}
    record = prepare_inputs(load_settings("pca", options)).record
    assert "train/good: 380 of 400 published images are missing" in record["notes"]
    assert "data: train/good: 380 of 400" in capsys.readouterr().err


def test_inspect_generated_images(capsys):
    assert cli.main(["data", "inspect", "--name=synthetic", "--category=fabric"]) == 0
    rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    assert ["train", "good", "100", "0"] in rows
    assert ["test", "good", "25", "0"] in rows
