"""AU-sPRO of data with saturation thresholds: evaluation, maps in files, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxad import metrics
from jaxad.data.datasets import read_table
from jaxad.data.saturation import read_saturations
from jaxad.data.table import Saturation
from jaxad.evaluation.evaluate import evaluate
from jaxad.evaluation.saturated import SaturatedFigures
from jaxad.evaluation.score_maps import score_maps
from jaxad.run.errors import UserError

SHAPE = (48, 64)
THRESHOLDS = [
    {"defect_name": "a", "pixel_value": 255, "saturation_threshold": 20, "relative_saturation": False},
    {"defect_name": "b", "pixel_value": 200, "saturation_threshold": 0.5, "relative_saturation": True},
]  # fmt: skip


def box(top, left, height, width):
    mask = np.zeros(SHAPE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


BOXES = (box(12, 20, 8, 12), box(16, 28, 10, 10))  # they overlap


@pytest.fixture
def root(tiny, tmp_path):
    """Each defective image has one defect of each kind, in a file of its own."""
    root = tiny.write_data(tmp_path / "stripes", masks=False)
    (root / "defects_config.json").write_text(json.dumps(THRESHOLDS))
    for i in range(4):
        for value, mask in zip((255, 200), BOXES, strict=True):
            tiny.save(root / f"ground_truth/box/{i:03}/{value}.png", mask * np.uint8(value))
    return root


def by_hand(maps, boxes, areas, good):
    return metrics.au_spro(
        [*maps, *good], [list(boxes)] * len(maps) + [[]] * len(good),
        [list(areas)] * len(maps) + [[]] * len(good),
    )  # fmt: skip


def test_figures_of_maps(root):
    table = read_table(root)
    assert table.name == "mvtec_loco" and table.saturations == {
        255: Saturation("a", 20.0, False), 200: Saturation("b", 0.5, True)
    }  # fmt: skip
    rng = np.random.default_rng(0)
    maps = {s: rng.normal(size=SHAPE) + 2.0 * BOXES[0] * s.label for s in table.test()}
    figures = SaturatedFigures(table, pixels=8 * maps[table.test()[0]].size)
    figures.update(list(maps), list(maps.values()))
    result = figures.added_to({"per_defect": {"box": {"count": 4}}, "undefined": {}})
    good, bad = ([m for s, m in maps.items() if s.label == label] for label in (0, 1))
    expected = by_hand(bad, BOXES, (20, 50), good)
    assert result["per_defect"]["box"] == {"count": 4, "au_spro": pytest.approx(expected, 1e-12)}
    assert result["au_spro"] == pytest.approx(expected, 1e-12)
    assert result["au_spro_limit"] == 0.05 and result["undefined"] == {}


def test_numbers_of_pixels_are_scaled_and_crops_are_cut(root):
    table = read_table(root)
    rng = np.random.default_rng(1)
    small = {s: rng.normal(size=(24, 16)).astype(np.float32) for s in table.test()}
    figures = SaturatedFigures(table, pixels=8 * 24 * 16, crop=(0.0, 0.0, 1.0, 0.5))
    figures.update(list(small), list(small.values()))
    found = figures.added_to({"per_defect": {"box": {}}, "undefined": {}})["au_spro"]
    # The left half, 48 x 32, at half its size: a quarter of the pixels.
    boxes = [mask[::2, :32:2] for mask in BOXES]
    good, bad = ([m for s, m in small.items() if s.label == label] for label in (0, 1))
    areas = (5, int(0.5 * boxes[1].sum()))
    assert found == pytest.approx(by_hand(bad, boxes, areas, good), 1e-12)


def test_evaluation_and_maps_in_files_agree(root, tiny, tmp_path):
    run = tiny.fit(root, tmp_path / "run")
    results = [
        evaluate(run, overrides={"evaluate.resolution": "original", "evaluate.memory_limit_mb": mb})
        for mb in (2048, 0)
    ]
    assert 0 < results[0]["au_spro"] <= 1
    assert results[1]["au_spro"] == pytest.approx(results[0]["au_spro"], 1e-9)
    assert "AU-sPRO" in (run / "report.html").read_text()
    # Maps that are raised where the first defect lies.
    rng = np.random.default_rng(2)
    for kind in ("good", "box"):
        for i in range(4):
            values = rng.normal(size=SHAPE).astype(np.float32) + 3.0 * BOXES[0] * (kind == "box")
            tiny.save(tmp_path / f"maps/anomaly_maps/stripes/test/{kind}/{i:03}.tiff", values)
    scored = score_maps(tmp_path / "maps", root)
    row = scored["categories"]["stripes"]
    assert row["per_defect"]["box"]["au_spro"] == row["au_spro"] == scored["mean"]["au_spro"]
    assert row["au_spro"] > row["aupro"] - 1e-12


def test_without_thresholds_nothing_is_added(tiny, tmp_path):
    table = read_table(tiny.write_data(tmp_path / "plain"))
    figures = SaturatedFigures(table, pixels=0)
    figures.update(list(table.test()), [np.zeros(SHAPE)] * 8)
    result = {"per_defect": {}, "undefined": {}}
    assert figures.added_to(result) == result


def test_a_kind_without_masks_has_none(root, tiny):
    tiny.save(root / "test/hole/000.png", tiny.stripes(5))
    table = read_table(root)
    figures = SaturatedFigures(table, pixels=9 * 48 * 64)
    figures.update(list(table.test()), [np.ones(SHAPE)] * 9)
    result = figures.added_to({"per_defect": {"box": {}, "hole": {}}, "undefined": {}})
    assert result["au_spro"] is None and result["per_defect"]["hole"]["au_spro"] is None
    assert set(result["undefined"]) == {"au_spro", "per_defect.hole.au_spro"}


def test_what_is_refused(root, tiny):
    table = read_table(root)
    figures = SaturatedFigures(table, pixels=8 * 48 * 64)
    bad = [s for s in table.test() if s.label][:1]
    two = BOXES[0] * np.uint8(255)
    two[0, 0] = 7
    for mask, words in (
        (two, "draws the values 7, 255; with saturation thresholds each holds one defect"),
        (BOXES[0] * np.uint8(7), "draws the values 7; .* of a value among 200, 255"),
        (np.zeros((3, 3), np.uint8), "no gray image of the size"),
    ):
        tiny.save(root / "ground_truth/box/000/255.png", mask)
        with pytest.raises(UserError, match=words):
            figures.update(bad, [np.zeros(SHAPE)])
    for text in (
        "[1]",
        "{",
        '[{"pixel_value": 1}]',
        json.dumps([THRESHOLDS[0] | {"relative_saturation": True}]),
    ):
        (root / "defects_config.json").write_text(text)
        with pytest.raises(UserError, match="is no list of defects"):
            read_saturations(root, "defects_config.json")
    assert Image.open(root / "test/box/000.png").size == SHAPE[::-1]
