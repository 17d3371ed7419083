"""VT-ADL: a vision transformer whose patch embeddings are both decoded and given a density.

Source: P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, "VT-ADL: A Vision
Transformer Network for Image Anomaly Detection and Localization", ISIE 2021, and its authors'
public code. Equation numbers are the paper's.

Density: for every patch, three linear maps without bias of the rectified embedding give the
weights (softmax, eq. 5), means and deviations (softplus, eq. 6) of K Gaussians (eq. 4).

Loss: ``5 MSE + 0.5 (1 - SSIM) - log-likelihood`` (eq. 9; eqs. 8 and 9 print signs under which
similar and likely images would cost more). Map: ``nll``, the negative log-likelihood of the
patches, enlarged bilinearly (align corners) and smoothed by the config's gaussian; ``l2`` is this
library's. Scores: ``reconstruction+nll``, which is MSE + (1 - SSIM) + the maximum over patches of
the density's loss; ``reconstruction``, without the last (MNIST).

The target of the density is the embedding that it is conditioned on. So the likelihood has no
maximum: the means copy the input, the variances fall towards zero, and the density grows without
end. Three options prevent this: ``variance_floor`` is added to every variance (by default the
variance of the noise); ``noise`` on the condition alone makes the means guess; ``stop_gradient``
on the target keeps the encoder from making all embeddings alike.

``density="likelihood"`` (the paper) and ``"published"`` (what the code computes) differ in:

* ``-log sum_k w_k N_k``, mean over patches, against ``sum_k w_k (-log N_k)`` with log 2 pi
  counted once, summed over patches: an upper bound, not a likelihood;
* softplus as standard deviation (eq. 6), against softplus as log-variance: variances above 1;
* noise on the density's condition only (the paper's text), against noise on what is decoded,
  on conditions and on targets;
* a score ``published``, with the sign of SSIM as in the code: similar images score higher.

The code scales attention scores by the root of the number of all features instead of the length
of a head (``attention_scale``). It never sets the gradients of the density to zero between steps,
so that they add up over the whole training; this is not reproduced. Text and code also disagree on
K (150 and 10), and on full covariances (text) against diagonal ones (eq. 4 and code). For D = 512
and K = 150 full ones would take ten billion parameters; ``covariance="full"`` is there for small D.

The network itself: :mod:`jaxad.models.layers.vt_adl_network`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    Variables,
    apply,
    apply_for_loss,
    label_subtrees,
    ssim_backend_option,
    to_unit_float,
)
from jaxad.models.layers.mixture_head import Mixture, MixtureHead, check_mixture
from jaxad.models.layers.token_grid import ViTOptions
from jaxad.models.layers.vt_adl_network import VTADL, Decoder, code_features_of, published_start
from jaxad.ops import mixture_density
from jaxad.ops.arrays import AnyArray
from jaxad.ops.resize import bilinear_resize_align_corners
from jaxad.ops.ssim import mean_ssim
from jaxad.run.options import option


def padded_ssim(
    a: Float[AnyArray, "b h w c"], b: Float[AnyArray, "b h w c"], backend: str = "auto"
) -> Float[Array, " b"]:
    """Mean SSIM in gaussian windows of 11, with zeros beyond the border (as published)."""
    pads = ((0, 0), (5, 5), (5, 5), (0, 0))
    return mean_ssim(jnp.pad(a, pads), jnp.pad(b, pads), backend=backend)


def patch_losses(module: VTADL, mixture: Mixture) -> Float[Array, "b n"]:
    """What the density costs at every patch, by the ``density`` of :func:`build`."""
    logits, log_densities, _ = mixture
    if module.density.published:
        return mixture_density.expected_component_nll(
            logits, log_densities, dimensions=module.encoder.features
        )
    return -mixture_density.log_likelihood(logits, log_densities)


def in_places(module: VTADL, values: Shaped[Array, "b n"]) -> Shaped[Array, "b i j"]:
    """Values of the patches in their places."""
    return values.reshape(-1, *module.encoder.grid)


def init(module: VTADL, key: Key[Array, ""]) -> Variables:
    """All parameters; the encoder's as in the code."""
    variables = module.init(key, jnp.zeros((1, *module.decoder.image_shape)))
    params = variables["params"]
    encoder = published_start(params["encoder"], jax.random.fold_in(key, 1))
    return {**variables, "params": {**params, "encoder": encoder}}


def loss(
    module: VTADL,
    variables: Variables,
    batch: Batch,
    keys: Key[Array, " b"],
    train: bool,
    *,
    mse_weight: float,
    ssim_weight: float,
    density_weight: float,
    ssim_backend: str,
) -> LossOutput:
    """Eq. 9, with the weights of :func:`build`."""
    images = to_unit_float(batch.image)
    (output, mixture, tokens), collections = apply_for_loss(
        VTADL.__call__, module, variables, images, keys, train=train
    )
    over_patches = jnp.sum if module.density.published else jnp.mean
    mse = jnp.mean(jnp.square(images - output), axis=(1, 2, 3))
    ssim = 1.0 - padded_ssim(images, output, ssim_backend)
    nll = over_patches(patch_losses(module, mixture), axis=1)
    total = mse_weight * mse + ssim_weight * ssim + density_weight * nll
    terms = {
        "mse": mse,
        "ssim": ssim,
        "nll": nll,
        # For the history: both fall together where the likelihood runs away.
        "log_variance": jnp.mean(mixture.log_variances, axis=(1, 2, 3)),
        "embedding_norm": jnp.mean(jnp.linalg.norm(tokens, axis=-1), axis=1),
    }
    return LossOutput(total, jax.lax.stop_gradient(terms), dict(collections), {}, {})


def detect(
    module: VTADL,
    variables: Variables,
    images: Shaped[AnyArray, "b h w c"],
    *,
    ssim_backend: str,
) -> Detection:
    """The maps and scores of the head of this file."""
    images = to_unit_float(images)
    output, mixture, _ = apply(module, variables, images)
    per_patch = patch_losses(module, mixture)
    squared = jnp.square(images - output)
    mse = jnp.mean(squared, axis=(1, 2, 3))
    ssim = padded_ssim(images, output, ssim_backend)
    worst = jnp.max(per_patch, axis=1)
    scores = {
        "reconstruction": mse + (1.0 - ssim),
        "reconstruction+nll": mse + (1.0 - ssim) + worst,
    }
    if module.density.published:
        scores["published"] = mse + ssim + worst
    in_grid = in_places(module, per_patch)[..., None]
    nll = bilinear_resize_align_corners(in_grid, module.encoder.image_size)[..., 0]
    maps = {"nll": nll, "l2": jnp.mean(squared, axis=-1)}
    return Detection(maps, scores, jnp.clip(output, 0.0, 1.0))


def diagnostics(
    module: VTADL, variables: Variables, images: Shaped[AnyArray, "b h w c"]
) -> dict[str, Array]:
    """Which Gaussian each patch belongs to most, its loss, and the signs of a run-away."""
    _, mixture, tokens = apply(module, variables, to_unit_float(images))
    logits, log_densities, log_variances = mixture
    likeliest = jnp.argmax(mixture_density.responsibilities(logits, log_densities), -1)
    chosen = jax.nn.one_hot(likeliest, module.density.components)
    return {
        "component_counts": jnp.sum(chosen, axis=(0, 1)),
        "component_of_patch": in_places(module, likeliest),
        "patch_loss": in_places(module, patch_losses(module, mixture)),
        "mean_log_variance": jnp.mean(log_variances),
        "mean_embedding_norm": jnp.mean(jnp.linalg.norm(tokens, axis=-1)),
    }


@dataclasses.dataclass(frozen=True)
class VTADLOptions(ViTOptions):
    """Options of ``vt_adl``."""

    patch: int = option(64, "side of a patch in pixels", at_least=1)
    features: int = option(512, "length D of an embedding, divisible by heads", at_least=1)
    depth: int = option(6, "transformer blocks", at_least=0)
    heads: int = option(8, "attention heads", at_least=1)
    mlp_features: int = option(1024, "hidden features of a block's MLP", at_least=1)
    attention_scale: str = option(
        "head", "1 / root of a head's length, or of D (the code: full)", choices=("head", "full")
    )
    decoder: str = option(
        "published", "published takes 512 x 512 images", choices=("published", "doubling")
    )
    width: float = option(1.0, "factor on the channels of the doubling decoder", above=0)
    density: str = option(
        "likelihood", "the paper's, or what the code computes", choices=("likelihood", "published")
    )
    components: int = option(150, "number of Gaussians K", at_least=1)
    covariance: str = option("diagonal", "full is for few features", choices=("diagonal", "full"))
    noise: float = option(
        0.2, "standard deviation of the noise on embeddings in training", at_least=0
    )
    variance_floor: float = option(
        0.04, "added to every variance; 0 leaves the likelihood without a maximum", at_least=0
    )
    stop_gradient: bool = option(False, "on the density's target")
    mse_weight: float = option(5.0, "of the mean squared error", at_least=0)
    ssim_weight: float = option(0.5, "of 1 - SSIM", at_least=0)
    ssim_backend: str = ssim_backend_option()
    density_weight: float = option(1.0, "of the density's loss", at_least=0)


def build(
    image_shape: tuple[int, int, int], options: VTADLOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``vt_adl``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      options: of the model.
      axis_name: the mapped axis over which batch statistics are reduced.

    Raises:
      ValueError: options that do not fit together, or a full covariance of too many parameters.
    """
    check_mixture(options.covariance, options.density, options.components, options.features)
    code_features = code_features_of(options.decoder, image_shape)
    full = options.attention_scale == "full"
    encoder = options.encoder(
        image_shape,
        mlp_features=options.mlp_features,
        final_norm=False,
        epsilon=1e-5,
        qkv_bias=False,
        attention_scale=options.features**-0.5 if full else None,
        position_std=1.0,
    )
    module = VTADL(
        encoder,
        Decoder(image_shape, options.decoder, options.width, axis_name, encoder.dtype),
        MixtureHead(
            options.components,
            options.covariance,
            options.variance_floor,
            options.density == "published",
        ),
        code_features,
        options.noise,
        options.stop_gradient,
    )
    weights: dict[str, Any] = {
        "mse_weight": options.mse_weight,
        "ssim_weight": options.ssim_weight,
        "density_weight": options.density_weight,
    }
    return Model(
        module=module,
        image_shape=image_shape,
        init=functools.partial(init, module),
        loss=functools.partial(loss, module, ssim_backend=options.ssim_backend, **weights),
        detect=functools.partial(detect, module, ssim_backend=options.ssim_backend),
        param_labels=functools.partial(label_subtrees, encoder="encoder", density="density"),
        diagnostics=functools.partial(diagnostics, module),
    )
