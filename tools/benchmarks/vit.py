"""Times loss and gradients of a transformer: flax's layers, jaxad's, and PyTorch's, on CPU.

    python tools/benchmarks/vit.py --cores=1 --output=docs/results/vit_cpu.json

All rows have the same blocks (192 wide, 6 of them unless said otherwise), float32, and compute the
mean of the squared tokens and its gradients by all parameters and the tokens:

    flax     nn.LayerNorm, attention by two einsums, gradients by the chain rule
    jaxad    jaxad.models.layers.vit
    torch    PyTorch with scaled_dot_product_attention

Each row is a process of its own, and they take turns. On a machine that others use, read CPU
seconds at `--cores=1`. `temporary` is what XLA allocates besides arguments and results. The row of
PyTorch is left out, with a line, where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

ROWS = ("flax", "jaxad", "torch")
Step = Callable[[], float]


def jax_step(row: str, options: argparse.Namespace) -> tuple[Step, dict]:
    import jax
    import jax.numpy as jnp
    from flax import linen as nn

    from jaxad.models.layers.vit import Transformer
    from jaxad.run.environment import keep_freed_memory

    keep_freed_memory()  # in both rows, as `jaxad train` does
    d, heads = options.features, options.heads

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            b, n, _ = x.shape
            for _ in range(options.depth):
                qkv = nn.Dense(3 * d)(nn.LayerNorm()(x)).reshape(b, n, 3, heads, d // heads)
                scores = jnp.einsum("bqhd,bkhd->bhqk", qkv[:, :, 0], qkv[:, :, 1])
                weights = nn.softmax(scores * (d // heads) ** -0.5)
                mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, qkv[:, :, 2])
                x = x + nn.Dense(d)(mixed.reshape(b, n, d))
                hidden = nn.gelu(nn.Dense(4 * d)(nn.LayerNorm()(x)), approximate=False)
                x = x + nn.Dense(d)(hidden)
            return nn.LayerNorm()(x)

    network = Plain() if row == "flax" else Transformer(d, options.depth, heads)
    tokens = jax.random.normal(jax.random.key(0), (options.batch, options.tokens, d))
    params = jax.jit(network.init)(jax.random.key(1), tokens)
    loss = lambda params, tokens: jnp.mean(network.apply(params, tokens) ** 2)
    function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    start = time.perf_counter()
    compiled = function.lower(params, tokens).compile()
    facts = {
        "compile_seconds": time.perf_counter() - start,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "version": f"jax {jax.__version__}",
    }
    return lambda: float(jax.block_until_ready(compiled(params, tokens))[0]), facts


def torch_step(row: str, options: argparse.Namespace) -> tuple[Step, dict]:
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(options.cores)
    d, heads = options.features, options.heads

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6)
            self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x):
            b, n, _ = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, heads, d // heads)
            mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
            x = x + self.out(mixed.transpose(1, 2).reshape(b, n, d))
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    blocks = (Block() for _ in range(options.depth))
    network = nn.Sequential(*blocks, nn.LayerNorm(d, eps=1e-6))
    tokens = torch.randn(options.batch, options.tokens, d, requires_grad=True)

    def step() -> float:
        network.zero_grad()
        tokens.grad = None
        value = network(tokens).square().mean()
        value.backward()
        return value.item()

    parameters = sum(p.numel() for p in network.parameters())
    return step, {"parameters": parameters, "version": f"torch {torch.__version__}"}


def work(options: argparse.Namespace) -> None:
    """The child: builds, then times one step for each line it reads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    build = torch_step if options.worker == "torch" else jax_step
    step, facts = build(options.worker, options)
    step()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        start, start_cpu = time.perf_counter(), time.process_time()
        step()
        times = time.perf_counter() - start, time.process_time() - start_cpu
        print(json.dumps(times), flush=True)


def measure(rows: list[str], options: argparse.Namespace, tokens: int, heads: int) -> list[dict]:
    sizes = {"tokens": tokens, "heads": heads} | {
        name: getattr(options, name) for name in ("batch", "features", "depth", "cores")
    }
    flags = [f"--{name}={value}" for name, value in sizes.items()]
    processes = {
        row: subprocess.Popen(
            [sys.executable, __file__, "--worker", row, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for row in rows
    }
    facts = {row: json.loads(process.stdout.readline()) for row, process in processes.items()}
    if len({fact["parameters"] for fact in facts.values()}) != 1:
        raise SystemExit("the rows differ in their number of parameters: not one architecture")
    times: dict[str, list] = {row: [] for row in rows}
    for _ in range(options.steps):
        for row, process in processes.items():
            print(file=process.stdin, flush=True)
            times[row].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    results = []
    for row in rows:
        wall, cpu = zip(*times[row], strict=True)
        seconds = {
            "seconds_min": min(wall),
            "seconds_median": statistics.median(wall),
            "cpu_seconds_min": min(cpu),
            "cpu_seconds_median": statistics.median(cpu),
        }
        results.append({"row": row, **sizes, **seconds, **facts[row]})
    return results


def print_table(results: list[dict]) -> None:
    heads = ("tokens", "heads", "min s", "median s", "CPU min", "CPU med", "temp MB")
    print(f"{'row':8}" + "".join(f"{head:>10}" for head in heads))
    for r in results:
        figures = [r[k] for k in ("seconds_min", "seconds_median")]
        figures += [r[k] for k in ("cpu_seconds_min", "cpu_seconds_median")]
        cells = f"{r['tokens']:10}{r['heads']:10}" + "".join(f"{f:10.3f}" for f in figures)
        memory = f"{r['temporary_bytes'] / 1e6:10.0f}" if "temporary_bytes" in r else ""
        print(f"{r['row']:8}{cells}{memory}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", default="64,256", help="numbers of tokens")
    parser.add_argument("--heads", default="3,12", help="numbers of heads")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--features", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each row")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores of each row")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    parser.add_argument("--worker", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        options.tokens, options.heads = int(options.tokens), int(options.heads)
        work(options)
        return
    rows = list(ROWS)
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: its row is left out")
        rows.remove("torch")
    results = []
    for tokens in map(int, options.tokens.split(",")):
        for heads in map(int, options.heads.split(",")):
            results += measure(rows, options, tokens, heads)
    print_table(results)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"dtype": "float32", "rows": results}, indent=1))


if __name__ == "__main__":
    main()
