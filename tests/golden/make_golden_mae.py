"""Golden values of masked autoencoders, by the public PyTorch implementations.

    python tests/golden/make_golden_mae.py --mae=CHECKOUT --output=tests/golden/mae.npz
    python tests/golden/make_golden_mae.py --mae=CHECKOUT --check-full=base       (or large, huge)

(needs torch, timm, transformers and a checkout of facebookresearch/mae). Tiny networks get random
weights and run in float64; stored, as float32, are for each of ``mae`` (facebookresearch) and
``hf`` (ViTMAEForPreTraining of transformers)

    weight/*        the weights, in the names and layouts of the projects' files
    images          (b, h, w, c) uint8; the networks take them standardised by ImageNet's figures
    order           (b, n) the patches, the visible ones first
    prediction      (b, n, o) of all patches
    loss, loss_norm_pix
    sliding         (b, h, w, c) the image that the paper's procedure makes: blocks of 2 x 2
                    patches masked in turn, the predictions tiled, brought back to [0, 1]

``--check-full`` draws weights for a published size, runs the checkout's network and jaxad's on one
image and prints how far prediction, loss and reconstruction lie apart; nothing is stored. The huge
network is checked at its full width with two blocks.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
from published_mae import import_mae
from safetensors.numpy import load_file
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RATIO = 0.75
FULL = {"base": (768, 12, 12, 16), "large": (1024, 24, 16, 16), "huge": (1280, 2, 16, 14)}
"""Name -> features, blocks, heads, patch."""
Values = dict[str, np.ndarray]


def facebook(
    module, *, size: int, patch: int, encoder: tuple[int, int, int], decoder: tuple[int, int, int]
) -> nn.Module:
    """The checkout's network; features, blocks, heads of its two parts."""
    return module.MaskedAutoencoderViT(
        img_size=size,
        patch_size=patch,
        embed_dim=encoder[0],
        depth=encoder[1],
        num_heads=encoder[2],
        decoder_embed_dim=decoder[0],
        decoder_depth=decoder[1],
        decoder_num_heads=decoder[2],
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    )


def hugging_face(
    *, size: int, patch: int, encoder: tuple[int, int, int], decoder: tuple[int, int, int]
) -> nn.Module:
    config = ViTMAEConfig(
        image_size=size,
        patch_size=patch,
        hidden_size=encoder[0],
        num_hidden_layers=encoder[1],
        num_attention_heads=encoder[2],
        intermediate_size=4 * encoder[0],
        decoder_hidden_size=decoder[0],
        decoder_num_hidden_layers=decoder[1],
        decoder_num_attention_heads=decoder[2],
        decoder_intermediate_size=4 * decoder[0],
        mask_ratio=RATIO,
        layer_norm_eps=1e-12,
    )
    network = ViTMAEForPreTraining(config)
    # Of a network that is not read from a file, this version of transformers sets the decoder's
    # positions to zero; its own method makes the table that files hold.
    for table in (network.vit.embeddings.position_embeddings, network.decoder.decoder_pos_embed):
        table._is_hf_initialized = False
    network.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    network.vit.embeddings.initialize_weights()
    network.decoder.initialize_weights((size // patch) ** 2)
    assert network.vit.embeddings.position_embeddings[0, 1].any()
    assert network.decoder.decoder_pos_embed[0, 1].any()
    return network


def set_weights(network: nn.Module, seed: int) -> None:
    """Draws every parameter but the fixed positions; values that float32 holds."""
    rng = np.random.default_rng(seed)
    for name, p in network.named_parameters():
        if not p.requires_grad:
            continue
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        width = 0.2 if p.ndim == 1 else p[0].numel() ** -0.5
        values = np.float32(centre + width * rng.standard_normal(tuple(p.shape)))
        p.data = torch.from_numpy(values).to(p.dtype)


def as_torch(images: np.ndarray, dtype: torch.dtype) -> Tensor:
    standardised = (images / 255.0 - MEAN) / STD
    return torch.from_numpy(standardised.transpose(0, 3, 1, 2).copy()).to(dtype)


class Facebook:
    """The checkout's network behind one interface: which patches are masked is said, not drawn."""

    def __init__(self, network: nn.Module):
        self.network = network.eval()

    def __call__(self, images: Tensor, noise: np.ndarray, ratio: float, norm_pix: bool = False):
        """Predictions of all patches and the loss; patches with the highest noise are masked."""
        drawn = torch.from_numpy(noise).to(images.dtype)
        original = torch.rand
        torch.rand = lambda *shape, device=None: drawn
        self.network.norm_pix_loss = norm_pix
        try:
            loss, prediction, _ = self.network(images, mask_ratio=ratio)
        finally:
            torch.rand = original
        return prediction, loss

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Patches to images."""
        return self.network.unpatchify(patches)


class HuggingFace:
    """Likewise, of transformers."""

    def __init__(self, network: nn.Module):
        self.network = network.eval()

    def __call__(self, images: Tensor, noise: np.ndarray, ratio: float, norm_pix: bool = False):
        """As of :class:`Facebook`."""
        for part in (self.network, self.network.vit, self.network.vit.embeddings):
            part.config.mask_ratio, part.config.norm_pix_loss = ratio, norm_pix
        result = self.network(images, noise=torch.from_numpy(noise).to(images.dtype))
        return result.logits, result.loss

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Patches to images."""
        return self.network.unpatchify(patches)


def sliding(network, images: Tensor, grid: int, block: int = 2) -> np.ndarray:
    """The image of the paper's procedure, one mask after the other."""
    n, result = grid * grid, None
    for top in range(0, grid, block):
        for left in range(0, grid, block):
            inside = [
                r * grid + c for r in range(top, top + block) for c in range(left, left + block)
            ]
            noise = np.arange(n) / (2 * n)
            noise[inside] += 1.0
            noise = np.tile(noise, (len(images), 1))
            # A little less than the share, for the number of visible patches is rounded down.
            prediction, _ = network(images, noise, (len(inside) - 0.5) / n)
            result = torch.zeros_like(prediction) if result is None else result
            result[:, inside] = prediction[:, inside]
    pixels = network.unpatchify(result).numpy().transpose(0, 2, 3, 1)
    return np.clip(pixels * STD + MEAN, 0.0, 1.0)


def case(network, *, size: int, patch: int, seed: int, count: int = 2, dtype=torch.float64):
    """All that is stored of one network but its weights."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    n = (size // patch) ** 2
    noise = np.stack([rng.permutation(n) for _ in range(count)]) / n
    inputs = as_torch(images, dtype)
    with torch.no_grad():
        prediction, loss = network(inputs, noise, RATIO)
        _, loss_norm_pix = network(inputs, noise, RATIO, norm_pix=True)
        tiled = sliding(network, inputs, size // patch)
    return {
        "images": images,
        "order": np.argsort(noise, axis=1),
        "prediction": prediction.numpy(),
        "loss": loss.numpy(),
        "loss_norm_pix": loss_norm_pix.numpy(),
        "sliding": tiled,
    }


def weights_of(network: nn.Module) -> Values:
    """The state dict under the names of a file: transformers saves other ones than it uses."""
    if isinstance(network, ViTMAEForPreTraining):
        with tempfile.TemporaryDirectory() as folder:
            network.save_pretrained(folder)
            return load_file(pathlib.Path(folder) / "model.safetensors")
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def make(options: argparse.Namespace) -> None:
    sizes = {"size": 32, "patch": 4, "encoder": (16, 2, 2), "decoder": (8, 1, 2)}
    networks = {
        "mae": (Facebook, facebook(import_mae(options.mae), **sizes)),
        "hf": (HuggingFace, hugging_face(**sizes)),
    }
    arrays = {}
    for seed, (name, (wrapper, network)) in enumerate(networks.items()):
        network = network.double()
        set_weights(network, seed)
        values = case(wrapper(network), size=32, patch=4, seed=seed)
        values |= {f"weight/{key}": value for key, value in weights_of(network).items()}
        arrays |= {f"{name}/{key}": value for key, value in values.items()}
    stored = {
        key: value.astype({"u": np.uint8, "i": np.int32}.get(value.dtype.kind, np.float32))
        for key, value in arrays.items()
    }
    commit = subprocess.run(
        ["git", "-C", str(options.mae), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    packages = ("torch", "timm", "transformers")
    provenance = {
        "script": "tests/golden/make_golden_mae.py",
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "commits": {"facebookresearch/mae": commit or options.commit},
    }
    np.savez_compressed(options.output, provenance=json.dumps(provenance), **stored)
    print(f"{options.output}: {options.output.stat().st_size} bytes, {provenance}")


# --- the published sizes, directly --------------------------------------------------------------


class Array:
    """A tensor as the converter reads it."""

    def __init__(self, array: np.ndarray):
        self._array, self.shape = array, array.shape

    def read(self) -> np.ndarray:
        """Its values."""
        return self._array


def check_full(options: argparse.Namespace) -> None:
    """Compares a network of a published size with jaxad's of the same weights."""
    import jax
    import jax.numpy as jnp
    from flax.traverse_util import unflatten_dict

    from jaxad import models
    from jaxad.convert.families import family
    from jaxad.convert.mapping import map_weights
    from jaxad.models.layers.masked_autoencoder import make_reconstruct, standardise, to_pixels
    from jaxad.ops.mask_schedules import sliding as sliding_masks
    from jaxad.ops.patches import patchify

    features, depth, heads, patch = FULL[options.check_full]
    network = facebook(
        import_mae(options.mae),
        size=224, patch=patch, encoder=(features, depth, heads), decoder=(512, 8, 16),
    )  # fmt: skip
    set_weights(network, 0)
    values = case(Facebook(network), size=224, patch=patch, seed=0, count=1, dtype=torch.float32)
    state = {key: Array(value) for key, value in weights_of(network).items()}
    leaves = map_weights(state, family("mae"), source="the checkout's network").leaves
    params = unflatten_dict(
        {tuple(k.split("/")): v for k, v in leaves.items() if not k.endswith("positions")}
    )
    model = models.build(
        "mae", (224, 224, 3), patch=patch, features=features, depth=depth, heads=heads
    )
    params = jax.tree.map(jnp.asarray, params)
    images = standardise(jnp.asarray(values["images"] / 255.0, jnp.float32))
    order = jnp.asarray(values["order"])
    visible = int(order.shape[1] * (1 - RATIO))
    patches = jnp.take_along_axis(patchify(images, patch=patch), order[:, :, None], axis=1)
    found = jax.jit(model.module.apply)(params, patches[:, :visible], order)
    masked = values["order"][:, visible:, None]
    expected = np.take_along_axis(values["prediction"], masked, axis=1)
    error = np.mean(np.square(found - patches[:, visible:]))
    grid = (224 // patch,) * 2
    reconstruct = make_reconstruct(
        model.module, sliding_masks(grid, block=2, stride=2),
        norm_pix=False, fill="drop", passes_at_once=1,
    )  # fmt: skip
    tiled = to_pixels(jax.jit(reconstruct)(params, images))
    for name, a, b in (
        ("prediction", found, expected),
        ("loss", error, values["loss"]),
        ("sliding-mask reconstruction", tiled, values["sliding"]),
    ):
        apart = np.max(np.abs(np.asarray(a, np.float64) - b)) / np.max(np.abs(b))
        print(f"{options.check_full}: {name} {apart:.1e} of its largest value apart")
        assert apart < 1e-4, name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mae", type=pathlib.Path, required=True)
    parser.add_argument("--commit", default="", help="of the checkout, where it has no .git")
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--check-full", choices=FULL)
    options = parser.parse_args()
    if options.check_full:
        check_full(options)
    else:
        make(options)


if __name__ == "__main__":
    main()
