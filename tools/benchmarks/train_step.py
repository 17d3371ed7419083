"""Times one VQ-VAE training step in plain JAX, with jaxad's convolutions, and in PyTorch, on CPU.

    python tools/benchmarks/train_step.py --output=docs/results/train_step_cpu.json
    python tools/benchmarks/train_step.py --profile

All rows have the same architecture (three 4x4 stride-2 convolutions with ReLU and batch
normalisation, three residual layers, a codebook, the mirrored decoder), parameter count, loss
(sum of binary cross-entropies per image, codebook and commitment terms) and optimiser (Adam):

    lax             flax.linen.Conv and ConvTranspose
    jaxad           jaxad.models.layers.basic, freed memory kept as `jaxad train` keeps it
    torch           PyTorch, its default NCHW memory order
    torch-nhwc      PyTorch, channels_last

Each row is a process of its own, so that thread pools do not meet, and the rows take turns, a few
steps each, so that a machine whose speed drifts slows them alike. Compare only numbers of one run.
The rows of PyTorch are left out, with a line, where it is not installed.

`--profile` times every distinct convolution of the network alone: value, input gradient and kernel
gradient, beside the time that its multiplications would take at the rate of a large matrix product
in the same process.

On a machine that others use too, threads that wait for each other lose the most (OpenMP's, which
PyTorch uses, spin while they wait), so a fair comparison there is `--cores=1`, read by CPU seconds.

A step allocates gigabytes, and Linux faults them in 4 KiB at a time unless the process keeps them
or asks for huge pages; `--huge-pages` lets glibc (2.35 or newer) ask instead, in all rows alike.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

import rows

ROWS = ("lax", "jaxad", "torch", "torch-nhwc")
PROFILED = ("lax", "jaxad", "torch")
STEPS_A_TURN = 3
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


# Processes that take turns.


def work(row: str, options: argparse.Namespace) -> None:
    """The child: builds, says what it built, and times one thing for each line it reads."""
    # Before any library counts the cores for its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    batch, size, channels = options.batch, options.size, options.channels
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not disturb the answers
    of_torch = row.startswith("torch")
    if row == "jaxad" and "GLIBC_TUNABLES" not in os.environ:
        from jaxad.run.environment import keep_freed_memory

        keep_freed_memory()  # as `jaxad train` does
    if options.profile:
        build = rows.torch_layer if of_torch else rows.jax_layer
        tasks = [rows.matmul(row)]
        for layer in rows.layer_table(size, channels):
            tasks += build(row, layer, batch)
        facts = {}
    else:
        build = rows.torch_step if of_torch else rows.jax_step
        step, facts = build(row, batch, size, channels)
        tasks = [step]
    for task in tasks:
        task()
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        start, start_cpu = time.perf_counter(), time.process_time()
        value = tasks[int(line)]()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        value = value if isinstance(value, float) else None
        answer = {"seconds": seconds, "cpu_seconds": cpu_seconds, "value": value}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """A child process for one row."""

    def __init__(self, row: str, options: argparse.Namespace, profile: bool):
        command = [sys.executable, __file__, "--worker", row]
        for name in ("batch", "size", "channels", "cores"):
            command.append(f"--{name}={getattr(options, name)}")
        if profile:
            command.append("--profile")
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        environment |= HUGE_PAGES if options.huge_pages else {}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )
        self.facts = self._read()

    def time(self, task: int = 0) -> dict:
        """Runs one task; its wall seconds, the seconds of all its threads, its value."""
        print(task, file=self.process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker process ended with status {self.process.wait()}")
        return json.loads(line)


def time_steps(rows: list[str], options: argparse.Namespace) -> list[dict]:
    workers = {row: Worker(row, options, profile=False) for row in rows}
    steps: dict[str, list[dict]] = {row: [] for row in rows}
    least = math.inf
    for turn in range(math.ceil(options.steps / STEPS_A_TURN)):
        for row, worker in workers.items():
            # One turn is enough to see that a row is out of the race.
            if turn and min(step["seconds"] for step in steps[row]) > 5 * least:
                continue
            # Untimed: while the others ran, a virtual machine's host may have taken back memory
            # that this process had freed, which a training loop, always busy, never sees.
            worker.time()
            steps[row] += [worker.time() for _ in range(STEPS_A_TURN)]
            least = min(least, *(step["seconds"] for step in steps[row]))
    if len({worker.facts["parameters"] for worker in workers.values()}) != 1:
        raise SystemExit("the rows differ in their number of parameters: not one architecture")
    results = []
    for row, worker in workers.items():
        worker.close()
        wall = [step["seconds"] for step in steps[row]]
        median = statistics.median(wall)
        results.append(
            {
                "row": row,
                "steps": len(wall),
                "seconds_median": median,
                "seconds_min": min(wall),
                "cpu_seconds_median": statistics.median(t["cpu_seconds"] for t in steps[row]),
                "images_per_second": options.batch / median,
                "first_loss": steps[row][0]["value"],
                "last_loss": steps[row][-1]["value"],
                **worker.facts,
            }
        )
    torch_rows = [result for result in results if result["row"].startswith("torch")]
    for result in results:
        for key in ("seconds_median", "seconds_min", "cpu_seconds_median"):
            best = min((other[key] for other in torch_rows), default=None)
            result[f"{key}_over_torch"] = None if best is None else result[key] / best
    return results


def time_layers(rows: list[str], options: argparse.Namespace) -> list[dict]:
    workers = {row: Worker(row, options, profile=True) for row in rows}
    layers = rows.layer_table(options.size, options.channels)
    best = {row: [math.inf] * (1 + 3 * len(layers)) for row in rows}
    best_cpu = copy.deepcopy(best)
    for _ in range(math.ceil(options.steps / STEPS_A_TURN)):
        for task in range(1 + 3 * len(layers)):
            for row, worker in workers.items():
                for result in (worker.time(task) for _ in range(STEPS_A_TURN)):
                    best[row][task] = min(best[row][task], result["seconds"])
                    best_cpu[row][task] = min(best_cpu[row][task], result["cpu_seconds"])
    for worker in workers.values():
        worker.close()
    rate = rows.MATMUL_FLOP / min(times[0] for times in best.values())
    results = []
    for i, layer in enumerate(layers):
        flop = rows.layer_flop(layer, options.batch)
        for j, kind in enumerate(("value", "input gradient", "kernel gradient")):
            seconds = {row: best[row][1 + 3 * i + j] for row in rows}
            cpu_seconds = {row: best_cpu[row][1 + 3 * i + j] for row in rows}
            results.append(
                {
                    "layer": layer[0],
                    "kind": kind,
                    "count": layer[-1],
                    "gflop": flop / 1e9,
                    "seconds_at_matmul_rate": flop / rate,
                    "seconds_min": seconds,
                    "cpu_seconds_min": cpu_seconds,
                }
            )
    return results


# Tables.


def print_steps(results: list[dict]) -> None:
    keys = ("seconds_median", "seconds_min", "cpu_seconds_median")
    heads = ("compile s", "median s", "min s", "CPU s", "images/s", *3 * ["/torch"])
    print(f"{'row':12}" + "".join(f"{head:>10}" for head in heads))
    for r in results:
        figures = [r["compile_seconds"], *(r[key] for key in keys), r["images_per_second"]]
        figures += [r[f"{key}_over_torch"] for key in keys]
        cells = ("" if figure is None else f"{figure:.2f}" for figure in figures)
        print(f"{r['row']:12}" + "".join(f"{cell:>10}" for cell in cells))
    print("/torch: median, least and CPU seconds over those of the faster PyTorch row")


def print_layers(results: list[dict], rows: list[str]) -> None:
    print("milliseconds, least of the turns; 'matmul' = the same multiplications at matrix speed")
    head = "".join(f"{row:>10}" for row in ("matmul", *rows))
    print(f"{'layer':25}{'':17}{'count':>5}{head}")
    for r in results:
        times = (r["seconds_at_matmul_rate"], *(r["seconds_min"][row] for row in rows))
        cells = "".join(f"{1e3 * t:10.1f}" for t in times)
        print(f"{r['layer']:25}{r['kind']:17}{r['count']:5d}{cells}")
    for kind in ("value", "input gradient", "kernel gradient"):
        of_kind = [r for r in results if r["kind"] == kind]
        sums = [sum(r["count"] * r["seconds_at_matmul_rate"] for r in of_kind)]
        sums += [sum(r["count"] * r["seconds_min"][row] for r in of_kind) for row in rows]
        print(f"{'all, times count':25}{kind:22}" + "".join(f"{1e3 * t:10.1f}" for t in sums))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=256, help="side of the images, in pixels")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--steps", type=int, default=9, help="timed steps of each row")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--profile", action="store_true", help="time the convolutions alone")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores of each row")
    parser.add_argument("--huge-pages", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    parser.add_argument("--worker", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options)
        return
    from jaxad.run.environment import processor_name

    rows = options.rows.split(",")
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: its rows are left out")
        rows = [row for row in rows if not row.startswith("torch")]
    report = {
        "processor": processor_name(),
        "cores": options.cores,
        "batch": options.batch,
        "size": options.size,
        "channels": options.channels,
        "dtype": "float32",
        "huge_pages": options.huge_pages,
    }
    print(f"{report['processor']}, {report['cores']} cores")
    if options.profile:
        rows = [row for row in rows if row in PROFILED]
        report["layers"] = time_layers(rows, options)
        print_layers(report["layers"], rows)
    else:
        report["rows"] = time_steps(rows, options)
        print_steps(report["rows"])
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
