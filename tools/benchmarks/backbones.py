"""Times depthwise convolutions and the backbone that is made of them, beside XLA's own.

    python tools/benchmarks/backbones.py --output=docs/results/backbones_cpu.json

Every depthwise convolution of EfficientNet-Lite0 at 256 x 256 pixels, value alone and value with
both gradients, by ``jaxad.ops.convolution.depthwise_conv`` and by ``lax.conv_general_dilated``;
then the feature maps of images by the whole backbone, one image with the one and with the other,
eight one by one and together. On a CPU one core is used (``--cores``). The rows take turns, so that
a machine whose speed drifts slows them alike; the least of the repeats says most on a machine that
others use too.
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
from unittest import mock

import jax
from jax import lax

from jaxad.models.layers import efficientnet_lite
from jaxad.models.layers.backbones import backbone
from jaxad.ops.convolution import depthwise_conv
from jaxad.run.environment import keep_freed_memory, processor_name

Row = Callable[[], object]
SIDE = 256


def native(x, kernel, *, stride):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


FORMS = {"jaxad": depthwise_conv, "xla": native}


def shapes() -> list[tuple[int, int, int, int]]:
    """Side, channels, kernel and stride of the network's depthwise convolutions, each once."""
    side, channels, found = SIDE // 2, efficientnet_lite.STEM, []
    for block in efficientnet_lite.block_shapes(0):
        row = (side, block.expansion * channels, block.kernel, block.stride)
        found += [row] if row not in found else []
        side, channels = side // block.stride, block.features
    return found


def convolution_rows(side: int, channels: int, kernel: int, stride: int) -> dict[str, Row]:
    x = jax.random.normal(jax.random.key(0), (1, side, side, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, 1, channels))
    rows = {}
    for name, form in FORMS.items():
        value = functools.partial(form, stride=stride)

        def with_gradients(x, weights, value=value):
            y, pull = jax.vjp(value, x, weights)
            return y, pull(y)

        for what, function in (("value", value), ("with gradients", with_gradients)):
            rows[f"{what}, {name}"] = functools.partial(jax.jit(function), x, weights)
    return rows


def network_rows(name: str, batch: int) -> dict[str, Row]:
    module = backbone(name).module
    images = jax.random.uniform(jax.random.key(0), (batch, SIDE, SIDE, 3))
    variables = jax.jit(module.init)(jax.random.key(1), images[:1])
    forms = {"jaxad": jax.jit(lambda v, x: module.apply(v, x))}
    together = jax.jit(lambda v, x: module.apply(v, x, method="together"))
    if batch > 1:
        forms["jaxad, together"] = together
    else:
        with mock.patch.object(efficientnet_lite, "depthwise_conv", native):
            jax.block_until_ready(together(variables, images))  # traced, and kept
        forms["xla"] = together
    return {form: functools.partial(run, variables, images) for form, run in forms.items()}


def time_rows(rows: dict[str, Row], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of every row, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for row in rows.values():
        jax.block_until_ready(row())
    for _ in range(repeats):
        for name, row in rows.items():
            start = time.perf_counter()
            jax.block_until_ready(row())
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: {"ms_min": min(values), "ms_median": statistics.median(values)}
        for name, values in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20, help="timed evaluations of each row")
    parser.add_argument("--cores", type=int, default=1, help="that a CPU is used with")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    options = parser.parse_args()
    # Before JAX starts its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    keep_freed_memory()
    device = jax.devices()[0]
    report = {
        "device": processor_name() if device.platform == "cpu" else device.device_kind,
        "cores": options.cores,
        "jax": jax.__version__,
        "dtype": "float32",
        "load_average": os.getloadavg()[0],
        "convolutions": [],
        "networks": [],
    }
    print(f"{report['device']}, {options.cores} cores, milliseconds, the least of the repeats")
    for shape in shapes():
        times = time_rows(convolution_rows(*shape), options.repeats)
        report["convolutions"].append(
            {
                "side": shape[0],
                "channels": shape[1],
                "kernel": shape[2],
                "stride": shape[3],
                **times,
            }
        )
        cells = "  ".join(f"{name} {row['ms_min']:.2f}" for name, row in times.items())
        print("side {} channels {} kernel {} stride {}:  ".format(*shape) + cells, flush=True)
    for name, batch in (("efficientnet_lite0", 1), ("efficientnet_lite0", 8)):
        times = time_rows(network_rows(name, batch), options.repeats)
        report["networks"].append({"backbone": name, "side": SIDE, "batch": batch, **times})
        cells = "  ".join(f"{row} {t['ms_min'] / batch:.1f}" for row, t in times.items())
        print(f"{name}, {batch} images of {SIDE} x {SIDE}, an image:  {cells}", flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
