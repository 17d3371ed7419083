"""Times the masked autoencoder on a CPU: detection by each schedule, and a training step.

    python tools/benchmarks/mae.py --output=docs/results/mae_cpu.json              ViT-B/16 at 224
    python tools/benchmarks/mae.py --size=tiny --train     the config `small`

Rows of detection, all with the same images and the same random weights, which PyTorch draws and
`jaxad convert` brings over (drawn by jaxad where PyTorch is not installed):

    torch              transformers' ViTMAEForPreTraining, one forward pass for every block of
                       2 x 2 patches in turn, the predictions put together to one image
    sliding            jaxad, the same masks, with maps and scores
    interleaved-4 ...  jaxad, many blocks in each of 2, 4, 9, 16 passes
    random-4           jaxad, three quarters of the patches in each of 4 passes

The pictures that `torch` and `sliding` make are compared: the largest difference of a pixel, of
255, is printed and written.

`--train` times a step of training instead (masks drawn, gradient, AdamW), beside the seconds that
its multiplications would take at the rate of a large matrix product in the same process, and the
same step in PyTorch.

Each row is a process of its own that runs alone; rows take turns. The seconds are medians. Where
others use the machine too, threads that wait for each other lose the most (PyTorch's spin while
they wait), so a fair comparison there is `--cores=1`, read by CPU seconds. The row of PyTorch is
left out, with a line, where torch or transformers is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import worker

RATIO = 0.75
SIZES = {
    # (side of the image, patch), (features, blocks, heads) of encoder and decoder, images a batch
    "tiny": ((128, 8), (192, 6, 3), (128, 2, 2)),
    "base": ((224, 16), (768, 12, 12), (512, 8, 16)),
    "large": ((224, 16), (1024, 24, 16), (512, 8, 16)),
}
SCHEDULES = (
    "sliding",
    "interleaved-2",
    "interleaved-4",
    "interleaved-9",
    "interleaved-16",
    "random-4",
)
EPSILON = 1e-6
MATMUL = (1024, 4096, 1024)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images_of(size: str, count: int) -> np.ndarray:
    side = SIZES[size][0][0]
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


# The rows of jaxad.


def model_options(size: str) -> dict:
    (_, patch), encoder, decoder = SIZES[size]
    options = dict(zip(("features", "depth", "heads"), encoder, strict=True))
    of_decoder = ("decoder_features", "decoder_depth", "decoder_heads")
    return {"patch": patch} | options | dict(zip(of_decoder, decoder, strict=True))


def jax_detection(row: str, options: argparse.Namespace) -> Callable[[], object]:
    import jax

    from jaxad import models
    from jaxad.evaluation.postprocess import make_detect
    from jaxad.models.base import parameter_key
    from jaxad.training.weights import load_weights

    schedule, _, passes = row.partition("-")
    own = {"schedule": schedule, "passes_at_once": options.passes_at_once}
    own |= {"passes": int(passes)} if passes else {}
    own |= {"block": 1} if schedule == "random" else {}
    epsilon = {"layer_norm_epsilon": EPSILON}
    side = SIZES[options.size][0][0]
    model = models.build("mae", (side, side, 3), **(model_options(options.size) | own | epsilon))
    variables = jax.jit(model.init)(parameter_key(0))
    converted = options.folder / "converted"
    if converted.exists():
        variables = jax.device_put(load_weights(variables, converted))
    detect = jax.jit(make_detect(model, smoothing=0.0))
    images = images_of(options.size, options.images)
    np.save(options.folder / f"{row}.npy", detect(variables, images).reconstruction)
    return lambda: jax.block_until_ready(detect(variables, images))


def jax_training(options: argparse.Namespace) -> Callable[[], object]:
    import jax
    import optax

    from jaxad import models
    from jaxad.data.batch import Batch
    from jaxad.models.base import parameter_key
    from jaxad.run.environment import keep_freed_memory
    from jaxad.training.augment import make_augment
    from jaxad.training.state import create_state
    from jaxad.training.step import make_train_step

    keep_freed_memory()  # as `jaxad train` does

    class NoAugmentation:
        flip_left_right = flip_up_down = False
        rotate_degrees = shift = crop = brightness = 0.0

    side, batch = SIZES[options.size][0][0], options.batch
    model = models.build("mae", (side, side, 3), **model_options(options.size))
    optimizer = optax.adamw(1e-4, weight_decay=0.05)
    step = jax.jit(
        make_train_step(model, optimizer, make_augment(NoAugmentation), seed=0), donate_argnums=0
    )
    state = [create_state(jax.jit(model.init)(parameter_key(0)), optimizer)]
    images = images_of(options.size, batch)
    data = Batch(images, np.arange(batch, dtype=np.int32), np.ones(batch, bool))

    def run():
        state[0], metrics = step(state[0], data)
        return float(metrics.means["loss"])

    return run


def jax_matmul() -> Callable[[], object]:
    import jax

    m, k, n = MATMUL
    left = jax.random.normal(jax.random.key(0), (m, k))
    right = jax.random.normal(jax.random.key(1), (k, n))
    product = jax.jit(lambda left, right: left @ right)
    return lambda: jax.block_until_ready(product(left, right))


# The rows of PyTorch.


def torch_network(size: str):
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    (side, patch), encoder, decoder = SIZES[size]
    config = ViTMAEConfig(
        image_size=side,
        patch_size=patch,
        hidden_size=encoder[0],
        num_hidden_layers=encoder[1],
        num_attention_heads=encoder[2],
        intermediate_size=4 * encoder[0],
        decoder_hidden_size=decoder[0],
        decoder_num_hidden_layers=decoder[1],
        decoder_num_attention_heads=decoder[2],
        decoder_intermediate_size=4 * decoder[0],
        layer_norm_eps=EPSILON,
        mask_ratio=RATIO,
    )
    torch.manual_seed(0)
    network = ViTMAEForPreTraining(config)
    # transformers leaves the positions of a network that is read from no file at zero.
    for table in (network.vit.embeddings.position_embeddings, network.decoder.decoder_pos_embed):
        table._is_hf_initialized = False
    network.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    network.vit.embeddings.initialize_weights()
    network.decoder.initialize_weights((side // patch) ** 2)
    return network


def convert_weights(options: argparse.Namespace) -> None:
    """Writes PyTorch's random weights and, converted, ours."""
    from jaxad.convert.convert import convert

    there = options.folder / "torch"
    torch_network(options.size).save_pretrained(there)
    convert("hf-mae", there, options.folder / "converted")


def as_torch(images: np.ndarray):
    import torch

    unit = images.transpose(0, 3, 1, 2) / np.float32(255.0)
    mean, std = (np.float32(x).reshape(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy((unit - mean) / std)


def as_pictures(patches: np.ndarray, grid: int) -> np.ndarray:
    """(b, n, p p 3) standardised -> (b, h, w, 3) uint8."""
    b, _, values = patches.shape
    side = round((values / 3) ** 0.5)
    rows = patches.reshape(b, grid, grid, side, side, 3).transpose(0, 1, 3, 2, 4, 5)
    unit = rows.reshape(b, grid * side, grid * side, 3) * np.float32(IMAGENET_STD)
    return np.uint8(np.round(np.clip(unit + np.float32(IMAGENET_MEAN), 0.0, 1.0) * 255.0))


def torch_detection(options: argparse.Namespace) -> Callable[[], object]:
    import torch
    from transformers import ViTMAEForPreTraining

    network = ViTMAEForPreTraining.from_pretrained(options.folder / "torch").eval()
    grid = SIZES[options.size][0][0] // SIZES[options.size][0][1]
    n, block = grid * grid, 2
    for part in (network, network.vit, network.vit.embeddings):
        part.config.mask_ratio = (block * block - 0.5) / n
    images = as_torch(images_of(options.size, options.images))
    noise, hidden = [], []
    for top in range(0, grid, block):
        for left in range(0, grid, block):
            values = torch.arange(n).reshape(grid, grid) / (2.0 * n)
            values[top : top + block, left : left + block] += 1.0
            noise.append(values.reshape(1, n).repeat(options.images, 1))
            hidden.append(torch.nonzero(values.reshape(n) >= 1.0)[:, 0])

    def run():
        with torch.inference_mode():
            filled = torch.zeros(options.images, n, SIZES[options.size][0][1] ** 2 * 3)
            for values, places in zip(noise, hidden, strict=True):
                filled[:, places] = network(images, noise=values).logits[:, places]
        return filled

    np.save(options.folder / "torch.npy", as_pictures(run().numpy(), grid))
    return run


def torch_training(options: argparse.Namespace) -> Callable[[], object]:
    import torch

    network = torch_network(options.size).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05)
    images = as_torch(images_of(options.size, options.batch))

    def run():
        optimizer.zero_grad()
        loss = network(images).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


# Both.


def training_flop(size: str, batch: int) -> float:
    """Of the matrix products of one step: forward, and twice that backward."""
    (side, patch), encoder, decoder = SIZES[size]
    n = (side // patch) ** 2
    visible = int(n * (1.0 - RATIO))
    total = 0.0
    for (features, depth, _), tokens in ((encoder, visible + 1), (decoder, n + 1)):
        total += depth * (12 * features**2 * tokens + 2 * features * tokens**2)
    total += 3 * patch**2 * encoder[0] * visible + encoder[0] * decoder[0] * (visible + 1)
    total += 3 * patch**2 * decoder[0] * (n - visible)
    return 3 * 2.0 * total * batch


def work(row: str, options: argparse.Namespace) -> None:
    """The child: times one row."""
    # Before any library counts the cores for its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not disturb the answer
    if row == "weights":
        return convert_weights(options)
    if row == "matmul":
        task = jax_matmul()
    elif row == "torch":
        task = (torch_training if options.train else torch_detection)(options)
    else:
        task = jax_training(options) if options.train else jax_detection(row, options)
    task()
    wall, cpu = [], []
    for _ in range(options.repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        task()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu}), file=answers)


def time_rows(rows: list[str], options: argparse.Namespace) -> list[dict]:
    found: dict[str, dict] = {row: {"seconds": [], "cpu_seconds": []} for row in rows}
    for _ in range(options.turns):
        for row in rows:
            for key, values in json.loads(worker.answer_of(row, options)).items():
                found[row][key] += values
            print(f"{row}: {statistics.median(found[row]['seconds']):.2f} s", file=sys.stderr)
    return [
        {"row": row} | {key: statistics.median(values) for key, values in times.items()}
        for row, times in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--train", action="store_true", help="time a training step instead")
    parser.add_argument("--batch", type=int, default=32, help="images in a training step")
    parser.add_argument("--images", type=int, default=1, help="images in a detection")
    parser.add_argument("--passes-at-once", type=int, default=0, help="0: as the model does")
    parser.add_argument("--rows", default="", help="some of the rows, separated by commas")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs in each process")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores of each row")
    worker.add_arguments(parser)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = pathlib.Path(folder)
        measure(options)


def measure(options: argparse.Namespace) -> None:
    rows = ["torch", "jaxad", "matmul"] if options.train else ["torch", *SCHEDULES]
    rows = options.rows.split(",") if options.rows else rows
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing and "torch" in rows:
        print(f"{' and '.join(missing)} not installed: the row of PyTorch is left out")
        rows.remove("torch")
    from jaxad.run.environment import processor_name

    report = {"device": processor_name()}
    report |= {key: getattr(options, key) for key in ("size", "cores", "repeats", "turns")}
    of_kind = ("batch",) if options.train else ("images", "passes_at_once")
    report |= {key: getattr(options, key) for key in of_kind}
    if "torch" in rows and not options.train:
        worker.answer_of("weights", options)
    report["rows"] = results = time_rows(rows, options)
    by_name = {result["row"]: result for result in results}
    pictures = [options.folder / f"{row}.npy" for row in ("torch", "sliding")]
    if all(picture.exists() for picture in pictures):
        one, other = (np.load(picture).astype(int) for picture in pictures)
        report["largest_difference_of_255"] = int(np.abs(one - other).max())
        print(f"torch and sliding: pixels differ by {report['largest_difference_of_255']} at most")
    if "matmul" in by_name:
        report["flop"] = training_flop(options.size, options.batch)
        m, k, n = MATMUL
        report["seconds_at_matmul_rate"] = (
            report["flop"] * by_name["matmul"]["seconds"] / (2.0 * m * k * n)
        )
        print(f"its products at matmul rate: {report['seconds_at_matmul_rate']:.3f} s")
    print(f"{'row':16}{'seconds':>10}{'CPU s':>10}{'images/s':>10}{'/torch':>10}{'/torch CPU':>12}")
    for result in results:
        count = options.batch if options.train else options.images
        result["images_per_second"] = count / result["seconds"]
        cells = [result["seconds"], result["cpu_seconds"], result["images_per_second"]]
        if "torch" in by_name:
            for key in ("seconds", "cpu_seconds"):
                result[f"{key}_over_torch"] = result[key] / by_name["torch"][key]
                cells.append(result[f"{key}_over_torch"])
        print(f"{result['row']:16}" + "".join(f"{cell:10.3f}" for cell in cells))
    worker.write_report(report, options.output)


if __name__ == "__main__":
    main()
