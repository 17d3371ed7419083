"""The image cache: the same pixels in memory and from a file, and no half files."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxad.data import cache
from jaxad.data.cache import prepare_images
from jaxad.data.images import read_image
from jaxad.data.table import Sample
from jaxad.data.unreadable import UnreadableImages
from jaxad.run.errors import UserError

OPTIONS = {"image_size": (6, 8), "channels": 3}


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    result = []
    for i in range(150):  # more than two chunks
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(path)
        result.append(str(path))
    return result


def test_every_row_is_its_image(paths, tmp_path):
    images = prepare_images(paths, **OPTIONS, cache_dir=tmp_path / "c")
    assert images.shape == (150, 6, 8, 3)
    assert images.dtype == np.uint8
    for row in (0, 63, 64, 149):
        np.testing.assert_array_equal(images[row], read_image(paths[row], **OPTIONS))
    assert not (tmp_path / "c").exists()


def test_file_and_memory_agree_and_the_file_is_used_again(paths, tmp_path, monkeypatch):
    folder = tmp_path / "c"
    samples = [Sample(p, "train", "good") for p in paths]
    in_memory = prepare_images(samples, **OPTIONS, cache_dir=folder)
    mapped = prepare_images(samples, **OPTIONS, cache_dir=folder, memory_limit_mb=0)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, in_memory)
    assert len(os.listdir(folder)) == 1
    monkeypatch.setattr(cache, "read_image", None)  # decoding again would fail
    # The limit no longer matters once the file is there.
    np.testing.assert_array_equal(prepare_images(paths, **OPTIONS, cache_dir=folder), in_memory)


def test_changed_image_or_option_makes_another_file(paths, tmp_path):
    folder = tmp_path / "c"

    def prepare(**changes):
        return prepare_images(paths, **(OPTIONS | changes), cache_dir=folder, memory_limit_mb=0)

    before = prepare()
    Image.fromarray(np.zeros((9, 11, 3), np.uint8)).save(paths[3])
    after = prepare()
    assert before[3].any()
    assert not after[3].any()
    assert prepare(channels=1).shape[-1] == 1
    prepare(range_16bit=(0.0, 4095.0))
    assert len(os.listdir(folder)) == 4


def test_damaged_cache_file_is_written_anew(paths, tmp_path):
    folder = tmp_path / "c"
    expected = np.array(prepare_images(paths, **OPTIONS, cache_dir=folder, memory_limit_mb=0))
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    again = prepare_images(paths, **OPTIONS, cache_dir=folder, memory_limit_mb=0)
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("limit", [4096, 0])
def test_all_unreadable_files_are_named_together(paths, tmp_path, limit):
    for path in paths[:102]:
        open(path, "wb").close()
    with pytest.raises(UnreadableImages, match="102 of 150 images cannot be read") as raised:
        prepare_images(paths, **OPTIONS, cache_dir=tmp_path / "c", memory_limit_mb=limit)
    text = str(raised.value)
    assert all(path in text for path in paths[:100])
    assert raised.value.paths == tuple(paths[:102])
    assert "and 2 more" in text
    assert "\n" not in text
    if limit == 0:
        assert not os.listdir(tmp_path / "c")


def test_one_unreadable_file(paths, tmp_path):
    os.remove(paths[70])
    with pytest.raises(UserError, match=r"70\.png does not exist"):
        prepare_images(paths, **OPTIONS, cache_dir=tmp_path / "c")


def test_full_disk_is_one_sentence_and_leaves_nothing(paths, tmp_path):
    """A limit on the size of files makes a write fail as a full disk does."""
    folder = tmp_path / "c"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so that the write fails instead; said here so as to rely on it.
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(
            UserError, match=r"the image cache .*could not be written: .*memory_limit_mb"
        ):
            prepare_images(paths, **OPTIONS, cache_dir=folder, memory_limit_mb=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert not os.listdir(folder)


def test_killed_run_leaves_no_file_taken_for_whole(paths, tmp_path, project_root):
    folder = tmp_path / "c"
    script = (
        "import os, sys\n"
        "from jaxad.data import cache\n"
        "read = cache.read_image\n"
        "stop = lambda path, **how: os._exit(7) if '140.png' in path else read(path, **how)\n"
        "cache.read_image = stop\n"
        "cache.prepare_images(sys.argv[2:], image_size=(6, 8), channels=3, cache_dir=sys.argv[1],"
        " memory_limit_mb=0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(folder), *paths],
        env={**os.environ, "PYTHONPATH": str(project_root)},
    )
    assert run.returncode == 7
    (left,) = folder.iterdir()
    assert left.suffix == ".tmp"
    long_ago = time.time() - 2 * 3600
    os.utime(left, (long_ago, long_ago))
    images = prepare_images(paths, **OPTIONS, cache_dir=folder, memory_limit_mb=0)
    np.testing.assert_array_equal(images[149], read_image(paths[149], **OPTIONS))
    assert [file.suffix for file in folder.iterdir()] == [".npy"]


def test_no_images(tmp_path):
    assert prepare_images([], **OPTIONS, cache_dir=tmp_path).shape == (0, 6, 8, 3)


def test_real_images(real_data, tmp_path):
    from jaxad.data.datasets import read_table

    table = read_table(real_data / "hazelnut_toy")
    images = prepare_images(table.train_good(), image_size=(32, 48), channels=3, cache_dir=tmp_path)
    assert images.shape == (28, 32, 48, 3)
    assert 20 < images.mean() < 235
