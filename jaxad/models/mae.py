"""Masked autoencoder that finds anomalies by masking parts of the image.

Source of the network and its training: K. He et al., "Masked Autoencoders Are Scalable Vision
Learners", CVPR 2022, and its public code. Three quarters of the patches are left out, drawn anew
for every image. A vision transformer sees the rest, and a narrow one predicts what was left out
from the encoded tokens and a learned token in every gap. Loss: squared error over the pixels of
the masked patches, of images standardised by ImageNet's mean and deviation, or (``norm_pix``) of
patches standardised each by its own mean and its unbiased variance plus 1e-6.

Source of the detection: A. Dini, E. Rahtu, "Detecting Anomalies in Textured Images Using Modified
Transformer Masked Autoencoder", VISAPP 2024. Every block of 2 x 2 patches is masked in turn (eqs.
1 and 2), and the predictions of all blocks make one image: what the surroundings of each block
suggest. Maps: ``l1``, the absolute error, and ``ssim``, 1 - SSIM (uniform window), both means over
channels; and their combinations ``ssim+l1`` and ``ssim*l1`` after the morphological filter. The
image score is the mean of a map.

Where the paper is silent or contradicts its network, and what is done here:

* 14 x 14 patches of 14 pixels, 64 masks and 32 + 8 blocks are those of ViT-H/14, though the text
  says "large model". ViT-L/16 (49 masks) and ViT-B/16 are variants.
* "Masked by gray": the network sees no masked patch at all (``fill=drop``), or gray ones
  (``fill=gray``: ImageNet's mean colour, and no token for gaps).
* Sum or product of SSIM and error: both maps are given, the sum is the config's choice.
* The filter is an opening, which removes salt noise, of the combined maps.
* Threshold: the maps are raw; ``map_threshold`` sets what does not exceed it to 0 before the mean
  is taken.
* A model of ``norm_pix`` predicts patches whose mean and deviation are unknown. The true ones
  would carry the anomaly into the reconstruction, so they are interpolated from the visible
  patches, weighted by the inverse fourth power of the distance. Networks trained on raw pixels
  (the public "visualize" files) suit detection better.
* Schedules of masks other than the paper's: :mod:`jaxad.ops.mask_schedules`.

The network itself: :mod:`jaxad.models.layers.masked_autoencoder`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxad.data.batch import Batch
from jaxad.models.base import (
    Detection,
    LossOutput,
    Model,
    Variables,
    apply,
    label_encoder,
    ssim_window_option,
    to_unit_float,
)
from jaxad.models.layers.masked_autoencoder import (
    Decoder,
    MaskedAutoencoder,
    make_reconstruct,
    normalise_patches,
    restore_patches,
    standardise,
    to_pixels,
)
from jaxad.models.layers.token_grid import ViTOptions, check_grid
from jaxad.ops import morphology as grey
from jaxad.ops.arrays import AnyArray
from jaxad.ops.mask_schedules import MaskSchedule, interleaved, random_ensemble, sliding
from jaxad.ops.patches import patchify, unpatchify
from jaxad.ops.ssim import ssim_map
from jaxad.run.options import option

PASSES_AT_ONCE = {"cpu": 1, "other": 8}
"""Of detection, by the kind of device. On 2 CPU cores, 16 images of the config ``small`` took 0.20
CPU seconds each with one pass at a time and 0.32 with four (the cache is too small for them), and
one image as long either way; a GPU needs them to be busy with few images."""

MORPHOLOGY: dict[str, Callable[..., Array]] = {
    "opening": grey.grey_opening,
    "closing": grey.grey_closing,
    "erosion": grey.grey_erosion,
    "dilation": grey.grey_dilation,
}


def fill_in_randomly(
    module: MaskedAutoencoder,
    variables: Variables,
    images: Float[AnyArray, "b h w c"],
    keys: Key[Array, " b"],
    mask_ratio: float,
) -> tuple[Int[Array, "b n"], Float[Array, "b v o"], Float[Array, "b m o"], Float[Array, "b m o"]]:
    """One pass with a mask drawn for every image.

    Args:
      module: the network.
      variables: its parameters.
      images: standardised.
      keys: one for each image.
      mask_ratio: share of the patches that are masked.

    Returns:
      An order of the patches, the visible ones first; the visible patches, the masked ones, and
      the predictions of the masked ones.
    """
    patches = patchify(images, patch=module.encoder.patch)
    n = patches.shape[1]
    visible = int(n * (1.0 - mask_ratio))
    noise = jax.vmap(lambda key: jax.random.uniform(key, (n,)))(keys)
    order = jnp.argsort(noise, axis=1)
    patches = jnp.take_along_axis(patches, order[:, :, None], axis=1)
    seen, hidden = patches[:, :visible], patches[:, visible:]
    return order, seen, hidden, apply(module, variables, seen, order)


def loss(
    module: MaskedAutoencoder,
    variables: Variables,
    batch: Batch,
    keys: Key[Array, " b"],
    train: bool,
    *,
    mask_ratio: float,
    norm_pix: bool,
) -> LossOutput:
    """The mean squared error over the values of the masked patches, of standardised images."""
    del train  # masks are drawn from the keys, which a validation repeats
    images = standardise(to_unit_float(batch.image))
    _, _, target, predictions = fill_in_randomly(module, variables, images, keys, mask_ratio)
    if norm_pix:
        target = normalise_patches(target)
    return LossOutput(jnp.mean(jnp.square(predictions - target), axis=(1, 2)), {}, {}, {}, {})


def diagnostics(
    module: MaskedAutoencoder,
    variables: Variables,
    images: Shaped[AnyArray, "b h w c"],
    *,
    mask_ratio: float,
    norm_pix: bool,
) -> dict[str, Array]:
    """``masked``: what the mask ratio of the training leaves; ``filled_in``: what is made of it."""
    images = standardise(to_unit_float(images))
    keys = jax.vmap(jax.random.key)(jnp.arange(images.shape[0]))
    order, seen, _, predictions = fill_in_randomly(module, variables, images, keys, mask_ratio)
    patch, grid = module.encoder.patch, module.encoder.grid
    if norm_pix:
        predictions = restore_patches(predictions, seen, order, columns=grid[1])
    back = jnp.argsort(order, axis=1)[:, :, None]

    def picture(instead):
        patches = jnp.concatenate([seen, instead], axis=1)
        patches = jnp.take_along_axis(patches, back, axis=1)
        return to_pixels(unpatchify(patches, patch=patch, grid=grid))

    return {"masked": picture(jnp.zeros_like(predictions)), "filled_in": picture(predictions)}


def anomaly_maps(
    images: Float[AnyArray, "b h w c"],
    reconstruction: Float[Array, "b h w c"],
    *,
    ssim_window: int,
    morphology: str,
    morphology_size: int,
    map_threshold: float,
) -> dict[str, Float[Array, "b h w"]]:
    """The maps of the paper and their parts, by the options of :func:`build`."""
    l1 = jnp.mean(jnp.abs(images - reconstruction), axis=-1)
    ssim = 1.0 - jnp.mean(ssim_map(images, reconstruction, window_size=ssim_window), axis=-1)
    maps = {"ssim+l1": ssim + l1, "ssim*l1": ssim * l1}
    for name, values in maps.items():
        if morphology_size:
            values = MORPHOLOGY[morphology](values, size=morphology_size)
        if map_threshold:
            values = jnp.where(values > map_threshold, values, 0.0)
        maps[name] = values
    return {**maps, "ssim": ssim, "l1": l1}


def make_schedule(grid: tuple[int, int], options: MAEOptions) -> MaskSchedule:
    """The passes of a detection."""
    block, passes = options.block, options.passes
    if options.schedule == "sliding":
        return sliding(grid, block=block, stride=options.stride or block)
    if options.schedule == "interleaved":
        return interleaved(grid, block=block, passes=passes)
    return random_ensemble(
        grid, block=block, passes=passes, mask_ratio=options.mask_ratio, seed=options.mask_seed
    )


def init(module: MaskedAutoencoder, key: Key[Array, ""]) -> Variables:
    """The parameters, drawn."""
    rows, columns = module.encoder.grid
    n = rows * columns
    patches = jnp.zeros((1, n // 2, module.decoder.outputs))
    return module.init(key, patches, jnp.arange(n)[None])


def detect(
    variables: Variables,
    images: Shaped[AnyArray, "b h w c"],
    *,
    reconstruct: Callable[[Variables, Float[Array, "b h w c"]], Float[Array, "b h w c"]],
    maps: Callable[..., dict[str, Float[Array, "b h w"]]],
) -> Detection:
    """What the passes predict, and how the images differ from it.

    Args:
      variables: of the network.
      images: as they come.
      reconstruct: of standardised images, made by
        :func:`jaxad.models.layers.masked_autoencoder.make_reconstruct`.
      maps: of images and reconstructions in [0, 1], see :func:`anomaly_maps`.
    """
    images = to_unit_float(images)
    reconstruction = to_pixels(reconstruct(variables, standardise(images)))
    return Detection(maps(images, reconstruction), {}, reconstruction)


def check_mask_ratio(mask_ratio: float, *, patches: int) -> None:
    """Refuses a ratio that masks nothing or everything.

    Raises:
      ValueError: says so.
    """
    if not 1 <= int(patches * (1.0 - mask_ratio)) < patches:
        raise ValueError(
            f"model.mask_ratio is {mask_ratio}; of {patches} patches some must be masked, some "
            "visible"
        )


@dataclasses.dataclass(frozen=True)
class MAEOptions(ViTOptions):
    """Options of ``mae``."""

    decoder_features: int = option(
        512, "length of a token in the decoder, divisible by 4 and decoder_heads", at_least=1
    )
    decoder_depth: int = option(8, "blocks of the decoder", at_least=0)
    decoder_heads: int = option(16, "attention heads of the decoder", at_least=1)
    layer_norm_epsilon: float = option(1e-6, "1e-12 for the files of Hugging Face's hub", above=0)
    mask_ratio: float = option(
        0.75, "share of the patches masked in training and by schedule=random", above=0, below=1
    )
    norm_pix: bool = option(False, "train on patches standardised one by one")
    schedule: str = option(
        "sliding",
        "masks of detection; the paper: sliding",
        choices=("sliding", "interleaved", "random"),
        detection_only=True,
    )
    block: int = option(
        2, "side in patches of what is masked together", at_least=1, detection_only=True
    )
    stride: int = option(
        0, "of the sliding block in patches; 0: its side", at_least=0, detection_only=True
    )
    passes: int = option(
        4,
        "interleaved: 2, 4, 9, 16; random: any number that covers the image",
        at_least=1,
        detection_only=True,
    )
    mask_seed: int = option(0, "of the random schedule", detection_only=True)
    fill: str = option(
        "drop",
        "leave masked patches out, or show them in gray",
        choices=("drop", "gray"),
        detection_only=True,
    )
    passes_at_once: int = option(
        0,
        "passes computed side by side, at most; 0: 1 on a CPU, 8 elsewhere; more take memory",
        at_least=0,
        detection_only=True,
    )
    ssim_window: int = ssim_window_option("7, 9 or 11 in the paper", detection_only=True)
    morphology: str = option(
        "opening", "filter of the combined maps", choices=tuple(MORPHOLOGY), detection_only=True
    )
    morphology_size: int = option(
        2, "its side in pixels, 2 or 4 in the paper; 0: none", at_least=0, detection_only=True
    )
    map_threshold: float = option(
        0.0, "combined maps are 0 where they do not exceed it", detection_only=True
    )


def build(
    image_shape: tuple[int, int, int], options: MAEOptions, *, axis_name: str | None = None
) -> Model:
    """Builds ``mae``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      options: of the model.
      axis_name: unused; nothing is reduced inside the model.

    Raises:
      ValueError: options that do not fit together, or the images.
    """
    encoder = options.encoder(image_shape, position="sincos", epsilon=options.layer_norm_epsilon)
    check_grid(
        image_shape,
        patch=options.patch,
        features=options.decoder_features,
        heads=options.decoder_heads,
    )
    grid = encoder.grid
    check_mask_ratio(options.mask_ratio, patches=grid[0] * grid[1])
    decoder = Decoder(
        options.decoder_features,
        options.decoder_depth,
        options.decoder_heads,
        epsilon=options.layer_norm_epsilon,
        remat=options.remat,
        dtype=encoder.dtype,
        grid=grid,
        outputs=options.patch**2 * image_shape[2],
    )
    module = MaskedAutoencoder(encoder, decoder)
    kind = "cpu" if jax.default_backend() == "cpu" else "other"
    reconstruct = make_reconstruct(
        module,
        make_schedule(grid, options),
        norm_pix=options.norm_pix,
        fill=options.fill,
        passes_at_once=options.passes_at_once or PASSES_AT_ONCE[kind],
    )
    maps = functools.partial(
        anomaly_maps,
        ssim_window=options.ssim_window,
        morphology=options.morphology,
        morphology_size=options.morphology_size,
        map_threshold=options.map_threshold,
    )
    task: dict[str, Any] = {"mask_ratio": options.mask_ratio, "norm_pix": options.norm_pix}
    return Model(
        module=module,
        image_shape=image_shape,
        init=functools.partial(init, module),
        loss=functools.partial(loss, module, **task),
        detect=functools.partial(detect, reconstruct=reconstruct, maps=maps),
        param_labels=label_encoder,
        diagnostics=functools.partial(diagnostics, module, **task),
    )
