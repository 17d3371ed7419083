"""Bulk prediction by Ray on a cluster of two nodes, a worker of which is killed in the midst."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from jaxad.evaluation.predict import load_detector

from .conftest import waves

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'jaxad[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STORE = 2**27
"""Bytes of each node's object store."""


@pytest.fixture(scope="module")
def cluster():
    """The environment of programs that join a cluster of two nodes, a core each."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    made.add_node(**node)
    made.wait_for_nodes()
    yield {**os.environ, "RAY_ADDRESS": made.address, "XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}
    made.shutdown()


@pytest.fixture
def start(cluster, project_root, tmp_path):
    """Starts a program in the folder of the examples; it is ended after the test."""
    running = []

    def started(*words):
        with open(tmp_path / "output.txt", "w") as output:
            running.append(
                subprocess.Popen(
                    words,
                    cwd=project_root / "examples" / "ray",
                    env=cluster,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
        return running[-1]

    yield started
    for one in running:
        one.send_signal(signal.SIGINT)
        try:
            one.wait(60)
        except subprocess.TimeoutExpired:
            one.kill()


def workers(title):
    """Processes of Ray whose title has a word, by number."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if words.startswith("ray::") and title in words:
            found.append(int(place.parent.name))
    return sorted(found)


def until(condition, program, output, seconds=800):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert program.poll() is None and time.monotonic() < end, output.read_text()[-3000:]
        time.sleep(0.02)
    return value


def bytes_read(process):
    try:
        return int(pathlib.Path(f"/proc/{process}/io").read_text().split()[1])
    except OSError:
        return 0


def test_many_images_of_which_a_killed_worker_loses_none(run, start, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    drawn = [images / f"{i}.png" for i in range(4)]
    for i, file in enumerate(drawn):  # of a megabyte, so that a worker has something to read
        Image.fromarray(waves(100 + i, (600, 800), defect=i % 2 == 1)).save(file)
    size = drawn[0].stat().st_size
    for i in range(4, 160):
        os.link(drawn[i % 4], images / f"{i}.png")
    (images / "broken.png").write_bytes(drawn[0].read_bytes()[:5000])
    output = tmp_path / "output.txt"
    program = start(
        sys.executable,
        "bulk.py",
        f"--workdir={run}",
        f"--input={images}",
        f"--output={tmp_path / 'results'}",
    )
    begun = {}

    def at_work():
        # After their start, in which they read the libraries.
        for process in {*workers("(Judge)")} - {*workers("(Judge)).__init__")}:
            begun.setdefault(process, bytes_read(process))
        return next((p for p in begun if bytes_read(p) - begun[p] > 20 * size), None)

    victim = until(at_work, program, output)
    os.kill(victim, signal.SIGKILL)
    assert program.wait(800) == 0, output.read_text()[-3000:]

    from pyarrow import parquet

    rows = parquet.read_table(tmp_path / "results").to_pylist()
    assert len(rows) == 161 and {row["path"] for row in rows} == {*map(str, images.iterdir())}
    expected = load_detector(run).predict(drawn)
    for row in rows:
        name = pathlib.Path(row["path"]).stem
        if name == "broken":
            assert row["score"] is None and "broken.png cannot be read" in row["error"]
            continue
        like = expected[int(name) % 4]
        assert row["score"] == pytest.approx(like.score, rel=1e-4)
        assert row["decision"] == like.decision == (int(name) % 2 == 1)
        assert row["regions"] == len(like.components) and row["error"] is None
