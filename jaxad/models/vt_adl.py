"""VT-ADL: a vision transformer whose patch embeddings are both decoded and given a density.

Source: P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, "VT-ADL: A Vision
Transformer Network for Image Anomaly Detection and Localization", ISIE 2021, and its authors'
public code. Equation numbers are the paper's.

Encoder: patches of 64 of a 512 x 512 image, 6 pre-norm blocks of 512 features, 8 heads, MLPs of
1024, no bias on query, key and value, no final normalisation; the class token is dropped.
Reconstruction vector: in the code a capsule layer of *one* output capsule. Its routing is a
softmax over that one capsule, which is 1 whatever is routed, so what it computes is a linear map
without bias of all tokens together to 512 numbers, then ``s |s| / (1 + |s|^2)``: that is here.
Decoder: the vector as 8 x 8 x 8, transposed convolutions with batch normalisation and ReLU in
between, tanh at the end; six in the code (``decoder="published"``, sides 8 15 49 245 497 502 512),
five in the paper. For other sizes ``"doubling"``: 4x4 of stride 2, ours.

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
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Shaped

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
from jaxad.models.layers import BatchNorm, ConvTranspose, pytorch_conv_init
from jaxad.models.mixture_head import Mixture, MixtureHead, check_mixture
from jaxad.models.token_grid import check_grid, token_grid
from jaxad.models.vit import VisionTransformer
from jaxad.ops import mixture_density
from jaxad.ops.resize import bilinear_resize_align_corners
from jaxad.ops.ssim import ssim_map

CODE_CHANNELS = 8
PUBLISHED_SIZE = 512
PUBLISHED_LAYERS = ((16, 3, 2, 1), (32, 9, 3, 1), (32, 7, 5, 1), (16, 9, 2, 0), (8, 6, 1, 0))
"""Output channels, kernel, stride and padding (PyTorch's) of all but the last, 11 1 0."""
DOUBLING_CHANNELS = (32, 32, 16, 8)


class Decoder(nn.Module):
    """A vector to an image in (-1, 1).

    Attributes:
      image_shape: ``(h, w, c)``.
      kind: ``"published"`` or ``"doubling"``.
      width: factor on the channels of ``"doubling"``.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation.
    """

    image_shape: tuple[int, int, int]
    kind: str
    width: float = 1.0
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, codes: Float[Array, "b z"], *, train: bool) -> Float[Array, "b h w c"]:
        """Decodes; the vector's numbers run over channels, rows and columns in this order."""
        h, w, c = self.image_shape
        halvings = _halvings(self.image_shape)
        if self.kind == "published":
            grid, layers = (8, 8), (*PUBLISHED_LAYERS, (c, 11, 1, 0))
        else:
            grid = (h >> halvings, w >> halvings)
            channels = [max(1, round(f * self.width)) for f in DOUBLING_CHANNELS]
            channels += channels[-1:] * halvings
            layers = tuple((f, 4, 2, 1) for f in [*channels[: halvings - 1], c])
        x = jnp.moveaxis(codes.reshape(-1, CODE_CHANNELS, *grid), 1, -1)
        for i, (features, kernel, stride, padding) in enumerate(layers):
            # PyTorch's padding p cuts p from the edges: here the dilated input is padded.
            x = ConvTranspose(
                features, (kernel, kernel), strides=stride, padding=kernel - 1 - padding,
                dtype=self.dtype, name=f"up_{i}", **pytorch_conv_init(features, (kernel, kernel)),
            )(x)  # fmt: skip
            if i < len(layers) - 1:
                norm = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f"norm_{i}")
                x = nn.relu(norm(x, train=train))
        return nn.tanh(x.astype(jnp.float32))


class VTADL(nn.Module):
    """Encoder, reconstruction vector, decoder and mixture density.

    Attributes:
      encoder: a vision transformer.
      decoder: to images.
      density: the mixture density network.
      code_features: length of the reconstruction vector.
    """

    encoder: VisionTransformer
    decoder: Decoder
    density: MixtureHead
    code_features: int

    def setup(self):
        """Declares the projection to the reconstruction vector."""
        self.capsule = nn.Dense(
            self.code_features,
            use_bias=False,
            kernel_init=nn.initializers.normal(0.01),
            dtype=self.encoder.dtype,
        )

    def embed(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """Embeddings of the patches, row by row, float32."""
        grid = token_grid(self.encoder, images).astype(jnp.float32)
        return grid.reshape(grid.shape[0], -1, grid.shape[-1])

    def decode(self, tokens: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b h w c"]:
        """The image of all embeddings together."""
        flat = tokens.reshape(tokens.shape[0], -1)
        return self.decoder(squash(self.capsule(flat).astype(jnp.float32)), train=train)

    def __call__(self, images: Float[Array, "b h w c"], *, train: bool = False):
        """Reconstruction and mixture; for making the parameters."""
        tokens = self.embed(images)
        return self.decode(tokens, train=train), self.density(tokens, tokens)


def squash(x: Float[Array, "*b z"]) -> Float[Array, "*b z"]:
    """``x |x| / (1 + |x|^2)``: of length below 1; zero stays zero, with a finite gradient."""
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * (jnp.sqrt(jnp.maximum(squared, 1e-24)) / (1.0 + squared))


def mean_ssim(a: Float[Array, "b h w c"], b: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """Mean similarity in gaussian windows of 11, with zeros beyond the border (as published)."""
    pads = ((0, 0), (5, 5), (5, 5), (0, 0))
    similarity = ssim_map(
        jnp.pad(a, pads), jnp.pad(b, pads),
        window="gaussian", border="valid", sample_covariance=False,
    )  # fmt: skip
    return jnp.mean(similarity, axis=(1, 2, 3))


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
    h, w, c = image_shape
    check_grid(image_shape, patch=patch, features=features, heads=heads)
    check_one_of("attention_scale", attention_scale, ("head", "full"))
    check_one_of("density", density, ("likelihood", "published"))
    check_mixture(covariance, density, components, features)
    code_features = _code_features(decoder, image_shape)
    published = density == "published"
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
            image_size=(h, w),
            patch=patch,
            position_std=1.0,
        ),
        Decoder(image_shape, decoder, width, axis_name, kind),
        MixtureHead(components, covariance, variance_floor, published),
        code_features,
    )

    def init(key) -> Variables:
        variables = module.init(key, jnp.zeros((1, h, w, c)))
        params = variables["params"]
        start = _published_start(params["encoder"], jax.random.fold_in(key, 1))
        return {**variables, "params": {**params, "encoder": start}}

    def patch_loss(mixture: Mixture):
        logits, log_densities, _ = mixture
        if published:
            return mixture_density.expected_component_nll(
                logits, log_densities, dimensions=features
            )
        return -mixture_density.log_likelihood(logits, log_densities)

    def forward(module: VTADL, images, keys, train: bool):
        tokens = module.embed(images)
        condition, decoded, target = tokens, tokens, tokens
        if train and noise > 0:
            draw = lambda key: jax.random.normal(key, tokens.shape[1:])
            condition = tokens + noise * jax.vmap(draw)(keys)
            if published:
                decoded = target = condition
        if stop_gradient:
            target = jax.lax.stop_gradient(target)
        return tokens, module.decode(decoded, train=train), module.density(condition, target)

    def loss(variables, batch: Batch, keys, train: bool) -> LossOutput:
        images = to_unit_float(batch.image)
        mutable = ["batch_stats"] if train else False
        result = nn.apply(forward, module, mutable=mutable)(variables, images, keys, train)
        (tokens, output, mixture), collections = result if train else (result, {})
        reduce = jnp.sum if published else jnp.mean
        terms = {
            "mse": jnp.mean(jnp.square(images - output), axis=(1, 2, 3)),
            "ssim": 1.0 - mean_ssim(images, output),
            "nll": reduce(patch_loss(mixture), axis=1),
        }
        weights = {"mse": mse_weight, "ssim": ssim_weight, "nll": density_weight}
        total = sum(weights[name] * term for name, term in terms.items())
        # For the history: both fall together where the likelihood runs away.
        terms["log_variance"] = jnp.mean(mixture.log_variances, axis=(1, 2, 3))
        terms["embedding_norm"] = jnp.mean(jnp.linalg.norm(tokens, axis=-1), axis=1)
        terms = {name: jax.lax.stop_gradient(term) for name, term in terms.items()}
        return LossOutput(total, terms, dict(collections), {}, {})

    def patch_maps(per_patch: Float[Array, "b n"]) -> Float[Array, "b i j"]:
        return per_patch.reshape(-1, h // patch, w // patch)

    def detect(variables, images) -> Detection:
        images = to_unit_float(images)
        _, output, mixture = nn.apply(forward, module)(variables, images, None, False)
        per_patch = patch_loss(mixture)
        squared = jnp.square(images - output)
        mse, similarity = jnp.mean(squared, axis=(1, 2, 3)), mean_ssim(images, output)
        worst = jnp.max(per_patch, axis=1)
        scores = {
            "reconstruction": mse + (1.0 - similarity),
            "reconstruction+nll": mse + (1.0 - similarity) + worst,
        }
        if published:
            scores["published"] = mse + similarity + worst
        upsampled = bilinear_resize_align_corners(patch_maps(per_patch)[..., None], (h, w))
        maps = {"nll": upsampled[..., 0], "l2": jnp.mean(squared, axis=-1)}
        return Detection(maps, scores, jnp.clip(output, 0.0, 1.0))

    def diagnostics(variables: Variables, images: Shaped[Array, "b h w c"]) -> dict[str, Array]:
        images = to_unit_float(images)
        tokens, _, mixture = nn.apply(forward, module)(variables, images, None, False)
        logits, log_densities, log_variances = mixture
        shares = mixture_density.responsibilities(logits, log_densities)
        return {
            "component_counts": jnp.sum(
                jax.nn.one_hot(jnp.argmax(shares, -1), components), axis=(0, 1)
            ),
            "component_of_patch": patch_maps(jnp.argmax(shares, -1)),
            "patch_loss": patch_maps(patch_loss(mixture)),
            "mean_log_variance": jnp.mean(log_variances),
            "mean_embedding_norm": jnp.mean(jnp.linalg.norm(tokens, axis=-1)),
        }

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=loss,
        detect=detect,
        param_labels=label_parameters,
        diagnostics=diagnostics,
    )


def label_parameters(params: Any) -> Any:
    """``"encoder"``, ``"density"``, and ``"default"`` for the decoder with its projection."""
    density = jax.tree.map(lambda _: "density", params["density"])
    return label_encoder(params) | {"density": density}


def _published_start(encoder: Any, key: Array) -> Any:
    """The encoder's start as in the code: linear layers Kaiming normal, class token N(0, 1)."""
    flat = flatten_dict(encoder)
    for number, (path, leaf) in enumerate(sorted(flat.items())):
        if path[-1] in ("kernel", "class_token"):
            fan_in = math.prod(leaf.shape[:-1])
            scale = math.sqrt(2.0 / fan_in) if path[-1] == "kernel" else 1.0
            own = jax.random.fold_in(key, number)
            flat[path] = scale * jax.random.normal(own, leaf.shape, leaf.dtype)
    return unflatten_dict(flat)


def _halvings(image_shape: tuple[int, int, int]) -> int:
    """Doublings from about 8 x 8 to the image."""
    return max(1, round(math.log2(max(2.0, min(image_shape[:2]) / 8))))


def _code_features(decoder: str, image_shape: tuple[int, int, int]) -> int:
    """Length of the reconstruction vector.

    Raises:
      ValueError: the decoder does not make images of this size.
    """
    h, w, _ = image_shape
    check_one_of("decoder", decoder, ("published", "doubling"))
    if decoder == "published":
        if (h, w) != (PUBLISHED_SIZE, PUBLISHED_SIZE):
            raise ValueError(
                f"model.decoder=published makes images of {PUBLISHED_SIZE} x {PUBLISHED_SIZE}, "
                f"not of {h} x {w}; set model.decoder=doubling or data.image_size"
            )
        return CODE_CHANNELS * 8 * 8
    step = 2 ** _halvings(image_shape)
    if h % step or w % step:
        raise ValueError(
            f"sides of {h} x {w} must be divisible by {step} for model.decoder=doubling; change "
            "data.image_size"
        )
    return CODE_CHANNELS * (h // step) * (w // step)
