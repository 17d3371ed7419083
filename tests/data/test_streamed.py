"""Streamed images give the batches of an array, bit for bit, and keep none of them."""

import gc
import itertools
import threading
import weakref

import numpy as np
import pytest
from PIL import Image

from jaxad.data import streamed, threads
from jaxad.data.cache import prepare_images
from jaxad.data.datasets import read_table
from jaxad.data.pipeline import evaluation_batches, training_batches
from jaxad.data.streamed import StreamedImages
from jaxad.run.errors import UserError

pytest.importorskip("tensorflow_datasets")

SIZE = (10, 12)
OPTIONS = {"image_size": SIZE, "channels": 3}
each_pipeline = pytest.mark.parametrize("pipeline", ["memory", "tf"])


@pytest.fixture(scope="module")
def shards(tiny_data, tmp_path_factory):
    from jaxad.data.published.tfds_builders import prepare_shards

    return prepare_shards(
        tiny_data, "mvtec", image_size=SIZE, data_dir=tmp_path_factory.mktemp("shards")
    )


@pytest.fixture(scope="module")
def array(tiny_data):
    return prepare_images(read_table(tiny_data).train_good(), **OPTIONS)


def take(batches, count):
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        for left, right in zip(x, y, strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


@each_pipeline
@pytest.mark.parametrize("source", ["folder", "shards"])
@pytest.mark.parametrize("local_rows", [slice(None), slice(2, 4)])
def test_batches_are_those_of_the_array(pipeline, source, local_rows, tiny_data, shards, array):
    root = {"folder": tiny_data, "shards": shards}[source]
    images = StreamedImages(read_table(root).train_good(), **OPTIONS)
    assert (len(images), images.shape, images.dtype) == (20, array.shape, array.dtype)
    options = {"batch_size": 6, "pipeline": pipeline, "local_rows": local_rows}
    pairs = [
        take(training_batches(each, seed=3, start_step=2, **options), 5) for each in (array, images)
    ]
    assert_same(*pairs)
    assert pairs[0][0].image.shape == ((6 if local_rows == slice(None) else 2), *SIZE, 3)
    assert_same(*(list(evaluation_batches(each, **options)) for each in (array, images)))


@each_pipeline
def test_shares_of_processes_make_up_the_batches(pipeline, array):
    options = {"batch_size": 6, "seed": 1, "pipeline": pipeline}
    whole = take(training_batches(array, **options), 4)
    parts = [
        take(training_batches(array, local_rows=slice(i, i + 2), **options), 4) for i in (0, 2, 4)
    ]
    joined = [
        type(whole[0])(*(np.concatenate(field) for field in zip(*step, strict=True)))
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_indexing(tiny_data, array):
    images = StreamedImages(read_table(tiny_data).train_good(), **OPTIONS)
    np.testing.assert_array_equal(images[2:5], array[2:5])
    np.testing.assert_array_equal(images[np.array([7, 7, 0])], array[[7, 7, 0]])
    assert images[:0].shape == (0, *SIZE, 3)
    with pytest.raises(IndexError):
        images[np.array([20])]


@each_pipeline
def test_a_damaged_file_is_one_sentence(pipeline, tmp_path):
    for i in range(6):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    content = paths[4].read_bytes()
    paths[4].write_bytes(content[: len(content) // 2])
    images = StreamedImages(paths, **OPTIONS)
    batches = training_batches(images, batch_size=3, seed=0, pipeline=pipeline)
    with pytest.raises(UserError, match=r"/4\.png is not an image"):
        take(batches, 2)
    for path in paths[:2]:
        path.write_bytes(b"no image")
    images = StreamedImages(paths, **OPTIONS)
    batches = training_batches(images, batch_size=1, seed=0, pipeline=pipeline)
    with pytest.raises(UserError, match=r"^3 of 6 images cannot .*/0\.png.*/1\.png.*/4\.png"):
        take(batches, 6)


@each_pipeline
def test_memory_is_bounded_by_the_batches_under_way(pipeline, tiny_data, monkeypatch):
    """Counts the decoded images that are alive while an epoch passes."""
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 2)
    alive, most, lock = weakref.WeakSet(), 0, threading.Lock()

    class Counted(np.ndarray):
        __hash__ = object.__hash__

    original = streamed.read_image

    def counting(*args, **kwargs):
        nonlocal most
        image = original(*args, **kwargs).view(Counted)
        with lock:
            alive.add(image)
            most = max(most, len(alive))
        return image

    monkeypatch.setattr(streamed, "read_image", counting)
    paths = [s.path for s in read_table(tiny_data).train_good()] * 20
    images = StreamedImages(paths, **OPTIONS)
    batches = training_batches(images, batch_size=4, seed=0, pipeline=pipeline)
    for _ in range(100):
        next(batches)
    batches.close()
    gc.collect()
    assert 1 <= most <= 16  # of 400; 2 threads for each batch that is under way
    assert len(alive) <= 2


def test_batches_run_ahead_by_a_few_only(tiny_data, monkeypatch):
    """The reader stops when nobody takes its batches."""
    decoded = []
    original = streamed.read_image

    def counting(path, **options):
        decoded.append(path)
        return original(path, **options)

    monkeypatch.setattr(streamed, "read_image", counting)
    images = StreamedImages([s.path for s in read_table(tiny_data).train_good()] * 20, **OPTIONS)
    batches = training_batches(images, batch_size=4, seed=0, pipeline="memory")
    next(batches)
    reader = next(t for t in threading.enumerate() if t.name.startswith("jaxad-batches"))
    reader.join(timeout=0.5)  # it lives on, waiting
    assert reader.is_alive()
    # Taken: 1; ready: 2; one more waits for its place.
    assert len(decoded) <= 4 * 4
    batches.close()


def test_the_threads_end_with_the_images(tiny_data):
    before = set(threading.enumerate())
    images = StreamedImages(read_table(tiny_data).train_good(), **OPTIONS)
    images[:4]
    started = set(threading.enumerate()) - before
    assert started
    del images
    gc.collect()
    for thread in started:
        thread.join(timeout=5)
        assert not thread.is_alive()
