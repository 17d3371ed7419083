"""Measures the way from a public masked autoencoder to decisions: seconds, memory and disk.

    python tools/benchmarks/pretrained_mae.py --root=DIR --category=bottle --output=FILE.json

The public files are not needed: files of the same names, keys and shapes (ViT-B/16 at 224) with
random weights take their place, so the metrics mean nothing and the costs are the real ones. The
three public forms are written: encoder and decoder (``mae_visualize_vit_base.pth``), the encoder
alone (``mae_pretrain_vit_base.pth``), a folder of the Hugging Face hub (``vit-mae-base``). Then
come the commands of docs/weights.md, each in a process of its own, with an empty cache of
compiled programs. It needs PyTorch and transformers to write the files.

    python tools/benchmarks/pretrained_mae.py --size=l16 --images=8 --root=DIR ...

measures ViT-L/16 or ViT-H/14 (``h14``) in the form of the Hugging Face hub alone, whose file it
writes without PyTorch. ``--images`` takes that many images of training and of testing at most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

IMAGES = 4
"""Photographs that ``predict`` judges."""


SIZES = {"l16": (16, 1024, 24, 16), "h14": (14, 1280, 32, 16)}
"""Side of a patch, features, blocks, heads of the encoder; all have the same decoder."""
DECODER = (512, 8, 16)


def write_hub(folder: pathlib.Path, size: str) -> None:
    """A folder of the hub: names and shapes of the published network, random weights."""
    from safetensors.numpy import save_file

    from jaxad.ops.positions import sincos_positions

    (patch, features, depth, heads), (narrow, blocks, narrow_heads) = SIZES[size], DECODER
    rng, grid, values = np.random.default_rng(0), (224 // patch,) * 2, 3 * patch**2
    tensors: dict[str, np.ndarray] = {}

    def draw(name: str, *shape: int) -> None:
        tensors[name] = np.float32(0.02) * rng.standard_normal(shape, np.float32)

    def linear(name: str, inputs: int, outputs: int) -> None:
        draw(f"{name}.weight", outputs, inputs)
        tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"] = np.ones(size, np.float32)
        tensors[f"{name}.bias"] = np.zeros(size, np.float32)

    def positions(name: str, size: int) -> None:
        sines = np.array(sincos_positions(grid, size), np.float32)
        tensors[name] = np.concatenate([np.zeros((1, size), np.float32), sines])[None]

    positions("vit.embeddings.position_embeddings", features)
    draw("vit.embeddings.cls_token", 1, 1, features)
    draw("vit.embeddings.patch_embeddings.projection.weight", features, 3, patch, patch)
    tensors["vit.embeddings.patch_embeddings.projection.bias"] = np.zeros(features, np.float32)
    positions("decoder.decoder_pos_embed", narrow)
    draw("decoder.mask_token", 1, 1, narrow)
    linear("decoder.decoder_embed", features, narrow)
    linear("decoder.decoder_pred", narrow, values)
    norm("vit.layernorm", features)
    norm("decoder.decoder_norm", narrow)
    for stack, wide, count in (
        ("vit.encoder.layer", features, depth),
        ("decoder.decoder_encoder.layer", narrow, blocks),
    ):
        for name in (f"{stack}.{k}" for k in range(count)):
            for part in ("query", "key", "value"):
                linear(f"{name}.attention.attention.{part}", wide, wide)
            linear(f"{name}.attention.output.dense", wide, wide)
            linear(f"{name}.intermediate.dense", wide, 4 * wide)
            linear(f"{name}.output.dense", 4 * wide, wide)
            norm(f"{name}.layernorm_before", wide)
            norm(f"{name}.layernorm_after", wide)
    place = folder / "hub"
    place.mkdir()
    save_file(tensors, place / "model.safetensors")
    config = {
        "model_type": "vit_mae", "architectures": ["ViTMAEForPreTraining"], "image_size": 224,
        "patch_size": patch, "num_channels": 3, "hidden_size": features,
        "num_hidden_layers": depth, "num_attention_heads": heads,
        "intermediate_size": 4 * features, "decoder_hidden_size": narrow,
        "decoder_num_hidden_layers": blocks, "decoder_num_attention_heads": narrow_heads,
        "decoder_intermediate_size": 4 * narrow, "layer_norm_eps": 1e-12, "mask_ratio": 0.75,
        "norm_pix_loss": False, "qkv_bias": True, "hidden_act": "gelu",
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))


def part_of(category: pathlib.Path, folder: pathlib.Path, most: int) -> pathlib.Path:
    """A folder of links to at most so many training images, and test images of each class."""
    for split in ("train", "test"):
        for kind in sorted((category / split).iterdir()):
            files = sorted(kind.iterdir())
            count = most if split == "train" else max(1, most // 4)
            for i in np.unique(np.linspace(0, len(files) - 1, count).astype(int)):
                link = folder / split / kind.name / files[i].name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(files[i].resolve())
    if (category / "ground_truth").is_dir():
        (folder / "ground_truth").symlink_to((category / "ground_truth").resolve())
    return folder


def write_files(folder: pathlib.Path) -> None:
    """The three public forms, with random weights."""
    import torch
    from safetensors.torch import load_file
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from jaxad.ops.positions import sincos_positions

    torch.manual_seed(0)
    network = ViTMAEForPreTraining(ViTMAEConfig())
    for table in (network.vit.embeddings.position_embeddings, network.decoder.decoder_pos_embed):
        # The public files hold the sines of the code of 2022, the newest transformers others.
        sines = np.array(sincos_positions((14, 14), table.shape[2]))
        table.data[:] = torch.nn.functional.pad(torch.from_numpy(sines), (0, 0, 1, 0))
    network.save_pretrained(folder / "vit-mae-base")
    # As saved: in memory, transformers has other names for the same tensors.
    state = dict(_as_facebook(load_file(folder / "vit-mae-base" / "model.safetensors")))
    torch.save({"model": state}, folder / "mae_visualize_vit_base.pth")
    encoder = {k: v for k, v in state.items() if "decoder" not in k and k != "mask_token"}
    torch.save({"model": encoder}, folder / "mae_pretrain_vit_base.pth")


NAMES = (
    ("vit.embeddings.position_embeddings", "pos_embed"),
    ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("vit.embeddings.", ""),
    ("vit.encoder.layer.", "blocks."),
    ("vit.layernorm.", "norm."),
    ("decoder.decoder_encoder.layer.", "decoder_blocks."),
    ("decoder.decoder_layers.", "decoder_blocks."),
    ("decoder.", ""),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.output.dense", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
"""Pieces of a key, those of transformers and those of facebookresearch/mae."""


def _as_facebook(state):
    import torch

    for key, value in state.items():
        name = key
        for theirs, own in NAMES:
            name = name.replace(theirs, own)
        if "attention.attention.query" in key:
            parts = [state[key.replace("query", part)] for part in ("query", "key", "value")]
            yield name.replace("attention.attention.query", "attn.qkv"), torch.cat(parts)
        elif "attention.attention." not in key:
            yield name, value


def measured(words: list[str], cache: pathlib.Path) -> dict:
    """Runs ``jaxad`` with these words: seconds, and the most memory that it held, in MB."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxad", *words], stdout=subprocess.DEVNULL,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAXAD_CACHE": str(cache)},
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: jaxad {' '.join(words)}")
    seconds = time.perf_counter() - begun
    return {
        "command": words[0],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "memory_mb": round(usage.ru_maxrss / 1024),
    }


def size_mb(folder: pathlib.Path) -> int:
    """Of all files below a folder."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6)


def chain(form: str, folder: pathlib.Path, options: argparse.Namespace) -> dict:
    """The commands of one form."""
    family, source, more = FORMS[form]
    config = "mae:fast"
    if options.size != "b16":
        config, source = f"mae:fast,{options.size}", "hub"
    weights, run = folder / f"{form}-weights", folder / f"{form}-run"
    data = [f"--config.data.root={options.root}", f"--config.data.category={options.category}"]
    images = sorted((options.root / options.category / "test").rglob("*.*"))
    chosen = [str(images[i]) for i in np.linspace(0, len(images) - 1, IMAGES).astype(int)]
    steps = [
        ["convert", f"--from={family}", f"--input={folder / source}", f"--output={weights}"],
        ["train", f"--config={config}", f"--workdir={run}", *data,
         f"--config.train.weights={weights}", *more],
        ["evaluate", f"--workdir={run}"],
        ["predict", f"--workdir={run}", f"--output={folder}/{form}-results", "--input", *chosen],
    ]  # fmt: skip
    rows = []
    for words in steps:
        rows.append(measured(words, folder / form))
        print(form, rows[-1], flush=True)
    sizes = {"file": (folder / source), "weights": weights, "checkpoints": run / "checkpoints"}
    disk = {
        name: size_mb(path) if path.is_dir() else round(path.stat().st_size / 1e6)
        for name, path in sizes.items()
    }
    return {"form": form, "steps": rows, "disk_mb": disk}


AS_IT_IS = ["--config.train.optimizer=none"]
DECODER_ALONE = [
    "--config.train.learning_rate_multipliers.encoder=0", "--config.train.steps=4",
    "--config.train.batch_size=8",
]  # fmt: skip
FORMS = {
    "decoder": ("mae", "mae_visualize_vit_base.pth", AS_IT_IS),
    "encoder": ("mae", "mae_pretrain_vit_base.pth", DECODER_ALONE),
    "hub": ("hf-mae", "vit-mae-base", [*AS_IT_IS, "--config.model.layer_norm_epsilon=1e-12"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True, help="MVTec layout")
    parser.add_argument("--category", required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--size", choices=("b16", *SIZES), default="b16")
    parser.add_argument("--images", type=int, default=0, help="of each kind, at most; 0: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # In a process of its own: a child's greatest memory counts from that of its parent.
        task, more = (write_files, ()) if options.size == "b16" else (write_hub, (options.size,))
        writer = multiprocessing.Process(target=task, args=(folder, *more))
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit(writer.exitcode)
        if options.images:
            whole = options.root / options.category
            part_of(whole, folder / "part" / options.category, options.images)
            options.root = folder / "part"
        forms = FORMS if options.size == "b16" else ["hub"]
        rows = [chain(form, folder, options) for form in forms]
        category = options.root / options.category
        counts = {part: len(list((category / part).rglob("*.*"))) for part in ("train", "test")}
    report = {
        "made_by": "tools/benchmarks/pretrained_mae.py",
        "network": f"ViT-{options.size[0].upper()}/{options.size[1:]} at 224 x 224, random weights",
        "cores": len(os.sched_getaffinity(0)),
        "images": counts,
        "forms": rows,
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
