"""The architectures, each a bundle of pure functions (:class:`jaxad.models.base.Model`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxad.models import (
    anovit,
    cae,
    feature_pca,
    mae,
    own_features,
    pca,
    restore,
    vae,
    vae_grf,
    vit_memory,
    vit_vae,
    vqvae,
    vt_adl,
)
from jaxad.models.alignment import COLLECTION, aligned, as_they_lie, moves_parts
from jaxad.models.base import Detection, LossOutput, Model, Variables, for_detection
from jaxad.models.illumination import normalised
from jaxad.run.config import flatten
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.options import Options, Rule
from jaxad.run.settings import GROUPS, TOP_LEVEL, Settings


class Architecture(NamedTuple):
    """One architecture.

    Attributes:
      options: the dataclass of its options.
      build: ``(image_shape, options, *, axis_name) -> Model``.
    """

    options: type[Options]
    build: Callable[..., Model]


ARCHITECTURES: dict[str, Architecture] = {
    "pca": Architecture(pca.PCAOptions, pca.build),
    "feature_pca": Architecture(feature_pca.FeaturePCAOptions, feature_pca.build),
    "own_features": Architecture(own_features.OwnFeaturesOptions, own_features.build),
    "restore": Architecture(restore.RestoreOptions, restore.build),
    "cae": Architecture(cae.CAEOptions, cae.build),
    "vqvae": Architecture(vqvae.VQVAEOptions, vqvae.build),
    "vae": Architecture(vae.VAEOptions, vae.build),
    "vae_grf": Architecture(vae_grf.VAEGRFOptions, vae_grf.build),
    "vit_vae": Architecture(vit_vae.ViTVAEOptions, vit_vae.build),
    "anovit": Architecture(anovit.AnoViTOptions, anovit.build),
    "vit_memory": Architecture(vit_memory.ViTMemoryOptions, vit_memory.build),
    "vt_adl": Architecture(vt_adl.VTADLOptions, vt_adl.build),
    "mae": Architecture(mae.MAEOptions, mae.build),
}
"""Every architecture, by the name of its config."""

PER_POSITION = {
    "pca": "",
    "feature_pca": " with model.covariance=pooled or none",
    "own_features": " with model.covariance=pooled",
}
"""Those that may be fitted at each place of a tile by itself (``data.tile_models``), and how."""


def architecture(name: str) -> Architecture:
    """An architecture by name.

    Raises:
      UserError: an unknown name.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"there is no model named {name!r}" + did_you_mean(name, ARCHITECTURES))
    return ARCHITECTURES[name]


def described(settings: Settings) -> Iterator[tuple[str, Any, Rule]]:
    """Every key of a run's settings with its value, and what it means and takes.

    Raises:
      UserError: an unknown model, or an option that it does not have.
    """
    name, options = settings.model.name, settings.model.options
    model = architecture(name).options
    model.of(options, what=f"the model {name!r}")
    rules = dict(TOP_LEVEL)
    for group in (*GROUPS.values(), model):
        rules |= {group.group + option: rule for option, rule in group.rules().items()}
    for key, value in flatten(settings).items():
        if key in rules:
            yield key, value, rules[key]
        else:  # a key of a group that is open to any: one multiplier per label
            yield key, value, rules[key.rpartition(".")[0]]


def detection_keys(name: str) -> tuple[str, ...]:
    """The config keys that detection alone reads: they may change after training."""
    return tuple(f"model.{option}" for option in architecture(name).options.detection_only())


def build(
    name: str,
    image_shape: tuple[int, int, int],
    *,
    axis_name: str | None = None,
    **options: Any,
) -> Model:
    """Builds a model by name.

    Args:
      name: a key of :data:`ARCHITECTURES`.
      image_shape: ``(h, w, c)`` of the images it will see.
      axis_name: the mapped axis over which batch statistics are reduced, under ``pmap``.
      **options: by name; what is left out has its default, as in the model's config.

    Raises:
      UserError: an unknown model or option, a value that its option does not take, or options
        that do not fit together.
    """
    model = architecture(name)
    chosen = model.options.of(options, what=f"the model {name!r}")
    try:
        return model.build(tuple(image_shape), chosen, axis_name=axis_name)
    except ValueError as error:
        raise UserError(f"model {name!r}: {error}") from error


def _check_ssim_window(settings: Settings) -> None:
    """Says before training what detection would stumble over."""
    choice = settings.model
    options = architecture(choice.name).options.of(
        choice.options, what=f"the model {choice.name!r}"
    )
    window = getattr(options, "ssim_window", 0)
    height, width, _ = settings.image_shape
    if min(height, width) < window:
        raise UserError(
            f"images of {height} x {width} pixels are smaller than model.ssim_window={window}; "
            "enlarge data.image_size, or take a smaller window (3 is the smallest)"
        )


def build_from(settings: Settings, *, axis_name: str | None = None) -> Model:
    """The model of a run's settings, ``data.illumination`` and ``data.align`` in it.

    Raises:
      UserError: as of :func:`build`; images are smaller than the window of the SSIM map.
    """
    _check_ssim_window(settings)
    choice, light, align = settings.model, settings.data.illumination, settings.data.align
    if align != "none" and any(settings.data.tiles):
        raise UserError("data.align is for whole images, not for tiles of them; leave one out")
    model = build(choice.name, settings.image_shape, axis_name=axis_name, **choice.options)
    if settings.data.tile_models == "per_position":
        _check_per_position(settings, model)
    model = model if light == "none" else normalised(model, light)
    return model if align == "none" else aligned(model, align)


def _check_per_position(settings: Settings, model: Model) -> None:
    key = "data.tile_models=per_position"
    if not any(settings.data.tiles):
        raise UserError(f"{key} is of tiles; set data.tiles, or leave it at shared")
    if settings.data.illumination != "none":
        raise UserError(
            f"data.illumination is fitted to the tiles of all places, and {key} to those of each "
            "place by itself; leave one out"
        )
    if model.solve is None:
        takes = ", ".join(name + how for name, how in PER_POSITION.items())
        raise UserError(
            f"{key} takes models that are fitted in closed form by one compiled program ({takes}), "
            f"and {settings.model.name!r} as it is set is not; take one of them, or "
            "data.tile_models=shared"
        )


def fitted_from(settings: Settings, variables: Variables) -> tuple[Model, Variables]:
    """The model of a run's settings and variables, without what they have decided against.

    The same function of images as :func:`build_from` gives, for these variables alone:
    ``data.align=auto`` that leaves parts as they lie is left out, and what the model does not use
    (:func:`jaxad.models.base.for_detection`).

    Raises:
      UserError: as of :func:`build_from`.
    """
    if COLLECTION not in variables or moves_parts(variables):
        return for_detection(build_from(settings), variables, compact=True)
    still = dataclasses.replace(settings.data, align="none")
    model = as_they_lie(build_from(dataclasses.replace(settings, data=still)))
    return for_detection(model, variables, compact=True)


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Detection",
    "LossOutput",
    "Model",
    "Variables",
    "architecture",
    "build",
    "build_from",
    "described",
    "detection_keys",
    "fitted_from",
]
