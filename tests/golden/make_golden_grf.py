"""Golden values of the VAE-GRF authors' public functions: what tests/ops compares jaxad.ops with.

    python tests/golden/make_golden_grf.py VAE_GRF VAE_COMPARE --output=tests/golden

The arguments are checkouts of github.com/HGangloff/vae_grf (its ``pytorch`` folder is used) and
github.com/endtheme123/VAE-compare, the second being an older state of the first. Only the methods
of their priors and likelihoods are called, on an object without networks, so that nothing is
downloaded; needs torch, torchvision and transformers. Inputs are drawn by numpy from fixed seeds;
everything is computed and stored in float64, for jitters of 1e-6 are part of what is compared. One
file, grf.npz:

    mean, log_variance    (b, h, w, c) of the latent posterior
    field                 (b, h, w, c)
    x, lam                pixels and parameters of the continuous Bernoulli, (b, h, w, c)
    <repository>/xent     (b,), of either repository: per-image means, and their scaling differs
    <repository>/mean_from_lambda
    <repository>/<family>/<case>/*    for the Gaussian random fields, with
        range, sigma      as the covariance base gets them, in lattice units
        distances, base, log_determinant, inverse_base, product    (h, w) and so on
        kld               (b,), as the method returns it
    provenance            JSON
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
import torch
from torch import nn

SIDE, CHANNELS, BATCH = 8, 3, 2
CASES = {"short": (0.125, 1.0), "middle": (0.6, 0.1), "long": (0.9, 1.5)}
FAMILIES = {
    "vae_grf": {"exponential": "corr_exp", "matern32": "corr_matern_32", "gaussian": "corr_gauss"},
    "VAE-compare": {
        "exponential": "corr_exp",
        "matern32": "corr_matern_32",
        "identity": "corr_identity",
    },
}
# The method of vae_grf's identity raises an IndexError for the shape that its caller expects.


def load(folder: pathlib.Path) -> Any:
    """Imports a repository's VAE_GRF; both call their modules vae and vae_grf."""
    for name in ("vae", "vae_grf", "vit_vae"):
        sys.modules.pop(name, None)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("vae_grf").VAE_GRF
    finally:
        sys.path.remove(str(folder))


def prior(kind: Any, correlation: str, range_: float, sigma: float) -> Any:
    """An object with the state that the prior's methods read, and no networks."""
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    model.img_size = model.latent_img_size = SIDE
    model.corr_type, model.corr_fct = correlation, getattr(model, correlation)
    # kld divides the range by 8, the pixels of an image per latent site.
    model.logrange_prior = nn.Parameter(torch.tensor([math.log(8 * range_)]))
    model.logsigma_prior = nn.Parameter(torch.tensor([math.log(sigma)]))
    model.register_buffer("eucli_dist_array_latent_size", torch.empty(SIDE, SIDE))
    model.set_euclidean_dist_torus_array(array="eucli_dist_array_latent_size")
    model.register_buffer("mu_prior", torch.zeros(BATCH, CHANNELS, SIDE, SIDE))
    return model


def fields(kind: Any, correlation: str, case: str, draws: dict[str, np.ndarray]) -> dict:
    range_, sigma = CASES[case]
    model = prior(kind, correlation, range_, sigma)
    model.mu, model.logvar = nchw(draws["mean"]), nchw(draws["log_variance"])
    base = model.corr_fct(
        array="eucli_dist_array_latent_size",
        logrange=torch.tensor([math.log(range_)]),
        logsigma=torch.tensor([math.log(sigma)]),
    ).reshape(1, 1, SIDE, SIDE)
    product = model.get_matrix_vector_product(model.get_base_invert(base), nchw(draws["field"]))
    results = {
        "range": torch.tensor(range_),
        "sigma": torch.tensor(sigma),
        "distances": model.eucli_dist_array_latent_size,
        "base": base[0, 0],
        "log_determinant": model.get_logdeterminant_base(base).squeeze(),
        "inverse_base": model.get_base_invert(base)[0, 0],
        "product": product.permute(0, 2, 3, 1),
        "kld": model.kld(),
    }
    return {name: value.detach().numpy() for name, value in results.items()}


def likelihoods(kind: Any, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = prior(kind, "corr_exp", 1.0, 1.0)
    x, lam = nchw(draws["x"]), nchw(draws["lam"])
    return {
        "xent": model.xent_continuous_ber(lam, x).numpy(),
        "mean_from_lambda": model.mean_from_lambda(lam).permute(0, 2, 3, 1).numpy(),
    }


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def draw() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (BATCH, SIDE, SIDE, CHANNELS)
    lam = 1 / (1 + np.exp(-3 * rng.normal(size=shape)))
    # What the authors treat apart: around one half, and the ends.
    lam[0, 0, :, 0] = [0.49, 0.4901, 0.495, 0.4999, 0.5, 0.503, 0.5099, 0.51]
    lam[0, 1, :, 0] = [0.0, 1e-7, 1e-6, 1e-5, 1 - 1e-5, 1 - 1e-6, 1 - 1e-7, 1.0]
    return {
        "mean": rng.normal(size=shape),
        "log_variance": rng.normal(-1.0, 0.7, size=shape),
        "field": rng.normal(size=shape),
        "x": rng.uniform(size=shape),
        "lam": lam,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("vae_grf", type=pathlib.Path)
    parser.add_argument("vae_compare", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    draws = draw()
    arrays: dict[str, np.ndarray] = dict(draws)
    folders = {"vae_grf": options.vae_grf / "pytorch", "VAE-compare": options.vae_compare}
    for repository, folder in folders.items():
        kind = load(folder)
        for name, value in likelihoods(kind, draws).items():
            arrays[f"{repository}/{name}"] = value
        for family, correlation in FAMILIES[repository].items():
            for case in CASES:
                for name, value in fields(kind, correlation, case, draws).items():
                    arrays[f"{repository}/{family}/{case}/{name}"] = value
    provenance = {
        "made_by": "tests/golden/make_golden_grf.py",
        "vae_grf": "github.com/HGangloff/vae_grf 09ddd37",
        "VAE-compare": "github.com/endtheme123/VAE-compare b1d0283",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "arithmetic": "float64, stored as float64",
    }
    arrays["provenance"] = np.array(json.dumps(provenance))
    path = options.output / "grf.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path}  {len(arrays)} arrays, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
