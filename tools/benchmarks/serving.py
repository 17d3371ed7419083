"""Sends thousands of requests to examples/ray/service.py on this machine, bad ones among them.

    pip install 'jaxad[ray]'
    python tools/benchmarks/serving.py --output=docs/results/serving_cpu.json

A run of `pca` on generated images is served by Ray Serve on loopback with one worker; 1, 8 and 64
clients, each with one request at a time, share the number of requests. Of every hundred, two are
files cut off in the middle, two text, one is no HTTP at all, and two are given up by the client
after half of their bytes; one of five hundred is a body without end, sent until it is answered. All
others are good PNGs. Every
request but those given up has to be answered with the status that belongs to it, and every good one
with the score that jaxad gives. Counted: requests a second, milliseconds of good requests, and the
memory of all of Ray's processes (proportional set size) before, after every tenth, and at the end.
Clients and server share the machine's cores. Rows of an output that is there already are kept.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import http.client
import io
import json
import math
import os
import pathlib
import socket
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
import ray
from PIL import Image
from ray import serve

import jaxad
from jaxad.data.synthetic import dataset as synthetic
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "ray"
KINDS = {0: "cut", 50: "cut", 25: "text", 75: "text", 10: "endless", 35: "no HTTP",
         60: "given up", 85: "given up"}  # fmt: skip
"""What every hundredth request is, by its number; the others are good."""
STATUS = {"good": 200, "cut": 422, "text": 422, "endless": 413, "no HTTP": 400}
PART = bytes(2**20)
TIMEOUT = 120.0


def png(image: np.ndarray) -> bytes:
    Image.fromarray(image).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def memory_mb() -> float:
    """The proportional set size of all processes below this one, in MiB."""
    parents, total = {}, 0
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(fields[1])
        except OSError:
            continue
    for process in parents:
        above = process
        while above not in (0, os.getpid()):
            above = parents.get(above, 0)
        if above == 0 or process == os.getpid():
            continue
        try:
            lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


class Client:
    """One client: a connection that is kept, and sockets of its own for what breaks one."""

    def __init__(
        self,
        port: int,
        files: list[bytes],
        scores: list[float],
        taken: list[float],
        oversized: float,
    ):
        """Connects.

        Args:
          port: of the endpoint on this machine.
          files: of good images.
          scores: of these.
          taken: to which the MiB are added that were sent of each oversized body.
          oversized: bytes of such a body, at most; may be without end.
        """
        self.port, self.files, self.scores, self.taken = port, files, scores, taken
        self.oversized = oversized
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    @staticmethod
    def kind_of(number: int) -> str:
        """What the request of this number is."""
        kind = KINDS.get(number % 100, "good")
        return "good" if kind == "endless" and number // 100 % 5 else kind

    def ask(self, number: int) -> tuple[str, int | None, float]:
        """Sends a request; its kind, the status of the answer, and the seconds until it."""
        kind, begun = self.kind_of(number), time.perf_counter()
        file = self.files[number % len(self.files)]
        if kind == "good":
            status, answer = self.post(file)
            score = json.loads(answer).get("score") if status == 200 else None
            if score is None or abs(score / self.scores[number % len(self.files)] - 1) > 1e-4:
                status = status if status != 200 else -1
        elif kind in ("cut", "text"):
            status, _ = self.post(file[: len(file) // 2] if kind == "cut" else b"no image" * 50)
        else:
            status = self.raw(kind, file)
        return kind, status, time.perf_counter() - begun

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Sends a whole body on the kept connection; status and content of the answer."""
        try:
            self.connection.request("POST", "/", body)
            answer = self.connection.getresponse()
        except (http.client.HTTPException, ConnectionError):
            # The server may close a connection that waits; a request goes on a new one then.
            self.connection.close()
            self.connection.request("POST", "/", body)
            answer = self.connection.getresponse()
        return answer.status, answer.read()

    def raw(self, kind: str, file: bytes) -> int | None:
        """Sends what breaks a connection on one of its own; the status, -1 without an answer."""
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as plain:
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            if kind == "no HTTP":
                plain.sendall(b"\x16\x03\x01 no request \r\n\r\n")
            elif kind == "given up":
                plain.sendall(head % len(file) + file[: len(file) // 2])
                return None
            else:
                sent: list[int] = []
                sender = threading.Thread(
                    target=send_oversized, args=(plain, head, self.oversized, sent)
                )
                sender.start()
            answer = plain.recv(4096)
            if kind == "endless":
                self.taken.append(sum(sent) / 2**20)
            plain.shutdown(socket.SHUT_RDWR)
            if kind == "endless":
                sender.join()
            return int(answer.split()[1]) if answer.startswith(b"HTTP/") else -1


def send_oversized(plain: socket.socket, head: bytes, limit: float, sent: list[int]) -> None:
    """Sends until the limit, or until the other side, or the answer to this one, closes."""
    try:
        plain.sendall(head % (10**12 if limit == math.inf else int(limit)))
        while sum(sent) < limit:
            sent.append(plain.send(PART))
    except OSError:
        return


def row_of(clients: int, requests: int, make: Any) -> dict:
    """Sends the requests; counts of statuses, times, memory."""
    numbers = iter(range(requests))
    lock = threading.Lock()
    found: list[tuple[str, int | None, float]] = []
    memory = [memory_mb()]

    def work() -> None:
        client = make()
        while True:
            with lock:
                number = next(numbers, None)
                if number is not None and number and number % (requests // 10) == 0:
                    memory.append(memory_mb())
            if number is None:
                return
            try:
                one = client.ask(number)
            except OSError:
                one = (Client.kind_of(number), -2, 0.0)
            found.append(one)

    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for one in [pool.submit(work) for _ in range(clients)]:
            one.result()
    seconds = time.perf_counter() - begun
    memory.append(memory_mb())
    statuses: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for kind, status, _ in found:
        statuses[kind][str(status)] += 1
    good = 1000 * np.array([taken for kind, _, taken in found if kind == "good"])
    wrong = sum(status != STATUS.get(kind) for kind, status, _ in found)
    return {
        "clients": clients, "requests": len(found), "not_answered_as_stated": wrong,
        "statuses": {kind: dict(count) for kind, count in sorted(statuses.items())},
        "seconds": seconds, "requests_per_second": len(found) / seconds,
        "ms": {"median": float(np.median(good)), "p99": float(np.percentile(good, 99))},
        "memory_mb": [round(each, 1) for each in memory],
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """In Markdown."""
    head = ("clients", "requests", "answered otherwise", "a second", "median, ms",
            "99th percentile, ms", "memory at first, MB", "at the end, MB")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [
        f"| {r['clients']} | {r['requests']:,} | {r['not_answered_as_stated']} | "
        f"{r['requests_per_second']:.0f} | {r['ms']['median']:.0f} | {r['ms']['p99']:.0f} | "
        f"{r['memory_mb'][0]:.0f} | {r['memory_mb'][-1]:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)


def trained(folder: pathlib.Path, size: int) -> tuple[list[bytes], list[float]]:
    """Trains a run into the folder; images as PNG, and their scores."""
    keys = {"data.image_size": f"{size},{size}", "data.pipeline": "memory"}
    jaxad.train(jaxad.load_config("pca", keys), folder / "run")
    drawn = [synthetic.render("flange", seed=i, image_size=(size, size))[0] for i in range(16)]
    files = [png(np.asarray(image)) for image in drawn]
    return files, [one.score for one in jaxad.load_detector(folder / "run").predict(files)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=10_000, help="of each row")
    parser.add_argument(
        "--oversized-mb",
        type=float,
        default=math.inf,
        help="largest body that something in front lets through (default: without end)",
    )
    parser.add_argument("--size", type=int, default=128, help="sides of the images")
    parser.add_argument("--port", type=int, default=18_321)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    os.environ.setdefault("JAXAD_CACHE", tempfile.mkdtemp())
    sys.path.insert(0, str(EXAMPLES))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    import service

    rows = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    largest = None if options.oversized_mb == math.inf else options.oversized_mb
    rows = [
        row
        for row in rows
        if row["clients"] not in options.clients or row["oversized_mb"] != largest
    ]
    with tempfile.TemporaryDirectory() as folder:
        files, scores = trained(pathlib.Path(folder), options.size)
        ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=2**27)
        # Its environment variable for the port is not read by Ray 2.60.
        serve.start(http_options={"host": "127.0.0.1", "port": options.port})
        serve.run(service.app({"workdir": str(pathlib.Path(folder) / "run")}))
        taken: list[float] = []  # MiB that were sent of oversized bodies
        make = lambda: Client(options.port, files, scores, taken, options.oversized_mb * 2**20)
        row_of(64, 1000, make)  # so that what is loaded at first use is loaded
        for clients in options.clients:
            taken.clear()
            row = row_of(clients, options.requests, make)
            most = {"oversized_mb": largest, "mb_taken_of_a_body": max(taken, default=0.0)}
            rows.append({**row, **most})
            print(table(rows[-1:]), flush=True)
            rows.sort(key=lambda row: row["clients"])
            write_json(
                options.output,
                {
                    "processor": processor_name(), "cores": len(os.sched_getaffinity(0)),
                    "load_average": os.getloadavg()[0], "image_size": [options.size] * 2,
                    "versions": {"ray": ray.__version__, "jaxad": jaxad.__version__},
                    "rows": rows,
                },
            )  # fmt: skip
        serve.shutdown()
        ray.shutdown()
    print(table(rows))


if __name__ == "__main__":
    main()
