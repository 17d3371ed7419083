"""Colour images of 16 bits a channel, of which Pillow keeps the high bytes.

To be asked of an image that has been opened, but not yet loaded.
"""

from __future__ import annotations

import re
import sys

from PIL import Image, ImageFile, TiffImagePlugin

from jaxad.run.errors import UserError

_SIXTEEN_BIT = re.compile(r";16[BLN]")
_PLANES, _BITS, _PLANAR_TAG, _SEPARATE = ("R", "G", "B", "A"), 258, 284, 2
_GRAY_AND_ALPHA = "LA;16B"
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def has_16bit_colour(image: Image.Image) -> bool:
    """True when Pillow drops the low bytes of this file."""
    if image.mode.startswith("I") or image.mode == "F":
        return False
    # Images made from arrays have no tiles.
    return bool(_SIXTEEN_BIT.search(str(getattr(image, "tile", ""))))


def mend_planes(image: Image.Image) -> None:
    """Lets Pillow read planes of 16 bits as such: it takes those of uncompressed TIFFs for 8."""
    if (
        not isinstance(image, TiffImagePlugin.TiffImageFile)
        or image.tag_v2.get(_PLANAR_TAG) != _SEPARATE
        or set(image.tag_v2.get(_BITS, ())) != {16}
    ):
        return
    order = "B" if image.tag_v2.prefix == b"MM" else "L"
    image.tile = [
        tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))
        if tile.codec_name == "raw" and tile.args and tile.args[0] in _PLANES
        else tile
        for tile in image.tile
    ]


def turn_to_low_bytes(image: Image.Image, name: object) -> None:
    """Lets a 16-bit colour image be loaded by the low byte of each channel instead of the high one.

    One of gray and alpha then is RGBA: gray's high and low byte, and alpha's.

    Args:
      image: of which nothing has been loaded.
      name: for the error.

    Raises:
      UserError: it is packed in a way in which only the high bytes can be had.
    """
    assert isinstance(image, ImageFile.ImageFile)  # which has tiles
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR_TAG) == _SEPARATE and "libtiff" in str(image.tile):
        raise UserError(
            f"{name}: packed planes of 16 bits are read by their high bytes alone; save it with 8 "
            "bits a channel"
        )
    tiles = []
    for tile in image.tile:
        raw = tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0])
        if raw == _GRAY_AND_ALPHA:
            image._mode, other = "RGBA", "RGBA"  # four bytes a pixel too
        else:
            other = raw[:-1] + _OTHER_BYTE[raw[-1]]
        args = other if isinstance(tile.args, str) else (other, *(tile.args or ())[1:])
        tiles.append(tile._replace(args=args))
    image.tile = tiles


def is_gray_and_alpha(image: Image.Image) -> bool:
    """Whether it holds gray and alpha of 16 bits each."""
    return any(tile.args == _GRAY_AND_ALPHA for tile in getattr(image, "tile", ()))
