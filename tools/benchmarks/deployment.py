"""Times a decision in Python, onnxruntime and the browser, for every small config.

    npm install onnxruntime-web
    python tools/benchmarks/deployment.py --runtime=node_modules/onnxruntime-web \
        --output=docs/results/deployment_cpu.json

Each config is trained for one step on generated images (the time does not depend on the weights),
then written by `jaxad export --format=onnx`. All judge the same images in memory, of the size that
the model sees, 1, 4 and 16 in a call: median and 99th percentile of the calls, in milliseconds an
image. With them stands the processor's time (not of the browser), which other work on the machine
changes less. In onnxruntime's lies the time in which its threads wait for one another turning round
(`session.intra_op.allow_spinning`), so that it is timed without too. The browser is headless
Chromium with onnxruntime-web's WebAssembly in one thread, as the
page of `jaxad export --format=web` has it; without `--runtime` it is left out. The first result is
that of one image after the run or the file was opened: reading, compiling (Python; nothing is
cached) or optimising the graph (onnxruntime) included. `command` is `jaxad predict` with one image,
from its start to its end, with an empty cache of compiled programs and then with a filled one; its
modules lie there as bytecode, as in every installation.

Rows of an output that is there already are kept, so that the configs can be timed in parts;
`--command` times the command alone anew. Of a model that takes seconds an image, fewer calls are
timed, and in the browser only as many images at once as one minute takes.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import onnxruntime
from PIL import Image

import jaxad
from jaxad.data.synthetic import dataset as synthetic
from jaxad.export.formats import export
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json

CONFIGS = ("feature_pca", "own_features", "pca", "pca:patch", "restore", "restore:pretrained",
           "cae:small", "vqvae:small", "vae:small", "vae_grf:small", "vit_vae:small",
           "anovit:small", "vit_memory:small", "vt_adl:small",
           "mae:small", "mae:small,fast")  # fmt: skip
BATCHES = (1, 4, 16)
SLOW = 4.0
"""Seconds of a call from which on two are timed instead of five."""


def summary(taken: list[float], images: int) -> dict[str, float]:
    """Of the milliseconds of calls, an image."""
    each = np.asarray(taken) / images
    return {"median": float(np.median(each)), "p99": float(np.percentile(each, 99)),
            "calls": len(taken)}  # fmt: skip


def timed(call: Callable[[], Any], images: int, *, seconds: float) -> dict[str, float]:
    """Milliseconds an image of repeated calls, the first left out; ``cpu``: on all cores."""
    begun = time.perf_counter()
    call()
    least = 5 if time.perf_counter() - begun < SLOW else 2
    taken: list[float] = []
    begun_cpu = time.process_time()
    while len(taken) < least or (sum(taken) < seconds and len(taken) < 200):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    cpu = 1000 * (time.process_time() - begun_cpu) / len(taken) / images
    return {**summary([1000 * one for one in taken], images), "cpu": cpu}


def command_seconds(workdir: pathlib.Path, image: np.ndarray, folder: pathlib.Path) -> dict:
    """`jaxad predict` with one image, the programs compiled and kept before or not."""
    Image.fromarray(image).save(folder / "image.png")
    environment = {**os.environ, "JAXAD_CACHE": str(folder / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    # As pip does at installation.
    package = pathlib.Path(jaxad.__file__).parent
    subprocess.run([sys.executable, "-m", "compileall", "-q", package], check=True)
    taken = []
    for i in range(6):
        words = [f"--workdir={workdir}", f"--input={folder / 'image.png'}",
                 f"--output={folder / f'results_{i}'}"]  # fmt: skip
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "jaxad", "predict", *words],
            env=environment, check=True, capture_output=True,
        )  # fmt: skip
        taken.append(time.perf_counter() - begun)
    return {"cold": taken[0], "warm": statistics.median(taken[1:])}


def trained(name: str, folder: pathlib.Path, overrides: dict[str, str]) -> np.ndarray:
    """Trains a config for a step into ``folder/run``; sixteen images of the size that it sees."""
    config = jaxad.load_config(name, {"train.steps": "1", "data.pipeline": "memory", **overrides})
    jaxad.train(config, folder / "run")
    jaxad.load_detector(folder / "run")  # calibrates
    size = config.data.image_size
    return np.stack([synthetic.render("flange", seed=i, image_size=size)[0] for i in range(16)])


def command_of(name: str, folder: pathlib.Path, overrides: dict[str, str]) -> dict[str, float]:
    """Trains a config, and times the command alone."""
    images = trained(name, folder, overrides)
    (folder / "command").mkdir()
    return command_seconds(folder / "run", images[0], folder / "command")


def row_of(
    name: str,
    folder: pathlib.Path,
    *,
    seconds: float,
    overrides: dict[str, str],
    runtime: pathlib.Path | None = None,
) -> dict:
    """Times, size and difference of one config; in the browser if there is a runtime."""
    images = trained(name, folder, overrides)
    file = folder / "model.onnx"
    begun = time.perf_counter()
    record = export(folder / "run", file, format="onnx")
    row: dict[str, Any] = {
        "config": name,
        "image_size": list(images.shape[1:3]),
        "bytes": record["bytes"],
        "seconds_of_export": time.perf_counter() - begun,
    }
    jax.clear_caches()

    begun = time.perf_counter()
    detector = jaxad.load_detector(folder / "run")
    detector.predict([images[0]])
    row["first_result_seconds"] = {"python": time.perf_counter() - begun}
    begun = time.perf_counter()
    session = onnxruntime.InferenceSession(file)
    session.run(["score"], {"image": images[:1]})
    row["first_result_seconds"]["onnxruntime"] = time.perf_counter() - begun

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    yielding = onnxruntime.InferenceSession(file, options)
    names = ["score", "map", "decision"]
    row["ms"] = {"python": {}, "onnxruntime": {}, "onnxruntime_yielding": {}}
    for count in BATCHES:
        batch = images[:count]
        row["ms"]["python"][str(count)] = timed(
            lambda batch=batch: detector.predict(list(batch)), count, seconds=seconds
        )
        for way, of in (("onnxruntime", session), ("onnxruntime_yielding", yielding)):
            row["ms"][way][str(count)] = timed(
                lambda batch=batch, of=of: of.run(names, {"image": batch}), count, seconds=seconds
            )
    (folder / "command").mkdir()
    row["command_seconds"] = command_seconds(folder / "run", images[0], folder / "command")
    own = np.array([prediction.score for prediction in detector.predict(list(images))])
    one_by_one = np.array([detector.predict([image])[0].score for image in images[:4]])
    (scores,) = session.run(["score"], {"image": images})
    row["largest_relative_difference_of_scores"] = {
        "onnxruntime": float(np.abs(scores / own - 1).max()),
        "one_by_one": float(np.abs(one_by_one / own[:4] - 1).max()),
    }
    if runtime is not None:
        import chromium  # beside this file; needs selenium

        (folder / "browser").mkdir()
        found = chromium.timed(file, images, runtime, folder / "browser",
                               counts=BATCHES, seconds=seconds)  # fmt: skip
        row["first_result_seconds"]["browser"] = found["first"]
        row["ms"]["browser"] = {n: summary(taken, int(n)) for n, taken in found["ms"].items()}
        row["largest_relative_difference_of_scores"]["browser"] = float(
            np.abs(np.array(found["scores"]) / own[: len(found["scores"])] - 1).max()
        )
    return row


def table(rows: list[dict]) -> str:
    """In Markdown: median and 99th percentile, milliseconds an image."""
    ways = [way for way in ("python", "onnxruntime", "browser") if way in rows[0]["ms"]]
    head = ["config", *(f"{way}, {n}" for way in ways for n in BATCHES),
            "file, MB", *(f"first by {way}, s" for way in ways), "`jaxad predict`, s"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for row in rows:
        times = [row["ms"][way].get(str(n)) for way in ways for n in BATCHES]
        firsts = [f"{row['first_result_seconds'][way]:.1f}" for way in ways]
        cells = (f"{t['median']:.3g} ({t['p99']:.3g})" if t else "" for t in times)
        lines.append(
            [f"`{row['config']}`", *cells,
             f"{row['bytes'] / 1e6:.1f}", *firsts, f"{row['command_seconds']['warm']:.1f}"]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of every measurement, about")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--command", action="store_true", help="time the command alone anew")
    parser.add_argument("--runtime", type=pathlib.Path, help="the npm package onnxruntime-web")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    os.environ.setdefault("JAXAD_CACHE", tempfile.mkdtemp())
    overrides = dict(pair.split("=", 1) for pair in arguments.overrides)
    rows = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    if not arguments.command:
        rows = [row for row in rows if row["config"] not in arguments.configs]
    for name in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            if arguments.command:
                [row] = [row for row in rows if row["config"] == name]
                row["command_seconds"] = command_of(name, place, overrides)
            else:
                rows.append(
                    row_of(name, place, seconds=arguments.seconds, overrides=overrides,
                           runtime=arguments.runtime)
                )  # fmt: skip
        print(f"{name}: done", flush=True)
        rows.sort(key=lambda row: CONFIGS.index(row["config"]))
        write_json(
            arguments.output,
            {
                "device": str(jax.devices()[0]),
                "processor": processor_name(),
                "cores": len(os.sched_getaffinity(0)),
                "load_average": os.getloadavg()[0],
                "versions": {"jax": jax.__version__, "onnxruntime": onnxruntime.__version__},
                "rows": rows,
            },
        )
    print(table(json.loads(arguments.output.read_text())["rows"]))


if __name__ == "__main__":
    main()
