"""A benchmark in several processes: one that is killed, two at once, and who gets which GPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from jaxad.benchmark.grid import benchmark
from jaxad.benchmark.workers import device_environments
from jaxad.cli.main import main
from jaxad.run.errors import UserError
from jaxad.run.files import try_lock

SEEDS = "0,1,2"


@pytest.fixture(scope="module")
def overrides(tiny_data):
    return {
        "data.root": str(tiny_data.parent),
        "data.image_size": "16",
        "data.pipeline": "memory",
        "model.components": "3",
        "evaluate.report_images": "2",
    }


def words(workdir, overrides, *more):
    keys = [f"--config.{key}={value}" for key, value in overrides.items()]
    return ["benchmark", "--configs", "pca", "--categories=stripes", f"--seeds={SEEDS}",
            f"--workdir={workdir}", *keys, *more]  # fmt: skip


def start(workdir, overrides, project_root):
    command = [sys.executable, "-m", "jaxad.cli.main", *words(workdir, overrides)]
    return subprocess.Popen(
        command, cwd=project_root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def state_of(run):
    """Every file of a run folder with its bytes and the time of its last change."""
    return {
        file.relative_to(run): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in run.rglob("*")
        if file.is_file() and file.name != ".cell.lock"
    }


@pytest.mark.slow
def test_a_killed_benchmark_redoes_no_finished_cell(overrides, tmp_path, project_root, capfd):
    process = start(tmp_path, overrides, project_root)
    runs = [tmp_path / "pca" / "stripes" / f"seed{seed}" for seed in (0, 1, 2)]
    until = time.monotonic() + 240
    while not (runs[0] / "outcome.json").exists():
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    done = {run: state_of(run) for run in runs if (run / "outcome.json").exists()}
    assert 1 <= len(done) < 3
    rows = benchmark(["pca"], ["stripes"], [0, 1, 2], tmp_path, overrides=overrides)
    assert [row["error"] for row in rows] == ["", "", ""]
    for run, before in done.items():
        assert state_of(run) == before
    said = capfd.readouterr().err
    assert said.count("finished before") == len(done)


@pytest.mark.slow
def test_two_processes_share_the_grid_and_run_no_cell_twice(overrides, tmp_path, project_root):
    processes = [start(tmp_path, overrides, project_root) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    begun = re.findall(r"seed (\d)$", "\n".join(said), re.MULTILINE)
    assert sorted(begun) == ["0", "1", "2"]
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [cell["seed"] for cell in cells] == [0, 1, 2] and not any(c["error"] for c in cells)


@pytest.mark.slow
def test_parallel_workers_do_the_work_and_leave_the_tables(
    overrides, tmp_path, project_root, monkeypatch, capfd
):
    monkeypatch.chdir(project_root)
    assert main(words(tmp_path, overrides, "--parallel=2")) == 0
    said = capfd.readouterr()
    # Every cell is begun once, by a worker, and found finished by the process that began them.
    assert sorted(re.findall(r"seed (\d)$", said.err, re.MULTILINE)) == ["0", "1", "2"]
    assert said.err.count("finished before") >= 3
    assert said.out.count("stripes") == 3  # the workers print no table


def test_a_lock_is_another_process_s_until_it_ends(tmp_path):
    code = (
        "import pathlib, sys, time; from jaxad.run.files import try_lock\n"
        "with try_lock(pathlib.Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)"
    )
    file = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"True\n"
    with try_lock(file) as mine:
        assert not mine
    process.kill()
    process.wait()
    process.stdout.close()
    with try_lock(file) as mine:
        assert mine


def test_workers_part_the_gpus():
    visible = lambda *arguments, **options: [
        one.get("CUDA_VISIBLE_DEVICES") for one in device_environments(*arguments, **options)
    ]
    assert visible(2, {}) == [None, None]
    assert visible(2, {}, gpus=4) == ["0,2", "1,3"]
    assert visible(2, {"CUDA_VISIBLE_DEVICES": "3, 5,GPU-7"}, gpus=8) == ["3,GPU-7", "5"]
    amd = device_environments(2, {"HIP_VISIBLE_DEVICES": "0,1", "HOME": "/h"})
    assert amd == [{"HIP_VISIBLE_DEVICES": str(n), "HOME": "/h"} for n in (0, 1)]
    with pytest.raises(UserError, match="there are 1 GPUs"):
        device_environments(2, {}, gpus=1)
    with pytest.raises(UserError, match="from 1, not 0"):
        device_environments(0, os.environ)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "needs --configs, or --paper"),
        (["--configs", "pca", "--variant=small"], "write it after the config"),
        (["--configs", "pca", "--parallel=0"], "from 1, not 0"),
        (["--paper=vt_adl_2"], "needs MNIST: --config.data.root=DIR"),
    ],
)
def test_mistakes_in_the_options_are_told(tmp_path, capsys, more, message):
    assert main(["benchmark", f"--workdir={tmp_path / 'runs'}", *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
