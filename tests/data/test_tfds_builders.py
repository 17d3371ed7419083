"""Folder data sets as TensorFlow Datasets: the cache's pixels, in shards, read by share."""

import shutil

import numpy as np
import pytest

from jaxad.data.cache import prepare_images
from jaxad.data.datasets import read_table
from jaxad.data.images import read_mask
from jaxad.data.published.tfds_builders import folder_builder, prepare_shards, share_of_process
from jaxad.run.errors import UserError

pytest.importorskip("tensorflow_datasets")

SIZE = (12, 10)


@pytest.fixture(scope="module")
def shards(tiny_data, tmp_path_factory):
    place = tmp_path_factory.mktemp("shards")
    return prepare_shards(tiny_data, "mvtec", image_size=SIZE, data_dir=place)


def examples(folder, split, process=0, processes=1):
    return list(share_of_process(folder, split, process=process, processes=processes))


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


@pytest.mark.parametrize("processes", [1, 3])
def test_shares_are_disjoint_and_cover_the_split(shards, processes):
    parts = [
        [e["index"] for e in examples(shards, "train", i, processes)] for i in range(processes)
    ]
    assert sorted(np.concatenate(parts)) == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


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


def test_an_image_that_cannot_be_read_is_named(tiny_data, tmp_path):
    root = shutil.copytree(tiny_data, tmp_path / "stripes")
    (root / "test/hole/1.png").write_bytes(b"no image")
    place = tmp_path / "shards"
    with pytest.raises(UserError, match=r"test/hole/1\.png is not an image"):
        prepare_shards(root, "mvtec", image_size=SIZE, data_dir=place)
    assert not list(place.rglob("dataset_info.json"))
    shutil.copy(tiny_data / "test/hole/1.png", root / "test/hole/1.png")
    assert prepare_shards(root, "mvtec", image_size=SIZE, data_dir=place).is_dir()


def test_mistakes(shards, tmp_path):
    with pytest.raises(UserError, match="no folder data set 'mnist'"):
        folder_builder("mnist", image_size=SIZE, data_dir=tmp_path)
    with pytest.raises(UserError, match="process 2 is none of 2"):
        share_of_process(shards, "train", process=2, processes=2)
    with pytest.raises(UserError, match="is no category of mvtec_ad"):
        prepare_shards(tmp_path, "mvtec_ad", image_size=SIZE, data_dir=tmp_path / "shards")
    assert not list((tmp_path / "shards").rglob("*.array_record*"))
    with pytest.raises(UserError, match="holds no shards"):
        share_of_process(tmp_path, "train", process=0, processes=1)
    with pytest.raises(UserError, match="no split 'valid'"):
        share_of_process(shards, "valid", process=0, processes=1)
