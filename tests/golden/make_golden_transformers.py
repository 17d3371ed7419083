"""Golden values of the transformer autoencoders, by the modules that their authors published.

    python tests/golden/make_golden_transformers.py --output=tests/golden \\
        --vt_adl=CHECKOUT --memae=CHECKOUT --coordinate_attention=CHECKOUT          (needs torch)

Modules of the checkouts are imported as they are, given random weights and run on the CPU in
float64 (the Gaussian mixture's module and the capsule have float32 buffers or none); numbers only
are stored, as float32, in PyTorch's names and layouts. What the file ``provenance`` says of
each: repository, commit, and whatever else the numbers depend on.

    vit_memory.npz   memory/*: MemAE's MemoryUnit and EntropyLoss with their gradients;
                     coordinate_attention/*: CoordAtt in evaluation and in training
    vt_adl.npz       transformer/*: student_transformer.ViT, block by block;
                     capsule/*: spatial.DigitCaps; decoder/*: model_res18.decoder2;
                     density/*: mdn1.MDN with log_gmm; ssim/*: pytorch_ssim
    anovit.npz       the decoders of the two public code drops, rebuilt from torch.nn: their
                     files are a notebook and a model that needs a patched timm

A large kernel is stored as int8 with a scale: its values are drawn from that grid, so they are
exact, and a file stays small.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

Values = dict[str, np.ndarray]

SOURCES = {
    "vt_adl": ("pankajmishra000/VT-ADL", "20b58e2"),
    "memae": ("donggong1/memae-anomaly-detection", "ceece77"),
    "coordinate_attention": ("Andrew-Qibin/CoordAttention", "dbd5e7b"),
}


def load(folder: pathlib.Path, module: str):
    """Imports a module of a checkout."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))


# --- weights and inputs -----------------------------------------------------------------------


def draw_weights(network: nn.Module, seed: int) -> Values:
    """Sets every parameter and running statistic to values that float32 holds; returns them."""
    rng = np.random.default_rng(seed)
    network.double()
    stored: Values = {}
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 0:
            continue
        shape = tuple(tensor.shape)
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            value = rng.uniform(0.5, 1.5, shape)
        elif tensor.ndim == 1:
            value = 0.2 * rng.normal(size=shape)
        elif tensor.numel() > 20000:
            scale = 2.0 ** np.floor(np.log2(0.25 / np.sqrt(np.prod(shape) / shape[1])))
            grid = np.int8(rng.integers(-7, 8, shape))
            stored[f"{name}.int8"], stored[f"{name}.scale"] = grid, np.float32(scale)
            value = grid * scale
        else:
            value = rng.normal(size=shape) / np.sqrt(max(8, np.prod(shape[1:])))
        value = np.float32(value)
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.float64(value)))
        if f"{name}.int8" not in stored:
            stored[name] = value
    return {f"weight/{name}": value for name, value in stored.items()}


def normal(*shape: int, seed: int) -> Tensor:
    """Normal draws that float32 holds, in float64."""
    values = np.float32(np.random.default_rng(seed).normal(size=shape))
    return torch.from_numpy(np.float64(values))


def nhwc(x: Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy().copy()


def array(x: Tensor) -> np.ndarray:
    return x.detach().numpy().copy()


def prefixed(prefix: str, values: Values) -> Values:
    return {f"{prefix}/{name}": value for name, value in values.items()}


# --- memory and coordinate attention ----------------------------------------------------------


def memory_case(folder: pathlib.Path, threshold: float) -> Values:
    """Twenty queries of length 6, nine items."""
    module = load(folder, "models.memory_module").MemoryUnit(9, 6, shrink_thres=threshold).double()
    entropy_of = load(folder, "models.entropy_loss").EntropyLoss()
    with torch.no_grad():
        module.weight.copy_(normal(9, 6, seed=1))
    queries, cotangent = normal(20, 6, seed=2).requires_grad_(), normal(20, 6, seed=3)
    result = module(queries)
    entropy = entropy_of(result["att"])
    (torch.sum(result["output"] * cotangent) + entropy).backward()
    return {
        "threshold": np.array(threshold),
        "items": array(module.weight),
        "queries": array(queries),
        "cotangent": array(cotangent),
        "weights": array(result["att"]),
        "output": array(result["output"]),
        "entropy": array(entropy),
        "gradient_queries": array(queries.grad),
        "gradient_items": array(module.weight.grad),
    }


def coordinate_attention_case(folder: pathlib.Path) -> Values:
    """48 channels in 5 x 7 positions: eight in between, which is the least."""
    network = load(folder, "coordatt").CoordAtt(48, 48)
    values = draw_weights(network, 4)
    x = normal(3, 48, 5, 7, seed=5)
    values |= {"input": nhwc(x), "eval": nhwc(network.eval()(x))}
    return values | {"train": nhwc(network.train()(x))}


# --- VT-ADL -----------------------------------------------------------------------------------


def transformer_case(folder: pathlib.Path) -> Values:
    """25 patches, two blocks."""
    network = load(folder, "student_transformer").ViT(
        image_size=20, patch_size=4, num_classes=1, dim=16, depth=2, heads=2, mlp_dim=24
    )
    values = draw_weights(network, 6)
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(7)).double()
    for number, block in enumerate(network.transformer.layers):
        block[1].register_forward_hook(
            lambda _, __, output, n=number: values.__setitem__(f"block_{n}", array(output))
        )
    values |= {"images": nhwc(images), "output": array(network(images))}
    mask = torch.ones(1, 5, 5).bool()
    assert torch.equal(network(images, mask), network(images)), "the mask has an effect"
    return values


def capsule_case(folder: pathlib.Path) -> Values:
    """Tokens (2, 9, 16) as 18 vectors of 8, one capsule of 32."""
    network = load(folder, "spatial").DigitCaps(in_num_caps=18, in_dim_caps=8, out_dim_caps=32)
    values = draw_weights(network, 8)
    # Its routing draws from float32 zeros, which one capsule's softmax makes one whatever they are.
    network.float()
    tokens = normal(2, 9, 16, seed=9).float()
    output, _ = network(tokens.view(2, 18, -1))
    return values | {"tokens": array(tokens), "output": array(output)[:, 0]}


def decoder_case(folder: pathlib.Path) -> Values:
    """8 x 8 to 512 x 512; some 13 x 13 pixels of what is larger."""
    network = load(folder, "model_res18").decoder2(8)
    values = draw_weights(network, 10)
    codes = 0.5 * normal(2, 8 * 8 * 8, seed=11)
    x = codes.view(2, -1, 8, 8)
    values["codes"] = array(codes)
    for mode in ("eval", "train"):
        network.train(mode == "train")
        out = x
        for number, layer in enumerate(network.decoder2):
            out = layer(out)
            if isinstance(layer, nn.Tanh) or (mode == "eval" and number % 3 == 0):
                step = 1 + out.shape[-1] // 13
                values[f"{mode}/{number}"] = nhwc(out)[:1, ::step, ::step]
    return values


def density_case(folder: pathlib.Path) -> Values:
    """Twelve tokens of 8, three components; the target is the token."""
    module = load(folder, "mdn1")
    network = module.MDN(input_dim=8, out_dim=8, layer_size=8, coefs=3)
    values = draw_weights(network, 12)
    tokens = (2 * normal(2, 6, 8, seed=13)).requires_grad_()
    weights, means, log_variances = network(tokens)
    per_patch = module.mdn_loss_function(tokens, means, log_variances, weights, test=True)
    loss = module.mdn_loss_function(tokens, means, log_variances, weights)
    loss.backward()
    return values | {
        "tokens": array(tokens),
        "weights": array(weights),
        "means": array(means),
        "log_variances": array(log_variances),
        "per_patch": array(per_patch),
        "loss": array(loss),
        "gradient_tokens": array(tokens.grad),
    }


def ssim_case(folder: pathlib.Path) -> Values:
    """Per image: zeros beyond the border, a gaussian window of 11."""
    module = load(folder, "pytorch_ssim")
    rng = np.random.default_rng(14)
    a = np.float32(rng.random((2, 3, 20, 24)))
    b = np.float32(np.clip(a + 0.1 * rng.normal(size=a.shape), 0, 1))
    one, other = torch.from_numpy(a), torch.from_numpy(b)
    each = [float(module.ssim(one[i : i + 1], other[i : i + 1])) for i in range(2)]
    return {"a": nhwc(one), "b": nhwc(other), "ssim": np.array(each)}


# --- AnoViT -----------------------------------------------------------------------------------


def anovit_decoder(kind: str, features: int, norm: type[nn.Module], size: int) -> nn.Sequential:
    """Blocks of [transposed convolution 3 x 3, normalisation, ReLU], an up-sampling, an end."""
    widths = (256, 128, 64, 32, 16, 3)
    scaled = [max(1, w * features // 768) for w in widths[:5]]
    layers: list[nn.Module] = []
    before = features
    for number, width in enumerate([*scaled, 3] if kind == "2022" else scaled):
        stride, padding = (1, 0) if number < 3 else (2, 1)
        layers += [nn.ConvTranspose2d(before, width, 3, stride, padding), norm(width), nn.ReLU()]
        before = width
    layers.append(nn.UpsamplingBilinear2d((size, size)))
    if kind == "2022":
        return nn.Sequential(*layers, nn.Tanh())
    return nn.Sequential(*layers, nn.Conv2d(before, 3, 3, padding=1), nn.Sigmoid())


def anovit_case(kind: str, norm: type[nn.Module], seed: int) -> Values:
    """A 4 x 4 grid of 48 features to 40 x 40 pixels, from 73 x 73 or 37 x 37."""
    network = anovit_decoder(kind, 48, norm, 40)
    values = draw_weights(network, seed)
    x = normal(2, 48, 4, 4, seed=seed + 1)
    values["features"] = nhwc(x)
    for number, layer in enumerate(network.train()):
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            values[f"block/{number // 3}"] = nhwc(x)[:1, ::2, ::2]
    return values | {"output": nhwc(x)}


# --- files ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    for source in SOURCES:
        parser.add_argument(f"--{source}", type=pathlib.Path, required=True)
    options = parser.parse_args(arguments)
    vt_adl, memae = options.vt_adl, options.memae
    files = {
        "vit_memory": prefixed("memory/kept", memory_case(memae, 0.0))
        | prefixed("memory/shrunk", memory_case(memae, 1.5 / 9))
        | prefixed("coordinate_attention", coordinate_attention_case(options.coordinate_attention)),
        "vt_adl": prefixed("transformer", transformer_case(vt_adl))
        | prefixed("capsule", capsule_case(vt_adl))
        | prefixed("decoder", decoder_case(vt_adl))
        | prefixed("density", density_case(vt_adl))
        | prefixed("ssim", ssim_case(vt_adl)),
        "anovit": prefixed("2022", anovit_case("2022", nn.InstanceNorm2d, 20))
        | prefixed("2022-batch", anovit_case("2022", nn.BatchNorm2d, 22))
        | prefixed("2024", anovit_case("2024", nn.InstanceNorm2d, 24)),
    }
    provenance = {
        "made_by": "tests/golden/make_golden_transformers.py",
        "sources": {
            name: f"github.com/{repo} at {commit}" for name, (repo, commit) in SOURCES.items()
        },
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    for name, values in files.items():
        arrays = {"provenance": np.array(json.dumps(provenance))}
        for key, value in values.items():
            value = np.asarray(value)
            arrays[key] = np.float32(value) if value.dtype == np.float64 else value
        path = options.output / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path}  {len(arrays)} arrays, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
