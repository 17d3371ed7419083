"""Golden values of the architectures, by plain PyTorch: what tests/models compares with.

    python tests/golden/make_golden.py --output=tests/golden    (needs torch, scipy, scikit-image)

The networks are those of tests/golden/golden_networks.py. Weights and images are drawn by numpy
from fixed seeds, so that the PyTorch version does not matter beyond rounding; everything is
computed in float64 and stored as float32. One file per architecture holds some cases, each with

    seed         of the weights and images
    images       (b, h, w, c) uint8
    layers       JSON, layer -> class of torch.nn: the tests need it to convert the layouts
    weight/*     the state dict, PyTorch's layouts
    eval/*       output of every layer in evaluation, NHWC, for the first image
    train/*      the same in training, for the whole batch
    loss/*       terms of the loss per image, in training
    gradient/*   gradients of the mean loss, PyTorch's layouts (cae: of the small parameters)
    after/*      running statistics after one training step
    detect/*     reconstruction and anomaly maps, by scikit-image and scipy (cae: first image)

and the file's ``provenance`` the versions and the way it was made.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy
import skimage
import torch
import torch.nn.functional as F
from golden_networks import VQVAE, ConvolutionalAutoencoder, ResidualLayer
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.distributions import ContinuousBernoulli

Case = dict[str, np.ndarray]


def cae_case(shape: tuple[int, int, int], halvings: int, *, layers: bool, seed: int) -> Case:
    """Losses: mean squared error; 1 - SSIM, gaussian, whole windows. Gradients: of their sum."""
    h, w, c = shape
    code_side = (h >> halvings, w >> halvings)
    network = ConvolutionalAutoencoder(c, code_side, halvings, latent=4, width=3 / 32)
    set_weights(network, seed)
    case, x = begin(network, shape, seed)
    outputs, reconstruction = record(network, x)
    if layers:
        return case | {f"eval/{name}": value[:1] for name, value in outputs.items()}
    l2 = (x - reconstruction).square().mean(dim=(1, 2, 3))
    ssim = 1 - gaussian_ssim(x, reconstruction).mean(dim=(1, 2, 3))
    (l2 + ssim).mean().backward()
    case |= {"loss/l2": l2.detach().numpy(), "loss/ssim": ssim.detach().numpy()}
    case |= {name: value for name, value in gradients(network).items() if value.size <= 1024}
    shown, image = nhwc(reconstruction)[:1], nhwc(x)[:1]
    squared = np.square(image - shown).mean(axis=-1)
    dissimilarity = uniform_dissimilarity(image, shown, window=11)
    return case | {
        "detect/reconstruction": shown,
        "detect/l2": squared,
        "detect/ssim": dissimilarity,
        "detect/l2*ssim": squared * dissimilarity,
    }


def gaussian_ssim(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of 11 x 11 gaussian windows that lie within the image; checked with scikit-image."""
    offsets = torch.arange(11, dtype=a.dtype) - 5
    taps = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = (taps[:, None] * taps[None, :] / taps.sum() ** 2).expand(a.shape[1], 1, 11, 11)
    blur = lambda x: F.conv2d(x, window, groups=a.shape[1])
    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    variances = blur(a * a) - mean_a.square() + blur(b * b) - mean_b.square()
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a.square() + mean_b.square() + c1) * (variances + c2)
    )
    for one, other, ours in zip(nhwc(a), nhwc(b), nhwc(similarity), strict=True):
        _, full = structural_similarity(
            one, other, data_range=1.0, channel_axis=-1, full=True,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        np.testing.assert_allclose(ours, full[5:-5, 5:-5], atol=1e-12)
    return similarity


def vqvae_case(
    shape: tuple[int, int, int],
    halvings: int,
    *,
    residual: int,
    beta: float,
    window: int,
    dilation: int,
    dilate_ssim: bool,
    seed: int,
) -> Case:
    """``beta`` weighs the commitment; the rest shapes the maps. Five channels, eight codes."""
    network = VQVAE(shape[2], halvings, features=5, codes=8, residual=residual)
    set_weights(network, seed)
    case, x = begin(network, shape, seed)
    with torch.no_grad():
        # Some latents, moved, are the codes that will be used; the last two codes are far away.
        latents = network.eval().encode(x).permute(0, 2, 3, 1).reshape(-1, 5)
    chosen = np.random.default_rng(seed + 1).permutation(len(latents))[:6]
    draw(network.codebook[:6], 0.9 * latents[chosen].numpy())
    draw(network.codebook[6:], np.full((2, 5), 50.0))
    case["weight/codebook"] = network.codebook.detach().numpy().copy()

    outputs, (logits, z, codes, indices) = record(network.eval(), x)
    case |= {f"eval/{name}": value[:1] for name, value in outputs.items()}
    case |= vqvae_maps(nhwc(x), logits, z, codes, window, dilation, dilate_ssim)
    case["detect/indices"] = indices.numpy()

    outputs, (logits, z, codes, indices) = record(network.train(), x)
    assert 3 <= len(indices.unique()) <= 6, "change the seed"
    case |= {f"train/{name}": value for name, value in outputs.items()}
    values = x[0].numel()
    per_image = lambda squared: squared.sum(dim=(1, 2, 3)) / values
    nll = -ContinuousBernoulli(logits=logits).log_prob(x).sum(dim=(1, 2, 3)) / values
    codebook = per_image((z.detach() - codes).square())
    commitment = per_image((z - codes.detach()).square())
    (nll + codebook + beta * commitment).mean().backward()
    terms = {"nll": nll, "codebook": codebook, "commitment": commitment}
    case |= {f"loss/{name}": value.detach().numpy() for name, value in terms.items()}
    case["loss/code_counts"] = np.bincount(indices.numpy().ravel(), minlength=8)
    case |= gradients(network)
    state = network.state_dict().items()
    return case | {f"after/{name}": value.numpy() for name, value in state if "running" in name}


def vqvae_maps(x, logits, z, codes, window: int, dilation: int, dilate_ssim: bool) -> Case:
    """Equations 5 and 6 and their product; maps repeat a latent's value over its cell."""
    shown = nhwc(ContinuousBernoulli(logits=logits).mean)
    ssim = uniform_dissimilarity(x, shown, window)
    distance = (z - codes).square().sum(dim=1, keepdim=True)
    alignment = nhwc(F.interpolate(distance, size=x.shape[1:3], mode="nearest"))[..., 0]
    dilate = lambda maps: np.stack(
        [ndimage.grey_dilation(one, size=(dilation, dilation)) for one in maps]
    )
    product = (dilate(ssim) if dilate_ssim else ssim) * dilate(alignment)
    return {
        "detect/reconstruction": shown,
        "detect/ssim": ssim,
        "detect/am": alignment,
        "detect/ssim*am": product,
    }


# --- shared -----------------------------------------------------------------------------------


def set_weights(network: nn.Module, seed: int) -> None:
    """Draws every parameter and running statistic; gains keep the activations near 1."""
    rng = np.random.default_rng(seed)
    network.double()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            taps = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
            if isinstance(layer, nn.ConvTranspose2d):
                # What an output sees: 2 x 2 taps of a 4 x 4 kernel at stride 2, one at the code.
                taps = layer.in_channels * (4 if layer.stride[0] == 2 else 1)
            draw(layer.weight, rng.normal(size=layer.weight.shape) * np.sqrt(2 / taps))
            draw(layer.bias, rng.normal(size=layer.bias.shape) * 0.2)
        elif isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                draw(tensor, rng.uniform(0.5, 1.5, tensor.shape))
            for tensor in (layer.bias, layer.running_mean):
                draw(tensor, rng.normal(size=tensor.shape) * 0.2)


def draw(tensor: Tensor, value: np.ndarray) -> None:
    """Sets a tensor to a value that float32 can hold: the tests start from the same numbers."""
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.float32(value)))


def begin(network: nn.Module, shape: tuple[int, int, int], seed: int) -> tuple[Case, Tensor]:
    """Two smooth images with some noise, and the case that holds them and the weights."""
    rng = np.random.default_rng(seed + 100)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 3, 3, 0))
    images = 0.5 + 0.2 * noise / noise.std() + 0.02 * rng.normal(size=noise.shape)
    images = np.uint8(np.round(255 * np.clip(images, 0, 1)))
    layers = {name: type(layer).__name__ for name, layer in layers_of(network).items()}
    case = {f"weight/{k}": v.numpy().copy() for k, v in network.state_dict().items() if v.ndim}
    case |= {"seed": np.array(seed), "images": images, "layers": np.array(json.dumps(layers))}
    return case, torch.from_numpy(images / 255.0).permute(0, 3, 1, 2)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, ResidualLayer)
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, kinds)}


def record(network: nn.Module, x: Tensor) -> tuple[dict[str, np.ndarray], Any]:
    """Runs the network; the output of each of its layers, those inside residual ones excepted."""
    outputs: dict[str, np.ndarray] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output, name=name: outputs.__setitem__(name, nhwc(output))
        )
        for name, layer in layers_of(network).items()
        if "residual" not in name or isinstance(layer, ResidualLayer)
    ]
    result = network(x)
    for hook in hooks:
        hook.remove()
    return outputs, result


def gradients(network: nn.Module) -> Case:
    return {f"gradient/{name}": p.grad.numpy() for name, p in network.named_parameters()}


def uniform_dissimilarity(a: np.ndarray, b: np.ndarray, window: int) -> np.ndarray:
    """Channel mean of 1 - SSIM as scikit-image's defaults give it."""
    compare = lambda one, other: structural_similarity(
        one, other, win_size=window, data_range=1.0, channel_axis=-1, full=True
    )[1]
    return np.stack([1 - compare(*pair).mean(axis=-1) for pair in zip(a, b, strict=True)])


def nhwc(x: Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy().copy()


def make_cae() -> dict[str, Case]:
    return {
        "three": cae_case((64, 64, 1), 3, layers=False, seed=1),
        "four": cae_case((32, 48, 3), 4, layers=True, seed=2),
        "five": cae_case((32, 32, 3), 5, layers=True, seed=3),
    }


def make_vqvae() -> dict[str, Case]:
    return {
        "three": vqvae_case(
            (32, 32, 3), 3, residual=3, beta=0.25, window=11, dilation=8, dilate_ssim=False, seed=4
        ),
        "two": vqvae_case(
            (16, 24, 1), 2, residual=1, beta=0.5, window=7, dilation=3, dilate_ssim=True, seed=8
        ),
    }


MAKERS: dict[str, Callable[[], dict[str, Case]]] = {"cae": make_cae, "vqvae": make_vqvae}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=sorted(MAKERS), help="one architecture")
    options = parser.parse_args(arguments)
    libraries = {"torch": torch, "numpy": np, "scipy": scipy, "scikit-image": skimage}
    provenance = {name: library.__version__ for name, library in libraries.items()} | {
        "made_by": "tests/golden/make_golden.py",
        "arithmetic": "float64, stored as float32",
    }
    for name in [options.only] if options.only else MAKERS:
        arrays = {"provenance": np.array(json.dumps(provenance))}
        for case, values in MAKERS[name]().items():
            for key, value in values.items():
                value = np.float32(value) if value.dtype == np.float64 else value
                arrays[f"{case}/{key}"] = value
        path = options.output / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path}  {len(arrays)} arrays, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
