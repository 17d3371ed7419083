"""Maps of any tool against a data set: the figures, the layouts, and every mistake named."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxad import metrics
from jaxad.cli import main as cli
from jaxad.evaluation.score_maps import score_maps
from jaxad.run.errors import UserError

SHAPE = (48, 64)


def map_of(kind, i):
    rng = np.random.default_rng([kind == "box", i])
    values = rng.normal(30, 3, SHAPE).astype("f4")
    if kind == "box":
        values[12:20, 20:32] += 4
    return values


def write_maps(tiny, folder, category="stripes"):
    for kind in ("good", "box"):
        for i in range(4):
            tiny.save(
                folder / "anomaly_maps" / category / "test" / kind / f"{i:03}.tiff", map_of(kind, i)
            )
    return folder


@pytest.fixture
def places(tiny, tmp_path):
    return write_maps(tiny, tmp_path / "maps"), tiny.write_data(
        tmp_path / "data" / "stripes", train=2
    )


def expected():
    mask = np.zeros(SHAPE, bool)
    mask[12:20, 20:32] = True
    # The table's order: kinds by name.
    maps = [map_of(kind, i) for kind in ("box", "good") for i in range(4)]
    masks = [mask] * 4 + [mask & False] * 4
    return metrics.evaluate_maps(maps, masks, defects=["box"] * 4 + ["good"] * 4)


def test_figures_are_those_of_the_maps(places, tmp_path):
    maps, root = places
    result = score_maps(maps, root, output=tmp_path / "new" / "out.json")
    row = result["categories"]["stripes"]
    intervals = row["intervals"]
    assert row.items() >= expected().items()
    low, high = intervals["image_auroc"]
    assert low <= row["image_auroc"] <= high
    assert result["resolution"] == "image"
    assert result["mean"]["aupro"] == row["aupro"]
    assert json.loads((tmp_path / "new" / "out.json").read_text())["categories"]["stripes"] == row


@pytest.mark.parametrize("root", ["data", "data/stripes"])
@pytest.mark.parametrize("folder", ["maps", "maps/anomaly_maps", "maps/anomaly_maps/stripes"])
def test_folders_may_be_named_at_any_depth(places, tmp_path, root, folder):
    whole = root == "data" and folder.endswith("stripes")
    result = score_maps(tmp_path / folder, tmp_path / root, category="stripes" if whole else "")
    assert result["categories"]["stripes"]["aupro"] == expected()["aupro"]


def test_all_categories_and_their_mean(tiny, places, tmp_path):
    maps, _ = places
    tiny.write_data(tmp_path / "data" / "other", train=2)
    with pytest.raises(UserError, match=r"has no maps of other.*--category=NAME scores one"):
        score_maps(maps, tmp_path / "data")
    shutil.copytree(maps / "anomaly_maps" / "stripes", maps / "anomaly_maps" / "other")
    file = maps / "anomaly_maps" / "other" / "test" / "box" / "001.tiff"
    Image.fromarray(map_of("box", 1) - 20).save(file)
    result = score_maps(maps, tmp_path / "data")
    rows = result["categories"]
    assert [*rows] == ["other", "stripes"]
    assert rows["other"]["aupro"] < rows["stripes"]["aupro"]
    mean = (rows["other"]["aupro"] + rows["stripes"]["aupro"]) / 2
    assert result["mean"]["aupro"] == pytest.approx(mean, abs=1e-12)
    one = score_maps(maps, tmp_path / "data", category="stripes")
    assert [*one["categories"]] == ["stripes"]


def test_little_memory_streams(places):
    maps, root = places
    row = score_maps(maps, root, memory_limit_mb=0.1)["categories"]["stripes"]
    exact = expected()
    assert row["method"] == "streaming"
    low, high = row["brackets"]["aupro"]
    assert low <= exact["aupro"] <= high and high - low < 1e-4
    assert row["image_auroc"] == exact["image_auroc"]


def test_masks_may_come_to_the_maps_size(places):
    maps, root = places
    for file in (maps / "anomaly_maps").rglob("*.tiff"):
        half = np.asarray(Image.open(file))[::2, ::2]
        Image.fromarray(np.ascontiguousarray(half)).save(file)
    with pytest.raises(UserError, match=r"is 24 x 32 .* but its image .* is 48 x 64"):
        score_maps(maps, root)
    result = score_maps(maps, root, resolution="map")
    # A box at even rows and columns, so that nearest neighbour halves it exactly.
    assert result["categories"]["stripes"]["counts"]["defect_pixels"] == 4 * 4 * 6
    assert result["resolution"] == "map"


def test_images_without_masks(tiny, places, tmp_path):
    maps, _ = places
    root = tiny.write_data(tmp_path / "bare" / "stripes", train=2, masks=False)
    row = score_maps(maps, root)["categories"]["stripes"]
    assert row["pixel_auroc"] is None
    assert row["undefined"]["aupro"] == "no anomalous image has a mask"
    assert row["image_auroc"] == expected()["image_auroc"]


def test_images_that_differ_in_extension_only(tiny, places):
    maps, root = places
    second = root / "test" / "good" / "000.bmp"
    Image.open(root / "test" / "good" / "000.png").save(second)
    folder = maps / "anomaly_maps" / "stripes" / "test" / "good"
    (folder / "000.tiff").rename(folder / "000.png.tiff")
    tiny.save(folder / "000.bmp.tiff", map_of("good", 9))
    assert score_maps(maps, root)["categories"]["stripes"]["counts"]["good"] == 5


def test_mistakes_are_named(tiny, places, tmp_path):
    maps, root = places
    folder = maps / "anomaly_maps" / "stripes" / "test"

    def refused(sentence, **options):
        with pytest.raises(UserError, match=sentence):
            score_maps(maps, root, **options)

    refused("--resolution is 'model'", resolution="model")
    refused("--aupro-limit is 2", aupro_limit=2)
    refused("--memory-limit-mb is -1", memory_limit_mb=-1)
    with pytest.raises(UserError, match=r"--maps .*nowhere is not a folder"):
        score_maps(tmp_path / "nowhere", root)
    with pytest.raises(UserError, match="does not exist"):
        score_maps(maps, tmp_path / "nowhere")
    extra = tiny.save(folder / "box" / "900.tiff", map_of("box", 0))
    refused(r"holds 1 map \(test/box/900.tiff\) without a test image")
    extra.unlink()
    (folder / "box" / "001.tiff").write_bytes(b"II*\0")
    refused(r"001\.tiff cannot be read as an anomaly map")
    values = map_of("box", 1)
    values[5, 6] = np.inf
    Image.fromarray(values).save(folder / "box" / "001.tiff")
    refused(r"001\.tiff holds inf at row 5, column 6")
    (folder / "box" / "001.tiff").unlink()
    refused(r"lacks 1 map \(test/box/001.tiff\) of 8")
    shutil.rmtree(folder)
    refused("has no maps of stripes|lacks 8 maps")


def test_command_line(places, tmp_path, capsys):
    maps, root = places
    out = tmp_path / "figures.json"
    assert cli.main(["score", f"--maps={maps}", f"--root={root}", f"--output={out}"]) == 0
    printed = capsys.readouterr().out
    assert "compared at the resolution of the images" in printed
    assert "stripes" in printed and "exact" in printed
    assert out.exists()
    assert cli.main(["score", "--maps=nowhere", f"--root={root}"]) == 2
    assert capsys.readouterr().err.startswith("jaxad: --maps nowhere is not a folder")
