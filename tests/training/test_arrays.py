"""Training on images that are no files, and what a program hears of the progress."""

import io

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.data.datasets import read_table
from jaxad.models.illumination import COLLECTION
from jaxad.run.errors import UserError
from jaxad.run.files import read_csv


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    gray = np.linspace(60, 180, 16 * 16).reshape(1, 16, 16, 1) + rng.normal(0, 4, (9, 16, 16, 1))
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8), 3, axis=3)


@pytest.fixture(scope="module")
def config(toy_config):
    """``(**keys) -> config`` of a model that compiles in no time; ``data__root`` is data.root."""

    def make(**keys):
        own = {
            "data.image_size": (16, 16),
            "data.holdout": 0.3,
            "train.devices": 1,
            "train.steps": 2,
            "train.batch_size": 4,
            "train.log_every": 2,
            "evaluate.batch_size": 4,
        }
        own |= {name.replace("__", "."): value for name, value in keys.items()}
        return jaxad.load_config(str(toy_config), own)

    return make


@pytest.fixture(scope="module")
def run(config, images, tmp_path_factory):
    return jaxad.train(config(), tmp_path_factory.mktemp("run"), images)


def test_a_run_on_arrays_is_the_run_on_their_files(run, config, images, tmp_path):
    folder = tmp_path / "files" / "train" / "good"
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    other = jaxad.train(config(data__root=str(tmp_path / "files")), tmp_path / "other")
    assert run.history.read_bytes() == other.history.read_bytes()
    ours, theirs = (jaxad.load_detector(one.path) for one in (run, other))
    assert ours.image_threshold == theirs.image_threshold is not None
    odd = np.roll(images[0], 9, axis=0)
    assert ours.predict(odd)[0].score == theirs.predict(odd)[0].score


def test_the_images_stand_in_the_run_folder(run, images):
    table = read_table(run.path / "images")
    assert len(table.train_good()) == len(images)
    for sample, image in zip(table.train_good(), images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(sample.path)), image)


def test_the_same_images_go_on_and_others_are_refused(run, config, images, capsys):
    jaxad.train(config(), run.path, iter(images))
    assert "already trained to step 2" in capsys.readouterr().err
    for others in (images[::-1], images[:-1]):
        with pytest.raises(UserError, match="started with other images"):
            jaxad.train(config(), run.path, others)
    with pytest.raises(UserError, match="are not those that"):
        jaxad.train(config(), run.path, [*images, images[0]])


def test_any_form_of_image_is_trained_on(config, images, tmp_path):
    def png(image):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return stream.getvalue()

    mixed = [images[0], Image.fromarray(images[1]), png(images[2]), images[3] / 255.0, *images[4:]]
    run = jaxad.train(config(), tmp_path / "run", mixed)
    found = sorted((run.path / "images/train/good").glob("*.png"))
    for path, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


def test_sixteen_bits_are_kept(config, tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (6, 16, 16), np.uint16)[..., None]
    keys = {"data__range_16bit": "12", "data__channels": 1}
    run = jaxad.train(config(**keys), tmp_path / "run", deep)
    first = Image.open(run.path / "images/train/good/00000.png")
    np.testing.assert_array_equal(np.asarray(first), deep[0, ..., 0])
    assert run.read_json(run.data)["range_16bit"] == [0.0, 4095.0]


def test_what_cannot_be_trained_on_is_told(config, images, tmp_path):
    with pytest.raises(UserError, match=r"images or data\.root"):
        jaxad.train(config(data__root="somewhere"), tmp_path / "a", images)
    with pytest.raises(UserError, match="no image to train on"):
        jaxad.train(config(), tmp_path / "b", [])
    with pytest.raises(UserError, match="image 1 has values of type int64"):
        jaxad.train(config(), tmp_path / "c", [images[0], images[1].astype(np.int64)])


class Enough(Exception):
    pass


def test_progress_of_training_is_told_and_may_end_it(config, images, tmp_path):
    keys = {"train__steps": 6, "train__checkpoint_every": 2}
    updates = []

    def listen(update):
        updates.append(update)
        if update.label == "step" and update.done == 4 and not ended:
            raise Enough

    ended = False
    with pytest.raises(Enough):
        jaxad.train(config(**keys), tmp_path / "run", images, on_progress=listen)
    assert [one.done for one in updates if one.label == "step"] == [2, 4]
    ended = True
    run = jaxad.train(config(**keys), tmp_path / "run", images, on_progress=listen)
    steps = [one for one in updates if one.label == "step"]
    assert steps[-1].done == steps[-1].total == 6
    rows = read_csv(run.history)
    assert [float(row["loss"]) for row in rows][-1] == pytest.approx(steps[-1].values["loss"])


# The illumination of training images


def test_trained_models_see_corrected_images(config, images, tmp_path):
    """What is fitted is a part of the checkpoint, and of what calibration and prediction see."""
    run = jaxad.train(config(data__illumination="gradient"), tmp_path / "run", images)
    detector = jaxad.load_detector(run.path)
    for changed in (images[0] + 10, np.rint(0.8 * images[0]).astype(np.uint8)):
        found, want = detector.predict([changed, images[0]])
        assert found.score == pytest.approx(want.score, rel=0.05)
    stored = detector.detector.variables[COLLECTION]
    assert stored["luminance"].shape == (16, 16)
    trained = images[[int(n[-6:-4]) for n in run.read_json(run.data)["training"]]] / 255.0
    assert float(stored["mean"]) == pytest.approx(trained.mean(), rel=1e-5)


def test_what_is_not_trained_has_no_illumination(config, images, tmp_path):
    keys = {"data__illumination": "level", "train__optimizer": "none"}
    with pytest.raises(UserError, match=r"data\.illumination=level is fitted to training images"):
        jaxad.train(config(**keys), tmp_path, images)
