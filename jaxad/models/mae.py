"""Masked autoencoder that finds anomalies with a sliding mask.

Source of the network and its training: K. He et al., "Masked Autoencoders Are Scalable Vision
Learners", CVPR 2022, and its public code. Three quarters of the patches are left out, drawn anew
for every image; a vision transformer sees the rest, and a narrow one predicts what was left out
from the encoded tokens and a learned token in every gap. Loss: squared error over the pixels of
the masked patches, of images standardised by ImageNet's mean and deviation, or (``norm_pix``) of
patches standardised each by its own mean and its unbiased variance plus 1e-6.

Source of the detection: A. Dini, E. Rahtu, "Detecting Anomalies in Textured Images Using Modified
Transformer Masked Autoencoder", VISAPP 2024: every block of 2 x 2 patches is masked in turn (eq.
1, 2), and the predictions of all blocks make one image, which shows what the surroundings of each
block let expect. Maps: ``l1``, the absolute error, mean over channels; ``ssim``, 1 - SSIM
(uniform window), likewise; and their combinations ``ssim+l1`` and ``ssim*l1`` after the
morphological filter. The image score is the mean of a map.

Silent in the paper, or at odds with its network, and what is taken:
  * 14 x 14 patches of 14 pixels, 64 masks, 32 + 8 blocks: that is ViT-H/14, though the text says
    "large model". ViT-L/16 (49 masks) and ViT-B/16 are variants;
  * "masked by gray": the network is made to see no masked patch at all (``fill=drop``); it can be
    shown gray ones instead (``fill=gray``: ImageNet's mean colour, and no token for gaps);
  * sum or product of SSIM and error: both are given, the sum is the config's choice;
  * the filter is an opening, which removes salt noise, of the combined maps;
  * threshold: the maps are raw; ``map_threshold`` sets what does not exceed it to 0 before the
    mean is taken;
  * a model of ``norm_pix`` predicts patches whose mean and deviation are unknown. The true ones
    would carry the anomaly into the reconstruction, so they are those of the visible patches
    around, weighted by the inverse fourth power of the distance. For detection, networks trained
    on raw pixels (the public "visualize" files) are the better ones;
  * other schedules of masks than the paper's: :mod:`jaxad.ops.mask_schedules`.

The network itself: :mod:`jaxad.models.layers.masked_autoencoder`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

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
from jaxad.models.layers.masked_autoencoder import (
    MaskedAutoencoder,
    make_reconstruct,
    normalise_patches,
    restore_patches,
    standardise,
    to_pixels,
)
from jaxad.models.layers.token_grid import check_grid
from jaxad.ops import morphology as grey
from jaxad.ops.mask_schedules import MaskSchedule, interleaved, random_ensemble, sliding
from jaxad.ops.patches import patch_grid, patchify, unpatchify
from jaxad.ops.ssim import ssim_map

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
    images: Float[Array, "b h w c"],
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
    patches = patchify(images, patch=module.patch)
    n = patches.shape[1]
    visible = int(n * (1.0 - mask_ratio))
    noise = jax.vmap(lambda key: jax.random.uniform(key, (n,)))(keys)
    order = jnp.argsort(noise, axis=1)
    patches = jnp.take_along_axis(patches, order[:, :, None], axis=1)
    seen, hidden = patches[:, :visible], patches[:, visible:]
    return order, seen, hidden, module.apply(variables, seen, order)


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
    images: Shaped[Array, "b h w c"],
    *,
    mask_ratio: float,
    norm_pix: bool,
) -> dict[str, Array]:
    """``masked``: what the mask ratio of the training leaves; ``filled_in``: what is made of it."""
    images = standardise(to_unit_float(images))
    keys = jax.vmap(jax.random.key)(jnp.arange(images.shape[0]))
    order, seen, _, predictions = fill_in_randomly(module, variables, images, keys, mask_ratio)
    grid = patch_grid(module.image_size, module.patch)
    if norm_pix:
        predictions = restore_patches(predictions, seen, order, columns=grid[1])
    back = jnp.argsort(order, axis=1)[:, :, None]

    def picture(instead):
        patches = jnp.concatenate([seen, instead], axis=1)
        patches = jnp.take_along_axis(patches, back, axis=1)
        return to_pixels(unpatchify(patches, patch=module.patch, grid=grid))

    return {"masked": picture(jnp.zeros_like(predictions)), "filled_in": picture(predictions)}


def anomaly_maps(
    images: Float[Array, "b h w c"],
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


def make_schedule(
    grid: tuple[int, int],
    *,
    schedule: str,
    block: int,
    stride: int,
    passes: int,
    mask_ratio: float,
    mask_seed: int,
) -> MaskSchedule:
    """The passes of a detection, by the options of :func:`build`."""
    check_one_of("schedule", schedule, ("sliding", "interleaved", "random"))
    if schedule == "sliding":
        return sliding(grid, block=block, stride=stride or block)
    if schedule == "interleaved":
        return interleaved(grid, block=block, passes=passes)
    return random_ensemble(grid, block=block, passes=passes, mask_ratio=mask_ratio, seed=mask_seed)


def init(module: MaskedAutoencoder, key: Key[Array, ""]) -> Variables:
    """The parameters, drawn."""
    rows, columns = patch_grid(module.image_size, module.patch)
    n, values = rows * columns, module.patch**2 * module.channels
    return module.init(key, jnp.zeros((1, n // 2, values)), jnp.arange(n)[None])


def detect(
    variables: Variables,
    images: Shaped[Array, "b h w c"],
    *,
    reconstruct: Callable[[Variables, Float[Array, "b h w c"]], Float[Array, "b h w c"]],
    maps: Callable[..., dict[str, Float[Array, "b h w"]]],
) -> Detection:
    """What the passes predict, and how the images differ from it.

    Args:
      variables: of the network.
      images: as they come.
      reconstruct: of standardised images, see :func:`make_reconstruct`.
      maps: of images and reconstructions in [0, 1], see :func:`anomaly_maps`.
    """
    images = to_unit_float(images)
    reconstruction = to_pixels(reconstruct(variables, standardise(images)))
    return Detection(maps(images, reconstruction), {}, reconstruction)


def check_not_negative(**options: int) -> None:
    """Refuses numbers below zero.

    Raises:
      ValueError: names the option.
    """
    for option, value in options.items():
        if value < 0:
            raise ValueError(f"model.{option} is {value}; it must be 0 or more")


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


def build(
    image_shape: tuple[int, int, int],
    *,
    axis_name: str | None = None,
    patch: int = 16,
    features: int = 768,
    depth: int = 12,
    heads: int = 12,
    decoder_features: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    layer_norm_epsilon: float = 1e-6,
    mask_ratio: float = 0.75,
    norm_pix: bool = False,
    schedule: str = "sliding",
    block: int = 2,
    stride: int = 0,
    passes: int = 4,
    mask_seed: int = 0,
    fill: str = "drop",
    passes_at_once: int = 0,
    ssim_window: int = 11,
    morphology: str = "opening",
    morphology_size: int = 2,
    map_threshold: float = 0.0,
    remat: bool = False,
    dtype: str = "float32",
) -> Model:
    """Builds ``mae``.

    Args:
      image_shape: ``(h, w, c)``, sides divisible by ``patch``.
      axis_name: unused; nothing is reduced inside the model.
      patch: side of a patch in pixels.
      features: length of a token, divisible by 4 and by ``heads``.
      depth: number of blocks of the encoder.
      heads: attention heads of the encoder.
      decoder_features: length of a token in the decoder, divisible by 4 and ``decoder_heads``.
      decoder_depth: number of blocks of the decoder.
      decoder_heads: attention heads of the decoder.
      layer_norm_epsilon: 1e-6; the files of Hugging Face's hub are made for 1e-12.
      mask_ratio: share of the patches that are masked in training and by ``schedule=random``.
      norm_pix: train on patches standardised one by one.
      schedule: ``"sliding"`` (the paper), ``"interleaved"`` or ``"random"``.
      block: side in patches of the blocks that are masked together.
      stride: of the sliding block in patches; 0: its side.
      passes: of the interleaved schedule (2, 4, 9, 16) or the random one.
      mask_seed: of the random schedule.
      fill: ``"drop"`` masked patches, or show ``"gray"`` ones.
      passes_at_once: passes that detection computes side by side, at most; 0: as
        :data:`PASSES_AT_ONCE` says.
      ssim_window: side of the uniform window of the ``ssim`` map: 7, 9 or 11 in the paper.
      morphology: filter of the combined maps: opening, closing, erosion or dilation.
      morphology_size: its side in pixels, 2 or 4 in the paper; 0: none.
      map_threshold: combined maps are 0 where they do not exceed it.
      remat: recompute blocks in the backward pass, to save memory.
      dtype: ``"float32"`` or ``"bfloat16"``, of the network.

    Raises:
      ValueError: options that do not fit together.
    """
    h, w, c = image_shape
    check_grid(image_shape, patch=patch, features=features, heads=heads)
    check_grid(image_shape, patch=patch, features=decoder_features, heads=decoder_heads)
    check_one_of("fill", fill, ("drop", "gray"))
    check_one_of("morphology", morphology, tuple(MORPHOLOGY))
    check_not_negative(morphology_size=morphology_size, passes_at_once=passes_at_once)
    grid = patch_grid((h, w), patch)
    check_mask_ratio(mask_ratio, patches=grid[0] * grid[1])
    module = MaskedAutoencoder(
        image_size=(h, w),
        channels=c,
        patch=patch,
        features=features,
        depth=depth,
        heads=heads,
        decoder_features=decoder_features,
        decoder_depth=decoder_depth,
        decoder_heads=decoder_heads,
        epsilon=layer_norm_epsilon,
        remat=remat,
        dtype=jnp.dtype(dtype),
    )
    planned = make_schedule(
        grid,
        schedule=schedule,
        block=block,
        stride=stride,
        passes=passes,
        mask_ratio=mask_ratio,
        mask_seed=mask_seed,
    )
    kind = "cpu" if jax.default_backend() == "cpu" else "other"
    reconstruct = make_reconstruct(
        module,
        planned,
        norm_pix=norm_pix,
        fill=fill,
        passes_at_once=passes_at_once or PASSES_AT_ONCE[kind],
    )
    maps = functools.partial(
        anomaly_maps,
        ssim_window=ssim_window,
        morphology=morphology,
        morphology_size=morphology_size,
        map_threshold=map_threshold,
    )

    task = {"mask_ratio": mask_ratio, "norm_pix": norm_pix}
    return Model(
        module=module,
        image_shape=image_shape,
        init=functools.partial(init, module),
        loss=functools.partial(loss, module, **task),
        detect=functools.partial(detect, reconstruct=reconstruct, maps=maps),
        param_labels=label_encoder,
        diagnostics=functools.partial(diagnostics, module, **task),
    )
