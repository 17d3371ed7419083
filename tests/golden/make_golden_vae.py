"""Golden values of the variational autoencoders, by their authors' own PyTorch modules.

    python tests/golden/make_golden_vae.py --vae-compare=CHECKOUT \\
        --output=tests/golden/variational.npz

CHECKOUT is github.com/endtheme123/VAE-compare at b1d0283, the code of arXiv 2408.13561; needs
torch, torchvision, transformers, scikit-image. Its modules are imported as they are, but for what
they download when built: the unused DINOv2 is left out, and the ViT gets two blocks and random
weights. Weights are not stored but drawn, here and in the tests, in the stored order:

    float32(offset + scale * rng.standard_normal(shape)),   rng = numpy.random.default_rng(seed)

Everything is computed in float64 and stored as float32. Per case:

    weights      JSON list of [name, shape, offset, scale]      seed    of the weights
    images       (b, h, w, c) uint8                             noise   of the latents, NHWC
    eval/*       every 97th value (in NHWC order) of the output of every layer, evaluation
    latent/*     mean and log_variance, evaluation, NHWC
    detect/*     of the first image: reconstruction (mean of the likelihood), mad, ssim
    loss/*       the terms as the code scales them, in training, with ``noise``
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import skimage
import torch
import transformers
from skimage.metrics import structural_similarity
from torch import Tensor, nn

SAMPLED = 97


def import_authors(checkout: pathlib.Path):
    """The classes VAE, VAE_GRF and ViTVAE, with nothing downloaded."""
    sys.path.insert(0, str(checkout))
    torch.hub.load = lambda *_, **__: None

    def random_vit(_):
        config = transformers.ViTConfig(num_hidden_layers=2)
        return transformers.ViTModel(config, add_pooling_layer=False)

    transformers.ViTModel.from_pretrained = staticmethod(random_vit)
    from vae import VAE
    from vae_grf import VAE_GRF
    from vit_vae import ViTVAE

    return VAE, VAE_GRF, ViTVAE


def draw_weights(network: nn.Module, names: list[str], seed: int) -> list[list]:
    """Draws the tensors of these names; says how, so that the tests can do the same."""
    rng = np.random.default_rng(seed)
    state, recipe = network.state_dict(), []
    for name in names:
        tensor = state[name]
        offset, scale = 0.0, 0.2
        if tensor.ndim >= 2 and "embeddings." not in name:
            fan_in = math.prod(tensor.shape[1:])
            if "decoder" in name:  # transposed: an output sees a quarter of a 4 x 4 kernel
                fan_in = tensor.shape[0] * max(1, tensor.shape[2] * tensor.shape[3] // 4)
            scale = math.sqrt(1.5 / fan_in)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            offset, scale = 1.0, 0.1
        if "embeddings.patch" in name:
            scale = math.sqrt(1.0 / math.prod(tensor.shape[1:])) if tensor.ndim > 1 else 0.1
        value = np.float32(offset + scale * rng.standard_normal(tuple(tensor.shape)))
        tensor.copy_(torch.from_numpy(value))
        recipe.append([name, list(tensor.shape), offset, scale])
    return recipe


def smooth_images(side: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = [
        np.sin(9 * rng.random() * x + 9 * rng.random() * y + 6 * rng.random()) for _ in range(6)
    ]
    smooth = np.stack(waves).reshape(2, 3, side, side).transpose(0, 2, 3, 1)
    return np.uint8(np.clip(127 + 70 * smooth + rng.normal(0, 9, smooth.shape), 0, 255))


def nhwc(x: Tensor) -> np.ndarray:
    x = x.detach()
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy().copy()


def case_of(
    network: nn.Module, names: list[str], layers: dict[str, nn.Module], side: int, cell: int,
    seed: int, *, training: bool = True,
) -> dict[str, np.ndarray]:  # fmt: skip
    network.double()
    with torch.no_grad():
        recipe = draw_weights(network, names, seed)
    # Large images are small ones with every pixel repeated: they compress well.
    factor = max(1, side // 56)
    images = smooth_images(side // factor, seed).repeat(factor, axis=1).repeat(factor, axis=2)
    x = torch.from_numpy(images / 255.0).permute(0, 3, 1, 2)
    outputs: dict[str, np.ndarray] = {}

    def keep(name):
        def hook(_, __, output):
            output = output[0] if isinstance(output, tuple) else output
            outputs[name] = nhwc(output).ravel()[::SAMPLED]

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    with torch.no_grad():
        scaled, (mean, log_variance) = network.eval()(x)
    for hook in hooks:
        hook.remove()
    case = {f"eval/{name}": value for name, value in outputs.items()}
    case |= {
        "weights": np.array(json.dumps(recipe)),
        "seed": np.array(seed),
        "images": images,
        "latent/mean": nhwc(mean),
        "latent/log_variance": nhwc(log_variance),
    }
    case |= maps(images[0] / 255.0, network.mean_from_lambda(scaled)[:1], mean[:1], cell)
    if training:
        noise = np.float32(np.random.default_rng(seed + 1).standard_normal(tuple(mean.shape)))
        case["noise"] = noise.transpose(0, 2, 3, 1)
        case |= losses(network, x, torch.from_numpy(np.float64(noise)))
    return case


def losses(network: nn.Module, x: Tensor, noise: Tensor) -> dict[str, np.ndarray]:
    """The terms in training, the noise of the latents given."""
    draw, torch.randn_like = torch.randn_like, lambda _: noise
    try:
        scaled, _ = network.train()(x)
    finally:
        torch.randn_like = draw
    _, terms = network.loss_function(scaled, x)
    return {
        f"loss/{name}": np.array(float(torch.as_tensor(value).detach()))
        for name, value in terms.items()
        if name != "loss"
    }


def maps(image: np.ndarray, reconstruction: Tensor, mean: Tensor, cell: int):
    """The anomaly maps of one image as the code's test computes them, before any min-max step."""
    shown = nhwc(reconstruction)[0]
    _, full = structural_similarity(
        shown, image, channel_axis=2, full=True, win_size=11, data_range=1.0
    )
    deviation = torch.mean(torch.abs(mean - torch.mean(mean, dim=(0, 1))), dim=(0, 1)).numpy()
    return {
        "detect/reconstruction": shown,
        "detect/ssim": np.prod(1 - full, axis=2),
        "detect/mad": deviation.repeat(cell, axis=0).repeat(cell, axis=1),
    }


def names_of(network: nn.Module, starts: Sequence[str]) -> list[str]:
    return [
        name
        for name, value in network.state_dict().items()
        if name.startswith(tuple(starts)) and value.ndim
    ]


CONVOLUTIONAL = ("conv_encoder.", "final_encoder.", "initial_decoder.", "conv_decoder.")


def layers_of_convolutional(network: nn.Module) -> dict[str, nn.Module]:
    layers = {"stem": network.conv_encoder[0]}
    for stage in (1, 2):
        for block in (0, 1):
            layers[f"layer{stage}_{block}"] = network.conv_encoder[stage][block]
    layers["to_latent"] = network.final_encoder
    layers["from_latent"] = network.initial_decoder
    return layers | {f"up_{k}": network.conv_decoder[k] for k in range(3)}


def make_convolutional(network: nn.Module, seed: int, *, logs: tuple[float, float] | None = None):
    network.double()
    if logs:
        with torch.no_grad():
            network.logrange_prior.fill_(logs[0])
            network.logsigma_prior.fill_(logs[1])
    names = names_of(network, CONVOLUTIONAL)
    return case_of(network, names, layers_of_convolutional(network), 64, 8, seed)


def make_vit(network: nn.Module, seed: int):
    network.double()
    names = names_of(network, ("vit.", "conv_decoder."))
    layers = {"embedding": network.vit.embeddings}
    blocks = getattr(network.vit, "layers", None) or network.vit.encoder.layer
    layers |= {f"block_{k}": block for k, block in enumerate(blocks)}
    layers |= {"norm": network.vit.layernorm}
    layers |= {f"up_{k}": network.conv_decoder[k] for k in range(4)}
    case = case_of(network, names, layers, 224, 16, seed)
    # Large: every 97th value is enough, and of the latents every third channel.
    for name in ("latent/mean", "latent/log_variance"):
        case[name] = case[name][..., ::29]
    for name in ("detect/reconstruction", "detect/ssim"):
        case[name] = case[name].ravel()[::SAMPLED]
    # Drawn again by the tests, like the weights.
    case["noise"] = np.array(seed + 1)
    return case


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vae-compare", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args(arguments)
    VAE, VAE_GRF, ViTVAE = import_authors(options.vae_compare)
    cases = {"vae": make_convolutional(VAE(64, 3, 8, 6), 1)}
    # At range 5 the code's Matern field is not positive definite on 64 x 64, and its loss is NaN.
    logs = (math.log(2.5), math.log(0.7))
    for kind in ("corr_id", "corr_m32", "corr_exp"):
        network = VAE_GRF(64, 3, 8, 6, kind, 2)
        case = make_convolutional(network, 1, logs=logs)
        # The same network as the VAE's: only the loss differs.
        cases[kind] = {k: v for k, v in case.items() if k.startswith("loss/")}
    cases["vit"] = make_vit(ViTVAE(224, 3, 14, 384), 2)
    provenance = {
        "made_by": "tests/golden/make_golden_vae.py",
        "source": "github.com/endtheme123/VAE-compare b1d0283",
        "arithmetic": "float64, stored as float32",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "scikit-image": skimage.__version__,
        "log_range": logs[0],
        "log_deviation": logs[1],
    }
    arrays = {"provenance": np.array(json.dumps(provenance))}
    for case, values in cases.items():
        for key, value in values.items():
            value = np.float32(value) if value.dtype == np.float64 else value
            arrays[f"{case}/{key}"] = value
    np.savez_compressed(options.output, **arrays)
    print(f"{options.output}  {len(arrays)} arrays, {options.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
