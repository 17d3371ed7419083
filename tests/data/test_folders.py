"""Folders as people have them are read as a careful person would read them."""

import pytest
from folder_cases import CASES, Case, answer, expanded, page, summary, write

from jaxad.data.datasets import find_images, read_table
from jaxad.data.mask_folders import MASK_NAMES
from jaxad.data.masks import read_mask
from jaxad.run.errors import UserError


@pytest.mark.parametrize("name", CASES)
def test_what_is_made_of_a_folder(tmp_path, name):
    case = CASES[name]
    write(tmp_path, case)
    read, notes = answer(tmp_path, case)
    if case.refused:
        assert case.read in read
    else:
        assert read == case.read
    for part in case.notes:
        assert any(part in note for note in notes), notes


@pytest.mark.parametrize("name", [*MASK_NAMES, "Ground_Truth", "GROUND-TRUTH"])
def test_every_name_of_masks(tmp_path, name):
    write(tmp_path, Case({"good/{0-2}.png": "photo", "bad/{0-1}.png": "photo",
                          f"{name}/{{0-1}}.png": "mask"}, ""))  # fmt: skip
    assert summary(read_table(tmp_path)) == "train: 2 good; test: 1 good, 2 bad (2 masks)"
    assert len(find_images(tmp_path)) == 5


def test_several_masks_of_an_image_are_united(tmp_path):
    case = CASES["several masks of one image"]
    write(tmp_path, case)
    sample = read_table(tmp_path).by_kind("test")["hole"][0]
    assert len(sample.mask) == 2
    one, other = map(read_mask, sample.mask)
    assert (one != other).any()
    assert (read_mask(sample.mask) == (one | other)).all()


def test_a_folder_of_other_formats_to_predict_on(tmp_path):
    write(tmp_path, Case({"{0-2}.gif": "photo"}, ""))
    with pytest.raises(UserError, match="3 of 3 image files are not read"):
        find_images(tmp_path)


def test_patterns_of_files():
    assert expanded("a{0-1}/{2-3}") == ["a0/2", "a0/3", "a1/2", "a1/3"]


def test_the_page_is_made_of_these_cases(project_root):
    assert page() in (project_root / "docs" / "folders.md").read_text()
