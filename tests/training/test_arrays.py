"""Training on images that are no files, and what a program hears of the progress."""

import io

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.data.datasets import read_table
from jaxad.run.errors import UserError
from jaxad.run.files import read_csv


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    gray = np.linspace(60, 180, 24 * 24).reshape(1, 24, 24, 1) + rng.normal(0, 4, (9, 24, 24, 1))
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8), 3, axis=3)


def config(model="pca", **keys):
    own = {"data.image_size": (24, 24), "train.devices": 1}
    return jaxad.load_config(model, own | {k.replace("__", "."): v for k, v in keys.items()})


SMALL = {"model__components": 2, "data__folds": 2}


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    return jaxad.train(config(**SMALL), tmp_path_factory.mktemp("run"), images)


def test_a_run_on_arrays_is_the_run_on_their_files(run, images, tmp_path):
    folder = tmp_path / "files" / "train" / "good"
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    other = jaxad.train(config(data__root=str(tmp_path / "files"), **SMALL), tmp_path / "other")
    ours, theirs = (jaxad.load_detector(one.path) for one in (run, other))
    assert ours.image_threshold == theirs.image_threshold is not None
    odd = np.roll(images[0], 9, axis=0)
    assert ours.predict(odd)[0].score == theirs.predict(odd)[0].score


def test_the_images_stand_in_the_run_folder(run, images):
    table = read_table(run.path / "images")
    assert len(table.train_good()) == len(images)
    for sample, image in zip(table.train_good(), images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(sample.path)), image)


def test_the_same_images_go_on_and_others_are_refused(run, images, capsys):
    jaxad.train(config(**SMALL), run.path, iter(images))
    assert "already fitted" in capsys.readouterr().err
    for others in (images[::-1], images[:-1], images[..., :1]):
        with pytest.raises(UserError, match="started with other images"):
            jaxad.train(config(**SMALL), run.path, others)


def test_any_form_of_image_is_trained_on(images, tmp_path):
    def png(image):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return stream.getvalue()

    mixed = [images[0], Image.fromarray(images[1]), png(images[2]), images[3] / 255.0, *images[4:]]
    run = jaxad.train(config(**SMALL), tmp_path / "run", mixed)
    found = sorted((run.path / "images/train/good").glob("*.png"))
    for path, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


def test_sixteen_bits_are_kept(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (6, 24, 24), np.uint16)[..., None]
    keys = {"data__range_16bit": "12", "data__channels": 1, **SMALL}
    run = jaxad.train(config(**keys), tmp_path / "run", deep)
    first = Image.open(run.path / "images/train/good/00000.png")
    np.testing.assert_array_equal(np.asarray(first), deep[0, ..., 0])
    assert run.read_json(run.data)["range_16bit"] == [0.0, 4095.0]


def test_what_cannot_be_trained_on_is_told(images, tmp_path):
    with pytest.raises(UserError, match=r"images or data\.root"):
        jaxad.train(config(data__root="somewhere"), tmp_path / "a", images)
    with pytest.raises(UserError, match="no image to train on"):
        jaxad.train(config(), tmp_path / "b", [])
    with pytest.raises(UserError, match="image 1 has values of type int64"):
        jaxad.train(config(), tmp_path / "c", [images[0], images[1].astype(np.int64)])


class Enough(Exception):
    pass


def test_progress_of_training_is_told_and_may_end_it(images, tmp_path):
    keys = {
        "train__steps": 6,
        "train__log_every": 2,
        "train__batch_size": 4,
        "train__checkpoint_every": 2,
        "model__width": 0.05,
        "model__latent": 4,
        "data__image_size": (128, 128),
    }
    updates = []

    def listen(update):
        updates.append(update)
        if update.label == "step" and update.done == 4 and not ended:
            raise Enough

    ended = False
    with pytest.raises(Enough):
        jaxad.train(config("cae", **keys), tmp_path / "run", images, on_progress=listen)
    assert [one.done for one in updates if one.label == "step"] == [2, 4]
    ended = True
    run = jaxad.train(config("cae", **keys), tmp_path / "run", images, on_progress=listen)
    steps = [one for one in updates if one.label == "step"]
    assert steps[-1].done == steps[-1].total == 6
    rows = read_csv(run.history)
    assert [float(row["loss"]) for row in rows][-1] == pytest.approx(steps[-1].values["loss"])
