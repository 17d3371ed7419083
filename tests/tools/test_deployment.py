"""The timing of decisions trains, exports, and judges the same images in Python and onnxruntime."""

import pytest


@pytest.mark.slow
def test_a_row(load_tool, tmp_path):
    tool = load_tool("benchmarks/deployment")
    overrides = {"data.image_size": "32,32", "train.devices": "1"}
    row = tool.row_of("pca", tmp_path, seconds=0.01, overrides=overrides)
    assert row["config"] == "pca" and row["image_size"] == [32, 32] and row["bytes"] > 1000
    for times in row["ms"].values():
        assert [*times] == ["1", "4", "16"]
        assert all(0 < each["median"] <= each["p99"] for each in times.values())
    assert row["command_seconds"]["warm"] > 0 and row["command_seconds"]["cold"] > 0
    assert max(row["largest_relative_difference_of_scores"].values()) < 1e-4
    assert "`pca`" in tool.table([row])
