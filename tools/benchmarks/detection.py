"""Times what `jaxad predict` does with an image in memory, for every small config.

    python tools/benchmarks/detection.py --output=docs/results/detection_cpu.json

Each config is trained for one step on generated images (the time does not depend on the weights),
then judges 16 images of its own size, one by one (`evaluate.batch_size=1`: latency) and all at once
(`evaluate.batch_size=16`: throughput): maps, smoothing, score and decision, but no decoding of
files and no pictures. Best and median of several repeats, the best because other work on the
machine can only slow it down.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

import jaxad
from jaxad.data.synthetic import dataset as synthetic
from jaxad.run.environment import processor_name
from jaxad.run.files import write_json

CONFIGS = ("feature_pca", "pca", "pca:patch", "cae:small", "vqvae:small", "vae:small",
           "vae_grf:small", "vit_vae:small", "anovit:small", "vit_memory:small", "vt_adl:small",
           "mae:small", "mae:small,fast")  # fmt: skip
IMAGES = 16


def time_config(name: str, workdir: str, *, repeats: int, overrides: dict[str, str]) -> dict:
    """Milliseconds an image, best and median, one by one and all at once."""
    config = jaxad.load_config(name, {"train.steps": "1", "data.pipeline": "memory", **overrides})
    jaxad.train(config, workdir)
    size = config.data.image_size
    images = [synthetic.render("flange", seed=i, image_size=size)[0] for i in range(IMAGES)]
    row = {"config": name, "image_size": list(size)}
    for batch_size in (1, IMAGES):
        detector = jaxad.load_detector(workdir, overrides={"evaluate.batch_size": str(batch_size)})
        seconds = []
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            decided = [p.decision for p in detector.predict(images)]
            seconds.append((time.perf_counter() - begun) / IMAGES)
        assert len(decided) == IMAGES
        for how, value in (("best", min), ("median", statistics.median)):
            # The first call compiles.
            row[f"{how}_ms_batch_{batch_size}"] = 1000 * float(value(np.asarray(seconds[1:])))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    overrides = dict(pair.split("=", 1) for pair in arguments.overrides)
    rows = []
    for name in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(time_config(name, folder, repeats=arguments.repeats, overrides=overrides))
        print(rows[-1], flush=True)
        write_json(
            arguments.output,
            {
                "device": str(jax.devices()[0]),
                "processor": processor_name(),
                "cores": len(os.sched_getaffinity(0)),
                "repeats": arguments.repeats,
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
