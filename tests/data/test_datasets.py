"""Folder layouts, masks and their errors, on small trees of real image files."""

import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxad.data.datasets import find_images, read_table
from jaxad.data.files import natural_key
from jaxad.data.layouts import GOOD_TEST_SHARE
from jaxad.run.errors import UserError


def write(root, *paths, value=0):
    for path in paths:
        place = pathlib.Path(root) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(place)


def seen(table):
    """relative path -> (split, kind, relative mask) of every sample."""
    return {
        table.relative(s): (
            s.split,
            s.defect,
            s.mask and pathlib.Path(s.mask).relative_to(table.root).as_posix(),
        )
        for s in table.samples
    }


@pytest.fixture
def mvtec(tmp_path):
    write(tmp_path, *(f"cap/train/good/{i}.png" for i in (10, 9, 1)))
    write(tmp_path, "cap/test/good/0.png", "cap/test/crack/0.png", "cap/test/dent/0.jpg")
    write(tmp_path, "cap/ground_truth/crack/0_mask.png", "cap/ground_truth/dent/0.png", value=255)
    return tmp_path


def test_mvtec_layout(mvtec):
    table = read_table(mvtec, category="cap")
    assert table.name == "mvtec"
    assert list(seen(table).items()) == [
        ("test/crack/0.png", ("test", "crack", "ground_truth/crack/0_mask.png")),
        ("test/dent/0.jpg", ("test", "dent", "ground_truth/dent/0.png")),
        ("test/good/0.png", ("test", "good", None)),
        ("train/good/1.png", ("train", "good", None)),
        ("train/good/9.png", ("train", "good", None)),
        ("train/good/10.png", ("train", "good", None)),
    ]
    assert [s.label for s in table.samples] == [1, 1, 0, 0, 0, 0]
    assert len(table.train_good()) == 3
    assert len(table.test()) == 3
    assert table.kinds() == ("crack", "dent")
    found = {k: [s.mask is not None for s in some] for k, some in table.by_kind("test").items()}
    assert found == {"good": [False], "crack": [True], "dent": [True]}
    assert list(found) == ["good", "crack", "dent"]


@pytest.mark.parametrize(
    ("place", "category"), [("", "cap"), ("cap", ""), ("cap", "cap"), ("", "")]
)
def test_the_ways_to_name_a_category(mvtec, place, category):
    table = read_table(mvtec / place, category=category)
    assert len(table.samples) == 6
    assert pathlib.Path(table.root) == mvtec / "cap"


def test_several_categories_are_named(mvtec):
    write(mvtec, "ring/train/good/0.png")
    with pytest.raises(UserError, match=r"choose one with data\.category: cap, ring"):
        read_table(mvtec)
    with pytest.raises(UserError, match="no category 'rin'; did you mean 'ring'"):
        read_table(mvtec, category="rin")
    with pytest.raises(UserError, match="known: cap, ring"):
        read_table(mvtec, category="zzzzzz")


def test_ok_and_ko(tmp_path):
    write(tmp_path, "01/train/ok/0.bmp", "01/test/ok/1.bmp", "01/test/ko/2.bmp")
    write(tmp_path, "01/ground_truth/ko/2.png", value=255)
    assert seen(read_table(tmp_path, category="01")) == {
        "train/ok/0.bmp": ("train", "good", None),
        "test/ok/1.bmp": ("test", "good", None),
        "test/ko/2.bmp": ("test", "ko", "ground_truth/ko/2.png"),
    }


def test_anomalous_training_images_are_listed_but_not_trained_on(mvtec):
    write(mvtec, "cap/train/crack/0.png")
    table = read_table(mvtec, category="cap")
    assert len(table.train_good()) == 3
    assert table.kinds() == ("crack", "dent")
    assert len(table.by_kind("train")["crack"]) == 1


def test_flat_folder_of_good_images(tmp_path):
    write(tmp_path, "b10.png", "b9.JPG", ".hidden.png")
    (tmp_path / "notes.txt").write_text("not an image")
    table = read_table(tmp_path)
    assert table.name == "folder"
    assert list(seen(table)) == ["b9.JPG", "b10.png"]
    assert not table.test()


def test_nested_folder_of_good_images(tmp_path):
    write(tmp_path, "may/line 1/a.png", "june/a.png", "b.png")
    assert all(value == ("train", "good", None) for value in seen(read_table(tmp_path)).values())
    assert len(read_table(tmp_path).samples) == 3


def test_good_beside_other_kinds(tmp_path):
    write(tmp_path, *(f"good/{i}.png" for i in range(10)), "crack/a.png", "dent/deep/a.png")
    write(tmp_path, "masks/crack/a_mask.png", "masks/dent/deep/a.png", value=255)
    table = read_table(tmp_path)
    assert len(table.train_good()) == 10 - round(10 * GOOD_TEST_SHARE)
    found = seen(table)
    assert found["crack/a.png"] == ("test", "crack", "masks/crack/a_mask.png")
    assert found["dent/deep/a.png"] == ("test", "dent", "masks/dent/deep/a.png")
    assert sum(s.label == 0 for s in table.test()) == 2
    assert seen(read_table(tmp_path)) == found


def test_good_folder_alone_is_all_for_training(tmp_path):
    write(tmp_path, *(f"OK/{i}.png" for i in range(5)))
    assert len(read_table(tmp_path).train_good()) == 5


def test_flat_folder_with_masks(tmp_path):
    write(tmp_path, *(f"{i}.png" for i in range(10)))
    write(tmp_path, "masks/3.png", "masks/4_mask.png", value=255)
    write(tmp_path, "masks/5.png", value=0)  # a mask of nothing belongs to a good image
    table = read_table(tmp_path)
    found = seen(table)
    assert found["3.png"] == ("test", "defect", "masks/3.png")
    assert found["4.png"] == ("test", "defect", "masks/4_mask.png")
    assert found["5.png"][1] == "good"
    assert sum(s.label for s in table.samples) == 2
    assert len(table.train_good()) == 6


def test_masks_beside_their_images(tmp_path):
    write(tmp_path, "train/a.png", "test/bad/b.jpg", "test/good/c.jpg")
    write(tmp_path, "test/bad/b_mask.png", value=255)
    assert seen(read_table(tmp_path)) == {
        "train/a.png": ("train", "good", None),
        "test/bad/b.jpg": ("test", "bad", "test/bad/b_mask.png"),
        "test/good/c.jpg": ("test", "good", None),
    }


def test_train_alone_and_flat_train_with_sorted_test(tmp_path):
    write(tmp_path, "train/a.png", "train/more/b.png")
    assert len(read_table(tmp_path).train_good()) == 2
    write(tmp_path, "test/ok/a.png", "test/crack/a.png", "ground_truth/crack/a.png")
    table = read_table(tmp_path)
    assert [s.defect for s in table.test()] == ["crack", "good"]
    assert table.test()[0].mask is not None


def test_unsorted_test_images_are_judged_by_their_masks(tmp_path):
    write(tmp_path, "train/a.png", "test/b.png", "test/c.png")
    with pytest.raises(UserError, match=r"b\.png has neither a kind nor a mask"):
        read_table(tmp_path)
    write(tmp_path, "ground_truth/test/c.png", value=1)
    assert [s.defect for s in read_table(tmp_path).test()] == ["good", "defect"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "holds no image"),
        (["bad/a.png"], "no good training image.*'bad'"),
        (["test/good/a.png", "test/bad/a.png"], "no good training image"),
        (["good/a.png", "b.png"], r"b\.png lies beside the folder of good"),
        (["x/good/a.png", "x/bad/a.png"], "a folder"),
        (["train/a.png", "b.png"], r"b\.png lies outside"),
        (["train/good/a.png", "test/b.png"], r"b\.png lies outside any kind"),
        (["a.png", "masks/b.png"], r"1 mask\(s\).*masks/b\.png"),
        (["a.png", "masks/a.png", "masks/a_mask.png"], r"two masks: masks/a\.png and masks/a_mask\.png"),
        (["a.png", "masks/a.png", "ground_truth/a.png"], "two masks"),
        (["a.png", "a.jpg", "masks/a.png"], r"masks/a\.png could belong to several images"),
        (["good/0.png", "x/0.png", "y/0.png", "masks/0.png"], "several images"),
        (["a.png", "a.jpg", "a_mask.png"], "several images"),
    ],
)  # fmt: skip
def test_bad_folders_end_in_one_sentence(tmp_path, paths, message):
    write(tmp_path, *paths, value=1)
    with pytest.raises(UserError, match=message) as raised:
        read_table(tmp_path)
    assert str(tmp_path) in str(raised.value) or "mask" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bad_arguments(tmp_path, mvtec):
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not a folder"):
        read_table(mvtec / "cap/test/good/0.png")
    with pytest.raises(UserError, match=r"data\.name 'mvtek'; did you mean 'mvtec'"):
        read_table(mvtec, name="mvtek")
    write(tmp_path, "flat/a.png")
    with pytest.raises(UserError, match="not the mvtec layout"):
        read_table(tmp_path / "flat", name="mvtec")


def test_corrupt_images_do_not_stop_the_table(mvtec):
    (mvtec / "cap/train/good/1.png").write_bytes(b"")
    assert len(read_table(mvtec, category="cap").samples) == 6


def test_links_to_folders_are_read_once(tmp_path):
    write(tmp_path, "data/a.png")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert len(read_table(tmp_path / "link").samples) == 1


def test_relative_outside_the_root(mvtec):
    table = read_table(mvtec, category="cap")
    outside = dataclasses.replace(table.samples[0], path="/elsewhere/a.png")
    assert table.relative(outside) == "/elsewhere/a.png"


def test_natural_order():
    names = ["a10.png", "a9.png", "A1.png", "b.png", "1.png", "01.png"]
    assert sorted(names, key=natural_key) == [
        "01.png",
        "1.png",
        "A1.png",
        "a9.png",
        "a10.png",
        "b.png",
    ]


def test_find_images(mvtec):
    folder = mvtec / "cap"
    everything = find_images(folder)
    assert len(everything) == 6
    assert everything[0].endswith("test/crack/0.png")
    one = str(folder / "test/good/0.png")
    assert find_images(one) == [one]
    assert find_images([one, folder / "test"]) == [one, *find_images(folder / "test")]
    odd = folder / "photo.dat"
    odd.write_bytes(b"x")
    assert find_images(odd) == [str(odd)]
    with pytest.raises(UserError, match="does not exist"):
        find_images(folder / "no.png")
    (mvtec / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        find_images(mvtec / "empty")


@pytest.mark.parametrize(
    ("place", "train", "good", "anomalous", "masks"),
    [
        ("mvtec_ad/bottle", 209, 20, 63, 63),
        ("magnetic_tile", 761, 191, 392, 392),
        ("hazelnut_toy", 28, 6, 17, 17),
        ("aws_cookies", 31, 14, 40, 32),
    ],
)
def test_real_folders(real_data, place, train, good, anomalous, masks):
    table = read_table(real_data / place)
    labels = [s.label for s in table.test()]
    assert len(table.train_good()) == train
    assert (labels.count(0), labels.count(1)) == (good, anomalous)
    assert sum(s.mask is not None for s in table.test()) == masks
