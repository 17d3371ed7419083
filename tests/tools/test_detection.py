"""The timing of detection trains, judges and gives a time for every way of batching."""


def test_a_row(load_tool, tmp_path):
    tool = load_tool("benchmarks/detection")
    overrides = {"data.image_size": "32,32", "train.devices": "1"}
    row = tool.time_config("pca", str(tmp_path / "run"), repeats=2, overrides=overrides)
    assert row["config"] == "pca" and row["image_size"] == [32, 32]
    for batch_size in (1, tool.IMAGES):
        best, median = (row[f"{how}_ms_batch_{batch_size}"] for how in ("best", "median"))
        assert 0 < best <= median
