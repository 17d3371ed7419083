"""Pages of TIFF files and frames of animations, by name and as images of their own."""

import numpy as np
import pytest
from PIL import Image

from jaxad.data.datasets import find_images, read_table
from jaxad.data.files import file_of, split_page
from jaxad.data.images import decode, image_dimensions
from jaxad.data.masks import read_mask
from jaxad.data.notes import page_notes
from jaxad.data.pages import pages_of
from jaxad.run.errors import UserError


def write_pages(path, levels, size=(6, 8)):
    """A file with a page of each gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = [Image.fromarray(np.full(size, level, np.uint8)) for level in levels]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    pages[0].save(path, save_all=len(pages) > 1, append_images=pages[1:], **lossless)


@pytest.mark.parametrize("name", ["scan.tif", "scan.webp", "scan.gif"])
def test_a_page_by_its_number(tmp_path, name):
    path = tmp_path / name
    write_pages(path, (10, 20, 30))
    assert [decode(f"{path}[{n}]", channels=1)[0, 0, 0] for n in range(3)] == [10, 20, 30]
    assert decode(path, channels=1)[0, 0, 0] == 10
    assert image_dimensions(f"{path}[2]") == (6, 8)
    assert find_images(f"{path}[1]") == [f"{path}[1]"]
    with pytest.raises(UserError, match=r"\[3\]: the file has 3 pages, counted from 0"):
        decode(f"{path}[3]", channels=1)
    with pytest.raises(UserError, match="does not exist"):
        find_images(f"{tmp_path / 'none.tif'}[1]")


def test_sizes_and_tags_are_those_of_the_page(tmp_path):
    upright, turned = (Image.fromarray(np.zeros((6, 8), np.uint8)) for _ in range(2))
    turned.encoderinfo = {"tiffinfo": {274: 6}}
    upright.save(tmp_path / "a.tif", save_all=True, append_images=[turned])
    assert [image_dimensions(tmp_path / "a.tif[0]"), image_dimensions(tmp_path / "a.tif[1]")] == [
        (6, 8), (8, 6)
    ]  # fmt: skip
    for page in range(2):
        path = f"{tmp_path / 'a.tif'}[{page}]"
        assert decode(path, channels=1).shape[:2] == image_dimensions(path)


def test_what_a_page_is_not(tmp_path):
    write_pages(tmp_path / "a[1].png", (10,))
    path = str(tmp_path / "a[1].png")
    assert split_page(path) is None and decode(path, channels=1)[0, 0, 0] == 10
    write_pages(tmp_path / "b.png", (20,))
    (tmp_path / "b.png[0]").write_bytes((tmp_path / "a[1].png").read_bytes())
    assert split_page(tmp_path / "b.png[0]") is None  # a file of that name
    assert split_page(tmp_path / "b.png[1]") == (str(tmp_path / "b.png"), 1)
    assert file_of(tmp_path / "b.png[1]") == str(tmp_path / "b.png")
    assert pages_of(tmp_path / "b.png") == [str(tmp_path / "b.png")]


@pytest.fixture
def scans(tmp_path):
    write_pages(tmp_path / "good/a.tif", (10, 20, 30))
    write_pages(tmp_path / "good/b.png", (40,))
    write_pages(tmp_path / "bad/c.tif", (50, 60))
    write_pages(tmp_path / "masks/c.tif", (255, 0))
    return tmp_path


def test_each_page_an_image(scans):
    first = read_table(scans)
    assert len(first.samples) == 3
    assert "data.pages=each reads all" in page_notes([s.path for s in first.samples])[0]
    table = read_table(scans, pages="each")
    names = [table.relative(sample) for sample in table.samples]
    assert names == ["bad/c.tif[0]", "bad/c.tif[1]", *(f"good/a.tif[{n}]" for n in range(3)),
                     "good/b.png"]  # fmt: skip
    assert [read_mask(s.mask).all() for s in table.samples[:2]] == [True, False]
    assert len(find_images(scans, pages="each")) == 6
    # The pages of a file stay in one split.
    assert len({s.split for s in table.samples if "a.tif" in s.path}) == 1


def test_a_mask_of_one_page_for_several(scans):
    write_pages(scans / "masks/c.tif", (255,))
    with pytest.raises(UserError, match=r"c.tif has 2 pages, but its mask .*c.tif has 1"):
        read_table(scans, pages="each")


def test_training_and_prediction_on_pages(scans, tmp_path, monkeypatch):
    import jaxad
    from jaxad.evaluation.predict_files import predict_files

    write_pages(scans / "good/d.tif", range(100, 116, 2))
    keys = {"data.root": str(scans), "data.pages": "each", "data.image_size": (16, 16),
            "model.components": 2, "train.devices": 1}  # fmt: skip
    jaxad.train(jaxad.load_config("pca", keys), tmp_path / "run")
    metrics = jaxad.evaluate(tmp_path / "run")
    assert metrics["counts"]["anomalous"] == 2
    result = predict_files(tmp_path / "run", [scans / "bad"], tmp_path / "out")
    assert [row["files"]["overlay"] for row in result["images"]] == [
        "overlays/c.tif[0].png", "overlays/c.tif[1].png"
    ]  # fmt: skip
    predictions = jaxad.load_detector(tmp_path / "run").predict(scans / "bad")
    assert [p.score for p in predictions] == pytest.approx(
        [row["score"] for row in result["images"]], rel=1e-6
    )


def test_a_list_may_name_pages(tmp_path):
    write_pages(tmp_path / "scan.tif", (10, 20))
    rows = ["path,label,split", "scan.tif[0],good,train", "scan.tif[1],bad,test"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    table = read_table(tmp_path / "list.csv")
    assert [(table.relative(s), s.split) for s in table.samples] == [
        ("scan.tif[0]", "train"), ("scan.tif[1]", "test"),
    ]  # fmt: skip
