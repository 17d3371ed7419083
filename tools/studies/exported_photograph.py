"""One photograph by tiles: `jaxad predict` beside the exported files, each in a process of its own.

    python tools/studies/exported_photograph.py --workdir=RUN --image=FILE --work=DIR --output=JSON

RUN is one with ``data.tiles``, calibrated, whose photographs have the size of FILE. The files are
written into DIR. Seconds are those of the call alone (of `jaxad predict` those of the process),
CPU seconds those of all threads, memory the highest of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

SUFFIX = {"onnx": "onnx", "stablehlo": "jaxexport"}


def main() -> None:
    """Reads the command line; called by itself, judges the photograph by one file."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--workdir", type=pathlib.Path)
    parser.add_argument("--image", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--only", choices=[*SUFFIX], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(judged(arguments.only, arguments.work, arguments.image)))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = [predicted(arguments.workdir, arguments.image, arguments.work)]
    for name in SUFFIX:
        file = arguments.work / f"file.{SUFFIX[name]}"
        run("-m", "jaxad", "export", f"--workdir={arguments.workdir}", f"--output={file}",
            f"--format={name}")  # fmt: skip
        said, _ = run(__file__, f"--image={arguments.image}", f"--work={arguments.work}",
                      f"--only={name}")  # fmt: skip
        rows.append(
            {"by": name, "megabytes_of_file": file.stat().st_size / 1e6, **json.loads(said)}
        )
    import jax  # not before, nor in the process of onnxruntime

    config = json.loads((arguments.workdir / "config.json").read_text())
    head = {
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "load": os.getloadavg()[1],
        "model": config["model"]["name"],
        "tiles": config["data"]["tiles"],
        "size": Image.open(arguments.image).size[::-1],
    }
    arguments.output.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")


def run(*command: str) -> tuple[str, resource.struct_rusage]:
    """Runs Python to its end; what it printed, and what it used."""
    started = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    printed = started.stdout.read()
    _, status, used = os.wait4(started.pid, 0)
    if status:
        raise SystemExit(f"failed: {command}")
    return printed, used


def predicted(workdir: pathlib.Path, image: pathlib.Path, work: pathlib.Path) -> dict[str, Any]:
    """By `jaxad predict`, without pictures."""
    begun = time.perf_counter()
    _, used = run("-m", "jaxad", "predict", f"--workdir={workdir}", f"--input={image}",
                  f"--output={work / 'predicted'}", "--no-overlays")  # fmt: skip
    seconds = time.perf_counter() - begun
    found = json.loads((work / "predicted" / "predictions.json").read_text())["images"][0]
    return {
        "by": "predict, the process",
        "seconds": [seconds],
        "cpu_seconds": [used.ru_utime + used.ru_stime],
        "peak_mb": used.ru_maxrss / 1024,
        "score": found["score"],
        "decision": found["decision"],
    }


def judged(name: str, work: pathlib.Path, image: pathlib.Path) -> dict[str, Any]:
    """By one of the files, twice; the first call of a file of JAX compiles it."""
    pixels = np.asarray(Image.open(image).convert("RGB"))[None]
    call = {"onnx": by_onnxruntime, "stablehlo": by_jax}[name](work / f"file.{SUFFIX[name]}")
    seconds, cpu = [], []
    for _ in range(2):
        begun, used = time.perf_counter(), time.process_time()
        score, decision = call(pixels)
        seconds.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mb": peak,
        "score": float(score[0]),
        "decision": bool(decision[0]),
    }


def by_onnxruntime(file: pathlib.Path) -> Callable[[np.ndarray], Any]:
    """Whose threads give the processor back while they wait: other work may run beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options)
    names = [output.name for output in session.get_outputs()]

    def call(pixels: np.ndarray) -> Any:
        found = dict(zip(names, session.run(names, {"image": pixels}), strict=True))
        return found["score"], found["decision"]

    return call


def by_jax(file: pathlib.Path) -> Callable[[np.ndarray], Any]:
    """Compiled once for the number of photographs."""
    import jax

    program = jax.jit(jax.export.deserialize(bytearray(file.read_bytes())).call)

    def call(pixels: np.ndarray) -> Any:
        found = jax.device_get(program(pixels))
        return found["score"], found["decision"]

    return call


if __name__ == "__main__":
    main()
