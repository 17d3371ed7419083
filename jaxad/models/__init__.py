"""The architectures, each a bundle of pure functions (:class:`jaxad.models.base.Model`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from jaxad.models import anovit, cae, mae, pca, vae, vae_grf, vit_memory, vit_vae, vqvae, vt_adl
from jaxad.models.base import Detection, LossOutput, Model, Variables
from jaxad.run.errors import UserError, did_you_mean

BUILDERS: dict[str, Callable[..., Model]] = {
    "pca": pca.build,
    "cae": cae.build,
    "vqvae": vqvae.build,
    "vae": vae.build,
    "vae_grf": vae_grf.build,
    "vit_vae": vit_vae.build,
    "anovit": anovit.build,
    "vit_memory": vit_memory.build,
    "vt_adl": vt_adl.build,
    "mae": mae.build,
}

DETECTION_OPTIONS: dict[str, tuple[str, ...]] = {
    "pca": ("ssim_window",),
    "vqvae": ("ssim_window", "dilation", "dilate_ssim"),
    "vae": ("ssim_window",),
    "vae_grf": ("ssim_window",),
    "vit_vae": ("ssim_window",),
    "vit_memory": ("score_terms",),
    "mae": (
        "schedule",
        "block",
        "stride",
        "passes",
        "mask_seed",
        "fill",
        "passes_at_once",
        "ssim_window",
        "morphology",
        "morphology_size",
        "map_threshold",
    ),
}
"""Options that detection alone reads: they may change after training, parameters are the same."""


def detection_keys(name: str) -> tuple[str, ...]:
    """The config keys of a model's :data:`DETECTION_OPTIONS`."""
    return tuple(f"model.{option}" for option in DETECTION_OPTIONS.get(name, ()))


def build(
    name: str,
    image_shape: tuple[int, int, int],
    *,
    axis_name: str | None = None,
    **options: Any,
) -> Model:
    """Builds a model by name.

    Args:
      name: a key of :data:`BUILDERS`.
      image_shape: ``(h, w, c)`` of the images it will see.
      axis_name: the mapped axis over which batch statistics are reduced, under ``pmap``.
      **options: the builder's keyword arguments (``config.model`` without its name).

    Raises:
      UserError: an unknown model, an unknown option, or options that do not fit together.
    """
    if name not in BUILDERS:
        raise UserError(f"there is no model named {name!r}" + did_you_mean(name, BUILDERS))
    builder = BUILDERS[name]
    known = set(inspect.signature(builder).parameters) - {"image_shape", "axis_name"}
    for option in options:
        if option not in known:
            raise UserError(
                f"the model {name!r} has no option {option!r}" + did_you_mean(option, known)
            )
    try:
        return builder(tuple(image_shape), axis_name=axis_name, **options)
    except ValueError as error:
        raise UserError(f"model {name!r}: {error}") from error


__all__ = [
    "BUILDERS",
    "DETECTION_OPTIONS",
    "Detection",
    "LossOutput",
    "Model",
    "Variables",
    "build",
    "detection_keys",
]
