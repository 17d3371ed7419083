"""The one decoder and the one resizer: image files to arrays.

Whatever reads an image in jaxad reads it here, so that training, evaluation, prediction and both
input pipelines see the same pixels. What happens to unusual files:

* EXIF orientation is applied; colour profiles and gamma chunks are not.
* Palette, 1-bit, CMYK and YCbCr images become RGB first. Colour becomes gray by the ITU-R 601
  luma, gray becomes colour by repetition.
* Transparent pixels are composited over white, as an image viewer shows them, or alpha is ignored
  (``data.alpha=ignore``). An image that alpha hides altogether is refused.
* Gray images of more than 8 bits are brought to 8 bits by a range (:mod:`jaxad.data.deep_range`)
  that belongs to the training set, never to the single image. Float images must lie in [0, 1]
  and are treated as 16-bit images of full range.
* 16-bit colour is read by its high bytes; a range other than the full one is an error for it.
* Of a file with several pages or frames the first is read; ``FILE[3]`` is another, counted from 0.
* ``FILE::MEMBER`` is an image in a file of many, see :mod:`jaxad.data.containers`.
* Images above ``data.limit_megapixels`` are refused by their header, and all that are decoded at
  once share one budget of memory, see :mod:`jaxad.data.limits`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from jaxad.data.containers import open_member
from jaxad.data.crop import WHOLE, Crop, box_of, cut
from jaxad.data.files import split_member, split_page
from jaxad.data.limits import check_pixels, decoding, open_image
from jaxad.data.sixteen_bit import has_16bit_colour, mend_planes
from jaxad.run.errors import UserError

Item = TypeVar("Item")

FULL_RANGE = (0.0, 65535.0)

_WIDTH_TAG, _LENGTH_TAG, _ORIENTATION_TAG = 256, 257, 274
_STRIP = 2**22
"""Pixels that are brought to 8 bits at a time."""


class HiddenImage(UserError):
    """Alpha hides an image altogether."""


def decode(
    path: str | os.PathLike,
    *,
    channels: int,
    range_16bit: tuple[float, float] = FULL_RANGE,
    alpha: str = "white",
) -> UInt8[np.ndarray, "h w c"]:
    """Reads an image file at its own resolution.

    Args:
      path: the file.
      channels: 1 (gray) or 3 (RGB).
      range_16bit: ``(low, high)`` of :mod:`jaxad.data.deep_range`; the values of images with
        more than 8 bits that become 0 and 255, with clipping outside.
      alpha: ``"white"`` puts transparent images on white, ``"ignore"`` takes their colours.

    Returns:
      ``(h, w, channels)`` uint8 in [0, 255], EXIF orientation applied. Gray of more than 8 bits
      that becomes colour is a read-only view, its three channels the same memory.

    Raises:
      UserError: the file is missing, empty, truncated, too large or no image, or has values
        which the range cannot map, or alpha 0 everywhere.
    """
    with opened(path) as image:
        return pixels_of(image, path, channels=channels, range_16bit=range_16bit, alpha=alpha)


def pixels_of(
    image: Image.Image,
    name: str | os.PathLike,
    *,
    channels: int,
    range_16bit: tuple[float, float] = FULL_RANGE,
    alpha: str = "white",
) -> UInt8[np.ndarray, "h w c"]:
    """The same of an image that Pillow has opened; ``name`` stands for it in errors."""
    if channels not in (1, 3):
        raise UserError(f"data.channels must be 1 or 3, got {channels}")
    sixteen_bit_colour = has_16bit_colour(image)
    image = upright(image)
    if is_deep(image):
        _check_deep(image, name)
        gray = np.empty((image.height, image.width), np.uint8)
        for rows, values in _strips_of(image):
            gray[rows] = _scale_to_uint8(on_16bit_scale(values), range_16bit)
        # A view: three copies of 177 megapixels would be half a gigabyte.
        return np.broadcast_to(gray[..., None], (*gray.shape, channels))
    if sixteen_bit_colour and tuple(range_16bit) != FULL_RANGE:
        raise only_full_range(name)
    array = _whole(_as_mode(_flatten(image, name, alpha), "L" if channels == 1 else "RGB"))
    return array[..., None] if channels == 1 else array


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; uncopied where that says nothing."""
    image.load()
    turned = image.getexif().get(_ORIENTATION_TAG) in range(2, 9)
    return ImageOps.exif_transpose(image) if turned else image


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converted, where there is anything to convert: Pillow would copy."""
    return image if image.mode == mode else image.convert(mode)


def _strips_of(image: Image.Image) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of an image and their values, some at a time: as a whole Pillow makes copies of them."""
    rows = max(1, _STRIP // max(1, image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield slice(top, bottom), np.asarray(image.crop((0, top, image.width, bottom)))


def _whole(image: Image.Image) -> np.ndarray:
    """``np.array(image)`` without copies of all of it on the way."""
    example = np.asarray(image.crop((0, 0, 1, 1)))
    array = np.empty((image.height, image.width, *example.shape[2:]), example.dtype)
    for rows, values in _strips_of(image):
        array[rows] = values
    return array


def resize(
    image: UInt8[np.ndarray, "h w c"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Resizes an image with Pillow's antialiased bilinear filter; the aspect ratio may change.

    Args:
      image: ``(h, w, c)`` uint8 with 1 or 3 channels.
      size: ``(height, width)`` of the result.

    Returns:
      ``(*size, c)`` uint8.
    """
    if image.shape[:2] == tuple(size):
        return np.require(image, requirements=["C", "W"])
    height, width = size
    if image.shape[-1] == 3 and image.strides[-1] == 0:  # gray, repeated
        return np.repeat(resize(image[..., :1], size), 3, axis=-1)
    gray = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if gray else image)
    array = np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
    return array[..., None] if gray else array


def read_image(
    path: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    channels: int,
    range_16bit: tuple[float, float] = FULL_RANGE,
    alpha: str = "white",
    crop: Crop = WHOLE,
) -> UInt8[np.ndarray, "h w c"]:
    """Decodes one image, cuts the region of interest out and resizes that.

    :func:`decode`, then :func:`jaxad.data.crop.cut`, then :func:`resize`.
    """
    image = decode(path, channels=channels, range_16bit=range_16bit, alpha=alpha)
    return resize(cut(image, crop), image_size)


def image_dimensions(path: str | os.PathLike, *, crop: Crop = WHOLE) -> tuple[int, int]:
    """Returns ``(height, width)`` of an image file after EXIF rotation, from its header only.

    Of its region of interest, where one is given.
    """
    with opened(path, header_only=True) as image:
        size = _upright_size(image)
    return box_of(crop, size).size


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns ``(height, width)`` after EXIF rotation of an image that is not yet loaded."""
    stored = (image.height, image.width)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow says the upright size of a TIFF, with a tag that would turn it once more.
        stored = (image.tag_v2[_LENGTH_TAG], image.tag_v2[_WIDTH_TAG])
    turned = image.getexif().get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    return (stored[1], stored[0]) if turned else stored


def spread(items: Sequence[Item], at_most: int = 8) -> list[Item]:
    """Some of many items (files, samples, points of a chart), evenly spread, in order."""
    rows = np.linspace(0, len(items) - 1, min(len(items), at_most)).round().astype(int)
    return [items[row] for row in rows]


@contextlib.contextmanager
def opened(
    path: str | os.PathLike, *, header_only: bool = False, per_pixel: int | None = None
) -> Iterator[Image.Image]:
    """Opens an image or mask; whatever fails on a bad file ends in one sentence that names it.

    Args:
      path: the file.
      header_only: its pixels will not be asked for, or memory has been set aside for them.
      per_pixel: bytes that are set aside, where more is made of it than an array of its pixels.
    """
    path = os.fspath(path)
    aside = (
        contextlib.nullcontext if header_only else functools.partial(decoding, per_pixel=per_pixel)
    )
    with naming_failures(path):
        member = split_member(path)
        if member is not None:
            with open_member(*member) as image, aside(image):
                yield image
            return
        file, page = split_page(path) or (path, 0)
        if os.path.getsize(file) == 0:
            raise UserError(f"{path} is empty (0 bytes)")
        # As a stream: Pillow maps an uncompressed file that it opens by name into memory, and
        # scrambles a TIFF whose sides its orientation exchanges.
        with open(file, "rb") as stream, open_image(stream, path) as image:
            if page:
                _turn_to(image, page, path)
            mend_planes(image)
            with aside(image):
                yield image


@contextlib.contextmanager
def naming_failures(name: str) -> Iterator[None]:
    """Whatever fails in reading an image becomes one sentence that names it."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{name} is too large for the memory of this machine") from None
    except FileNotFoundError as error:
        where = f" is a link to {os.readlink(name)}, which" if os.path.islink(name) else ""
        raise UserError(f"{name}{where} does not exist") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image in a format that is read") from error
    except Exception as error:
        # A damaged file makes Pillow's decoders raise nearly anything (OSError, SyntaxError,
        # struct.error, zlib.error, IndexError ...): all of it means that the file is unreadable.
        raise UserError(f"{name} cannot be read, it may be damaged: {error}") from error


def _turn_to(image: Image.Image, page: int, path: str) -> None:
    count = getattr(image, "n_frames", 1)
    if page >= count:
        raise UserError(f"{path}: the file has {count} page{'s' * (count > 1)}, counted from 0")
    image.seek(page)
    check_pixels(path, image.width, image.height)


def is_deep(image: Image.Image) -> bool:
    """True for gray images of more than 8 bits: 16-bit, 32-bit integer, float."""
    return image.mode.startswith("I") or image.mode == "F"


def only_full_range(path: str | os.PathLike) -> UserError:
    """Why 16-bit colour cannot be read with another range."""
    return UserError(
        f"{path}: 16-bit colour can only be read with data.range_16bit=full; "
        "save it as 8-bit colour or 16-bit gray"
    )


def deep_values(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    """Values of a deep image, ``(h, w)``: whole numbers to 65535, or floats in [0, 1].

    Raises:
      UserError: some lie outside, or are no numbers.
    """
    _check_deep(image, path)
    return _whole(image)


def _check_deep(image: Image.Image, path: str | os.PathLike) -> None:
    lows, highs = zip(*((v.min(), v.max()) for _, v in _strips_of(image)), strict=True)
    low, high = np.min(lows), np.max(highs)
    limit = 1.0 if image.mode == "F" else FULL_RANGE[1]
    # Written so that NaN fails too.
    if not (low >= 0 and high <= limit):
        kind = "float" if image.mode == "F" else "integer"
        raise UserError(
            f"{path} holds {kind} values from {low:g} to {high:g}; "
            f"scale them to [0, {limit:g}] before saving"
        )


def strips(values: np.ndarray) -> Iterator[slice]:
    """Rows of a large image, some at a time: in float64 it takes many times its memory."""
    rows = max(1, _STRIP // max(1, values.shape[1]))
    return (slice(top, top + rows) for top in range(0, len(values), rows))


def on_16bit_scale(values: np.ndarray) -> np.ndarray:
    """Values of a deep image as float64 in [0, 65535]."""
    scale = FULL_RANGE[1] if values.dtype.kind == "f" else 1.0
    return values.astype(np.float64) * scale


def _scale_to_uint8(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    low, high = value_range
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _flatten(image: Image.Image, path: str | os.PathLike, alpha: str) -> Image.Image:
    """Brings an 8-bit image of any mode to L or RGB."""
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if alpha == "ignore":
            return image.convert("RGB")
        if image.getchannel("A").getextrema() == (0, 0):
            raise HiddenImage(
                f"{path} is transparent everywhere (alpha 0), so that nothing of it shows; "
                "data.alpha=ignore takes its colours"
            )
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return _as_mode(image, "L" if image.mode in ("1", "L") else "RGB")
