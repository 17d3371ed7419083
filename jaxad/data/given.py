"""Images as a program holds them: paths, files' contents, Pillow images, arrays.

They are read by the rules of :mod:`jaxad.data.images`, so that an image gives the same pixels
whichever way it comes.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxad.data.datasets import find_images
from jaxad.data.images import decode, naming_failures, pixels_of
from jaxad.data.limits import check_pixels, decoding, open_image
from jaxad.run.errors import UserError


@runtime_checkable
class OpenFile(Protocol):
    """A file that is open for reading bytes."""

    def read(self) -> bytes:
        """All of its content."""


@runtime_checkable
class OtherArray(Protocol):
    """An array of another library, such as JAX's and PyTorch's."""

    def __array__(self) -> np.ndarray:
        """As one of NumPy's."""


ImageLike = str | os.PathLike | bytes | OpenFile | Image.Image | np.ndarray | OtherArray
"""An image as :func:`given_images` takes it: a file or folder, the content of a file or a file that
is open for reading bytes, a Pillow image, or an array."""

_SHAPES = "(h, w), (h, w, 1), (h, w, 3) or, with alpha, (h, w, 4), red before green before blue"


class Given(NamedTuple):
    """One image.

    Attributes:
      content: a path, the content of a file, a Pillow image, or an array of uint8 or uint16.
      name: what it is called in errors.
      path: the file; None for what is none.
    """

    content: str | bytes | Image.Image | np.ndarray
    name: str
    path: str | None = None

    def decode(
        self, *, channels: int, range_16bit: tuple[float, float], alpha: str
    ) -> UInt8[np.ndarray, "h w c"]:
        """Its pixels; arguments and errors as of :func:`jaxad.data.images.decode`."""
        how: dict[str, Any] = {"channels": channels, "range_16bit": range_16bit, "alpha": alpha}
        if isinstance(self.content, str):
            return decode(self.content, **how)
        with naming_failures(self.name):
            if isinstance(self.content, bytes):
                if not self.content:
                    raise UserError(f"{self.name} is empty (0 bytes)")
                stream = io.BytesIO(self.content)
                with open_image(stream, self.name) as image, decoding(image):
                    return pixels_of(image, self.name, **how)
            held = self.content
            picture = Image.fromarray(held) if isinstance(held, np.ndarray) else held
            check_pixels(self.name, picture.width, picture.height)
            return pixels_of(picture, self.name, **how)


def given_images(
    images: ImageLike | Iterable[ImageLike | Given], *, pages: str = "first", masks: str = ""
) -> Iterator[Given]:
    """One :class:`Given` per image; a list is checked before anything of it is read.

    Args:
      images: one image, an array ``(n, h, w, c)`` of n images, or anything that yields images.
        Folders are read recursively; what :func:`named_file` gives is not looked for. Arrays are
        ``(h, w)``, ``(h, w, 1)``, ``(h, w, 3)`` or, with alpha, ``(h, w, 4)``, red before green
        before blue: uint8, floats in [0, 1], or uint16 without channels. Arrays of other
        libraries do that NumPy can read.
      pages: of files that are named, as ``data.pages``.
      masks: in folders that are named, as ``data.masks``.

    Raises:
      UserError: a path does not exist, a folder holds no image, an array has another type, shape
        or range, or something is no image at all.
    """
    find = functools.partial(find_images, pages=pages, masks=masks)
    if _is_one(images):
        return iter(_expand(images, "the image", find))
    array = _as_array(images)
    if array is not None:
        if array.ndim in (2, 3):
            return iter([_of_array(array, "the image")])
        if array.ndim != 4:
            raise UserError(
                f"an array of shape {array.shape} is neither one image, {_SHAPES}, nor several, "
                "(n, h, w, c)"
            )
        images = list(array)
    if not isinstance(images, Iterable):
        raise UserError(f"{_described(images)} is no image; give {_IMAGES}")
    expanded = (one for i, item in enumerate(images) for one in _expand(item, f"image {i}", find))
    return iter(list(expanded)) if isinstance(images, list | tuple) else expanded


def named_file(path: str) -> Given:
    """An image of a file that a listing names: if it is gone, its reading fails, not the call."""
    return Given(path, path, path)


_IMAGES = "a path, the bytes of a file, an open file, a Pillow image or an array"


def _is_one(item: Any) -> bool:
    """Whether it is one path, file or Pillow image; of arrays the shape tells."""
    return isinstance(item, str | os.PathLike | bytes | Image.Image | OpenFile)


def _expand(item: Any, name: str, find: Callable[[str | os.PathLike], list[str]]) -> list[Given]:
    """One image, or those of a folder."""
    if isinstance(item, Given):
        return [item]
    if isinstance(item, str | os.PathLike):
        return [named_file(path) for path in find(item)]
    if isinstance(item, bytes | Image.Image):
        return [Given(item, name)]
    if isinstance(item, OpenFile):
        return [_of_file(item, name)]
    array = _as_array(item)
    if array is None:
        raise UserError(f"{name} is {_described(item)}; give {_IMAGES}")
    return [_of_array(array, name)]


def _of_file(file: OpenFile, name: str) -> Given:
    content = file.read()
    if not isinstance(content, bytes):
        raise UserError(f'{name} is a file of text; open it for reading bytes, with the mode "rb"')
    return Given(content, name)


def _as_array(item: Any) -> np.ndarray | None:
    """A NumPy array, or what another library can turn into one (JAX, PyTorch); else None."""
    return np.asarray(item) if isinstance(item, np.ndarray | OtherArray) else None


def _of_array(array: np.ndarray, name: str) -> Given:
    """Checked, floats as uint8, a single channel left out."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        more = "; several gray images are (n, h, w, 1)" if array.ndim == 3 else ""
        raise UserError(f"{name} has the shape {array.shape}; give {_SHAPES}{more}")
    if array.ndim == 3 and channels == 1:
        array = array[..., 0]
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise UserError(
                f"{name} holds float values from {low:g} to {high:g}; scale them to [0, 1], or "
                "give uint8"
            )
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype == np.uint16 and channels > 1:
        raise UserError(f"{name} is 16-bit colour; give 8-bit colour or 16-bit gray")
    if array.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{name} has values of type {array.dtype}; give uint8, floats in [0, 1], or uint16 "
            "for 16-bit gray"
        )
    return Given(array, name)


def _described(item: Any) -> str:
    kind = type(item).__name__
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"
