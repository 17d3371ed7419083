"""Everything bad that was tried ends with one clear sentence, and loses nothing already written."""

from __future__ import annotations

import errno
import json
import pathlib
import shutil

import numpy as np
import pytest
from model_cases import one_of_each
from PIL import Image

from jaxad.cli import main as cli
from jaxad.data import cache
from jaxad.run.folder import RunFolder

PCA = {"data.image_size": "16", "train.devices": "1", "evaluate.batch_size": "4"}


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the data set that a test may damage."""
    return pathlib.Path(shutil.copytree(tiny_data, tmp_path / "stripes"))


@pytest.fixture(scope="module")
def fitted(tiny_data, tmp_path_factory):
    """A run of pca."""
    workdir = tmp_path_factory.mktemp("fitted") / "run"
    assert cli.main(words("train", workdir, tiny_data)) == 0
    return workdir


@pytest.fixture
def run(fitted, tmp_path):
    """A copy of it that a test may damage."""
    return pathlib.Path(shutil.copytree(fitted, tmp_path / "run"))


def words(verb: str, workdir, root=None, config="pca", **keys) -> list[str]:
    keys = PCA | {name.replace("__", "."): value for name, value in keys.items()}
    if verb != "train":
        return [verb, f"--workdir={workdir}", *([f"--data-root={root}"] if root else [])]
    keys |= {} if root is None else {"data.root": root}
    return ["train", f"--config={config}", f"--workdir={workdir}"] + [
        f"--config.{key}={value}" for key, value in keys.items()
    ]


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail; returns its sentence."""

    def call(command: list[str]) -> str:
        capsys.readouterr()
        code = cli.main(command)
        error = capsys.readouterr().err
        assert code == 2, error
        assert "Traceback" not in error
        # Progress may stand before it; the failure itself is one line, the last one.
        (*progress, sentence) = error.splitlines()
        assert not any("jaxad: " in line for line in progress), error
        assert sentence.startswith("jaxad: ")
        return sentence

    return call


def truncate(file: pathlib.Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


IMAGES = {
    "truncated file": (truncate, "cannot be read, it may be damaged"),
    "zero bytes": (lambda file: file.write_bytes(b""), "is empty (0 bytes)"),
    "text named .png": (lambda file: file.write_text("hello"), "is not an image in a format"),
    "not readable as a file": (
        lambda file: (file.unlink(), file.symlink_to("nowhere")),
        "does not exist",
    ),
    "infinite float": (
        lambda file: Image.fromarray(np.full((16, 16), np.inf, np.float32)).save(file, "TIFF"),
        "holds float values from inf to inf",
    ),
}


@pytest.mark.parametrize("damage", IMAGES)
def test_a_bad_training_image(damage, data, tmp_path, refused):
    spoil, sentence = IMAGES[damage]
    spoil(data / "train/good/3.png")
    error = refused(words("train", tmp_path / "w", data))
    assert "train/good/3.png" in error and sentence in error


@pytest.mark.parametrize("damage", IMAGES)
def test_a_bad_test_image(damage, data, run, refused):
    spoil, sentence = IMAGES[damage]
    spoil(data / "test/hole/1.png")
    error = refused(words("evaluate", run, data))
    assert "test/hole/1.png" in error and sentence in error and "--skip-unreadable" in error
    assert not RunFolder(run).metrics.exists()
    assert cli.main([*words("evaluate", run, data), "--skip-unreadable"]) == 0
    result = RunFolder(run).read_json(RunFolder(run).metrics)
    assert result["counts"]["unreadable_images"] == 1
    assert "1 (test/hole/1.png)" in result["notes"][0]


def test_every_bad_image_is_named(data, tmp_path, refused):
    for i in range(12):
        (data / f"train/good/{i}.png").write_bytes(b"")
    error = refused(words("train", tmp_path / "w", data, data__holdout=0))
    assert "12 of 20 images cannot be read" in error
    assert all(f"train/good/{i}.png is empty" in error for i in range(12))


def test_a_mask_of_another_size(data, run, refused):
    mask = data / "ground_truth/hole/0_mask.png"
    Image.new("L", (8, 9)).save(mask)
    error = refused(words("evaluate", run, data))
    assert str(mask) in error and "is 9 x 8 (height x width) but its image is 16 x 16" in error


def test_a_damaged_mask(data, run, refused):
    truncate(data / "ground_truth/hole/0_mask.png")
    assert "0_mask.png cannot be read" in refused(words("evaluate", run, data))


def test_a_mask_without_its_image(data, tmp_path, refused):
    (data / "test/hole/2.png").unlink()
    error = refused(words("train", tmp_path / "w", data))
    assert "have no image: ground_truth/hole/2_mask.png" in error


def empty(data: pathlib.Path) -> str:
    shutil.rmtree(data)
    data.mkdir()
    return "holds no image"


def missing(data: pathlib.Path) -> str:
    shutil.rmtree(data)
    return "does not exist"


def a_file(data: pathlib.Path) -> str:
    shutil.rmtree(data)
    data.write_text("")
    return "is not a folder"


def only_defects(data: pathlib.Path) -> str:
    shutil.rmtree(data / "train")
    return "holds no good training image"


def no_training_images(data: pathlib.Path) -> str:
    shutil.rmtree(data / "train/good")
    (data / "train/good").mkdir()
    return "holds no good training image"


def one_good_image(data: pathlib.Path) -> str:
    for i in range(1, 20):
        (data / f"train/good/{i}.png").unlink()
    return "so none is left for calibration; add images, or set data.holdout=0"


@pytest.mark.parametrize(
    "spoil", [empty, missing, a_file, only_defects, no_training_images, one_good_image]
)
def test_a_folder_that_cannot_be_trained_on(spoil, data, tmp_path, refused):
    sentence = spoil(data)
    error = refused(words("train", tmp_path / "w", data, data__holdout=0.1))
    assert str(data) in error and sentence in error


def test_unknown_categories(data, tmp_path, refused):
    error = refused(words("train", tmp_path / "w", data.parent, data__category="strips"))
    assert "no category 'strips'; did you mean 'stripes'?" in error
    error = refused(words("train", tmp_path / "w", data__category="flangs"))
    assert "'flangs'; did you mean 'flange'?" in error


@pytest.mark.parametrize(
    "keys, sentence",
    [
        ({"train__epoch": 3}, "unknown config key 'train.epoch'"),
        ({"model__component": 3}, "unknown config key 'model.component'"),
        ({"data__image_size": "0"}, "'data.image_size' must be at least 1"),
        ({"data__channels": 2}, "data.channels must be 1 or 3"),
        ({"data__range_16bit": "most"}, "data.range_16bit must be full"),
        ({"data__name": "mvtek"}, "unknown data.name 'mvtek'; did you mean 'mvtec'?"),
        ({"data__holdout": 1}, "data.holdout=1 leaves no image to train on"),
        ({"train__devices": 99}, "train.devices is 99, but this machine has"),
        ({"train__log_every": 0}, "'train.log_every' must be at least 1"),
        ({"evaluate__primary_map": "l3"}, "evaluate.primary_map is 'l3'; known: l1, l1*ssim"),
        ({"evaluate__primary_score": "l2:tob1"}, "primary_score is 'l2:tob1'"),
    ],
)
def test_config_values(keys, sentence, tiny_data, tmp_path, refused):
    assert sentence in refused(words("train", tmp_path / "w", tiny_data, **keys))
    # Told before there is anything to lose.
    assert not (tmp_path / "w" / "checkpoints").exists()


@pytest.mark.parametrize(
    "keys, sentence",
    [
        ({"model__features": 0}, "'model.features' must be at least 1, not 0"),
        (
            {"model__dtype": "float99"},
            "'model.dtype' must be one of float32, bfloat16, not 'float99'",
        ),
        ({"model__downsampling": 9}, "cannot be halved 9 times"),
        ({"model__codebook": "none"}, "'model.codebook' must be one of gradient, ema, not 'none'"),
        ({"data__pipeline": "ft"}, "'data.pipeline' must be one of auto, tf, memory, not 'ft'"),
        ({"train__batch_size": 19}, "train.batch_size is 19, but there are 18 training images"),
    ],
)
def test_model_and_training_values(keys, sentence, tiny, tiny_data, tmp_path, refused):
    keys = {name.replace(".", "__"): value for name, value in tiny.items()} | keys
    assert sentence in refused(words("train", tmp_path / "w", tiny_data, "vqvae", **keys))


@pytest.mark.parametrize("below", ["file", "file/run", "file/a/b"])
def test_a_workdir_below_a_regular_file(below, tiny_data, tmp_path, refused):
    (tmp_path / "file").write_text("mine")
    error = refused(words("train", tmp_path / below, tiny_data))
    assert f"cannot be a folder: {tmp_path}/file is a regular file" in error
    assert (tmp_path / "file").read_text() == "mine"
    assert "is not a run folder" in refused(words("evaluate", tmp_path / below))


def test_a_workdir_that_may_not_be_written(tiny_data, tmp_path, refused, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    # Not by file modes: tests may run as root, whom they do not bind.
    monkeypatch.setattr(pathlib.Path, "mkdir", denied)
    error = refused(words("train", tmp_path / "w", tiny_data))
    assert "w cannot be written: Permission denied" in error


def test_what_is_no_run_folder(tmp_path, refused):
    error = refused(words("evaluate", tmp_path))
    assert f"{tmp_path} is not a run folder: it has no config.json" in error


DAMAGED_RUN = {
    "config.json": "config.json is damaged",
    "data.json": "data.json is damaged",
}


@pytest.mark.parametrize("name", DAMAGED_RUN)
def test_a_damaged_run_folder(name, run, tiny_data, refused):
    truncate(run / name)
    assert DAMAGED_RUN[name] in refused(words("evaluate", run))
    assert DAMAGED_RUN[name] in refused(words("train", run, tiny_data))


def test_a_damaged_or_missing_checkpoint(run, refused):
    for file in (run / "checkpoints/0").rglob("*"):
        if file.is_file():
            truncate(file)
    assert "checkpoints/0 cannot be read" in refused(words("evaluate", run))
    assert "no checkpoint '7'" in refused([*words("evaluate", run), "--checkpoint=7"])
    shutil.rmtree(run / "checkpoints")
    assert "holds no finished checkpoint; run `jaxad train`" in refused(words("evaluate", run))


def test_an_image_of_the_calibration_that_is_gone(run, data, refused):
    gone = json.loads((run / "data.json").read_text())["training"][0]
    (data / gone).unlink()
    assert f"the training image {gone} is no longer in" in refused(words("evaluate", run, data))


def test_training_images_that_have_changed(run, tiny_data, tmp_path, refused, edited):
    moved = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "moved"))
    (moved / "train/good/5.png").unlink()
    with edited(run / "config.json") as config:
        config["data"]["root"] = str(moved)
    error = refused(words("train", run, moved))
    assert "are not those that" in error and "use a new --workdir" in error


@pytest.mark.parametrize(
    "keys, sentence",
    [
        (
            ["--config.evaluate.primary_map=l3"],
            "evaluate.primary_map is 'l3'; known: l1, l1*ssim, ssim",
        ),
        (["--config.evaluate.primary_score=nll:best"], "evaluate.primary_score is 'nll:best'"),
        (
            ["--config.evaluate.resolution=full"],
            "'evaluate.resolution' must be one of model, original, not 'full'",
        ),
        (["--config.train.epochs=3"], "train.epochs cannot change after training"),
        (["--config.evaluate.batch_size=0"], "evaluate.batch_size"),
        (["--config.evaluate.pixel_false_positive_rate=2"], "evaluate.pixel_false_positive_rate"),
    ],
)
def test_bad_evaluation_values_leave_the_run_as_it_was(keys, sentence, run, refused):
    before = (run / "config.json").read_bytes()
    assert sentence in refused([*words("evaluate", run), *keys])
    assert (run / "config.json").read_bytes() == before


# The disk is full.


class FullDisk:
    """Writing fails from the n-th file on, as it does on a full disk: what is begun stays cut."""

    def __init__(self, monkeypatch):
        self._patch = monkeypatch

    def for_text(self, name: str) -> None:
        original = pathlib.Path.write_text

        def write_text(path, text, **options):
            if name in path.name:
                original(path, text[: len(text) // 2], **options)
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return original(path, text, **options)

        self._patch.setattr(pathlib.Path, "write_text", write_text)


@pytest.mark.parametrize("name", ["data.json", "environment.json"])
def test_a_full_disk_when_a_run_begins(name, tiny_data, tmp_path, refused, monkeypatch):
    with monkeypatch.context() as patch:
        FullDisk(patch).for_text(name)
        error = refused(words("train", tmp_path / "w", tiny_data))
    assert f"w/{name} could not be written: No space left on device" in error
    assert not (tmp_path / "w" / name).exists()
    assert not list((tmp_path / "w").glob("*.tmp")) + list((tmp_path / "w").glob(".*.tmp"))
    assert cli.main(words("train", tmp_path / "w", tiny_data)) == 0


@pytest.mark.parametrize("name", ["metrics.json", "scores.csv", "calibration.json", "report.html"])
def test_a_full_disk_in_an_evaluation_leaves_the_last_one(name, run, refused, monkeypatch):
    assert cli.main(words("evaluate", run)) == 0
    before = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    if name == "calibration.json":
        (run / name).unlink()
        del before[run / name]
    with monkeypatch.context() as patch:
        FullDisk(patch).for_text(name)
        error = refused(words("evaluate", run))
    assert f"{name} could not be written: No space left on device" in error
    after = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    assert after.keys() == before.keys()
    assert after.get(run / name) == before.get(run / name)


def test_a_full_disk_when_images_are_prepared(tiny_data, tmp_path, refused, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setenv("JAXAD_CACHE", str(tmp_path / "cache"))
        patch.setattr(cache.os, "fsync", full)
        error = refused(words("train", tmp_path / "w", tiny_data, data__memory_limit_mb=0))
    assert "the image cache" in error and "could not be written: No space left" in error
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.suffix in (".npy", ".tmp")]


def test_every_builder_refuses_images_that_do_not_fit(refused, tiny_data, tmp_path):
    """17 x 19 pixels, a single pixel: a model takes them or says what it takes."""
    for name, case in one_of_each().items():
        if case.any_size:
            continue
        for size in ("17,19", "1"):
            error = refused(words("train", tmp_path / "w", tiny_data, name, data__image_size=size))
            assert "data.image_size" in error, error
