"""Vision-transformer autoencoder with a memory of normal features and coordinate attention.

Source: Q. Yang, R. Guo, "An Unsupervised Method for Industrial Image Anomaly Detection with Vision
Transformer-Based Autoencoder", Sensors 2024, 24, 2440. Equation numbers are its own. No public
code is known; the memory is that of MemAE (Gong et al. 2019).

Encoder: a ViT trained from scratch, 384 x 384, patches of 16, 768 features, 8 heads, class token;
the 24 x 24 tokens of the patches go to the memory (:mod:`jaxad.ops.memory`: cosine, softmax over
the items, hard shrinkage at 1 / N, normalisation, weighted sum), then through coordinate attention
and to the decoder. Both are switches: off, the model is the paper's "Base".

Loss (eqs. 11 to 15), per image::

    L2 + lambda (1 - SSIM) + 0.001 entropy

L2 is the squared error summed over channels, 1 - SSIM the mean over channels, both means over
pixels; the entropy is that of the memory's weights after shrinkage, a mean over positions.

Where the print is wrong, contradictory or silent, and what is taken:
  * eq. 14 lacks the minus of an entropy: minimised as printed it would make all weights alike,
    where the text wants few; the entropy here has it (as MemAE's);
  * section 3.3 puts the attention between encoder and memory, the workflow and figure 2 after the
    memory: ``attention="after"``, or ``"before"``;
  * depth (12), number of items (2000, MemAE's), temperature (1, that is none; with cosines of at
    most 1 all weights then lie within a factor of 7.4), lambda, SSIM's window (uniform, 11);
  * decoder: six transposed convolutions, each with normalisation over the batch and ReLU, and a
    tanh at the end: AnoViT's of 2022 but for its kind of normalisation. Its ReLU before the tanh
    would cut off half of the output's range, so the last layer goes without both
    (``decoder="tanh"``); images are shown to the network in [-1, 1];
  * score: the contribution list says that L2, SSIM and entropy enter it, weights are not given.
    The map ``anomaly`` adds the ``score_terms`` with their weights of the loss, pixel by pixel,
    the entropy brought up bilinearly. The score ``loss`` is the image's loss.

Maps: ``l2``, ``ssim`` (1 - SSIM), ``entropy`` (with a memory), ``anomaly``.

The history tells how the memory is used: ``memory_hits``, how often an item was the strongest of a
position, and ``memory_reads``, how often it had any weight after shrinkage. Items that are never
read (``memory_reads_unused``) are dead.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.anovit import Decoder
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    Variables,
    check_one_of,
    label_encoder,
    to_unit_float,
)
from jaxad.models.layers.basic import uniform_within
from jaxad.models.layers.coordinate_attention import CoordinateAttention
from jaxad.models.layers.token_grid import check_grid, token_grid
from jaxad.models.layers.vit import VisionTransformer
from jaxad.ops import memory
from jaxad.ops.resize import bilinear_resize_align_corners
from jaxad.ops.ssim import ssim_map

ATTENTION = ("none", "before", "after")
DECODERS = ("tanh", "2022", "2024")
TERMS = ("l2", "ssim", "entropy")


class MemoryOptions(NamedTuple):
    """The memory: number of items, and how it is read (:func:`jaxad.ops.memory.read`)."""

    items: int
    similarity: str
    temperature: float
    threshold: float


class ViTMemory(nn.Module):
    """Encoder, memory, attention and decoder.

    Attributes:
      encoder: a vision transformer.
      decoder: of AnoViT.
      memory: None goes without.
      attention: ``"none"``, ``"before"`` the memory or ``"after"`` it.
      axis_name: mapped axis for batch statistics.
      dtype: of the computation; the memory is float32.
    """

    encoder: VisionTransformer
    decoder: Decoder
    memory: MemoryOptions | None
    attention: str
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self):
        """Declares attention and memory."""
        d = self.encoder.features
        if self.attention != "none":
            self.coordinate_attention = CoordinateAttention(
                axis_name=self.axis_name, dtype=self.dtype
            )
        if self.memory is not None:
            draw = uniform_within(d**-0.5)  # MemAE's start
            self.items = self.param("items", draw, (self.memory.items, d))

    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b i j n"] | None]:
        """Reconstruction of images in [0, 1], and the memory's weights where there is one."""
        x, weights = token_grid(self.encoder, 2.0 * images - 1.0), None
        if self.attention == "before":
            x = self.coordinate_attention(x, train=train)
        if self.memory is not None:
            _, similarity, temperature, threshold = self.memory
            x, weights = memory.read(
                x, self.items, similarity=similarity, temperature=temperature, threshold=threshold
            )
        if self.attention == "after":
            x = self.coordinate_attention(x, train=train)
        output = self.decoder(x, train=train)
        return (0.5 + 0.5 * output if self.decoder.kind == "tanh" else output), weights


def pixel_terms(
    images: Float[Array, "b h w c"], reconstruction: Float[Array, "b h w c"], *, ssim_window: int
) -> dict[str, Float[Array, "b h w"]]:
    """``l2``, the squared error summed over channels, and ``ssim``, 1 - SSIM, of every pixel."""
    l2 = jnp.sum(jnp.square(images - reconstruction), axis=-1)
    similarity = ssim_map(images, reconstruction, window_size=ssim_window)
    return {"l2": l2, "ssim": 1.0 - jnp.mean(similarity, axis=-1)}


def image_terms(
    pixels: Mapping[str, Float[Array, "b h w"]],
    weights: Float[Array, "b i j n"] | None,
    *,
    term_weights: Mapping[str, float],
) -> tuple[dict[str, Float[Array, " b"]], Float[Array, " b"]]:
    """The terms of every image, and their weighted sum.

    Args:
      pixels: of :func:`pixel_terms`.
      weights: of the memory, where there is one.
      term_weights: name of a term -> its weight.
    """
    terms = {name: jnp.mean(values, axis=(1, 2)) for name, values in pixels.items()}
    if weights is not None:
        terms["entropy"] = jnp.mean(memory.entropy(weights), axis=(1, 2))
    return terms, sum(term_weights[name] * values for name, values in terms.items())


def loss(
    module: ViTMemory,
    variables: Variables,
    batch: Batch,
    keys: Key[Array, " b"],
    train: bool,
    *,
    term_weights: Mapping[str, float],
    ssim_window: int,
) -> LossOutput:
    """The loss of the head of this file, and how often each item was the strongest and was read."""
    del keys  # nothing is drawn
    images = to_unit_float(batch.image)
    mutable = [name for name in variables if name != "params"] if train else False
    result = module.apply(variables, images, train=train, mutable=mutable)
    (reconstruction, weights), collections = result if train else (result, {})
    pixels = pixel_terms(images, reconstruction, ssim_window=ssim_window)
    terms, total = image_terms(pixels, weights, term_weights=term_weights)
    sums = {}
    if weights is not None:
        sums = {"memory_hits": memory.hits(weights), "memory_reads": memory.reads(weights)}
    return LossOutput(total, terms, dict(collections), sums, {})


def detect(
    module: ViTMemory,
    variables: Variables,
    images: Shaped[Array, "b h w c"],
    *,
    term_weights: Mapping[str, float],
    score_terms: tuple[str, ...],
    ssim_window: int,
) -> Detection:
    """The maps of the terms and their weighted sum ``anomaly``; the score ``loss``."""
    images = to_unit_float(images)
    reconstruction, weights = module.apply(variables, images)
    reconstruction = jnp.clip(reconstruction, 0.0, 1.0)
    maps = pixel_terms(images, reconstruction, ssim_window=ssim_window)
    _, total = image_terms(maps, weights, term_weights=term_weights)
    if weights is not None:
        entropy = memory.entropy(weights)[..., None]
        maps["entropy"] = bilinear_resize_align_corners(entropy, images.shape[1:3])[..., 0]
    chosen = [name for name in score_terms if name in maps]
    maps["anomaly"] = sum(term_weights[name] * maps[name] for name in chosen)
    return Detection(maps, {"loss": total}, reconstruction)


def diagnostics(
    module: ViTMemory, variables: Variables, images: Shaped[Array, "b h w c"]
) -> dict[str, Array]:
    """How the memory is used, and the entropy of its weights at every position."""
    _, weights = module.apply(variables, to_unit_float(images))
    kept = jnp.sum(weights > 0, axis=-1)
    return {
        "memory_hits_counts": memory.hits(weights),
        "memory_reads_counts": memory.reads(weights),
        "memory_items_kept_per_position": jnp.mean(kept.astype(jnp.float32)),
        "memory_entropy": memory.entropy(weights),
    }


def build(
    image_shape: tuple[int, int, int],
    *,
    axis_name: str | None = None,
    patch: int = 16,
    features: int = 768,
    depth: int = 12,
    heads: int = 8,
    memory_items: int = 2000,
    similarity: str = "cosine",
    temperature: float = 1.0,
    shrink: float = 1.0,
    attention: str = "after",
    decoder: str = "tanh",
    width: float = 1.0,
    norm: str = "batch",
    ssim_weight: float = 1.0,
    entropy_weight: float = 0.001,
    ssim_window: int = 11,
    score_terms: str = "l2+ssim+entropy",
    remat: bool = False,
    dtype: str = "float32",
) -> Model:
    """Builds ``vit_memory``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      axis_name: the mapped axis over which batch statistics are reduced.
      patch: side of a patch in pixels.
      features: length of a token, divisible by ``heads``.
      depth: number of transformer blocks.
      heads: number of attention heads.
      memory_items: number of items N; 0: no memory.
      similarity: ``"cosine"`` (the paper) or ``"dot"`` (MemAE's code).
      temperature: by which similarities are divided before the softmax.
      shrink: threshold of the shrinkage in units of 1 / N; 0: none. MemAE: 5.
      attention: coordinate attention ``"after"`` the memory, ``"before"`` it, or ``"none"``.
      decoder: ``"tanh"``, ``"2022"`` or ``"2024"`` (:class:`jaxad.models.anovit.Decoder`).
      width: factor on the decoder's channel counts.
      norm: of the decoder, ``"batch"`` or ``"instance"``.
      ssim_weight: lambda.
      entropy_weight: of the entropy.
      ssim_window: side of the uniform window of SSIM.
      score_terms: of the map ``anomaly``: some of l2, ssim, entropy, joined by ``+``.
      remat: recompute the encoder's blocks in the backward pass, to save memory.
      dtype: ``"float32"`` or ``"bfloat16"``, of the network's computation.

    Raises:
      ValueError: options that do not fit together.
    """
    h, w, c = image_shape
    check_grid(image_shape, patch=patch, features=features, heads=heads)
    check_one_of("attention", attention, ATTENTION)
    check_one_of("decoder", decoder, DECODERS)
    check_one_of("norm", norm, ("batch", "instance"))
    check_one_of("similarity", similarity, memory.SIMILARITIES)
    chosen = tuple(score_terms.split("+"))
    for term in chosen:
        check_one_of("score_terms", term, TERMS)
    if score_terms == "entropy" and not memory_items:
        raise ValueError("model.score_terms is entropy, which needs a memory (model.memory_items)")
    if memory_items < 0 or not temperature > 0:
        raise ValueError(
            f"model.memory_items {memory_items} may not be negative, and model.temperature "
            f"{temperature} must be above 0"
        )
    kind = jnp.dtype(dtype)
    options = MemoryOptions(memory_items, similarity, temperature, shrink / max(1, memory_items))
    module = ViTMemory(
        VisionTransformer(
            features, depth, heads, image_size=(h, w), patch=patch, remat=remat, dtype=kind
        ),
        Decoder(image_shape, decoder, width, norm, axis_name, kind),
        options if memory_items else None,
        attention,
        axis_name,
        kind,
    )
    task = {
        "term_weights": {"l2": 1.0, "ssim": ssim_weight, "entropy": entropy_weight},
        "ssim_window": ssim_window,
    }

    def init(key) -> Variables:
        return module.init(key, jnp.zeros((1, h, w, c)))

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=functools.partial(loss, module, **task),
        detect=functools.partial(detect, module, score_terms=chosen, **task),
        param_labels=label_parameters,
        diagnostics=functools.partial(diagnostics, module) if memory_items else None,
    )


def label_parameters(params: Any) -> Any:
    """``"encoder"``, ``"memory"`` for the items, ``"default"`` for everything else."""
    labels = label_encoder(params)
    return labels | ({"items": "memory"} if "items" in params else {})
