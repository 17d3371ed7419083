"""Everything worth measuring on a machine with a GPU, in one call.

    python tools/accelerator_report.py --data=FOLDER --output=docs/results/h100.json

Runs, one after the other, each in a process of its own and each allowed to fail without stopping
the rest: the tests of the operations and the conformance suite on the device, the time of a
full-size VQ-VAE step (float32 and bfloat16, plain linen and jaxad layers, `jit` and `pmap`), and
the full-size configs on every category given. The result is one JSON file with the device's name;
it is rewritten after every part, so a machine that is taken away early leaves what was done.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

STEP = """
import json, time, jax, jax.numpy as jnp, numpy as np, optax, sys
from jaxad import models
from jaxad.data.batch import Batch
from jaxad.models.base import parameter_key
from jaxad.training.parallel import Devices
from jaxad.training.state import create_state
from jaxad.training.step import make_train_step
dtype, mapped, batch_size = sys.argv[1], sys.argv[2] == "pmap", int(sys.argv[3])
devices = Devices(1, force_pmap=mapped)
model = models.build("vqvae", (256, 256, 3), axis_name=devices.axis_name, dtype=dtype)
optimizer = optax.adam(2e-4)
step = make_train_step(model, optimizer, lambda x, k: x, seed=0, axis_name=devices.axis_name)
state = devices.replicate(create_state(jax.jit(model.init)(parameter_key(0)), optimizer))
step = devices.compile_step(step, donate_state=True)
rng = np.random.default_rng(0)
image = rng.integers(0, 255, (batch_size, 256, 256, 3), np.uint8)
batch = devices.split(Batch(image, np.arange(batch_size, dtype=np.int32), np.ones(batch_size, bool)))
begun = time.perf_counter()
state, metrics = jax.block_until_ready(step(state, batch))
compiled = time.perf_counter() - begun
times = []
for _ in range(5):
    begun = time.perf_counter()
    for _ in range(10):
        state, metrics = step(state, batch)
    jax.block_until_ready(state)
    times.append((time.perf_counter() - begun) / 10)
print(json.dumps({"dtype": dtype, "path": sys.argv[2], "batch": batch_size,
    "compile_s": compiled, "step_s": sorted(times)[2], "images_per_s": batch_size / sorted(times)[2],
    "loss": float(metrics.means["loss"])}))
"""


def run(command: list[str], *, minutes: float, env: dict[str, str] | None = None) -> dict:
    """Runs a command; gives its exit status, seconds and the end of what it printed."""
    import os

    begun = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * minutes,
            env={**os.environ, **(env or {})}, check=False,
        )  # fmt: skip
        text, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        text, status = str(error.stdout or "")[-2000:], "time limit"
    return {"status": status, "seconds": time.perf_counter() - begun, "tail": text[-2000:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of categories in MVTec's layout")
    parser.add_argument("--categories", default="bottle,transistor,screw")
    parser.add_argument("--configs", nargs="+", default=["pca", "cae:ssim", "vqvae"])
    parser.add_argument("--platform", default="cuda", help="JAX's name of the device: cuda, cpu")
    parser.add_argument(
        "--overrides", nargs="*", default=[], help="--config.KEY=VALUE for all runs"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of one part")
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    output = pathlib.Path(arguments.output)
    result: dict = {"made_by": "tools/accelerator_report.py"}

    def keep(name: str, value) -> None:
        result[name] = value
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n")
        print(f"{name}: {json.dumps(value)[:300]}", flush=True)

    python = [sys.executable]
    describe = (
        "import json; from jaxad import environment; print(json.dumps(environment.describe(0)))"
    )
    keep("environment", json.loads(subprocess.check_output([*python, "-c", describe], text=True)))
    keep("tests", run(
        [*python, "-m", "pytest", "tests/ops", "tests/models", "-q", "-x"],
        minutes=arguments.minutes, env={"JAXAD_TEST_PLATFORM": f"{arguments.platform},cpu"},
    ))  # fmt: skip
    steps = []
    for dtype in ("float32", "bfloat16"):
        for path in ("jit", "pmap"):
            done = run([*python, "-c", STEP, dtype, path, "32"], minutes=arguments.minutes)
            try:
                steps.append(json.loads(done["tail"].strip().splitlines()[-1]))
            except (ValueError, IndexError):
                steps.append({"dtype": dtype, "path": path, **done})
            keep("vqvae_step", steps)
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            [*python, "-m", "jaxad", "benchmark", "--configs", *arguments.configs,
             f"--categories={arguments.categories}", f"--workdir={folder}",
             f"--config.data.root={arguments.data}", *arguments.overrides],
            minutes=arguments.minutes * 3,
        )  # fmt: skip
        table = pathlib.Path(folder) / "results.json"
        keep("benchmark", json.loads(table.read_text()) if table.exists() else done)


if __name__ == "__main__":
    main()
