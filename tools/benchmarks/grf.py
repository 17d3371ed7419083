"""Times what a Gaussian random field prior adds to a training step, beside the plain KL.

    python tools/benchmarks/grf.py --output=docs/results/grf_cpu.json

Value and gradients for one batch:

    plain            the divergence from the standard normal distribution, elementwise
    nearest, sum     the divergence from a Matern 3/2 field, base and eigenvalues included, by the
                     two ways to wrap a covariance round the torus; also with respect to the
                     range and variance
    likelihood       the log-density of the images, in grey, with respect to range and variance:
                     what the published VAE-GRF learns them from, in addition (nearest copies)
    step             loss and gradients of the whole VAE of these latents, with the plain
                     divergence, on images of 8 times the side

The rows take turns, so that a machine whose speed drifts slows them alike.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxad.data.batch import Batch
from jaxad.models import vae
from jaxad.ops import grf
from jaxad.run.environment import processor_name

Row = Callable[[], object]
SHAPES = ((8, 32, 32, 256), (8, 16, 16, 128))


def plain(mean, log_variance, range_, variance):
    del range_, variance
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - log_variance - 1)


def field(wrap, mean, log_variance, range_, variance):
    base = grf.covariance_base(mean.shape[1:3], "matern32", range_, variance, wrap=wrap)
    return jnp.sum(grf.kl_divergence(mean, log_variance, grf.eigenvalues(base)))


def prior_row(divergence: Callable, shape: tuple[int, ...]) -> Row:
    mean = jax.random.normal(jax.random.key(0), shape)
    arguments = (mean, -1.0 - 0.1 * mean, jnp.float32(1.0), jnp.float32(1.0))
    step = jax.jit(jax.value_and_grad(divergence, argnums=(0, 1, 2, 3)))
    return lambda: step(*arguments)


def likelihood_row(shape: tuple[int, ...]) -> Row:
    images = jax.random.normal(jax.random.key(0), (shape[0], 8 * shape[1], 8 * shape[2], 1))

    def density(range_, variance):
        base = grf.covariance_base(images.shape[1:3], "matern32", range_, variance)
        return jnp.sum(grf.log_density(images, grf.eigenvalues(base)))

    step = jax.jit(jax.value_and_grad(density, argnums=(0, 1)))
    return lambda: step(jnp.float32(1.0), jnp.float32(1.0))


def step_row(shape: tuple[int, ...]) -> Row:
    b, h, w, c = shape
    model = vae.build((8 * h, 8 * w, 3), latent=c, width=c // 4)
    variables = jax.jit(model.init)(jax.random.key(1))
    images = jax.random.uniform(jax.random.key(2), (b, 8 * h, 8 * w, 3))
    batch = Batch(images, jnp.arange(b), jnp.ones(b, bool))
    keys = jax.random.split(jax.random.key(3), b)

    def loss(parameters, rest):
        return jnp.mean(model.loss({"params": parameters, **rest}, batch, keys, True).per_example)

    step = jax.jit(jax.value_and_grad(loss))
    parameters, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    return lambda: step(parameters, rest)


def time_rows(rows: dict[str, Row], repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of every row, which take turns; ``step``, the longest, a few only."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for row in rows.values():
        jax.block_until_ready(row())
    for turn in range(repeats):
        for name, row in rows.items():
            if name == "step" and turn >= 4:
                continue
            start = time.perf_counter()
            jax.block_until_ready(row())
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"seconds_median": statistics.median(values), "seconds_min": min(values)}
        for name, values in seconds.items()
    }


def device_name() -> str:
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    return processor_name()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30, help="timed evaluations of each row")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    options = parser.parse_args()
    if jax.default_backend() == "cpu":
        from jaxad.run.environment import keep_freed_memory

        keep_freed_memory()  # as `jaxad train` does
    report = {
        "device": device_name(),
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
        "dtype": "float32",
        "shapes": [],
    }
    print(f"{report['device']}, {report['cores']} cores, value and gradients, milliseconds")
    print(f"{'latents':>18}{'':14}{'median':>10}{'min':>10}{'of a step':>12}")
    for shape in SHAPES:
        rows = {"plain": prior_row(plain, shape)}
        rows |= {w: prior_row(functools.partial(field, w), shape) for w in ("nearest", "sum")}
        rows |= {"likelihood": likelihood_row(shape), "step": step_row(shape)}
        times = time_rows(rows, options.repeats)
        report["shapes"].append({"latents": shape, "rows": times})
        for name, row in times.items():
            added = row["seconds_median"]
            if name in ("nearest", "sum"):
                added -= times["plain"]["seconds_median"]
            share = added / times["step"]["seconds_median"]
            cells = f"{1e3 * row['seconds_median']:10.2f}{1e3 * row['seconds_min']:10.2f}"
            print(f"{shape!s:>18}  {name:12}{cells}{share:12.2%}")
    print("of a step: medians; of nearest and sum, what they take more than the plain divergence")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
