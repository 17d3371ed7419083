"""What a trained model shows of itself: samples of its prior, diagnostics on some good images."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxad.data.images import spread
from jaxad.data.table import Sample
from jaxad.evaluation.detector import Detector
from jaxad.evaluation.inputs import EvaluationInputs
from jaxad.ops.ssim import mean_ssim
from jaxad.report.content import Learned
from jaxad.report.diagnostics import kind_of, to_pixels
from jaxad.run.errors import UserError
from jaxad.training.inputs import decode, open_photographs

MOST = 16
"""Images, samples and photographs of each kind, fewer where ``evaluate.batch_size`` is smaller."""

_SSIM_WINDOW = 11


def images_to_examine(samples: Sequence[Sample], detector: Detector) -> tuple[str, list[int]]:
    """Test images to examine the model with: what they are, in the plural, and their indices."""
    good = [i for i, sample in enumerate(samples) if not sample.label]
    origin = "good test images" if good else "test images (none is good)"
    return origin, spread(good or list(range(len(samples))), min(MOST, detector.batch_size))


def examine(
    detector: Detector,
    test: EvaluationInputs,
    *,
    origin: str,
    images: UInt8[np.ndarray, "b h w c"],
    reconstructions: UInt8[np.ndarray, "b h w c"],
) -> Learned:
    """Gathers what the report shows of the model itself, by one jitted call each.

    Args:
      detector: the trained model.
      test: its table and its record say where the training images are found.
      origin: what the images are, in the plural.
      images: to compute diagnostics on.
      reconstructions: of these images.

    Returns:
      With a note for everything that the model refuses (ValueError) or that cannot be drawn: an
      evaluation does not end for the sake of a picture.
    """
    notes: list[str] = []
    drawn = _draw(detector, min(MOST, detector.batch_size), notes)
    return Learned(
        origin=origin,
        images=images,
        reconstructions=reconstructions,
        similarity=_similarity(images, reconstructions),
        samples=drawn,
        photographs=None if drawn is None else _photographs(detector, test, drawn, notes),
        diagnostics=_diagnose(detector, images, notes),
        notes=notes,
    )


def _similarity(
    images: UInt8[np.ndarray, "b h w c"], reconstructions: UInt8[np.ndarray, "b h w c"]
) -> Float[np.ndarray, " b"] | None:
    """SSIM of each image with its reconstruction, as other tools give it: by dm_pix."""
    if not len(images) or min(images.shape[1:3]) < _SSIM_WINDOW:
        return None
    figure = jax.jit(functools.partial(mean_ssim, window_size=_SSIM_WINDOW, backend="dm_pix"))
    return np.asarray(figure(np.float32(images) / 255, np.float32(reconstructions) / 255))


def _draw(detector: Detector, count: int, notes: list[str]) -> np.ndarray | None:
    sample = detector.model.sample
    if sample is None:
        return None
    try:
        # One key for all runs: what differs between two pages is the model.
        drawn = jax.jit(sample, static_argnums=2)(detector.variables, jax.random.key(0), count)
        drawn = _on_host(drawn)
        if kind_of("samples", drawn, images=0) != "pictures":
            raise ValueError(f"they have the shape {drawn.shape}, not (n, h, w, 1 or 3)")
    except ValueError as error:
        notes.append(f"No samples: {_sentence(error)}")
        return None
    return to_pixels(drawn)


def _photographs(
    detector: Detector,
    test: EvaluationInputs,
    drawn: UInt8[np.ndarray, "n h w c"],
    notes: list[str],
) -> np.ndarray | None:
    """As many training images as samples, cut to the samples' size around their middle."""
    there = {test.table.relative(sample): sample for sample in test.table.train_good()}
    paths = spread([there[name] for name in test.record["training"] if name in there], len(drawn))
    if not paths:
        notes.append("No training image is left in the data set to hold beside the samples.")
        return None
    try:
        data, range_16bit = detector.config.data, tuple(test.record["range_16bit"])
        photographs = open_photographs(paths, data, range_16bit)
        pixels = (
            decode(paths, data, range_16bit) if photographs is None else photographs.middle_tiles()
        )
    except UserError as error:
        notes.append(f"No training images beside the samples: {_sentence(error)}")
        return None
    top, left = ((a - b) // 2 for a, b in zip(pixels.shape[1:3], drawn.shape[1:3], strict=True))
    return pixels[:, top : top + drawn.shape[1], left : left + drawn.shape[2]]


def _diagnose(
    detector: Detector, images: UInt8[np.ndarray, "b h w c"], notes: list[str]
) -> dict[str, np.ndarray]:
    diagnostics = detector.model.diagnostics
    if diagnostics is None:
        return {}
    try:
        values = jax.jit(diagnostics)(detector.variables, images)
    except ValueError as error:
        notes.append(f"No diagnostics: {_sentence(error)}")
        return {}
    kept = {}
    for name, value in values.items():
        value = _on_host(value)
        try:
            kind_of(name, value, images=len(images))
        except ValueError as error:
            notes.append(f"Left out: {_sentence(error)}")
        else:
            kept[name] = value
    return kept


def _on_host(values: Array) -> np.ndarray:
    """As numpy's own types: bfloat16 is none of them."""
    array = np.asarray(values)
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _sentence(error: Exception) -> str:
    """The first line of a message, closed: traces of compilers go on for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:300] if lines else type(error).__name__).rstrip(".") + "."
