"""MNIST and CIFAR-10 in miniature, in every form in which they are read."""

import gzip
import pickle
import struct
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from jaxad.data.datasets import list_categories, read_table
from jaxad.data.images import decode
from jaxad.data.published.catalogue import published_categories
from jaxad.run.errors import UserError


def save(path, *, value, side, mode):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, np.uint8)).convert(mode).save(path)


def counts(table):
    found = Counter((s.split, s.defect) for s in table.samples)
    assert all((s.label == 0) == (s.defect == "good") for s in table.samples)
    return {f"{split}/{kind}": n for (split, kind), n in found.items()}


# Ten training and twenty test images whose pixels all have the value 10 * class.
CIFAR10_CLASSES = published_categories("cifar10")
LABELS = {"train": np.arange(10), "test": np.repeat(np.arange(10), 2)}


def gray(labels, side):
    return np.repeat(np.uint8(10 * labels), side * side).reshape(-1, side, side)


def write_npz(root, *, keys=("{}_images", "{}_labels")):
    arrays = {}
    for split, labels in LABELS.items():
        arrays[keys[0].format(split)] = gray(labels, 28)
        arrays[keys[1].format(split)] = np.uint8(labels)
    np.savez(root / "mnist.npz", **arrays)


def write_idx(root, *, packed=False, dot=False):
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = gray(LABELS[split], 28), np.uint8(LABELS[split])
        for what, magic, values in (("images", 0x803, images), ("labels", 0x801, labels)):
            header = struct.pack(f">{1 + values.ndim}I", magic, *values.shape)
            name = f"{prefix}-{what}{'.' if dot else '-'}idx{values.ndim}-ubyte"
            content = header + values.tobytes()
            if packed:
                (root / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (root / name).write_bytes(content)


def write_folders(root, classes, *, side=28, splits=("train", "test"), ending="png", mode="L"):
    for split, name in zip(LABELS, splits, strict=True):
        for i, label in enumerate(LABELS[split]):
            path = f"{name}/{classes[label]}/{i}.{ending}"
            save(root / path, value=10 * int(label), side=side, mode=mode)


def write_zip(root, classes, *, inside=""):
    folder = root / "unpacked"
    write_folders(folder, classes)
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, inside + file.relative_to(folder).as_posix())
            file.unlink()


def write_tfds(root, classes):
    """A folder as TensorFlow Datasets prepares it, by its own writer of record files."""
    tfds = pytest.importorskip("tensorflow_datasets")
    place = root / "mnist/3.0.1"
    place.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="mnist",
        version=tfds.core.Version("3.0.1"),
        data_dir=str(place),
        module_name="tensorflow_datasets.image_classification.mnist",
    )
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=len(classes)),
        }
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=100)
    writer.initialize_splits(list(LABELS))
    for split, labels in LABELS.items():
        images = gray(labels, 28)[..., None]
        rows = [{"image": i, "label": int(n)} for i, n in zip(images, labels, strict=True)]
        writer.add_examples({split: rows})
    writer.close_all()


MNIST_FORMS = {
    "npz": write_npz,
    "npz, Keras": lambda root: write_npz(root, keys=("x_{}", "y_{}")),
    "IDX": write_idx,
    "IDX, packed": lambda root: write_idx(root, packed=True),
    "IDX, dots": lambda root: write_idx(root, dot=True),
    "folders": lambda root: write_folders(root, "0123456789"),
    "mnist_png": lambda root: write_folders(root, "0123456789", splits=("training", "testing")),
    "zip": lambda root: write_zip(root, "0123456789"),
    "zip with a folder": lambda root: write_zip(root, "0123456789", inside="mnist/"),
    "TensorFlow Datasets": lambda root: write_tfds(root, "0123456789"),
}


@pytest.mark.parametrize("form", MNIST_FORMS)
def test_mnist_in_all_its_forms(tmp_path, form):
    MNIST_FORMS[form](tmp_path)
    table = read_table(tmp_path, name="mnist", category="3")
    others = {f"test/{digit}": 2 for digit in "012456789"}
    assert counts(table) == {"train/good": 1, "test/good": 2, **others}
    for sample in table.samples:
        image = decode(sample.path, channels=1)
        label = 3 if sample.label == 0 else int(sample.defect)
        assert image.shape == (28, 28, 1)
        assert (image == 10 * label).all()
        assert not table.relative(sample).startswith("/")
    assert "train/good: 6130 of 6131 published images are missing" in table.notes


def write_batches(root, *, binary=False, protocol=2):
    """Five training batches of two images and one test batch: 255 * one channel per class."""
    numbers = {f"data_batch_{i}": [2 * i - 2, 2 * i - 1] for i in range(1, 6)}
    numbers["test_batch"] = list(LABELS["test"])
    for name, labels in numbers.items():
        planes = np.zeros((len(labels), 3, 1024), np.uint8)
        for row, label in enumerate(labels):
            planes[row, label % 3] = 20 * label + 1
        data = planes.reshape(len(labels), 3072)
        if binary:
            records = np.concatenate([np.uint8(labels)[:, None], data], axis=1)
            (root / f"{name}.bin").write_bytes(records.tobytes())
        else:
            # Keys are bytes, as in the files that Python 2 wrote, read with encoding="bytes".
            batch = {b"data": data, b"labels": [int(n) for n in labels], b"batch_label": b"."}
            (root / name).write_bytes(pickle.dumps(batch, protocol=protocol))


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("options", [{"binary": True}, {"protocol": 2}, {"protocol": 4}])
def test_cifar10_batches(tmp_path, folder, options):
    (tmp_path / folder).mkdir(exist_ok=True)
    write_batches(tmp_path / folder, **options)
    table = read_table(tmp_path, name="cifar10", category="deer")
    others = {f"test/{name}": 2 for name in CIFAR10_CLASSES if name != "deer"}
    assert counts(table) == {"train/good": 1, "test/good": 2, **others}
    for sample in table.samples:
        label = CIFAR10_CLASSES.index("deer" if sample.label == 0 else sample.defect)
        expected = np.zeros((32, 32, 3), np.uint8)
        expected[..., label % 3] = 20 * label + 1
        np.testing.assert_array_equal(decode(sample.path, channels=3), expected)


def test_cifar10_jpegs_say_that_they_are_lossy(tmp_path):
    write_folders(tmp_path, CIFAR10_CLASSES, side=32, ending="jpg", mode="RGB")
    table = read_table(tmp_path, name="cifar10", category="cat")
    assert any("JPEG" in note for note in table.notes)
    assert decode(table.samples[0].path, channels=3).shape == (32, 32, 3)


def test_the_class_has_to_be_named(tmp_path):
    write_npz(tmp_path)
    with pytest.raises(UserError, match="needs the class that is normal"):
        read_table(tmp_path, name="mnist")
    with pytest.raises(
        UserError, match="cifar10 has no category 'aeroplane'; did you mean 'airplane'"
    ):
        read_table(tmp_path, name="cifar10", category="aeroplane")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="in no known form"):
        read_table(tmp_path / "empty", name="cifar10", category="cat")
    assert list_categories(tmp_path, name="mnist") == tuple("0123456789")


def test_incomplete_idx_and_batches_are_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="lacks t10k-labels"):
        read_table(tmp_path, name="mnist", category="0")
    write_batches(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(UserError, match="lacks data_batch_4"):
        read_table(tmp_path, name="cifar10", category="cat")
