"""Times a decision in Python and in onnxruntime, for every small config, and compares the scores.

    python tools/benchmarks/deployment.py --output=docs/results/deployment_cpu.json

Each config is trained for one step on generated images (the time does not depend on the weights),
then written by `jaxad export --format=onnx`. Both judge the same images in memory, of the size that
the model sees, 1, 4 and 16 in a call: median and 99th percentile of the calls, in milliseconds an
image. The first result is that of one image after the run or the file was opened: reading,
compiling (Python; nothing is cached) or optimising the graph (onnxruntime) included.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import onnxruntime

import jaxad
from jaxad.data.synthetic import dataset as synthetic
from jaxad.export.formats import export
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json

CONFIGS = ("feature_pca", "pca", "pca:patch", "cae:small", "vqvae:small", "vae:small",
           "vae_grf:small", "vit_vae:small", "anovit:small", "vit_memory:small", "vt_adl:small",
           "mae:small", "mae:small,fast")  # fmt: skip
BATCHES = (1, 4, 16)


def timed(call: Callable[[], Any], images: int, *, seconds: float) -> dict[str, float]:
    """Milliseconds an image of repeated calls, the first left out."""
    call()
    taken: list[float] = []
    while len(taken) < 5 or (sum(taken) < seconds and len(taken) < 200):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    each = 1000 * np.asarray(taken) / images
    return {"median": float(np.median(each)), "p99": float(np.percentile(each, 99)),
            "calls": len(taken)}  # fmt: skip


def row_of(name: str, folder: pathlib.Path, *, seconds: float, overrides: dict[str, str]) -> dict:
    """Times, size and difference of one config."""
    config = jaxad.load_config(name, {"train.steps": "1", "data.pipeline": "memory", **overrides})
    jaxad.train(config, folder / "run")
    jaxad.load_detector(folder / "run")  # calibrates
    size = config.data.image_size
    images = np.stack([synthetic.render("flange", seed=i, image_size=size)[0] for i in range(16)])
    file = folder / "model.onnx"
    begun = time.perf_counter()
    record = export(folder / "run", file, format="onnx")
    row: dict[str, Any] = {"config": name, "image_size": list(size), "bytes": record["bytes"],
                           "seconds_of_export": time.perf_counter() - begun}  # fmt: skip
    jax.clear_caches()

    begun = time.perf_counter()
    detector = jaxad.load_detector(folder / "run")
    detector.predict([images[0]])
    row["first_result_seconds"] = {"python": time.perf_counter() - begun}
    begun = time.perf_counter()
    session = onnxruntime.InferenceSession(file)
    session.run(["score"], {"image": images[:1]})
    row["first_result_seconds"]["onnxruntime"] = time.perf_counter() - begun

    names = ["score", "map", "decision"]
    row["ms"] = {"python": {}, "onnxruntime": {}}
    for count in BATCHES:
        batch = images[:count]
        row["ms"]["python"][count] = timed(
            lambda batch=batch: detector.predict(list(batch)), count, seconds=seconds
        )
        row["ms"]["onnxruntime"][count] = timed(
            lambda batch=batch: session.run(names, {"image": batch}), count, seconds=seconds
        )
    own = np.array([prediction.score for prediction in detector.predict(list(images))])
    one_by_one = np.array([detector.predict([image])[0].score for image in images[:4]])
    (scores,) = session.run(["score"], {"image": images})
    row["largest_relative_difference_of_scores"] = {
        "onnxruntime": float(np.abs(scores / own - 1).max()),
        "one_by_one": float(np.abs(one_by_one / own[:4] - 1).max()),
    }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of every measurement, about")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    os.environ.setdefault("JAXAD_CACHE", tempfile.mkdtemp())
    overrides = dict(pair.split("=", 1) for pair in arguments.overrides)
    rows = []
    for name in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(
                row_of(name, pathlib.Path(folder), seconds=arguments.seconds, overrides=overrides)
            )
        print(rows[-1], flush=True)
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


if __name__ == "__main__":
    main()
