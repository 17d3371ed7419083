"""Golden values of the vision transformer, by the public PyTorch implementations.

    python tests/golden/make_golden_vit.py --mae=PATH --vt-adl=PATH --output=tests/golden/vit.npz

(needs torch, timm, transformers, einops, and checkouts of facebookresearch/mae and
pankajmishra000/VT-ADL). Each case draws weights and images by numpy, computes in float64 and is
stored as float32:

    weight/*    the parameters under the names of jaxad.models.layers.vit, in its layouts
    images      (b, h, w, c) uint8; the networks take them over 255
    layer/*     tokens after a layer: embedding, block_0 ..., end
    gradient/*  of the mean of the squared tokens at the end (vt_adl)
    visible     indices of the patches that the encoder sees (mae)

timm and hf have learned positions; mae has its sine-cosine table and sees half of the patches;
vt_adl scales scores by the full width, has no bias in query, key and value and no normalisation
at the end.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import pathlib
import re
import sys

import numpy as np
import timm.models.vision_transformer as timm_vit
import torch
from published_mae import import_mae
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

RENAMED = (
    # timm and MAE
    (r"^blocks\.(\d+)\.", r"block_\1."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.out."),
    (r"^patch_embed\.proj\.", "patch_embedding."),
    (r"^cls_token$", "class_token"),
    (r"^pos_embed(ding)?$", "positions"),
    # VT-ADL
    (r"^transformer\.layers\.(\d+)\.", r"block_\1."),
    (r"\.0\.fn\.norm\.", ".norm1."),
    (r"\.1\.fn\.norm\.", ".norm2."),
    (r"\.0\.fn\.fn\.to_qkv\.", ".attention.qkv."),
    (r"\.0\.fn\.fn\.to_out\.0\.", ".attention.out."),
    (r"\.1\.fn\.fn\.net\.0\.", ".mlp.fc1."),
    (r"\.1\.fn\.fn\.net\.2\.", ".mlp.fc2."),
    (r"^patch_to_embedding\.", "patch_embedding."),
    # transformers
    (r"^embeddings\.cls_token$", "class_token"),
    (r"^embeddings\.position_embeddings$", "positions"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embedding."),
    (r"^layers\.(\d+)\.", r"block_\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.([qkv])_proj\.", r".attention.\1."),
    (r"\.attention\.o_proj\.", ".attention.out."),
    (r"^layernorm\.", "norm."),
)
SOURCES = {
    "facebookresearch/mae": "efb2a8062c206524e35e47d04501ed4f544c0ae8",
    "pankajmishra000/VT-ADL": "20b58e2dd810e1d747b9a4132899cc474691377e",
}
STORED = {"visible": np.int32, "images": np.uint8}
Case = dict[str, np.ndarray]


def set_weights(network: nn.Module, seed: int) -> None:
    """Draws every parameter but fixed ones: scales around 1, the rest small."""
    rng = np.random.default_rng(seed)
    for name, p in network.named_parameters():
        if p.requires_grad:
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            width = 0.3 if p.ndim == 1 else max(0.3, p.shape[-1] ** -0.5)
            p.data = torch.from_numpy(centre + width * rng.standard_normal(tuple(p.shape)))


def in_our_layout(named: dict[str, Tensor], patch: int) -> Case:
    """The arrays under our names and in our layouts."""
    result = {}
    for name, tensor in named.items():
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        value = tensor.detach().numpy()
        *layer, leaf = name.split(".")
        if layer == ["patch_embedding"] and leaf == "weight":
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            else:  # flattened by row, column, channel
                value = value.T.reshape(patch, patch, -1, value.shape[0])
            leaf = "kernel"
        elif leaf == "weight":
            norm = "norm" in layer[-1]
            value, leaf = (value, "scale") if norm else (value.T, "kernel")
        result["/".join((*layer, leaf))] = value
    for key in [key for key in result if "/q/" in key]:
        parts = [result.pop(key.replace("/q/", f"/{part}/")) for part in "qkv"]
        result[key.replace("/q/", "/qkv/")] = np.concatenate(parts, axis=-1)
    return result


def images_of(seed: int, side: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, side, side, 3), np.uint8)


def as_torch(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2) / 255.0)


def record(blocks: list[nn.Module]) -> dict[str, Tensor]:
    """Fills up with what each block takes (the first) and gives, when the network runs."""
    layers: dict[str, Tensor] = {}

    def before(_, inputs):
        layers["embedding"] = inputs[0]

    blocks[0].register_forward_pre_hook(before)
    for i, block in enumerate(blocks):

        def after(_, __, output, i=i):
            layers[f"block_{i}"] = output[0] if isinstance(output, tuple) else output

        block.register_forward_hook(after)
    return layers


def case(network: nn.Module, patch: int, images: np.ndarray, layers: dict[str, Tensor]) -> Case:
    weights = in_our_layout(dict(network.named_parameters()), patch)
    return (
        {f"weight/{name}": value for name, value in weights.items()}
        | {f"layer/{name}": value.detach().numpy() for name, value in layers.items()}
        | {"images": images}
    )


def timm_case() -> Case:
    network = timm_vit.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=0
    )
    network = network.double().eval()
    set_weights(network, 1)
    layers, images = record(list(network.blocks)), images_of(1, 32)
    layers["end"] = network.forward_features(as_torch(images))
    return case(network, 8, images, layers)


def hf_case() -> Case:
    config = ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12,
    )
    network = ViTModel(config, add_pooling_layer=False).double().eval()
    set_weights(network, 2)
    layers, images = record(list(network.layers)), images_of(2, 32)
    layers["end"] = network(as_torch(images)).last_hidden_state
    return case(network, 8, images, layers)


def mae_case(checkout: pathlib.Path) -> Case:
    network = import_mae(checkout).MaskedAutoencoderViT(
        img_size=32,
        patch_size=8,
        embed_dim=12,
        depth=2,
        num_heads=3,
        decoder_embed_dim=8,
        decoder_depth=1,
        decoder_num_heads=1,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    )
    network = network.double().eval()
    set_weights(network, 3)
    layers, images = record(list(network.blocks)), images_of(3, 32)
    torch.manual_seed(0)
    layers["end"], _, restore = network.forward_encoder(as_torch(images), 0.5)
    visible = torch.argsort(restore, dim=1)[:, :8].numpy()
    result = case(network, 8, images, layers) | {"visible": visible}
    return {name: value for name, value in result.items() if not re.search("decoder|mask", name)}


def vt_adl_case(checkout: pathlib.Path) -> Case:
    sys.path.insert(0, str(checkout))
    from student_transformer import ViT

    network = ViT(image_size=40, patch_size=8, num_classes=1, dim=12, depth=2, heads=3, mlp_dim=16)
    network = network.double().eval()
    set_weights(network, 4)
    images, layers = images_of(4, 40), {}

    def start(_, inputs):
        layers["embedding"] = inputs[0].clone()

    network.transformer.register_forward_pre_hook(start)
    for i, (_, second) in enumerate(network.transformer.layers):
        second.register_forward_hook(
            lambda _, __, output, i=i: layers.update({f"block_{i}": output})
        )
    mask = torch.ones(1, 5, 5).bool()  # as the authors call it
    end = network(as_torch(images), mask)
    layers["end"] = end
    end.square().mean().backward()
    gradients = in_our_layout({n: p.grad for n, p in network.named_parameters()}, 8)
    return case(network, 8, images, layers) | {
        f"gradient/{name}": value for name, value in gradients.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mae", type=pathlib.Path, required=True)
    parser.add_argument("--vt-adl", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    cases = {
        "timm": timm_case(),
        "hf": hf_case(),
        "mae": mae_case(options.mae),
        "vt_adl": vt_adl_case(options.vt_adl),
    }
    arrays = {
        f"{name}/{key}": value.astype(STORED.get(key, np.float32))
        for name, contents in cases.items()
        for key, value in contents.items()
    }
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "timm", "transformers")
    }
    provenance = {
        "script": "tests/golden/make_golden_vit.py",
        "versions": versions,
        "commits": SOURCES,
    }
    np.savez_compressed(options.output, provenance=json.dumps(provenance), **arrays)
    print(f"{options.output}: {options.output.stat().st_size} bytes, {provenance}")


if __name__ == "__main__":
    main()
