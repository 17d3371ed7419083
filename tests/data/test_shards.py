"""Shards are the data set that they were made of: same table, same pixels, any row by itself."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxad.data.cache import prepare_images
from jaxad.data.datasets import find_images, list_categories, read_table
from jaxad.data.files import member_path
from jaxad.data.images import image_dimensions, read_image
from jaxad.data.masks import read_mask
from jaxad.data.shards import bytes_features, is_shards, open_shards
from jaxad.run.errors import UserError

pytest.importorskip("tensorflow_datasets")

SIZE = (16, 16)


@pytest.fixture(scope="module")
def prepared(tiny_data, tmp_path_factory):
    from jaxad.data.published.tfds_builders import prepare_shards

    place = tmp_path_factory.mktemp("shards")
    return prepare_shards(tiny_data, "mvtec", image_size=SIZE, data_dir=place)


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "copy")


def records(folder, split="train"):
    (file,) = folder.glob(f"*-{split}.array_record-*")
    return file


@pytest.mark.parametrize(
    "change",
    [{"notes": None}, {"category": 3}, {"range_16bit": [0.0]}, {"range_16bit": [9, 9]},
     {"train": [["a.png", 0, "good"]]}, {"test": [[1, 0, "good", False]]}, {"test": []}],
)  # fmt: skip
def test_a_table_that_is_not_whole_is_damaged(copy, change):
    file = copy / "metadata.json"
    content = json.loads(file.read_text())
    del content["jaxad"]["content_sha256"]
    content["jaxad"] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="its table is not whole"):
        read_table(copy, name="shards")


@pytest.mark.parametrize("key", ["dataset", "category", "notes", "train"])
def test_a_table_of_which_a_key_is_missing_is_damaged(copy, key):
    file = copy / "metadata.json"
    content = json.loads(file.read_text())
    del content["jaxad"]["content_sha256"], content["jaxad"][key]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"its table is not whole .'{key}'"):
        read_table(copy, name="shards")


def test_a_changed_letter_of_the_table_is_noticed(copy):
    file = copy / "metadata.json"
    content = file.read_text()
    file.write_text(content.replace('"hole"', '"mole"'))
    assert file.read_text() != content
    with pytest.raises(UserError, match="its content is not what was written"):
        read_table(copy, name="shards")


KILLED = """
import os, signal, sys, types
import jaxad.data.published.tfds_builders as builders
from array_record.python import array_record_module
class Writer(array_record_module.ArrayRecordWriter):
    def close(self):
        os.kill(os.getpid(), signal.SIGKILL)
array_record_module.ArrayRecordWriter = Writer
builders.prepare_shards(sys.argv[1], "mvtec", image_size=(16, 16), data_dir=sys.argv[2])
"""


@pytest.mark.slow
def test_what_a_killed_call_left_is_removed_by_the_next(tiny_data, project_root, tmp_path):
    from jaxad.data.published.tfds_builders import prepare_shards

    command = [sys.executable, "-c", KILLED, str(tiny_data), str(tmp_path)]
    assert subprocess.run(command, cwd=project_root, stderr=subprocess.PIPE).returncode == -9
    left = [p for p in tmp_path.rglob("*") if "incomplete" in p.name]
    assert left, "the kill came before anything was written"
    folder = prepare_shards(tiny_data, "mvtec", image_size=SIZE, data_dir=tmp_path)
    assert is_shards(folder)
    assert not any(p.exists() for p in left)
    assert {p.parent for p in tmp_path.rglob("*") if p.is_file()} == {folder}
    assert all(p.is_file() for p in folder.iterdir())


def described(table):
    return [
        [(table.relative(s), s.label, s.defect, s.mask is not None) for s in split]
        for split in (table.train_good(), table.test())
    ]


@pytest.mark.parametrize("name", ["auto", "shards"])
def test_the_table_is_the_folders(prepared, tiny_data, name):
    folder, shards = read_table(tiny_data), read_table(prepared, name=name)
    assert described(shards) == described(folder)
    assert (shards.name, shards.category, shards.root) == ("shards", "stripes", str(prepared))
    assert shards.range_16bit == (0.0, 65535.0)
    assert shards.notes == ("read from shards of mvtec stripes, 16 x 16 x 3",)


def test_images_and_masks_are_the_folders(prepared, tiny_data):
    folder, shards = read_table(tiny_data), read_table(prepared)
    for one, other in ((folder.train_good(), shards.train_good()), (folder.test(), shards.test())):
        images = [prepare_images(s, image_size=SIZE, channels=3) for s in (one, other)]
        np.testing.assert_array_equal(*images)
    pairs = [(a, b) for a, b in zip(folder.test(), shards.test(), strict=True) if a.mask]
    assert len(pairs) == 3
    for one, other in pairs:
        assert image_dimensions(other.path) == SIZE
        mask = read_mask(other.mask, image_size=SIZE, expected_size=SIZE)
        np.testing.assert_array_equal(mask, read_mask(one.mask))
        assert mask.any() and not mask.all()


def test_another_size_is_resized_from_the_shards(prepared):
    path = read_table(prepared).test()[0].path
    assert read_image(path, image_size=(8, 12), channels=1).shape == (8, 12, 1)


def test_shards_are_found_below_the_folder_of_several(prepared, tmp_path, tiny_data):
    place = prepared.parents[2]
    assert read_table(place).root == str(prepared)
    assert list_categories(place) == ("stripes",)
    assert list_categories(prepared, name="shards") == ()
    assert read_table(place, category="stripes").root == str(prepared)
    with pytest.raises(UserError, match="no shards of 'dots'"):
        read_table(place, category="dots")
    both = shutil.copytree(place, tmp_path / "both")
    one = next(both.glob("jaxad_*"))
    shutil.copytree(one, both / "jaxad_other")
    with pytest.raises(UserError, match="several shards that fit"):
        read_table(both)
    table = next((both / "jaxad_other").glob("*/*/metadata.json"))
    record = json.loads(table.read_text())["jaxad"] | {"category": "dots"}
    del record["content_sha256"]
    table.write_text(json.dumps({"jaxad": record}))
    assert list_categories(both) == ("dots", "stripes")
    assert read_table(both, category="dots").root == str(table.parent)
    with pytest.raises(UserError, match=r"several categories; set data.category=dots\|stripes"):
        read_table(both)


def test_a_folder_of_shards_is_its_test_images(prepared):
    assert find_images(prepared) == [s.path for s in read_table(prepared).test()]
    assert find_images(member_path(prepared, "/test/good/0.png"))


def test_several_files_of_records_are_one_split(tmp_path):
    """A large split is written as many files; the fourth record may be the first of the second."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path
    (folder / "dataset_info.json").write_text(
        json.dumps(
            {
                "name": "jaxad_x",
                "fileFormat": "array_record",
                "splits": [
                    {"name": "train", "shardLengths": ["3", "2"]},
                    {"name": "test", "shardLengths": []},
                ],
            }
        )
    )
    rows = [[f"{i}.png", 0, "good", False] for i in range(5)]
    table = {
        "dataset": "x", "category": "", "image_size": [1, 1], "channels": 3,
        "range_16bit": [0.0, 65535.0], "notes": [], "train": rows, "test": [],
    }  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps({"jaxad": table}))
    from array_record.python.array_record_module import ArrayRecordWriter

    features = tfds.features.FeaturesDict({"image": tfds.features.Text(), "n": np.int64})
    for shard, numbers in enumerate(([0, 1, 2], [3, 4])):
        file = folder / f"jaxad_x-train.array_record-{shard:05d}-of-00002"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for n in numbers:
            writer.write(features.serialize_example({"image": f"picture {n}", "n": n}))
        writer.close()
    shards = open_shards(folder)
    found = [shards.record("train", row) for row in (4, 0, 3, 2)]
    assert found == [{"image": f"picture {n}".encode()} for n in (4, 0, 3, 2)]


def test_what_is_not_jaxads_or_too_old_is_refused(prepared, copy, tmp_path):
    info = copy / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match=r"older version of jaxad.*write them again"):
        read_table(copy)
    info.write_text(text.replace('"jaxad_mvtec"', '"mnist"'))
    assert not is_shards(copy)
    with pytest.raises(UserError, match=r"'mnist' of TensorFlow Datasets, which .* did not write"):
        read_table(copy, name="shards")
    with pytest.raises(UserError, match="holds no shards"):
        read_table(tmp_path / "nothing", name="shards")
    with pytest.raises(UserError, match=r"holds no '/train/good/99.png'"):
        image_dimensions(member_path(prepared, "/train/good/99.png"))


def test_damage_is_one_sentence(copy):
    file = records(copy)
    path = read_table(copy).train_good()[0].path
    content = bytearray(file.read_bytes())
    place = content.index(b"\x89PNG")
    content[place + 20 : place + 60] = bytes(40)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"record 0 of .*-train.array_record.* is damaged"):
        read_image(path, image_size=SIZE, channels=3)
    (copy / "metadata.json").write_text("{}")
    with pytest.raises(UserError, match="its table is not whole"):
        read_table(copy)


@pytest.mark.parametrize("content, said", [(b"", "holds 0 of its 20 records"), (None, "missing")])
def test_a_file_that_is_cut_off_or_missing(copy, content, said):
    path = read_table(copy).train_good()[0].path
    records(copy).unlink() if content is None else records(copy).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_image(path, image_size=SIZE, channels=3)


def test_other_images_are_not_written_over_shards(prepared, tiny_data, tmp_path):
    from jaxad.data.published.tfds_builders import prepare_shards

    other = shutil.copytree(tiny_data, tmp_path / "stripes")
    options = {"image_size": SIZE, "data_dir": prepared.parents[2]}
    assert prepare_shards(other, "mvtec", **options) == prepared  # the same images, moved
    (other / "train/good/0.png").unlink()
    with pytest.raises(UserError, match="shards of other images"):
        prepare_shards(other, "mvtec", **options)


def test_deep_images_are_read_as_the_config_says(tiny_data, tmp_path):
    from PIL import Image

    from jaxad.data.published.tfds_builders import prepare_shards

    for split in ("train", "test"):
        (tmp_path / split / "good").mkdir(parents=True)
        values = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
        Image.fromarray(values).save(tmp_path / split / "good" / "a.png")
    options = {"image_size": SIZE, "channels": 1, "data_dir": tmp_path / "shards"}
    table = read_table(prepare_shards(tmp_path, "mvtec", range_16bit="12", **options))
    assert table.range_16bit == (0.0, 4095.0)
    image = read_image(table.test()[0].path, image_size=SIZE, channels=1)
    expected = np.rint(values / 4095 * 255).astype(np.uint8)
    np.testing.assert_array_equal(image[..., 0], expected)


@pytest.mark.parametrize("record", [b"\n", b"\n\x05ab", b"\x08\x01", b"\n\x80"])
def test_a_record_of_another_kind(record):
    with pytest.raises(ValueError, match=r"it (ends|holds)"):
        bytes_features(record)


def test_reading_shards_imports_no_tensorflow(prepared, project_root):
    script = (
        "import sys\n"
        "from jaxad.data import read_table, prepare_images\n"
        f"table = read_table({str(prepared)!r})\n"
        "prepare_images(table.test(), image_size=(16, 16), channels=3)\n"
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=project_root)
