"""Everything worth measuring on a machine with a GPU, in one call.

    python tools/benchmarks/accelerator_report.py --data=FOLDER --output=docs/results/h100.json

Runs, one after the other, each in a process of its own and each allowed to fail without stopping
the rest: the tests of the operations and the conformance suite on the device, the time of a
full-size training step of every model (float32 and bfloat16, `jit`, and `pmap` for the first),
gaussian SSIM by jaxad and by dm-pix, the cost of the field prior, and the full-size configs on
every category given. The result is one JSON file with the device's name; it is rewritten after
every part, so a machine that is taken away early leaves what was done.
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

DTYPES = ("float32", "bfloat16")
MODELS = ("vqvae", "vae", "vae_grf", "vit_vae", "anovit", "vit_memory", "vt_adl", "mae")


def time_step(name: str, dtype: str, path: str, batch_size: int) -> dict:
    """Times the training step of a config's own sizes: median of five times ten steps."""
    import jax
    import numpy as np
    import optax

    from jaxad import models
    from jaxad.data.batch import Batch
    from jaxad.models.base import parameter_key
    from jaxad.run.config import load_settings
    from jaxad.training.parallel import Devices
    from jaxad.training.state import create_state
    from jaxad.training.step import make_train_step

    devices = Devices(1, force_pmap=path == "pmap")
    config = load_settings(name, {"model.dtype": dtype})
    shape = config.image_shape
    model = models.build_from(config, axis_name=devices.axis_name)
    optimizer = optax.adam(2e-4)
    step = make_train_step(model, optimizer, seed=0, axis_name=devices.axis_name)
    step = devices.compile_step(step, donate_state=True)
    variables = jax.jit(model.init)(parameter_key(0))
    state = devices.replicate(create_state(variables, optimizer))
    images = np.random.default_rng(0).integers(0, 255, (batch_size, *shape), np.uint8)
    valid = np.ones(batch_size, bool)
    batch = devices.split(Batch(images, np.arange(batch_size, dtype=np.int32), valid))
    begun = time.perf_counter()
    state, metrics = jax.block_until_ready(step(state, batch))
    compile_s = time.perf_counter() - begun
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(10):
            state, metrics = step(state, batch)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - begun) / 10)
    step_s = statistics.median(times)
    return {
        "config": name,
        "image": shape,
        "dtype": dtype,
        "path": path,
        "batch": batch_size,
        "compile_s": compile_s,
        "step_s": step_s,
        "images_per_s": batch_size / step_s,
        "loss": float(metrics.means["loss"]),
    }


def time_ssim() -> list[dict]:
    """Times gaussian SSIM by both backends, with and without gradient: which `auto` should take."""
    import jax
    import numpy as np

    from jaxad.ops.ssim import mean_ssim

    draw = np.random.default_rng(0).random
    a, b = (jax.device_put(np.float32(draw((16, 256, 256, 3)))) for _ in range(2))
    rows = []
    for backend in ("jaxad", "dm_pix"):
        value = lambda x, y, own=backend: mean_ssim(x, y, backend=own).sum()
        for what, function in (("value", value), ("gradient", jax.grad(value))):
            compiled = jax.jit(function)
            jax.block_until_ready(compiled(a, b))
            times = []
            for _ in range(5):
                begun = time.perf_counter()
                jax.block_until_ready(compiled(a, b))
                times.append(time.perf_counter() - begun)
            rows.append({"backend": backend, "of": what, "seconds": statistics.median(times)})
    return rows


def run(command: list[str], *, minutes: float, env: dict[str, str] | None = None) -> dict:
    """Runs a command; gives its exit status, seconds and the end of what it printed."""
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
    parser.add_argument("--data", default="", help="folder of categories in MVTec's layout")
    parser.add_argument("--categories", default="bottle,transistor,screw")
    parser.add_argument("--configs", nargs="+", default=["pca", "vqvae", "vae", "vit_vae"])
    parser.add_argument("--models", nargs="+", default=MODELS, help="whose step is timed")
    parser.add_argument("--platform", default="cuda", help="JAX's name of the device: cuda, cpu")
    parser.add_argument(
        "--overrides", nargs="*", default=[], help="--config.KEY=VALUE for all runs"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of one part")
    parser.add_argument("--batch", type=int, default=32, help="of the timed step")
    parser.add_argument("--output", default="docs/results/accelerator.json")
    parser.add_argument("--step", nargs=4, metavar=("CONFIG", "DTYPE", "PATH", "BATCH"),
                        help="only time one step and print it as JSON")  # fmt: skip
    parser.add_argument("--ssim", action="store_true", help="only time SSIM")
    arguments = parser.parse_args()
    if arguments.step:
        name, dtype, path, batch = arguments.step
        print(json.dumps(time_step(name, dtype, path, int(batch))))
        return
    if arguments.ssim:
        print(json.dumps(time_ssim()))
        return
    output = pathlib.Path(arguments.output)
    result: dict = {"made_by": "tools/benchmarks/accelerator_report.py"}

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
    # Tests of four devices need four: they run on virtual CPU devices everywhere else.
    keep("tests", run(
        [*python, "-m", "pytest", "tests/ops", "tests/models", "-q",
         "-k", "not four_devices and not missing_reduction and not pmap"],
        minutes=arguments.minutes, env={"JAXAD_TEST_PLATFORM": f"{arguments.platform},cpu"},
    ))  # fmt: skip
    steps = []
    cases = [(name, dtype, "jit") for name in arguments.models for dtype in DTYPES]
    cases += [(arguments.models[0], dtype, "pmap") for dtype in DTYPES]
    for case in cases:
        worker = [*python, __file__, "--step", *case, str(arguments.batch)]
        done = run(worker, minutes=arguments.minutes)
        try:
            steps.append(json.loads(done["tail"].strip().splitlines()[-1]))
        except (ValueError, IndexError):
            steps.append({"case": case, **done})
        keep("steps", steps)
    done = run([*python, __file__, "--ssim"], minutes=arguments.minutes)
    try:
        keep("ssim", json.loads(done["tail"].strip().splitlines()[-1]))
    except (ValueError, IndexError):
        keep("ssim", done)
    tools = pathlib.Path(__file__).parent
    prior = output.with_name(f"grf_{output.name}")
    keep("field_prior", run(
        [*python, str(tools / "grf.py"), f"--output={prior}"], minutes=arguments.minutes
    ))  # fmt: skip
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
