"""``jaxad export``: a trained model as one file that needs nothing but jax.

The file is StableHLO with its calling convention, as ``jax.export`` writes it. Inside are the
parameters, the preprocessing (division by 255, the model's own normalisation), detection,
smoothing, the image score and the thresholds. Beside it, FILE.json says what it is, and
FILE.sha256 holds the digests of both (:mod:`jaxad.run.exported`).
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Bool, UInt8

import jaxad
from jaxad.data.crop import crop_record
from jaxad.data.region_mask import RegionMask
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.export_coarse import coarse_model
from jaxad.evaluation.export_tiles import make_tiled_program
from jaxad.evaluation.export_view import Decisions, size_of_photographs, view_of
from jaxad.evaluation.postprocess import make_detect
from jaxad.evaluation.predict import Predictor, load_detector
from jaxad.models import fitted_from
from jaxad.models.base import Model, Variables
from jaxad.run.errors import UserError
from jaxad.run.exported import write_exported

PLATFORMS = ("cpu", "cuda")
"""What an exported program is compiled for."""

SCHEMA_VERSION = 1
"""Of FILE.json."""

LARGEST = 2 * 10**9
"""Bytes of parameters: the format's offsets have 31 bits."""


def export(
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    *,
    checkpoint: str | int = "last",
    data_root: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    photograph_size: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Writes a run's detector to one file, and a description and digests beside it.

    Args:
      workdir: the run folder.
      output: the file; FILE.json and FILE.sha256 are written beside it.
      checkpoint: ``"last"``, ``"best"`` or a step number.
      data_root: where the training images are now, when they have moved; they are read only if
        the run has no calibration yet.
      overrides: keys as of :func:`jaxad.evaluate` that take the place of the run's.
      photograph_size: (height, width) of the photographs of a run with tiles; None: of those that
        it was trained on.

    Returns:
      The content of FILE.json.

    Raises:
      UserError: it is no run folder, a key is wrong, the parameters are too large for the format,
        the output cannot be written, or as of
        :func:`jaxad.evaluation.export_view.size_of_photographs`.
    """
    target = checked_target(output)
    predictor = load_detector(
        workdir, checkpoint=checkpoint, data_root=data_root, overrides=overrides
    )
    size = size_of_photographs(predictor, photograph_size)
    model = predictor.detector.model
    shape = model.image_shape if size is None else (*size, model.image_shape[2])
    _, variables = _fitted(predictor.detector)
    data, outputs = serialise(program_of(predictor, size), shape, variables)
    record = {
        **described(predictor, data),
        "format": "StableHLO, serialised by jax.export",
        "platforms": list(PLATFORMS),
        "input": {"shape": ["batch", *shape], "dtype": "uint8"},
        "outputs": outputs,
    }
    write_exported(target, data, record)
    return record


def checked_target(output: str | os.PathLike) -> pathlib.Path:
    """Where the file goes.

    Raises:
      UserError: it is a folder, or lies in none.
    """
    target = pathlib.Path(output)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UserError(f"--output {target} must be a file in a folder that exists")
    return target


def described(predictor: Predictor, data: bytes) -> dict[str, Any]:
    """What FILE.json says of the run and of the file, whatever the format.

    Args:
      predictor: the run.
      data: the content of the file.
    """
    detector = predictor.detector
    return {
        "schema_version": SCHEMA_VERSION,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "jax": jax.__version__,
        "jaxad": jaxad.__version__,
        "model": detector.config.model.name,
        "variants": detector.config.variants,
        "checkpoint": detector.step,
        "category": predictor.category,
        **crop_record(detector.config.data.region),
        "primary_map": detector.primary_map,
        "primary_score": detector.primary_score,
        "smoothing": detector.config.evaluate.smoothing,
        **({"region_mask_share": _region_of(detector).share} if detector.regions else {}),
        "image_threshold": predictor.image_threshold,
        "pixel_threshold": predictor.pixel_threshold,
        "region_threshold": predictor.region_threshold,
        **({"tiles": list(detector.config.data.tiles)} if detector.tiled else {}),
        "threshold_set_by_hand": predictor.calibration["set_by_hand"],
        "no_threshold_because": predictor.reason,
    }


def program_of(
    predictor: Predictor, size: tuple[int, int] | None
) -> Callable[[UInt8[Array, "b h w c"]], dict[str, Array]]:
    """:func:`make_program` of a run, or :func:`~jaxad.evaluation.export_tiles.make_tiled_program`.

    Args:
      predictor: the run.
      size: (height, width) of the photographs of a run with tiles; None of one without.
    """
    detector = predictor.detector
    region = None if detector.regions is None else _region_of(detector)
    smoothing, per_position = detector.config.evaluate.smoothing, detector.grid is not None
    model, variables = _fitted(detector)
    decisions = Decisions(
        detector.config.evaluate.primary_map,
        detector.config.evaluate.primary_score,
        predictor.image_threshold,
        predictor.pixel_threshold,
        predictor.region_threshold,
    )
    if size is not None:
        view = view_of(predictor, size)
        return make_tiled_program(
            model,
            variables,
            view,
            decisions,
            smoothing=smoothing,
            region=region,
            per_position=per_position,
            coarse=coarse_model(predictor),
        )
    inside = None if region is None else region.at(detector.config.data.image_size)
    return make_program(model, variables, decisions, smoothing=smoothing, inside=inside)


def _fitted(detector: Detector) -> tuple[Model, Variables]:
    """What is written of a run."""
    if detector.grid is not None:  # models of places decide nothing from the images
        return detector.model, detector.variables
    return fitted_from(detector.config, detector.variables)


def _region_of(detector: Detector) -> RegionMask:
    """The region mask of all images.

    Raises:
      UserError: every image has its own.
    """
    assert detector.regions is not None
    if detector.regions.every is None:
        raise UserError(
            "evaluate.region_mask is a folder of masks for single images, which an exported file "
            "cannot look up; give one picture for all, or none"
        )
    return detector.regions.every


def make_program(
    model: Model,
    variables: Variables,
    decisions: Decisions,
    *,
    smoothing: float,
    inside: Bool[np.ndarray, "h w"] | None = None,
) -> Callable[[UInt8[Array, "b h w c"]], dict[str, Array]]:
    """Builds the function that is exported.

    Args:
      model: whose maps are taken.
      variables: its parameters, which become part of the function.
      decisions: the map and the score that are returned, and the thresholds; without one of images
        no decision is returned, without one of pixels no mask.
      smoothing: sigma in pixels of the gaussian over every map; 0 for none.
      inside: the pixels of every image that are judged; None: all. Elsewhere the map has its
        smallest judged value.

    Returns:
      ``images -> {"score": (b,), "map": (b, h, w), "reconstruction": (b, h, w, c) uint8,
      "decision": (b,) bool, "mask": (b, h, w) bool}``.
    """
    detect = make_detect(model, smoothing=smoothing)

    def program(images):
        # Behind barriers XLA sees what it sees in a run: no parameter whose value it knows, and
        # no map that nobody asks for. So it makes the same code, and the same bits.
        known = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, dict(variables)))
        judged = None
        if inside is not None:
            judged = jnp.broadcast_to(inside[None], (images.shape[0], *inside.shape))
        output = jax.lax.optimization_barrier(detect(known, images, judged))
        score, values = output.scores[decisions.primary_score], output.maps[decisions.primary_map]
        if judged is not None:
            lowest = jnp.min(jnp.where(judged, values, jnp.inf), axis=(1, 2), keepdims=True)
            values = jnp.where(judged, values, lowest)
        result = {"score": score, "map": values, "reconstruction": output.reconstruction}
        return result | decisions.of(score, values, inside)

    return program


def serialise(
    program: Callable[..., dict[str, Array]],
    image_shape: tuple[int, int, int],
    variables: Variables,
) -> tuple[bytes, dict[str, Any]]:
    """The program for any number of images, on every one of :data:`PLATFORMS`.

    Args:
      program: as :func:`make_program` builds it.
      image_shape: ``(h, w, c)``.
      variables: the parameters inside, whose size is checked.

    Returns:
      The file's content; name -> shape and dtype of the outputs.

    Raises:
      UserError: the parameters are too large for the format.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(dict(variables)))
    if size > LARGEST:
        raise UserError(
            f"the parameters take {size / 1e9:.1f} GB; a file of jax.export holds at most 2 GB"
        )
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
    exported = jax_export.export(jax.jit(program), platforms=PLATFORMS)(images)
    shapes = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    outputs = {
        name: {"shape": ["batch", *aval.shape[1:]], "dtype": aval.dtype.name}
        for name, aval in shapes.items()
    }
    return bytes(exported.serialize()), outputs
