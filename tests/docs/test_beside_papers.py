"""The page of figures beside the papers': its tables are the tool's, of the stored runs."""

import json

import pytest

from jaxad.run.config import flatten, load_config


@pytest.fixture
def tool(load_tool):
    return load_tool("studies/beside_papers")


def test_the_tables_are_those_of_the_stored_figures(tool, project_root):
    folder = project_root / "docs" / "results"
    stored = json.loads((folder / "beside_papers.json").read_text())
    page = (folder / "beside_papers.md").read_text()
    for part in tool.markdown(stored["rows"], stored["changes"]).split("\n\n"):
        assert part in page


def test_figures_are_read_from_the_runs_and_the_printed_tables(tool):
    rows = tool.rows()
    # By hand: table I of the VQ-VAE's paper prints .94 and .95; small_cpu.md has 0.9410 and 0.8984.
    of_map = {
        r["map"]: r
        for r in rows
        if (r["table"], r["category"]) == ("vqvae_1", "bottle") and r["own"]
    }
    for name, printed, ours in (("ssim", 0.94, 0.9410), ("ssim*am", 0.95, 0.8984)):
        assert of_map[name]["printed"] == pytest.approx(printed)
        assert of_map[name]["ours"] == pytest.approx(ours, abs=5e-5)
        assert of_map[name]["difference"] == pytest.approx(ours - printed, abs=5e-5)
        assert (of_map[name]["best_map"], of_map[name]["best"] >= of_map[name]["ours"]) == (
            "ssim",
            True,
        )
    assert {r["metric"] for r in rows} == set(tool.METRICS)


def test_what_is_set_otherwise_is_read_from_the_configs(tool):
    changed = tool.changes()["vqvae:small"]
    assert (
        "1500 steps for 100 epochs" in changed
        and "`data.image_size` 128 x 128 for 256 x 256" in changed
    )
    assert "`model.features` 64 for 256" in changed and "model.beta" not in changed


def test_the_table_of_what_was_tried_is_that_of_the_stored_figures(load_tool, project_root):
    folder = project_root / "docs" / "results"
    rows = json.loads((folder / "gap_factors_cpu.json").read_text())["rows"]
    gaps = load_tool("studies/gap_factors")
    assert gaps.markdown(rows) in (folder / "beside_papers.md").read_text()
    # What is printed is what the tables of the papers hold.
    printed = {
        (row["config"], row["category"], row["metric"], row["map"]): row["printed"]
        for row in load_tool("studies/beside_papers").rows()
    }
    for gap in gaps.GAPS:
        key = (gap.config, gap.category, gap.metric, gap.map)
        assert printed[key] == pytest.approx(gap.printed)


def test_parts_of_a_study_are_joined_in_its_order(load_tool, project_root):
    gaps = load_tool("studies/gap_factors")
    stored = project_root / "docs" / "results" / "gap_factors_cpu.json"
    rows = json.loads(stored.read_text())["rows"]
    again = {**rows[0], "value": 0.5}
    joined = gaps.in_order([*reversed(rows), again])
    assert joined == [again, *rows[1:]]


def test_the_table_of_smoothing_is_that_of_the_stored_figures(load_tool, project_root):
    folder = project_root / "docs" / "results"
    rows = json.loads((folder / "smoothing_vit_memory_cpu.json").read_text())["rows"]
    table = load_tool("studies/smoothing").markdown(rows)
    assert table in (folder / "beside_papers.md").read_text()


def test_what_is_tried_are_keys_of_the_config(load_tool):
    for gap in load_tool("studies/gap_factors").GAPS:
        for keys in gap.changes.values():
            config = load_config(gap.config, keys)
            assert all(flatten(config)[key] == value for key, value in keys.items())
