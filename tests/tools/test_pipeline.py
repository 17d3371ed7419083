"""The benchmark of the input pipelines: one row for real, and its table."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def script(project_root):
    return project_root / "tools" / "benchmarks" / "pipeline.py"


@pytest.mark.parametrize("row", ["files,memory,8", "mapped,memory,8", "mapped,prepare,8"])
def test_a_row(script, row, tiny_data, project_root, tmp_path):
    options = [f"--root={tiny_data}", "--batch=4", "--images=24", "--cores=1"]
    done = subprocess.run(
        [sys.executable, script, *options, f"--worker={row}", f"--folder={tmp_path}"],
        env=os.environ | {"PYTHONPATH": str(project_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    if "prepare" in row:
        assert answer["training_images"] == 20 and answer["prepare"] > 0
        assert len(list((tmp_path / "mapped8").glob("*.npy"))) == 1
    else:
        assert answer["images_per_second"] > 0 and answer["cpu_ms_per_image"] > 0


def test_the_table(load_tool):
    bench = load_tool("benchmarks/pipeline")
    row = {"size": 128, "source": "files", "pipeline": "tf", "images_per_second": 1234.4}
    row |= {"cpu_ms_per_image": 0.876, "prepare": 0.0, "peak_mib": 12.3}
    report = {"data": "bottle", "training_images": 209, "batch": 16, "cores": 2, "device": "chip"}
    lines = bench.table(report | {"rows": [row]}).splitlines()
    assert lines[0] == "bottle, 209 training images, batches of 16, 2 cores of chip"
    assert lines[2].split() == ["128", "files", "tf", "1234", "0.88", "0.0", "12"]
