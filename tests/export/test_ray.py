"""Bulk prediction and the HTTP endpoint by Ray on a cluster of two nodes, a worker of which is killed
in the midst."""

import base64
import contextlib
import http.client
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
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
        assert row["decision"] == like.decision
        assert row["regions"] == len(like.components) and row["error"] is None


# The port is asked for here: Ray 2.60 does not read RAY_SERVE_DEFAULT_HTTP_PORT. Both nodes have one
# address, on which one proxy can listen.
SERVE = """
import sys
import ray
from ray import serve
ray.init()
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
"""


class Endpoint:
    """Requests to the endpoint."""

    def __init__(self, port):
        self.port = port

    def post(self, body, timeout=300):
        """Status and content of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("POST", "/", body)
            answer = connection.getresponse()
            content = answer.read()
        as_json = answer.getheader("Content-Type", "").startswith("application/json")
        return answer.status, json.loads(content) if as_json else content

    def begun(self, body, share):
        """A connection on which a share of a request was sent."""
        opened = socket.create_connection(("127.0.0.1", self.port), 300)
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        opened.sendall(head + body[: int(share * len(body))])
        return opened


def as_png(seed, **options):
    Image.fromarray(waves(seed, **options)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture
def endpoint(run, cluster, start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = tmp_path / "output.txt"
    opened = start(sys.executable, "-c", SERVE, str(port))
    assert opened.wait(600) == 0, output.read_text()[-3000:]
    serve = str(pathlib.Path(sys.executable).parent / "serve")
    program = start(serve, "run", "service:app", f"workdir={run}", "replicas=2")
    made = Endpoint(port)

    def answers():
        with contextlib.suppress(OSError):
            return made.post(as_png(100))[0] == 200

    until(answers, program, output)
    until(lambda: len(workers("ServeReplica:")) == 2, program, output)
    return made


def test_requests_of_all_kinds_are_answered(run, endpoint):
    predictor = load_detector(run)
    good, defect = as_png(100), as_png(101, defect=True)
    for body, verdict in ((good, "accept"), (defect, "reject")):
        [like] = predictor.predict([body])
        status, found = endpoint.post(body)
        assert status == 200 and found["score"] == pytest.approx(like.score, rel=1e-4)
        assert found["decision"] == like.decision == (verdict == "reject")
        assert found["verdict"] == like.verdict
        assert len(found["regions"]) == len(like.components)
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["map"]))), int)
        low, high = like.scale[:2]
        share = np.clip((like.model_map - low) / (high - low), 0, 1)
        assert np.abs(drawn - 255 * share).max() <= 1
    for body in (good[: len(good) // 2], b"no image", b""):
        status, found = endpoint.post(body)
        assert status == 422 and found["error"] and found["score"] is None, (status, found)
    too_large_is_not_read(endpoint)
    for _ in range(50):  # given up by the client
        endpoint.begun(good, 0.5).close()
    assert endpoint.post(good)[0] == 200
    what_exceeds_the_queue_is_answered_at_once(endpoint, good)


def too_large_is_not_read(endpoint):
    """Of a terabyte that is announced and sent until an answer comes, little is taken."""
    sent = [0]
    opened = socket.create_connection(("127.0.0.1", endpoint.port), 300)
    opened.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")

    def send():
        with contextlib.suppress(OSError):
            while True:
                sent[0] += opened.send(bytes(2**18))

    sender = threading.Thread(target=send)
    sender.start()
    answer = opened.recv(4096)
    taken = sent[0]
    opened.shutdown(socket.SHUT_RDWR)
    sender.join()
    opened.close()
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert taken < 2**30, taken


def what_exceeds_the_queue_is_answered_at_once(endpoint, good):
    """Two workers take 128 requests each, 128 wait: as many clients are slow to send theirs."""
    slow = [endpoint.begun(good, 0.5) for _ in range(3 * 128)]
    try:
        end = time.monotonic() + 60
        while (status := endpoint.post(good)[0]) != 503:
            assert time.monotonic() < end, status
    finally:
        for one in slow:
            one.sendall(good[int(0.5 * len(good)) :])
        answers = [one.recv(20) for one in slow]
        for one in slow:
            one.close()
    judged = sum(one.startswith(b"HTTP/1.1 200") for one in answers)
    refused = sum(one.startswith(b"HTTP/1.1 503") for one in answers)
    # They come faster than Ray gives them to workers, so that some find the queue full before these
    # are. A request that asks whether it is full may take a place in it.
    assert judged + refused == len(slow) and judged > 150, (judged, refused)
    assert endpoint.post(good)[0] == 200


def test_a_worker_is_killed_and_no_image_goes_without_an_answer(run, endpoint):
    bodies = [as_png(100 + i, defect=i % 2 == 1) for i in range(4)]
    expected = load_detector(run).predict(bodies)
    found, statuses = [], []

    def ask(number):
        for i in range(number, 400, 8):
            for _ in range(100):
                try:
                    status, answer = endpoint.post(bodies[i % 4])
                except OSError as error:
                    status, answer = error, None
                statuses.append(status)
                if status == 200:
                    found.append((i, answer["score"], answer["decision"]))
                    break
                time.sleep(0.2)  # asks again, as the docs say

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for one in clients:
        one.start()
    while len(found) < 100:
        time.sleep(0.01)
    before = workers("ServeReplica:")
    os.kill(before[0], signal.SIGKILL)
    for one in clients:
        one.join(600)
    assert sorted(i for i, _, _ in found) == [*range(400)]
    for i, score, decision in found:
        assert score == pytest.approx(expected[i % 4].score, rel=1e-4)
        assert decision == expected[i % 4].decision == (i % 2 == 1)
    assert {*statuses} <= {200, 500, 503}, {*map(str, statuses)}
    end = time.monotonic() + 600
    while len(after := workers("ServeReplica:")) < 2:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert before[0] not in after
