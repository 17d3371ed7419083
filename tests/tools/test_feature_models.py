"""The comparison with anomalib measures what it says, and goes on without anomalib."""

import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def tools(load_tool):
    return [
        load_tool(f"benchmarks/{name}")
        for name in ("feature_rows", "feature_models", "feature_memory")
    ]


def test_rows_judge_all_test_images_in_order(tools, tmp_path):
    rows, _, _ = tools
    images = np.arange(21 * 4 * 4 * 3, dtype=np.uint8).reshape(21, 4, 4, 3)
    np.save(tmp_path / "train.npy", images[:3])
    np.save(tmp_path / "test.npy", images)

    def detect(batch):
        return batch[..., 0].astype(np.float32), batch.mean(axis=(1, 2, 3))

    taps = lambda some: {"3": np.float32(some)}
    row = rows.measure(lambda train: detect, taps, tmp_path, 0.0)
    np.testing.assert_array_equal(np.load(tmp_path / "maps.npy"), images[..., 0])
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), images.mean(axis=(1, 2, 3)))
    assert row["ms"]["1"]["least"] <= row["ms"]["1"]["median"]
    assert row["peak_mb"] >= row["peak_mb_of_fit"] > 0


def test_weights_take_timms_names(tools):
    """Names as timm's tf_efficientnet_lite0 has them; what it lacks is left out."""
    rows, _, _ = tools
    names = ["_conv_stem.weight", "_bn0.bias", "_blocks.0._bn1.bias", "_blocks.0._project_conv.weight",
             "_blocks.1._bn0.weight", "_blocks.5._depthwise_conv.weight", "_blocks.15._bn2.running_var",
             "_fc.weight"]  # fmt: skip
    expected = ["conv_stem.weight", "bn1.bias", "blocks.0.0.bn1.bias", "blocks.0.0.conv_pw.weight",
                "blocks.1.0.bn1.weight", "blocks.3.0.conv_dw.weight", "blocks.6.0.bn3.running_var"]  # fmt: skip
    assert list(rows.timm_names(dict.fromkeys(names))) == expected


def test_without_anomalib_its_rows_are_left_out(tools, capsys):
    _, models, _ = tools
    wanted = ["anomalib PaDiM", models.OURS]
    assert models.pythons_of(wanted, "/nowhere/python") == {models.OURS: sys.executable}
    assert "anomalib PaDiM. Give the Python" in capsys.readouterr().out
    both = models.pythons_of(wanted, sys.executable)
    assert list(both) == [models.OURS, "anomalib PaDiM"]
    assert capsys.readouterr().out == ""


def test_copies_are_the_same_in_every_pass(tools):
    _, _, memory = tools
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    copies = memory.Copies(images, 20)
    one, other = ([batch.image for batch in copies] for _ in range(2))
    assert [len(batch) for batch in one] == [16, 4]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0][0], one[0][3])  # copies of one image differ
