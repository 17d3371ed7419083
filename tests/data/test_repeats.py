"""Pictures that are there more than once, by what files hold."""

import shutil

import numpy as np
import pytest
from PIL import Image

from jaxad.data import repeats
from jaxad.data.repeats import find_repeats, keys_of_files, pixel_digest, pixel_digests
from jaxad.data.table import Sample, SampleTable


@pytest.fixture
def samples(tmp_path):
    """A training image, its copy in test, one that is called defective too, and two others."""
    kinds = {"a": ("train", "good"), "b": ("test", "good"), "c": ("test", "hole"),
             "d": ("train", "good"), "e": ("validation", "good")}  # fmt: skip
    for number, name in enumerate(kinds):
        Image.fromarray(np.full((4, 4), 10 * number, np.uint8)).save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "c.png")
    shutil.copy(tmp_path / "d.png", tmp_path / "e.png")
    return {n: Sample(str(tmp_path / f"{n}.png"), *kind) for n, kind in kinds.items()}


def test_groups_and_sentences(samples, tmp_path):
    a, b, c, d, e = samples.values()
    found = find_repeats(keys_of_files(samples.values()))
    assert found == repeats.Repeats(((a, b, c),), ((a, b, c),), ((d, e),))
    assert found.test_images() == 2
    table = SampleTable(str(tmp_path), "folder", "", (a, b, c, d, e))
    assert found.notes(table, "byte for byte") == [
        "pictures in training and test, byte for byte: 1, first a.png, b.png, c.png",
        "pictures good and defective, byte for byte: 1, first a.png, b.png, c.png",
        "pictures more than once in training, byte for byte: 1, first d.png, e.png",
    ]


def test_only_files_of_one_size_are_read_and_known_ones_are_not(samples, tmp_path, monkeypatch):
    read, original = [], repeats.sha256_of
    monkeypatch.setattr(repeats, "sha256_of", lambda path: read.append(path) or original(path))
    (tmp_path / "d.png").write_bytes(b"of a size of its own")
    (tmp_path / "e.png").unlink()
    known = {samples["a"].path: original(samples["a"].path)}
    keys = keys_of_files(samples.values(), known)
    assert {s.path for s in keys} == {samples[n].path for n in "abc"} and len(
        set(keys.values())
    ) == 1
    assert sorted(read) == [samples["b"].path, samples["c"].path]


def test_digests_of_pixels():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    images[2] = images[0]
    one, other, same = pixel_digests(images)
    assert one == same != other
    assert pixel_digest(images[0][:, ::-1][:, ::-1]) == one  # whatever lies in memory
