"""What is measured on the files of a data set, and its contact sheet."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jaxad.data.contact_sheet import contact_sheet, write_contact_sheet
from jaxad.data.datasets import read_table
from jaxad.data.inspection import KindRow, inspect_table
from jaxad.run.errors import UserError


def save(place, pixels):
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place)


@pytest.fixture
def root(tmp_path):
    for i in range(3):
        save(tmp_path / f"train/good/{i}.png", np.full((20, 40, 3), 60 * i, np.uint8))
    save(tmp_path / "test/good/0.jpg", np.full((20, 40, 3), 90, np.uint8))
    for i, marked in enumerate((10, 40, 0)):
        save(tmp_path / f"test/dent/{i}.png", np.full((20, 40, 3), 128, np.uint8))
        mask = np.zeros((20, 40), np.uint8)
        mask.flat[:marked] = 255
        save(tmp_path / f"ground_truth/dent/{i}_mask.png", mask)
    save(tmp_path / "test/hole/0.png", np.zeros((10, 40, 3), np.uint8))
    return tmp_path


def test_numbers_sizes_formats_masks(root):
    found = inspect_table(read_table(root))
    assert found.rows == (
        KindRow("train", "good", 3, 0, None, None),
        KindRow("test", "good", 1, 0, None, None),
        # 10 and 40 of 800 pixels; the mask that marks nothing does not count.
        KindRow("test", "dent", 3, 3, 3.125, 5.0),
        KindRow("test", "hole", 1, 0, None, None),
    )
    assert found.sizes == {(20, 40): 7, (10, 40): 1}
    assert found.formats == {".png": 7, ".jpg": 1}
    assert found.components == 2 and found.vanishing == {}
    assert any("marks nothing: 1 (test/dent/2.png)" in note for note in found.notes)
    assert any("without a mask: 1 (test/hole/0.png)" in note for note in found.notes)


def test_defects_smaller_than_the_models_pixels_are_counted(root):
    save(root / "test/dent/0.png", np.zeros((400, 400), np.uint8))
    mask = np.zeros((400, 400), np.uint8)
    rng = np.random.default_rng(0)
    for place in range(0, 400, 25):
        mask[place + rng.integers(20), rng.integers(400)] = 1
    mask[0:10, 0:10] = 1
    save(root / "ground_truth/dent/0_mask.png", mask)
    found = inspect_table(read_table(root))
    assert found.components == 17 + 1
    # A single pixel is hit by the grid of 128 or 256 by chance, and always by one of 512.
    assert list(found.vanishing) == [128, 256]
    assert 16 >= found.vanishing[128] > found.vanishing[256] > 0


def test_pictures_that_are_there_twice_and_inverted_masks_are_named(root):
    (root / "test/good/7.png").write_bytes((root / "train/good/1.png").read_bytes())
    same = np.asarray(Image.open(root / "train/good/2.png"))
    save(root / "test/hole/1.bmp", same)  # the same pixels in another file
    save(root / "train/good/8.tif", same)
    save(root / "ground_truth/hole/1.png", np.full((20, 40), 255, np.uint8))
    notes = inspect_table(read_table(root)).notes
    for part in (
        "training and test, equal to the last pixel: 2, first",
        "good and defective, equal to the last pixel: 1, first test/hole/1.bmp, train/good/2.png",
        "more than once in training, equal to the last pixel: 1",
        "more than half of their image (inverted?): 1 (test/hole/1.bmp)",
    ):
        assert any(part in note for note in notes), (part, notes)


def test_files_that_cannot_be_used_are_counted(root):
    (root / "train/good/1.png").write_bytes(b"")
    save(root / "ground_truth/dent/0_mask.png", np.zeros((5, 5), np.uint8))
    notes = inspect_table(read_table(root)).notes
    assert any(note.startswith("2 files cannot be used") for note in notes)


@pytest.mark.parametrize(
    ("gone", "words"),
    [(("good", "dent", "hole"), "no test images"), (("dent", "hole"), "no anomalous test images"),
     (("good",), "no good test images")],
)  # fmt: skip
def test_what_cannot_be_measured(root, gone, words):
    for kind in gone:
        for file in [*(root / "test" / kind).iterdir(), *root.glob(f"ground_truth/{kind}/*")]:
            file.unlink()
    assert any(words in note for note in inspect_table(read_table(root)).notes)


def test_contact_sheet(root):
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(read_table(root), columns=2))))
    # Four kinds, two columns of 128 pixels with gaps of 8.
    assert sheet.shape == (8 + 4 * (18 + 128 + 8), 8 + 2 * (128 + 8), 3)
    # The first of three good images is black, the last of the two shown has the gray 120.
    assert (sheet[8 + 18 : 8 + 18 + 64, 8 : 8 + 128] == 0).all()
    assert (sheet[8 + 18 : 8 + 18 + 64, 144 : 144 + 128] == 120).all()
    outlined = (sheet == (230, 30, 120)).all(axis=-1)
    top = 8 + 2 * (18 + 128 + 8)
    assert outlined[top : top + 154].any() and outlined.sum() == outlined[top : top + 154].sum()


def test_contact_sheet_shows_what_cannot_be_read(root, tmp_path):
    (root / "train/good/0.png").write_bytes(b"no image")
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(read_table(root)))))
    assert (sheet[8 + 18 : 8 + 146, 8 : 8 + 128] == (230, 30, 120)).all(axis=-1).any()
    # A mask that an evaluation would refuse is not stretched over its image.
    mask = next((root / "ground_truth").rglob("*.png"))
    Image.new("L", (3, 3), 255).save(mask)
    spoilt = np.asarray(Image.open(io.BytesIO(contact_sheet(read_table(root)))))
    crossed = [(picture == (235, 235, 235)).all(axis=-1).sum() for picture in (sheet, spoilt)]
    assert crossed[1] > 1.9 * crossed[0] > 0
    write_contact_sheet(read_table(root), tmp_path / "new" / "sheet.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), spoilt)
    with pytest.raises(UserError, match="could not be written"):
        write_contact_sheet(read_table(root), root / "train/good/0.png/sheet.png")


def test_masks_with_levels_in_between_are_told(root):
    mask = Image.new("L", (400, 200))
    mask.paste(255, (53, 56, 178, 129))
    soft = np.array(mask.resize((40, 20), Image.Resampling.LANCZOS))
    save(root / "ground_truth/dent/0_mask.png", soft)
    (note,) = [n for n in inspect_table(read_table(root)).notes if "in between" in n]
    assert note.startswith("masks with levels in between, as compression")
    assert "1 (test/dent/0.png); their pixels count from half of the highest level" in note
    soft[15:20, 35:39] = 90
    save(root / "ground_truth/dent/0_mask.png", soft)
    (note,) = [n for n in inspect_table(read_table(root)).notes if "in between" in n]
    assert note.endswith("the largest of 20 pixels: a defect drawn darker than others?")
    stream, draw = io.BytesIO(), ImageDraw.Draw(mask)
    draw.ellipse((53, 56, 178, 129), fill=255)
    draw.line((200, 20, 380, 190), fill=255, width=3)
    mask.save(stream, "JPEG", quality=20)
    white = (np.array(Image.open(stream)) > 0) * np.uint8(255)
    save(root / "test/dent/0.png", np.zeros((200, 400), np.uint8))
    save(root / "ground_truth/dent/0_mask.png", white)
    (note,) = [n for n in inspect_table(read_table(root)).notes if "4 pixels or fewer" in n]
    assert note.endswith("1 (test/dent/0.png)")
