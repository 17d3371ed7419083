"""Folders as people have them are read as a careful person would read them."""

import pytest
from folder_case import Case, expanded, write
from folder_cases import CASES, answer, data_keys, page, summary
from PIL import Image

from jaxad.cli import main as cli
from jaxad.data.datasets import find_images, left_out, read_table
from jaxad.data.mask_folders import MASK_NAMES
from jaxad.data.masks import read_mask
from jaxad.data.table import ALL_SPLITS
from jaxad.evaluation.inputs import read_inputs, read_truths
from jaxad.run.config import load_settings
from jaxad.run.errors import UserError
from jaxad.run.folder import RunFolder
from jaxad.training.inputs import prepare_inputs


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


READ = [name for name, case in CASES.items() if not case.refused]


@pytest.mark.parametrize("name", READ)
def test_inspection_training_evaluation_and_prediction_agree(tmp_path, name, capsys):
    """On what is trained on, held out, tested, judged and told."""
    case = CASES[name]
    write(tmp_path, case)
    keys = data_keys(tmp_path, case)
    table = read_table(**keys)
    words = [f"--{key}={value}" for key, value in keys.items()]
    assert cli.main(["data", "inspect", *words]) == 0
    shown = capsys.readouterr().out
    rows = [line.split()[:4] for line in shown.splitlines() if line.startswith(ALL_SPLITS)]
    expected = [
        [split, kind, str(len(some)), str(sum(s.mask is not None for s in some))]
        for split in ALL_SPLITS
        for kind, some in table.by_kind(split).items()
    ]
    assert rows == expected
    assert all(f"note: {note}" in shown for note in table.notes)

    overrides = {f"data.{key}": value for key, value in keys.items()} | {"data.image_size": (8, 8)}
    config = load_settings("pca", overrides)
    inputs = prepare_inputs(config)
    names = {part: set(inputs.record[part]) for part in ("training", "holdout")}
    apart = {table.relative(s) for s in table.train_good() if s.split == "validation"}
    assert names["training"] | names["holdout"] == set(map(table.relative, table.train_good()))
    assert not names["training"] & names["holdout"] and names["holdout"] >= apart
    assert set(inputs.record["notes"]) >= set(table.notes)
    if table.test():
        run = RunFolder(tmp_path / "run")
        run.create()
        run.write_json(run.data, inputs.record)
        test = read_inputs(run, config, None)
        assert test.samples == list(table.test())
        assert all(
            (truth.mask is None) == (sample.mask is None and sample.label == 1)
            for sample, truth in zip(test.samples, read_truths(test.samples, config), strict=True)
        )
    if "root" not in case.options:
        # What lies outside the table is predicted on too: test images without labels, say.
        found = set(find_images(tmp_path, masks=case.options.get("masks", "")))
        assert {s.path for s in table.samples} <= found
        if name != "a kind of images that are black":
            masks = {str(tmp_path / p) for pattern, what in case.files.items() if what not in ("photo", "large")
                     for p in expanded(pattern)}  # fmt: skip
            assert not masks & found


def test_prediction_says_what_it_leaves_out(tmp_path):
    write(tmp_path, CASES["MVTec 3D-AD: `rgb`, `gt` and `xyz` inside each kind"])
    Image.new("L", (2, 2)).save(tmp_path / "train/good/rgb/9.gif")
    assert left_out(tmp_path) == [
        "7 files in folders xyz beside rgb (point clouds) are left out",
        "4 masks are left out",
        "1 of 21 image files are not read: 1 .gif",
    ]
    assert left_out(tmp_path / "train/good/rgb/0.png") == []


def test_a_folder_of_other_formats_to_predict_on(tmp_path):
    write(tmp_path, Case({"{0-2}.gif": "photo"}, ""))
    with pytest.raises(UserError, match="3 of 3 image files are not read"):
        find_images(tmp_path)


def test_patterns_of_files():
    assert expanded("a{0-1}/{2-3}") == ["a0/2", "a0/3", "a1/2", "a1/3"]


def test_the_page_is_made_of_these_cases(project_root):
    assert page() in (project_root / "docs" / "folders.md").read_text()


def test_images_without_an_ending_are_counted_as_not_read(tmp_path):
    write(tmp_path, Case({"{0-2}.png": "photo"}, "", texts={"README": "no image"}))
    (tmp_path / "0.png").rename(tmp_path / "IMG_0001")
    assert read_table(tmp_path).notes == ("1 of 3 image files are not read: 1 without ending",)
