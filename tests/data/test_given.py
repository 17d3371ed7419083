"""Images as a program holds them give the pixels that their files give."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxad.data.given import given_images
from jaxad.data.images import decode
from jaxad.run.errors import UserError

HOW = {"channels": 3, "range_16bit": (0.0, 65535.0), "alpha": "white"}


def pixels(images, **how):
    return [one.decode(**(HOW | how)) for one in given_images(images)]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_every_kind_gives_what_the_file_gives(photo):
    want = decode(photo, channels=3)
    content = photo.read_bytes()
    with photo.open("rb") as file:
        kinds = [str(photo), photo, content, file, io.BytesIO(content), Image.open(photo), want]
        kinds += [want[None], [want], want / 255.0, (want / 255.0).astype(np.float32)]
        for kind in kinds:
            (found,) = pixels(kind)
            np.testing.assert_array_equal(found, want)
    several = pixels([photo, content, want])
    assert len(several) == 3 and all(np.array_equal(one, want) for one in several)
    assert [one.path for one in given_images([photo, content])] == [str(photo), None]


def test_gray_alpha_and_sixteen_bits_follow_the_rules_of_files(tmp_path):
    rng = np.random.default_rng(1)
    for values in (
        rng.integers(0, 256, (4, 6), np.uint8),
        rng.integers(0, 256, (4, 6, 4), np.uint8),
        rng.integers(0, 4096, (4, 6), np.uint16),
    ):
        path = tmp_path / "image.png"
        Image.fromarray(values).save(path)
        for how in ({}, {"channels": 1}, {"range_16bit": (0.0, 4095.0)}, {"alpha": "ignore"}):
            want = decode(path, **(HOW | how))
            np.testing.assert_array_equal(pixels(values, **how)[0], want)
            np.testing.assert_array_equal(pixels(Image.fromarray(values), **how)[0], want)
    gray = rng.integers(0, 256, (4, 6, 1), np.uint8)
    np.testing.assert_array_equal(pixels(gray)[0], np.repeat(gray, 3, axis=2))


def test_the_orientation_of_a_photograph_in_memory_counts(tmp_path):
    turned = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    turned.getexif()[274] = 6
    content = io.BytesIO()
    turned.save(content, "JPEG", exif=turned.getexif())
    assert pixels(content.getvalue())[0].shape == (6, 4, 3)


class OtherLibrary:
    """An array that is not NumPy's."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_arrays_of_other_libraries_are_read():
    values = np.full((4, 6, 3), 9, np.uint8)
    np.testing.assert_array_equal(pixels(OtherLibrary(values))[0], values)
    assert len(pixels(OtherLibrary(np.stack([values, values])))) == 2
    assert len(pixels([OtherLibrary(values)])) == 1


def test_images_are_taken_one_by_one_from_an_iterator():
    taken = []

    def camera():
        for number in range(3):
            taken.append(number)
            yield np.full((2, 2), number, np.uint8)

    images = given_images(camera())
    assert taken == [] and next(images) and taken == [0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4, 3), np.int64), "the image has values of type int64"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)], "image 1 .* type bool"),
        (np.full((4, 4), 2.0), r"the image holds float values from 2 to 2; scale them"),
        (np.full((4, 4), np.nan), "float values"),
        (np.full((4, 4), -0.1), "float values"),
        (np.zeros((4, 4, 3), np.uint16), "16-bit colour"),
        (np.zeros((8, 5, 5), np.uint8), r"\(8, 5, 5\).*several gray images are \(n, h, w, 1\)"),
        (np.zeros((3, 5), np.uint8)[:0], r"shape \(0, 5\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\) is neither"),
        ([np.zeros((2, 4, 4, 3), np.uint8)], r"image 0 has the shape \(2, 4, 4, 3\)"),
        (3, "an int is no image"),
        ([None], "image 0 is a NoneType; give a path"),
        (io.StringIO("text"), 'with the mode "rb"'),
        (["no/such/file.png"], "does not exist"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_anything_else_is_refused_in_one_sentence(images, message):
    with pytest.raises(UserError, match=message):
        given_images(images)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the image is empty"), (b"no image", "the image is not an image in a format")],
)
def test_damaged_content_is_named(content, message):
    (one,) = given_images(content)
    with pytest.raises(UserError, match=message):
        one.decode(**HOW)


def test_a_damaged_file_in_memory_is_named(photo):
    (one,) = given_images([photo.read_bytes()[:60]])
    with pytest.raises(UserError, match="image 0 cannot be read, it may be damaged"):
        one.decode(**HOW)
