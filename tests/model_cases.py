"""One small case or more of every model: the suites of conformance, export and bad input share it.

A new architecture adds one entry.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import tiny_backbone


class Case(NamedTuple):
    """A model small enough to compile in a second or two, with every kind of layer and switch.

    Attributes:
      model: its name.
      image_shape: ``(h, w, c)``.
      options: those that differ from the defaults.
      any_size: it takes images of any size; others must name `data.image_size` in refusing one.
    """

    model: str
    image_shape: tuple[int, int, int]
    options: dict[str, Any]
    any_size: bool = False


# The first case of a model is also exported.
CASES = {
    "pca": Case("pca", (16, 24, 3), {"components": 4}, any_size=True),
    "pca-patch": Case(
        "pca", (24, 24, 1), {"components": 6, "patch": 8, "stride": 4}, any_size=True
    ),
    "feature_pca": Case(
        "feature_pca",
        (32, 48, 3),
        {"backbone": tiny_backbone.NAME, "components": 4, "position_channels": 5},
    ),
    "feature_pca-anywhere": Case(
        "feature_pca",
        (32, 32, 1),
        {"backbone": tiny_backbone.NAME, "components": 0, "covariance": "shared"},
    ),
    "own_features": Case("own_features", (16, 24, 3), {"first": 3, "second": 4, "components": 4}),
    "own_features-pooled": Case(
        "own_features",
        (16, 16, 1),
        {"first": 3, "second": 4, "components": 0, "covariance": "pooled", "plain": 0.3},
    ),
    "restore": Case(
        "restore", (16, 24, 3), {"width": 8, "levels": 2, "components": 3, "kinds": "patch"}
    ),
    "restore-pretrained": Case(
        "restore",
        (32, 48, 3),
        {
            "backbone": tiny_backbone.NAME,
            "width": 8,
            "levels": 2,
            "components": 3,
            "kinds": "patch",
        },
    ),
    "cae": Case("cae", (64, 64, 3), {"latent": 8, "width": 0.25, "loss": "l2+ssim"}),
    "cae-l2": Case("cae", (64, 64, 1), {"latent": 8, "width": 0.25, "loss": "l2"}),
    "cae-tiles": Case(
        "cae",
        (96, 96, 3),
        {"latent": 8, "width": 0.25, "loss": "ssim", "tile": 64, "tile_stride": 16},
    ),
    "vqvae": Case("vqvae", (32, 32, 3), {"features": 8, "codes": 6, "residual_layers": 1}),
    "vqvae-ema": Case(
        "vqvae",
        (16, 32, 1),
        {"features": 8, "codes": 6, "residual_layers": 1, "codebook": "ema", "downsampling": 2},
    ),
    "vae": Case("vae", (32, 32, 3), {"latent": 4, "width": 8}),
    "vae-gray": Case(
        "vae",
        (16, 32, 1),
        {"latent": 4, "width": 4, "downsampling": 2, "kl_unit": "vae_compare", "mean_clip": 1e-05},
    ),
    "vae_grf": Case("vae_grf", (16, 24, 3), {"latent": 3, "width": 4, "downsampling": 2}),
    "vae_grf-elbo": Case(
        "vae_grf",
        (16, 16, 1),
        {
            "latent": 3,
            "width": 4,
            "downsampling": 2,
            "learn": "elbo",
            "wrap": "nearest",
            "start_range": 4.0,
        },
    ),
    "vit_vae": Case(
        "vit_vae",
        (16, 32, 3),
        {"patch": 8, "features": 16, "depth": 1, "heads": 2, "symmetric_input": True},
    ),
    "anovit": Case(
        "anovit", (16, 24, 3), {"patch": 4, "features": 16, "depth": 1, "heads": 2, "width": 0.1}
    ),
    "vit_memory": Case(
        "vit_memory",
        (16, 24, 3),
        {
            "patch": 4,
            "features": 16,
            "depth": 1,
            "heads": 2,
            "memory_items": 7,
            "temperature": 0.2,
            "width": 0.1,
        },
    ),
    "vt_adl": Case(
        "vt_adl",
        (16, 32, 3),
        {
            "patch": 8,
            "features": 8,
            "depth": 1,
            "heads": 2,
            "mlp_features": 16,
            "decoder": "doubling",
            "components": 3,
        },
    ),
    "vt_adl-published": Case(
        "vt_adl",
        (16, 16, 1),
        {
            "patch": 4,
            "features": 8,
            "depth": 1,
            "heads": 2,
            "mlp_features": 16,
            "decoder": "doubling",
            "density": "published",
            "attention_scale": "full",
            "components": 3,
        },
    ),
    "mae": Case(
        "mae",
        (16, 24, 3),
        {
            "patch": 4,
            "features": 16,
            "depth": 1,
            "heads": 2,
            "decoder_features": 8,
            "decoder_depth": 1,
            "decoder_heads": 2,
            "block": 1,
            "passes_at_once": 5,
        },
    ),
    "mae-fast": Case(
        "mae",
        (24, 16, 1),
        {
            "patch": 4,
            "features": 8,
            "depth": 1,
            "heads": 2,
            "decoder_features": 8,
            "decoder_depth": 1,
            "decoder_heads": 1,
            "norm_pix": True,
            "fill": "gray",
            "schedule": "interleaved",
            "passes": 2,
        },
    ),
}


def one_of_each() -> dict[str, Case]:
    """Model -> its first case."""
    return {case.model: case for case in reversed(CASES.values())}


def cases() -> list[Any]:
    """The names of all cases as parameters of a test; slow but for the first of each model."""
    first = list(one_of_each().values())
    return [
        pytest.param(name, marks=() if case in first else pytest.mark.slow)
        for name, case in CASES.items()
    ]
