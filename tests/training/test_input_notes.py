"""What is odd about the training images is told before the first step, and recorded."""

import numpy as np
import pytest
from PIL import Image

from jaxad.run.config import load_settings
from jaxad.training.inputs import prepare_inputs


def notes(root):
    settings = load_settings("pca", {"data.root": str(root), "data.image_size": "8,8"})
    return prepare_inputs(settings).record["notes"]


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([10, 20, 30], None),
        ([10, 20, 10], "pictures more than once in training, byte for byte: 1, first 0.png, 2.png"),
        ([10, 10, 10], "training images are equal to the last pixel"),
    ],
)
def test_repeated_images(tmp_path, pictures, expected, capsys):
    for i, level in enumerate(pictures):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / f"{i}.png")
    found = notes(tmp_path)
    assert any(expected in note for note in found) if expected else found == []
    assert (expected or "") in capsys.readouterr().err


def test_dark_images(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((8, 8), 4000 + i, np.uint16)).save(tmp_path / f"{i}.png")
    assert "data.range_16bit=12" in notes(tmp_path)[0]


@pytest.mark.parametrize(
    ("level", "expected"),
    [(255, "masks that mark more than half of their image (inverted?): 2 (bad/0.png, bad/1.png)"),
     (0, "anomalous images whose mask marks nothing: 2 (bad/0.png, bad/1.png)")],
)  # fmt: skip
def test_odd_masks(tmp_path, level, expected):
    for i in range(6):
        for folder in ("good", "bad", "masks")[: 3 if i < 3 else 1]:
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = np.full((8, 8), 10 * i + (folder == "bad"), np.uint8)
            if folder == "masks":
                pixels[:] = level if i < 2 else 0
                pixels[:2] = 255 if i == 2 else pixels[:2]
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    assert notes(tmp_path) == [f"of 3 masks that were looked at: {expected}"]


def write(root, path, level):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(root / path)


@pytest.mark.parametrize("stream", [False, True])
def test_leaks_are_named_before_training(tmp_path, stream):
    for i in range(6):
        write(tmp_path, f"train/good/{i}.png", 10 * i)
    write(tmp_path, "test/good/0.png", 20)
    write(tmp_path, "test/hole/0.png", 30)
    write(tmp_path, "test/hole/1.png", 200)
    keys = {"data.root": str(tmp_path), "data.image_size": "8,8", "data.stream": stream}
    found = prepare_inputs(load_settings("vqvae:small", keys)).record
    assert found["notes"] == [
        "pictures in training and test, byte for byte: 2, first test/good/0.png, train/good/2.png",
        "pictures good and defective, byte for byte: 1, first test/hole/0.png, train/good/3.png",
    ]
    assert len(found["pixels"]) == (1 if stream else 6)


def test_pictures_in_several_formats_are_one_as_the_model_sees_them(tmp_path):
    for i in range(4):
        write(tmp_path, f"{i}.png", 10 * i)
    write(tmp_path, "4.bmp", 20)
    assert notes(tmp_path) == [
        "pictures more than once in training, equal to the last pixel as the model sees them: 1, "
        "first 2.png, 4.bmp",
        "a copy among the held-out images makes thresholds too low",
    ]
