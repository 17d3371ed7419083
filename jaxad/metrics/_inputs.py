"""Turns what callers hold (lists, arrays of any dtype, masks 0-255) into checked NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Shaped


class UndefinedMetric(ValueError):
    """The metric has no value for these data (one class only, no samples, no mask).

    The message is the reason; `evaluate_maps` reports it instead of a number.
    """

    __module__ = "jaxad.metrics"


def working_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which values of ``dtype`` are compared: itself, or a wider one without loss.

    Half precision (bfloat16 and float8 included) becomes float32 and booleans uint8, because
    NumPy sorts those slowly or not at all. Nothing is ever narrowed, so no ties arise.

    Raises:
      ValueError: the dtype is no real number (complex, text, objects).
    """
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "ui":
        return dtype
    if dtype.kind == "f":
        return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
    # bfloat16 and float8 come from an extension of NumPy that calls their kind "void".
    if dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")):
        return np.dtype(np.float32)
    raise ValueError(f"scores must be real numbers, not {dtype}")


def common_dtype(arrays: Sequence[np.ndarray]) -> np.dtype:
    """The dtype in which values of all these arrays can be compared."""
    return np.result_type(*(working_dtype(a.dtype) for a in arrays)) if arrays else np.dtype("f4")


def as_binary(labels: npt.ArrayLike) -> Bool[np.ndarray, " n"]:
    """Checks that labels are 0 or 1 (or False, True) and returns them flat as booleans."""
    array = np.asarray(labels).reshape(-1)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "uif" and array.size:
        raise ValueError(f"labels must be 0 (good) or 1 (anomalous), not of dtype {array.dtype}")
    positive = array == 1
    odd = np.flatnonzero(~positive & (array != 0))
    if odd.size:
        raise ValueError(f"labels[{odd[0]}] is {array[odd[0]]}; labels must be 0 or 1")
    return positive


def as_scores(scores: npt.ArrayLike, name: str = "scores") -> Shaped[np.ndarray, " n"]:
    """Checks that scores are finite real numbers and returns them flat, in a sortable dtype."""
    array = np.asarray(scores)
    array = array.reshape(-1).astype(working_dtype(array.dtype), copy=False)
    require_finite(array, name)
    return array


def as_labels_scores(
    labels: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[Bool[np.ndarray, " n"], Shaped[np.ndarray, " n"]]:
    """Checks labels and scores of the same shape and returns both flat."""
    if np.shape(labels) != np.shape(scores):
        raise ValueError(
            f"labels have shape {np.shape(labels)} but scores {np.shape(scores)}; "
            "give one score per label"
        )
    return as_binary(labels), as_scores(scores)


def require_finite(array: np.ndarray, name: str) -> None:
    """Raises a ValueError that names the first NaN or infinity of ``array``."""
    if array.dtype.kind in "uib":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    where = np.unravel_index(int(np.argmin(finite)), array.shape)
    at = ", ".join(str(int(i)) for i in where)
    raise ValueError(f"{name}[{at}] is {array[where]}; scores must be finite")


def as_maps(maps: Iterable[npt.ArrayLike]) -> list[Shaped[np.ndarray, "_ _"]]:
    """Returns one finite ``(h, w)`` array per image; nothing is copied.

    Args:
      maps: an array (n, h, w), (n, 1, h, w) or (n, h, w, 1), or a sequence of such images, of
        the same or of differing sizes.

    Raises:
      ValueError: an entry is not an image, not real, or not finite.
    """
    images = [_as_image(entry, f"maps[{i}]") for i, entry in enumerate(_entries(maps))]
    for i, image in enumerate(images):
        working_dtype(image.dtype)
        require_finite(image, f"maps[{i}]")
    return images


def as_masks(
    masks: Iterable[npt.ArrayLike | None] | None, maps: Sequence[np.ndarray]
) -> list[Shaped[np.ndarray, "_ _"] | None]:
    """Returns one mask or None per map, in the masks' own dtype; `defect_pixels` binarises.

    Raises:
      ValueError: the number of masks, or the size of one, is not that of the maps; a mask holds
        NaN or negative values.
    """
    if masks is None:
        return [None] * len(maps)
    entries = _entries(masks)
    if len(entries) != len(maps):
        raise ValueError(f"there are {len(maps)} maps but {len(entries)} masks")
    images: list[np.ndarray | None] = []
    for i, (entry, image) in enumerate(zip(entries, maps, strict=True)):
        if entry is None:
            images.append(None)
            continue
        mask = _as_image(entry, f"masks[{i}]")
        if mask.shape != image.shape:
            raise ValueError(
                f"masks[{i}] is {_size(mask)} but maps[{i}] is {_size(image)} pixels; "
                "resize one to the other (masks by nearest neighbour)"
            )
        if mask.dtype.kind not in "buif":
            raise ValueError(f"masks[{i}] must be boolean or numeric, not {mask.dtype}")
        if mask.dtype.kind in "if" and not (mask >= 0).all():
            raise ValueError(f"masks[{i}] holds NaN or negative values; defect pixels are > 0")
        images.append(mask)
    return images


def as_valid(
    valid: Iterable[npt.ArrayLike] | None, maps: Sequence[np.ndarray]
) -> list[Bool[np.ndarray, "_ _"] | None]:
    """Returns per map the pixels that count, or None where all do.

    Raises:
      ValueError: the number of arrays, or the size of one, is not that of the maps; one is not
        boolean, or no pixel of it counts.
    """
    if valid is None:
        return [None] * len(maps)
    entries = _entries(valid)
    if len(entries) != len(maps):
        raise ValueError(f"there are {len(maps)} maps but {len(entries)} of valid")
    counted = []
    for i, (entry, image) in enumerate(zip(entries, maps, strict=True)):
        pixels = _as_image(entry, f"valid[{i}]")
        if pixels.dtype != bool:
            raise ValueError(f"valid[{i}] must be boolean, not {pixels.dtype}")
        if pixels.shape != image.shape:
            raise ValueError(
                f"valid[{i}] is {_size(pixels)} but maps[{i}] is {_size(image)} pixels"
            )
        if not pixels.any():
            raise ValueError(f"valid[{i}] is False everywhere, so nothing of the image counts")
        counted.append(pixels)
    return list(counted)


def as_maps_with_masks(
    maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None]
) -> tuple[list[Shaped[np.ndarray, "_ _"]], list[Shaped[np.ndarray, "_ _"]]]:
    """`as_maps` and `as_masks` where every map must have its mask.

    Raises:
      ValueError: as these do, or names the first missing mask.
    """
    images = as_maps(maps)
    truth = []
    for i, mask in enumerate(as_masks(masks, images)):
        if mask is None:
            raise ValueError(
                f"masks[{i}] is missing; give zeros for a good image and leave out others, "
                "or call evaluate_maps with labels"
            )
        truth.append(mask)
    return images, truth


def defect_pixels(mask: Shaped[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """True where the mask is above 0, MVTec's rule."""
    return mask if mask.dtype == bool else mask > 0


def _entries(images: Iterable[Any]) -> list[Any]:
    # One conversion for an array that lives elsewhere (a device), not one per image.
    if hasattr(images, "shape") and hasattr(images, "dtype"):
        images = np.asarray(images)
        if images.ndim < 3:
            raise ValueError(
                f"maps and masks must be (n, h, w), not of shape {images.shape}; "
                "put a single image in a list"
            )
    return list(images)


def _as_image(entry: npt.ArrayLike, name: str) -> np.ndarray:
    image = np.asarray(entry)
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    elif image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim != 2 or not image.size:
        raise ValueError(f"{name} must be one (h, w) image, not of shape {image.shape}")
    return image


def _size(image: np.ndarray) -> str:
    return "x".join(str(n) for n in image.shape)
