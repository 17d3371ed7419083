"""Files and values that `jaxad convert` is tested with, by the projects whose files it reads.

    python tests/golden/make_golden_convert.py --mae=CLONE --output=tests/golden/convert

needs torch, torchvision, timm, transformers, safetensors and a clone of facebookresearch/mae. Tiny
networks (16 features, two blocks, patches of 4 pixels, images of 12 x 12) get random weights, are
saved as their projects save them, and are run on the same images. Written are

    timm_vit.pth, timm_vit_old.pth    state dict; the same in PyTorch's format of before 1.6
    mae.pth                           training checkpoint with optimiser, counter and arguments
    hf_vit/, hf_mae/                  folders of transformers' save_pretrained
    tensors.pth, tensors_old.pth      views, shared blocks and every kind of number
    values.npz                        images, what the networks make of them, the tensors of
                                      tensors.pth, sizes of position embeddings resized by PyTorch,
                                      keys and shapes of the full-size networks, provenance
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import subprocess
from typing import Any

import numpy as np
import safetensors
import timm
import torch
import torchvision
import transformers
from drawn_weights import draw
from published_mae import import_mae
from torch import nn
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

SIZE, PATCH, FEATURES, DEPTH, HEADS = 12, 4, 16, 2, 2
DECODER_FEATURES, DECODER_HEADS = 8, 2
FULL = {"base": (768, 12, 12, 16), "large": (1024, 24, 16, 16), "huge": (1280, 32, 16, 14)}
"""Name -> features, blocks, heads, patch."""

KEPT = ("position", "pos_embed", "num_batches_tracked")


def randomise(network: nn.Module) -> nn.Module:
    """Random weights; position embeddings stay what the network makes of them."""
    state = network.state_dict()
    for key, value in state.items():
        if not any(part in key for part in KEPT):
            value.copy_(torch.from_numpy(draw(key, tuple(value.shape))))
    return network.eval()


def shapes(network: nn.Module, rename=lambda key: key) -> dict[str, list[int]]:
    return {rename(key): list(value.shape) for key, value in network.state_dict().items()}


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


def mae_network(module: Any, size: int, sizes: tuple[int, ...], decoder: tuple[int, ...]) -> Any:
    features, depth, heads, patch = sizes
    return module.MaskedAutoencoderViT(
        img_size=size,
        patch_size=patch,
        embed_dim=features,
        depth=depth,
        num_heads=heads,
        decoder_embed_dim=decoder[0],
        decoder_depth=decoder[1],
        decoder_num_heads=decoder[2],
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    )


def hf_options(size: int, sizes: tuple[int, ...]) -> dict[str, int]:
    features, depth, heads, patch = sizes
    return {
        "image_size": size,
        "hidden_size": features,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * features,
        "patch_size": patch,
    }


def vits(x: torch.Tensor, output: pathlib.Path) -> dict[str, np.ndarray]:
    """Timm's and transformers' plain transformers: tokens after the last normalisation."""
    network = timm.models.VisionTransformer(
        img_size=SIZE, patch_size=PATCH, embed_dim=FEATURES, depth=DEPTH, num_heads=HEADS,
        num_classes=3,
    )  # fmt: skip
    randomise(network)
    network.pos_embed.data.copy_(torch.from_numpy(draw("p", tuple(network.pos_embed.shape))))
    torch.save(network.state_dict(), output / "timm_vit.pth")
    torch.save(
        network.state_dict(),
        output / "timm_vit_old.pth",
        _use_new_zipfile_serialization=False,
    )
    values = {"timm_vit/tokens": network.forward_features(x).numpy()}
    config = ViTConfig(**hf_options(SIZE, (FEATURES, DEPTH, HEADS, PATCH)), num_labels=3)
    classifier = randomise(ViTForImageClassification(config))
    classifier.save_pretrained(output / "hf_vit")
    tokens = ViTModel.from_pretrained(output / "hf_vit")(x).last_hidden_state
    return values | {"hf_vit/tokens": tokens.numpy()}


def masked_autoencoders(module: Any, x: torch.Tensor, output: pathlib.Path):
    """Latent tokens and predictions with nothing masked."""
    network = mae_network(
        module, SIZE, (FEATURES, DEPTH, HEADS, PATCH), (DECODER_FEATURES, 1, DECODER_HEADS)
    )
    randomise(network)
    optimizer = torch.optim.AdamW([network.mask_token])
    network.mask_token.grad = torch.ones_like(network.mask_token)
    optimizer.step()
    checkpoint = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 7,
        "scaler": {"scale": 65536.0, "_growth_tracker": 0},
        "args": argparse.Namespace(lr=1e-3, model="tiny", betas=(0.9, 0.95)),
    }
    torch.save(checkpoint, output / "mae.pth")
    # Without a shuffle the tokens come in the order of the patches.
    network.random_masking = lambda tokens, ratio: (
        tokens, torch.zeros(tokens.shape[:2]), torch.arange(tokens.shape[1]).repeat(len(tokens), 1)
    )  # fmt: skip
    latent, _, ids = network.forward_encoder(x, 0.0)
    values = {
        "mae/tokens": latent.numpy(),
        "mae/prediction": network.forward_decoder(latent, ids).numpy(),
    }
    config = ViTMAEConfig(
        **hf_options(SIZE, (FEATURES, DEPTH, HEADS, PATCH)),
        decoder_hidden_size=DECODER_FEATURES,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=DECODER_HEADS,
        decoder_intermediate_size=4 * DECODER_FEATURES,
        mask_ratio=0.0,
    )
    tables = network.pos_embed, network.decoder_pos_embed
    network = randomise(ViTMAEForPreTraining(config))
    # A new network of transformers 5.23 has zeros there; the published files hold the tables.
    network.vit.embeddings.position_embeddings.copy_(tables[0])
    network.decoder.decoder_pos_embed.copy_(tables[1])
    network.save_pretrained(output / "hf_mae")
    noise = torch.arange((SIZE // PATCH) ** 2).float().repeat(len(x), 1)
    return values | {
        "hf_mae/tokens": network.vit(x, noise=noise).last_hidden_state.numpy(),
        "hf_mae/prediction": network(x, noise=noise).logits.numpy(),
    }


def resnet(x: torch.Tensor) -> dict[str, np.ndarray]:
    network = randomise(torchvision.models.resnet18())
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    x = network.layer1(x)
    values = {"resnet18/layer1": nhwc(x)}
    x = network.layer2(x)
    values["resnet18/layer2"] = nhwc(x)
    return values | {"resnet18/layer3": nhwc(network.layer3(x))}


def tensors(output: pathlib.Path) -> dict[str, np.ndarray]:
    """Everything that a tensor in a file may be."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    saved = {
        "whole": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "column": base[:, 3],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.ones(2, 2)),
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "bfloat16": torch.tensor([1.5, -3.0e38], dtype=torch.bfloat16),
        "double": torch.tensor([1.0 + 1e-12], dtype=torch.float64),
        "long": torch.tensor([2**40]),
        "int": torch.tensor([-7], dtype=torch.int32),
        "short": torch.tensor([-7], dtype=torch.int16),
        "char": torch.tensor([-7], dtype=torch.int8),
        "byte": torch.tensor([200], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }
    torch.save(saved, output / "tensors.pth")
    torch.save(saved, output / "tensors_old.pth", _use_new_zipfile_serialization=False)
    as_float = lambda t: t.float() if t.dtype == torch.bfloat16 else t
    return {f"tensors/{key}": as_float(value.detach()).numpy() for key, value in saved.items()}


def positions() -> dict[str, np.ndarray]:
    """Position embeddings resized as timm, MAE and transformers do, without antialiasing."""
    table = torch.from_numpy(draw("positions", (1, 10, 4)))
    values = {"positions/3": table.numpy()}
    grid = table[:, 1:].reshape(1, 3, 3, 4).permute(0, 3, 1, 2)
    for side in (2, 5, 7):
        resized = nn.functional.interpolate(
            grid, (side, side), mode="bicubic", align_corners=False, antialias=False
        )
        resized = resized.permute(0, 2, 3, 1).reshape(1, side * side, 4)
        values[f"positions/{side}"] = torch.cat([table[:, :1], resized], dim=1).numpy()
    return values


def full_size(module: Any) -> dict[str, dict[str, list[int]]]:
    """Keys and shapes of the public networks, as their projects save them."""
    found = {"resnet18": shapes(torchvision.models.resnet18())}
    with torch.device("meta"):
        for name, sizes in FULL.items():
            features, depth, heads, patch = sizes
            found[f"timm-vit/{name}"] = shapes(
                timm.models.VisionTransformer(
                    patch_size=patch, embed_dim=features, depth=depth, num_heads=heads
                )
            )
    for name, sizes in FULL.items():
        # Numbers of transformers' in-memory names are not those of its files: see hf_vit/.
        with torch.device("meta"):
            module.MaskedAutoencoderViT.initialize_weights = lambda self: None
            found[f"mae/{name}"] = shapes(mae_network(module, 224, sizes, (512, 8, 16)))
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mae", required=True, type=pathlib.Path, metavar="CLONE")
    parser.add_argument("--mae-commit", default="", help="where the clone has no history")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    module = import_mae(arguments.mae)
    images = np.random.default_rng(0).standard_normal((2, SIZE, SIZE, 3)).astype(np.float32)
    larger = np.random.default_rng(1).standard_normal((1, 32, 32, 3)).astype(np.float32)
    x, y = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous() for a in (images, larger))
    values = {"images": images, "resnet18/images": larger}
    values |= vits(x, output)
    values |= masked_autoencoders(module, x, output)
    values |= resnet(y) | tensors(output) | positions()
    commit = subprocess.run(
        ["git", "-C", str(arguments.mae), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    provenance = {
        "made by": "tests/golden/make_golden_convert.py",
        "facebookresearch/mae": arguments.mae_commit or commit,
        "versions": {m.__name__: m.__version__ for m in
                     (np, torch, torchvision, timm, transformers, safetensors)},
    }  # fmt: skip
    np.savez_compressed(
        output / "values.npz",
        full_size=json.dumps(full_size(module)),
        provenance=json.dumps(provenance),
        **values,
    )


if __name__ == "__main__":
    main()
