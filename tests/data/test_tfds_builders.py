"""Folder data sets as TensorFlow Datasets: the cache's pixels, in shards."""

import shutil

import numpy as np
import pytest
from PIL import Image

from jaxad.data.cache import prepare_images
from jaxad.data.datasets import read_table
from jaxad.data.masks import read_mask
from jaxad.data.published.tfds_builders import prepare_shards
from jaxad.data.tensorflow import import_tensorflow_datasets
from jaxad.run.errors import UserError

pytest.importorskip("tensorflow_datasets")

SIZE = (12, 10)


@pytest.fixture(scope="module")
def shards(tiny_data, tmp_path_factory):
    place = tmp_path_factory.mktemp("shards")
    return prepare_shards(tiny_data, "mvtec", image_size=SIZE, data_dir=place)


def examples(folder, split):
    """Read by TensorFlow Datasets itself, as a pipeline of one's own would."""
    tfds = import_tensorflow_datasets("the test")
    return list(tfds.builder_from_directory(str(folder)).as_data_source(split=split))


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_examples_are_the_tables_samples_with_the_caches_pixels(shards, tiny_data):
    table = read_table(tiny_data)
    for split, samples in (("train", table.train_good()), ("test", table.test())):
        found = examples(shards, split)
        images = prepare_images(samples, image_size=SIZE, channels=3)
        np.testing.assert_array_equal([e["image"] for e in found], images)
        assert [e["index"] for e in found] == list(range(len(samples)))
        assert [_text(e["path"]) for e in found] == [table.relative(s) for s in samples]
        assert [_text(e["defect"]) for e in found] == [s.defect for s in samples]
        assert [e["label"] for e in found] == [s.label for s in samples]
        for example, sample in zip(found, samples, strict=True):
            assert example["has_mask"] == (sample.mask is not None)
            if sample.mask:
                expected = read_mask(sample.mask, image_size=SIZE)
                np.testing.assert_array_equal(example["mask"][..., 0] > 0, expected)
                assert expected.any()
            else:
                assert not example["mask"].any()


def test_a_second_call_writes_nothing(shards, tiny_data):
    before = {file: file.stat().st_mtime_ns for file in shards.iterdir()}
    again = prepare_shards(tiny_data, "mvtec", image_size=SIZE, data_dir=shards.parents[2])
    assert again == shards
    assert before == {file: file.stat().st_mtime_ns for file in shards.iterdir()}


def test_no_test_images(tiny_data, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/good").symlink_to(tiny_data / "train/good")
    folder = prepare_shards(tmp_path, "mvtec", image_size=SIZE, data_dir=tmp_path / "shards")
    table = read_table(folder)
    assert (len(table.train_good()), table.test()) == (20, ())


def test_a_mask_of_another_size_than_its_image_is_refused(tiny_data, tmp_path):
    """It must not be stretched unseen: the shards are all that an evaluation gets to see."""
    root = shutil.copytree(tiny_data, tmp_path / "stripes")
    mask = sorted((root / "ground_truth/hole").iterdir())[0]
    Image.new("L", (5, 5)).save(mask)
    with pytest.raises(UserError, match="a mask must have the size of its image"):
        prepare_shards(root, "mvtec", image_size=SIZE, data_dir=tmp_path / "shards")


def test_an_image_that_cannot_be_read_is_named(tiny_data, tmp_path):
    root = shutil.copytree(tiny_data, tmp_path / "stripes")
    (root / "test/hole/1.png").write_bytes(b"no image")
    place = tmp_path / "shards"
    with pytest.raises(UserError, match=r"test/hole/1\.png is not an image"):
        prepare_shards(root, "mvtec", image_size=SIZE, data_dir=place)
    assert not list(place.rglob("dataset_info.json"))
    shutil.copy(tiny_data / "test/hole/1.png", root / "test/hole/1.png")
    assert prepare_shards(root, "mvtec", image_size=SIZE, data_dir=place).is_dir()


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="no folder data set 'mnist'"):
        prepare_shards(tmp_path, "mnist", image_size=SIZE, data_dir=tmp_path)
    with pytest.raises(UserError, match="is no category of mvtec_ad"):
        prepare_shards(tmp_path, "mvtec_ad", image_size=SIZE, data_dir=tmp_path / "shards")
    assert not list((tmp_path / "shards").rglob("*.array_record*"))
