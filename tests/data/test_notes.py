"""What readers say of images and masks that are not what their owner may think."""

import numpy as np
import pytest
from PIL import Image

from jaxad.data.datasets import read_table
from jaxad.data.deep_range import resolve_range_16bit
from jaxad.data.images import FULL_RANGE
from jaxad.data.inspection import inspect_table
from jaxad.data.notes import contrast_notes, depth_notes, page_notes, range_notes
from jaxad.data.table import KIND_UNKNOWN
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.training.inputs import prepare_inputs

PHOTO = np.random.default_rng(0).integers(40, 200, (12, 16, 3), np.uint8)


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, **options)
    return path


def trained(root):
    keys = {"data.root": str(root), "data.image_size": (8, 8)}
    return prepare_inputs(load_settings("pca", keys)).record["notes"]


def test_deep_images_among_others_are_named_wherever_they_are(tmp_path):
    for i in range(12):
        save(tmp_path / f"train/good/{i}.png", PHOTO + np.uint8(i))
    save(tmp_path / "test/good/0.png", PHOTO[..., 0].astype(np.uint16) * 16)
    table = read_table(tmp_path)
    (note,) = depth_notes(table, table.samples)
    assert note.startswith("gray images of more than 8 bits are among 12 others: 1 (test/good/0")
    assert note in inspect_table(table).notes
    assert note in trained(tmp_path)
    assert depth_notes(table, table.test()) == depth_notes(table, table.train_good()) == []


def test_values_that_cannot_be_read_tell_nothing_of_the_range(tmp_path):
    path = save(tmp_path / "a.tif", np.float32([[0, 255]]))
    assert range_notes([path], FULL_RANGE) == []


@pytest.mark.parametrize("levels", [(240, 255), (0, 15)])
def test_images_of_hardly_any_contrast_are_told(tmp_path, levels):
    low, high = levels
    for i in range(3):
        noise = np.random.default_rng(i).integers(low, high + 1, (12, 16, 3), np.uint8)
        save(tmp_path / f"{i}.png", noise)
    told = f"have levels from {low} to {high}, 16 of 256"
    assert any(told in note for note in inspect_table(read_table(tmp_path)).notes)
    assert any("of 256: hardly anything" in note for note in trained(tmp_path))
    assert contrast_notes(low, high + 1, "images") == []


def test_inspection_names_images_that_alpha_hides(tmp_path):
    for i in range(2):
        save(tmp_path / f"{i}.png", np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255 * i, np.uint8)]))
    found = inspect_table(read_table(tmp_path))
    assert found.sizes == {(12, 16): 2}
    told = "images that alpha hides altogether, refused without data.alpha=ignore: 1 (0.png)"
    assert told in found.notes


def test_inspection_says_that_one_good_image_is_too_few(tmp_path):
    save(tmp_path / "0.png", PHOTO)
    told = "there is 1 good training image"
    assert any(note.startswith(told) for note in inspect_table(read_table(tmp_path)).notes)
    save(tmp_path / "1.png", PHOTO)
    assert not any(note.startswith(told) for note in inspect_table(read_table(tmp_path)).notes)


def test_pages_of_test_images_and_masks_are_told_but_not_of_pages(tmp_path):
    pages = {"save_all": True, "append_images": [Image.fromarray(PHOTO)]}
    for i in range(3):
        save(tmp_path / f"train/good/{i}.tif", PHOTO)
    one = save(tmp_path / "test/bad/0.tif", Image.fromarray(PHOTO), **pages)
    save(tmp_path / "ground_truth/bad/0.tif", Image.new("L", (16, 12)), **pages)
    notes = [note for note in trained(tmp_path) if "several pages" in note]
    assert [note.split(" hold")[0] for note in notes] == ["2 of 5 files that were looked at"]
    assert page_notes([f"{one}[0]", f"{one}[1]"]) == []
    each = inspect_table(read_table(tmp_path, pages="each")).notes
    assert not any("several pages" in note for note in each)


@pytest.mark.parametrize("spec", ["12", "percentiles"])
def test_all_deep_images_that_cannot_be_read_are_named(tmp_path, spec):
    paths = [save(tmp_path / f"{i}.png", PHOTO[..., 0].astype(np.uint16)) for i in range(3)]
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(UserError, match=r"2 of 3 images cannot be read: .*0\.png.*1\.png"):
        resolve_range_16bit(paths, spec)


def test_all_damaged_masks_that_tell_kinds_are_named(tmp_path):
    for i in range(3):
        save(tmp_path / f"images/{i}.png", PHOTO)
        path = save(tmp_path / f"masks/{i}.png", PHOTO[..., 0] // 200)
        if i:
            path.write_bytes(b"no image")
    table = read_table(tmp_path)
    assert [s.defect for s in table.samples] == ["good", KIND_UNKNOWN, KIND_UNKNOWN]
    (note,) = [note for note in table.notes if "tell if they are good" in note]
    assert note.endswith("with --skip-unreadable): 2, first images/1.png")
    (faults,) = [n for n in inspect_table(table).notes if "cannot be used" in n]
    assert all(f"masks/{i}.png" in faults for i in (1, 2))
    (tmp_path / "masks/0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot be read, those of 3 \(first images/0\.png\)"):
        read_table(tmp_path)
