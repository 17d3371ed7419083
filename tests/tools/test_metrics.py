"""The rows of the benchmark agree with one another, and each runs in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench(load_tool):
    return load_tool("benchmarks/metrics")


def test_exact_rows_agree_and_streaming_holds_them(bench):
    maps, masks = bench.make_maps(12, 48)
    rows = {}
    for title, (make, _) in bench.ROWS.items():
        if title.startswith(("anomalib", "ADEval")):
            continue
        rows[title] = {"figures": make()(maps, masks)}
    bench.require_agreement(rows)
    exact = rows["jaxad, exact, all figures"]["figures"]
    streamed = rows["jaxad, streaming, all figures"]["figures"]
    for name, value in exact.items():
        assert abs(streamed[name] - value) <= streamed["widest_bracket"]
    rows["scikit-learn, AUROC + AP"]["figures"]["pixel_ap"] += 1e-6
    with pytest.raises(SystemExit, match="pixel_ap differs"):
        bench.require_agreement(rows)


def test_a_row_is_measured_in_a_process_of_its_own(bench, project_root, tmp_path):
    maps, masks = bench.make_maps(10, 64)
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "masks.npy", masks)
    title = "jaxad, streaming, all figures"
    command = [
        sys.executable,
        "tools/benchmarks/metrics.py",
        f"--row={title}",
        f"--folder={tmp_path}",
    ]
    done = subprocess.run(
        [*command, "--repeats=2"],
        cwd=project_root,
        env={**os.environ, "PYTHONPATH": str(project_root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["seconds"] > 0 and row["extra_mib"] >= 0
    assert row["figures"] == bench.ROWS[title][0]()(maps, masks)
