"""VT-ADL: a vision transformer whose patch embeddings are both decoded and given a density.

Source: P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, "VT-ADL: A Vision
Transformer Network for Image Anomaly Detection and Localization", ISIE 2021, and its authors'
public code. Equation numbers are the paper's.

Density: for every patch, three linear maps without bias of the rectified embedding give the
weights (softmax, eq. 5), means and deviations (softplus, eq. 6) of K Gaussians (eq. 4).

Loss: ``5 MSE + 0.5 (1 - SSIM) - log-likelihood`` (eq. 9; eqs. 8 and 9 print signs under which
similar and likely images would cost more). Map: ``nll``, the patches' negative log-likelihood
brought up bilinearly (align corners), smoothed by the config's gaussian; ``l2`` is ours. Scores:
``reconstruction+nll``, MSE + (1 - SSIM) + the maximum over patches of the density's loss;
``reconstruction``, without the last (MNIST).

The target of the density is the embedding that it is conditioned on. So the likelihood has no
maximum: the means copy the input, the variances fall towards zero, the density grows without end.
What holds it: ``variance_floor``, added to every variance (the noise's own variance by default);
``noise`` on the condition alone, so that the means must guess; ``stop_gradient`` on the target, or
the encoder may make all embeddings alike.

``density="likelihood"`` (the paper) and ``"published"`` (what the code computes) differ in:
  * ``-log sum_k w_k N_k``, mean over patches, against ``sum_k w_k (-log N_k)`` with log 2 pi
    counted once, summed over patches: an upper bound, not a likelihood;
  * softplus as standard deviation (eq. 6), against softplus as log-variance: variances above 1;
  * noise on the density's condition only (the paper's text), against noise on what is decoded,
    conditions and targets;
  * attention scores scaled by the root of a head's length against that of all features
    (``attention_scale``);
  * a score ``published``, with the sign of SSIM as in the code: similar images score higher.
The code never sets the density's gradients to zero between steps, so that they add up over the
whole training: that is not reproduced. Text and code also disagree on K (150, 10) and on full
covariances (text; for D = 512 and K = 150 they would take ten billion parameters) against diagonal
ones (eq. 4, code): ``covariance="full"`` is there for small D.

The network itself: :mod:`jaxad.models.layers.vt_adl_network`.
"""

from __future__ import annotations

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
    check_one_of,
    label_encoder,
    to_unit_float,
)
from jaxad.models.layers.mixture_head import Mixture, MixtureHead, check_mixture
from jaxad.models.layers.token_grid import check_grid
from jaxad.models.layers.vit import VisionTransformer
from jaxad.models.layers.vt_adl_network import VTADL, Decoder, code_features_of, published_start
from jaxad.ops import mixture_density
from jaxad.ops.resize import bilinear_resize_align_corners
from jaxad.ops.ssim import ssim_map


def mean_ssim(a: Float[Array, "b h w c"], b: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """Mean similarity in gaussian windows of 11, with zeros beyond the border (as published)."""
    pads = ((0, 0), (5, 5), (5, 5), (0, 0))
    similarity = ssim_map(
        jnp.pad(a, pads), jnp.pad(b, pads),
        window="gaussian", border="valid", sample_covariance=False,
    )  # fmt: skip
    return jnp.mean(similarity, axis=(1, 2, 3))


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
) -> LossOutput:
    """Eq. 9, with the weights of :func:`build`."""
    images = to_unit_float(batch.image)
    mutable = ["batch_stats"] if train else False
    result = module.apply(variables, images, keys, train=train, mutable=mutable)
    (output, mixture, tokens), collections = result if train else (result, {})
    over_patches = jnp.sum if module.density.published else jnp.mean
    mse = jnp.mean(jnp.square(images - output), axis=(1, 2, 3))
    ssim = 1.0 - mean_ssim(images, output)
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


def detect(module: VTADL, variables: Variables, images: Shaped[Array, "b h w c"]) -> Detection:
    """The maps and scores of the head of this file."""
    images = to_unit_float(images)
    output, mixture, _ = module.apply(variables, images)
    per_patch = patch_losses(module, mixture)
    squared = jnp.square(images - output)
    mse, similarity = jnp.mean(squared, axis=(1, 2, 3)), mean_ssim(images, output)
    worst = jnp.max(per_patch, axis=1)
    scores = {
        "reconstruction": mse + (1.0 - similarity),
        "reconstruction+nll": mse + (1.0 - similarity) + worst,
    }
    if module.density.published:
        scores["published"] = mse + similarity + worst
    in_grid = in_places(module, per_patch)[..., None]
    nll = bilinear_resize_align_corners(in_grid, images.shape[1:3])[..., 0]
    maps = {"nll": nll, "l2": jnp.mean(squared, axis=-1)}
    return Detection(maps, scores, jnp.clip(output, 0.0, 1.0))


def diagnostics(
    module: VTADL, variables: Variables, images: Shaped[Array, "b h w c"]
) -> dict[str, Array]:
    """Which Gaussian each patch belongs to most, its loss, and the signs of a run-away."""
    _, mixture, tokens = module.apply(variables, to_unit_float(images))
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


def build(
    image_shape: tuple[int, int, int],
    *,
    axis_name: str | None = None,
    patch: int = 64,
    features: int = 512,
    depth: int = 6,
    heads: int = 8,
    mlp_features: int = 1024,
    attention_scale: str = "head",
    decoder: str = "published",
    width: float = 1.0,
    density: str = "likelihood",
    components: int = 150,
    covariance: str = "diagonal",
    noise: float = 0.2,
    variance_floor: float = 0.04,
    stop_gradient: bool = False,
    mse_weight: float = 5.0,
    ssim_weight: float = 0.5,
    density_weight: float = 1.0,
    remat: bool = False,
    dtype: str = "float32",
) -> Model:
    """Builds ``vt_adl``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      axis_name: the mapped axis over which batch statistics are reduced.
      patch: side of a patch in pixels.
      features: length D of an embedding, divisible by ``heads``.
      depth: number of transformer blocks.
      heads: number of attention heads.
      mlp_features: hidden features of the blocks' MLPs.
      attention_scale: ``"head"`` (1 / root of a head's length) or ``"full"`` (of D, the code).
      decoder: ``"published"`` (512 x 512 images) or ``"doubling"``.
      width: factor on the channels of the ``"doubling"`` decoder.
      density: ``"likelihood"`` (the paper) or ``"published"`` (what the code computes).
      components: number of Gaussians K.
      covariance: ``"diagonal"``, or ``"full"`` for small D.
      noise: standard deviation of the noise on embeddings in training.
      variance_floor: added to every variance of the likelihood; 0 leaves it without a maximum.
      stop_gradient: on the density's target.
      mse_weight: of the mean squared error.
      ssim_weight: of 1 - SSIM.
      density_weight: of the density's loss.
      remat: recompute the encoder's blocks in the backward pass, to save memory.
      dtype: ``"float32"`` or ``"bfloat16"``, of encoder and decoder; the density is float32.

    Raises:
      ValueError: options that do not fit together, or a full covariance of too many parameters.
    """
    check_grid(image_shape, patch=patch, features=features, heads=heads)
    check_one_of("attention_scale", attention_scale, ("head", "full"))
    check_one_of("density", density, ("likelihood", "published"))
    check_mixture(covariance, density, components, features)
    code_features = code_features_of(decoder, image_shape)
    kind = jnp.dtype(dtype)
    module = VTADL(
        VisionTransformer(
            features,
            depth,
            heads,
            mlp_features,
            final_norm=False,
            epsilon=1e-5,
            qkv_bias=False,
            attention_scale=features**-0.5 if attention_scale == "full" else None,
            remat=remat,
            dtype=kind,
            image_size=tuple(image_shape[:2]),
            patch=patch,
            position_std=1.0,
        ),
        Decoder(image_shape, decoder, width, axis_name, kind),
        MixtureHead(components, covariance, variance_floor, density == "published"),
        code_features,
        noise,
        stop_gradient,
    )
    return Model(
        module=module,
        image_shape=image_shape,
        init=functools.partial(init, module),
        loss=functools.partial(
            loss,
            module,
            mse_weight=mse_weight,
            ssim_weight=ssim_weight,
            density_weight=density_weight,
        ),
        detect=functools.partial(detect, module),
        param_labels=label_parameters,
        diagnostics=functools.partial(diagnostics, module),
    )


def label_parameters(params: Any) -> Any:
    """``"encoder"``, ``"density"``, and ``"default"`` for the decoder with its projection."""
    density = jax.tree.map(lambda _: "density", params["density"])
    return label_encoder(params) | {"density": density}
