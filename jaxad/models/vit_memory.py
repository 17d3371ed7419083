"""Vision-transformer autoencoder with a memory of normal features and coordinate attention.

Source: Q. Yang, R. Guo, "An Unsupervised Method for Industrial Image Anomaly Detection with Vision
Transformer-Based Autoencoder", Sensors 2024, 24, 2440. Equation numbers are the paper's. No public
code is known; the memory is that of MemAE (Gong et al. 2019).

Encoder: a ViT trained from scratch at 384 x 384, with patches of 16, 768 features, 8 heads and a
class token. The 24 x 24 tokens of the patches go to the memory (:mod:`jaxad.ops.memory`: cosine,
softmax over the items, hard shrinkage at 1 / N, normalisation, weighted sum), then through
coordinate attention, then to the decoder. Memory and attention can be switched off; without both
the model is the paper's "Base".

Loss of one image (eqs. 11 to 15)::

    L2 + lambda (1 - SSIM) + 0.001 entropy

L2 is the squared error summed over channels, 1 - SSIM the mean over channels, and both are means
over pixels. The entropy is that of the memory's weights after shrinkage, as a mean over positions.

Where the print is wrong, contradictory or silent, and what is done here:

* Eq. 14 lacks the minus of an entropy: minimised as printed it would make all weights alike, where
  the text wants few large ones. The entropy here has it, as MemAE's does.
* Section 3.3 puts the attention between encoder and memory, the workflow and figure 2 put it after
  the memory: ``attention="after"``, or ``"before"``.
* Not given: depth (12 here), number of items (2000, as MemAE), temperature (1, that is none; with
  cosines of at most 1 all weights then lie within a factor of 7.4), lambda (1), the window of SSIM
  (uniform, 11).
* The decoder has six transposed convolutions, each with normalisation over the batch and ReLU, and
  a tanh at the end: AnoViT's of 2022 but for the kind of normalisation. Its ReLU before the tanh
  would cut off half of the output's range, so the last layer goes without normalisation and ReLU
  (``decoder="tanh"``), and images are shown to the network in [-1, 1].
* Range of the squared error: that of images in [0, 1]. In the decoder's [-1, 1] it is four times as
  large against the other terms (``l2_weight=4``).
* The list of contributions says that L2, SSIM and entropy enter the score; weights are not given.
  The map ``anomaly`` adds the ``score_terms`` with their weights of the loss, pixel by pixel, with
  the entropy enlarged bilinearly. The score ``loss`` is the loss of the image.

Maps: ``l2``, ``ssim`` (1 - SSIM), ``entropy`` (with a memory), ``anomaly``.

The history reports how the memory is used: ``memory_hits``, how often an item was the strongest
at a position, and ``memory_reads``, how often it had any weight after shrinkage. Items that are
never read (``memory_reads_unused``) are dead.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

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
    apply,
    apply_for_loss,
    label_subtrees,
    ssim_window_option,
    to_unit_float,
)
from jaxad.models.layers.basic import uniform_within
from jaxad.models.layers.coordinate_attention import CoordinateAttention
from jaxad.models.layers.token_grid import ViTOptions, token_grid
from jaxad.models.layers.vit import VisionTransformer
from jaxad.ops import memory
from jaxad.ops.arrays import AnyArray
from jaxad.ops.resize import bilinear_resize_align_corners
from jaxad.ops.ssim import ssim_map
from jaxad.run.options import option

ATTENTION = ("none", "before", "after")
DECODERS = ("tanh", "2022", "2024")
TERMS = ("l2", "ssim", "entropy")


class MemoryOptions(NamedTuple):
    """The memory: number of items, and how it is read (:func:`jaxad.ops.memory.read`)."""

    items: int
    similarity: memory.Similarity
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
        self, images: Float[AnyArray, "b h w c"], *, train: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b i j n"] | None]:
        """Reconstruction of images in [0, 1], and the memory's weights where there is one."""
        x, weights = token_grid(self.encoder, 2.0 * jnp.asarray(images) - 1.0), None
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
    images: Float[AnyArray, "b h w c"], reconstruction: Float[Array, "b h w c"], *, ssim_window: int
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
    return terms, weighted_sum(terms, term_weights)


def weighted_sum(
    terms: Mapping[str, Float[Array, "*shape"]], weights: Mapping[str, float]
) -> Float[Array, "*shape"]:
    """The sum of all terms, each times its weight."""
    return functools.reduce(jnp.add, [weights[name] * values for name, values in terms.items()])


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
    (reconstruction, weights), collections = apply_for_loss(
        ViTMemory.__call__, module, variables, images, train=train
    )
    pixels = pixel_terms(images, reconstruction, ssim_window=ssim_window)
    terms, total = image_terms(pixels, weights, term_weights=term_weights)
    sums: dict[str, Array] = {}
    if weights is not None:
        sums = {"memory_hits": memory.hits(weights), "memory_reads": memory.reads(weights)}
    return LossOutput(total, terms, collections, sums, {})


def detect(
    module: ViTMemory,
    variables: Variables,
    images: Shaped[AnyArray, "b h w c"],
    *,
    term_weights: Mapping[str, float],
    score_terms: tuple[str, ...],
    ssim_window: int,
) -> Detection:
    """The maps of the terms and their weighted sum ``anomaly``; the score ``loss``."""
    images = to_unit_float(images)
    h, w = images.shape[1:3]
    reconstruction, weights = apply(module, variables, images)
    reconstruction = jnp.clip(reconstruction, 0.0, 1.0)
    maps = pixel_terms(images, reconstruction, ssim_window=ssim_window)
    _, total = image_terms(maps, weights, term_weights=term_weights)
    if weights is not None:
        entropy = memory.entropy(weights)[..., None]
        maps["entropy"] = bilinear_resize_align_corners(entropy, (h, w))[..., 0]
    chosen = [name for name in score_terms if name in maps]
    maps["anomaly"] = weighted_sum({name: maps[name] for name in chosen}, term_weights)
    return Detection(maps, {"loss": total}, reconstruction)


def diagnostics(
    module: ViTMemory, variables: Variables, images: Shaped[AnyArray, "b h w c"]
) -> dict[str, Array]:
    """How the memory is used, and the entropy of its weights at every position."""
    _, weights = apply(module, variables, to_unit_float(images))
    kept = jnp.sum(weights > 0, axis=-1)
    return {
        "memory_hits_counts": memory.hits(weights),
        "memory_reads_counts": memory.reads(weights),
        "memory_items_kept_per_position": jnp.mean(kept.astype(jnp.float32)),
        "memory_entropy": memory.entropy(weights),
    }


@dataclasses.dataclass(frozen=True)
class ViTMemoryOptions(ViTOptions):
    """Options of ``vit_memory``; the paper is silent on depth, memory_items and ssim_weight."""

    heads: int = option(8, "attention heads", at_least=1)
    memory_items: int = option(2000, "number of items N; 0: no memory", at_least=0)
    similarity: str = option(
        "cosine", "of queries and items; MemAE's code: dot", choices=memory.SIMILARITIES
    )
    temperature: float = option(
        1.0, "by which similarities are divided before the softmax; the paper has none", above=0
    )
    shrink: float = option(
        1.0, "threshold of the shrinkage in units of 1 / N; 0: none; MemAE: 5", at_least=0
    )
    attention: str = option(
        "after", "where coordinate attention stands, beside the memory", choices=ATTENTION
    )
    decoder: str = option("tanh", "the paper's, or AnoViT's of a year", choices=DECODERS)
    width: float = option(1.0, "factor on the decoder's channel counts", above=0)
    norm: str = option("batch", "of the decoder; the paper: batch", choices=("batch", "instance"))
    l2_weight: float = option(
        1.0, "of the squared error of pixels in [0, 1]; 4: as in the decoder's [-1, 1]", at_least=0
    )
    ssim_weight: float = option(1.0, "lambda", at_least=0)
    entropy_weight: float = option(0.001, "of the entropy of the memory's weights", at_least=0)
    ssim_window: int = ssim_window_option()
    score_terms: str = option(
        "l2+ssim+entropy",
        "terms of the map anomaly: some of l2, ssim, entropy, joined by +",
        detection_only=True,
    )


def build(
    image_shape: tuple[int, int, int], options: ViTMemoryOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``vit_memory``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      options: of the model.
      axis_name: the mapped axis over which batch statistics are reduced.

    Raises:
      ValueError: options that do not fit together, or the images.
    """
    h, w, c = image_shape
    chosen = tuple(options.score_terms.split("+"))
    for term in chosen:
        if term not in TERMS:
            raise ValueError(
                f"model.score_terms has {term!r}; join some of {', '.join(TERMS)} by +"
            )
    items = options.memory_items
    if options.score_terms == "entropy" and not items:
        raise ValueError("model.score_terms is entropy, which needs a memory (model.memory_items)")
    reading = MemoryOptions(
        items,
        cast(memory.Similarity, options.similarity),  # one of its choices
        options.temperature,
        options.shrink / max(1, items),
    )
    encoder = options.encoder(image_shape)
    kind = encoder.dtype
    module = ViTMemory(
        encoder,
        Decoder(image_shape, options.decoder, options.width, options.norm, axis_name, kind),
        reading if items else None,
        options.attention,
        axis_name,
        kind,
    )
    weights = {
        "l2": options.l2_weight,
        "ssim": options.ssim_weight,
        "entropy": options.entropy_weight,
    }
    task: dict[str, Any] = {"term_weights": weights, "ssim_window": options.ssim_window}

    def init(key: Key[Array, ""]) -> Variables:
        return module.init(key, jnp.zeros((1, h, w, c)))

    return Model(
        module=module,
        image_shape=image_shape,
        init=init,
        loss=functools.partial(loss, module, **task),
        detect=functools.partial(detect, module, score_terms=chosen, **task),
        param_labels=functools.partial(label_subtrees, encoder="encoder", items="memory"),
        diagnostics=functools.partial(diagnostics, module) if items else None,
    )
