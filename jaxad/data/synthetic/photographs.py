"""Photographs of many megapixels with defects of a few pixels, drawn some rows at a time.

Two textures and an object, at the size of an industrial camera (3000 x 4096 pixels and any other),
for what :mod:`jaxad.data.tiles` is for. All that is random hangs on the seed and on the place, not
on how the rows are divided, so a photograph of any size is drawn in the memory of a strip. A defect
is drawn on the rows with it and on the rows without it; its mask is the pixels that differ visibly.
"""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tifffile
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from jaxad.run.errors import UserError, did_you_mean

CAMERA = (3000, 4096)
"""(height, width) of a common camera of 12 megapixels."""

KINDS = ("burr", "pit", "scratch")
"""A bright dot, a dark dot, a thin line that is dark or bright."""

SMALLEST, LARGEST = 4, 40
"""Pixels that a defect measures, by default."""

VISIBLE = 10
"""Gray levels (of 255, in any channel) by which a pixel of a mask differs at least."""

_STRIP = 128
_BLOCK = 64
"""Rows whose grain is drawn together."""
_GRAIN = 0.012
_EDGE = 24
"""Pixels that a defect keeps from the border of the photograph and of the part."""

Plane = Float[np.ndarray, "h w"]
Picture = Float[np.ndarray, "h w rgb"]


class Place(NamedTuple):
    """Rows of a photograph: what a scene is drawn on.

    Attributes:
      y: ``(h, 1)`` float32, row numbers.
      x: ``(1, w)`` float32, column numbers.
      size: (height, width) of the whole photograph.
      seed: of the photograph.
    """

    y: Plane
    x: Plane
    size: tuple[int, int]
    seed: int


class Scene(NamedTuple):
    """A kind of photograph.

    Attributes:
      draw: colours in [0, 1] of the rows.
      inside: how many pixels a point (y, x) lies inside the surface that may have a defect.
    """

    draw: Callable[[Place], Picture]
    inside: Callable[[Place], Plane]


class Spot(NamedTuple):
    """A defect: its kind, middle (row, column), length in pixels, direction and colour."""

    kind: str
    y: float
    x: float
    side: float
    angle: float
    colour: tuple[float, float, float]
    strength: float


class Photograph:
    """One photograph, of which any rows can be drawn.

    Attributes:
      size: (height, width).
      spots: its defects.
    """

    def __init__(
        self,
        category: str,
        *,
        seed: int,
        kind: str = "good",
        size: tuple[int, int] = CAMERA,
        sides: tuple[float, float] = (SMALLEST, LARGEST),
        defects: int = 1,
    ):
        """Chooses what lies where; nothing is drawn yet.

        Args:
          category: one of :data:`SCENES`.
          seed: same seed, same photograph.
          kind: ``"good"`` or one of :data:`KINDS`.
          size: (height, width) in pixels.
          sides: how long defects are in pixels, at least and at most.
          defects: how many there are, unless it is good.

        Raises:
          UserError: the category or kind is unknown, or the photograph is too small for a defect.
        """
        if category not in SCENES:
            raise UserError(
                f"no generated photographs {category!r}{did_you_mean(category, SCENES)}"
            )
        if kind != "good" and kind not in KINDS:
            raise UserError(f"photographs have no defect {kind!r}{did_you_mean(kind, KINDS)}")
        self.size, self._scene = (size[0], size[1]), SCENES[category]
        words = [seed % 2**64, zlib.crc32(f"{category}/{kind}".encode())]
        rng = np.random.default_rng(np.random.SeedSequence(words))
        self._seed = int(rng.integers(2**32))
        count = 0 if kind == "good" else defects
        self.spots = tuple(self._spot(rng, kind, sides) for _ in range(count))

    def rows(
        self, start: int, stop: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
        """Draws some rows: their picture, and where the defects are."""
        place = self._place(np.arange(start, stop), np.arange(self.size[1]))
        clean = self._scene.draw(place)
        picture, mask = clean, np.zeros(clean.shape[:2], bool)
        for spot in self.spots:
            box = _around(spot, start, stop, self.size[1])
            if box is None:
                continue
            near = place._replace(y=place.y[box[0]], x=place.x[:, box[1]])
            marked = _mark(picture[box], near, spot)
            picture = picture.copy() if picture is clean else picture
            picture[box] = marked
            change = np.abs(np.clip(marked, 0, 1) - np.clip(clean[box], 0, 1)).max(axis=-1)
            mask[box] |= change * 255 >= VISIBLE
        grain = _grain(self._seed, start, stop, self.size[1])
        noisy = np.clip(picture + _GRAIN * grain[..., None], 0, 1)
        return np.rint(noisy * 255).astype(np.uint8), mask

    def strips(self) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]]:
        """All of it, some rows at a time."""
        for top in range(0, self.size[0], _STRIP):
            yield self.rows(top, min(top + _STRIP, self.size[0]))

    def whole(self) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
        """The picture and its mask."""
        picture = np.empty((*self.size, 3), np.uint8)
        mask = np.empty(self.size, bool)
        top = 0
        for rows, marked in self.strips():
            picture[top : top + len(rows)], mask[top : top + len(rows)] = rows, marked
            top += len(rows)
        return picture, mask

    def write_tiff(self, path: pathlib.Path) -> None:
        """Writes the picture as an uncompressed TIFF of strips, without ever holding it."""
        tifffile.imwrite(
            path,
            (rows for rows, _ in self.strips()),
            shape=(*self.size, 3),
            dtype=np.uint8,
            photometric="rgb",
            rowsperstrip=_STRIP,
        )

    def _place(self, rows: np.ndarray, columns: np.ndarray) -> Place:
        y, x = rows.astype(np.float32)[:, None], columns.astype(np.float32)[None]
        return Place(y, x, self.size, self._seed)

    def _spot(self, rng: np.random.Generator, kind: str, sides: tuple[float, float]) -> Spot:
        side = float(rng.uniform(*sides))
        dark = kind == "pit" or (kind == "scratch" and rng.random() < 0.5)
        colour = (0.07, 0.06, 0.06) if dark else (0.97, 0.96, 0.94)
        for _ in range(1000):
            y, x = (float(rng.uniform(0, length)) for length in self.size)
            border = min(y, x, self.size[0] - 1 - y, self.size[1] - 1 - x)
            inside = self._scene.inside(self._place(np.array([y]), np.array([x])))
            if min(border, float(inside[0, 0])) > _EDGE + side / 2:
                angle, strength = rng.uniform(0, np.pi), rng.uniform(0.6, 0.9)
                return Spot(kind, y, x, side, float(angle), colour, float(strength))
        raise UserError(
            f"photographs of {self.size[0]} x {self.size[1]} pixels have no room for a defect of "
            f"{side:.0f} pixels; make them larger"
        )


def write_photographs(
    root: pathlib.Path,
    category: str,
    *,
    seed: int = 0,
    size: tuple[int, int] = CAMERA,
    sides: tuple[float, float] = (SMALLEST, LARGEST),
    train: int = 6,
    test_good: int = 5,
    test_defective: int = 5,
) -> pathlib.Path:
    """Writes a data set in the MVTec layout, as PNG: ``root/category/train/good`` and so on.

    Args:
      root: folder, created; what is there already under the same names is replaced.
      category: one of :data:`SCENES`.
      seed: of all photographs.
      size: (height, width) in pixels.
      sides: how long defects are in pixels, at least and at most.
      train: number of good training photographs.
      test_good: number of good test photographs.
      test_defective: number of test photographs with one defect, kind after kind.

    Returns:
      ``root/category``.

    Raises:
      UserError: of :class:`Photograph`.
    """
    folder = pathlib.Path(root) / category
    plan = [("train", "good", i) for i in range(train)]
    plan += [("test", "good", i) for i in range(test_good)]
    plan += [("test", KINDS[i % len(KINDS)], i) for i in range(test_defective)]
    for split, kind, i in plan:
        first = zlib.crc32(f"{seed}/{split}".encode()) << 32
        photograph = Photograph(category, seed=first + i, kind=kind, size=size, sides=sides)
        picture, mask = photograph.whole()
        _save(picture, folder / split / kind / f"{i:03d}.png")
        if kind != "good":
            _save(mask.astype(np.uint8) * 255, folder / "ground_truth" / kind / f"{i:03d}_mask.png")
    return folder


def _save(array: UInt8[np.ndarray, "h w *c"], path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=1)  # grain cannot be compressed anyway


# --- noise ----------------------------------------------------------------------------------------


def _grain(seed: int, start: int, stop: int, width: int) -> Plane:
    """White noise of deviation 1."""
    blocks = []
    for block in range(start // _BLOCK, -(-stop // _BLOCK)):
        rng = np.random.default_rng([seed, 0, block])
        blocks.append(rng.standard_normal((_BLOCK, width), np.float32))
    first = start - start // _BLOCK * _BLOCK
    return np.concatenate(blocks)[first : first + stop - start]


def _smooth(place: Place, stream: int, cell: float | tuple[float, float]) -> Plane:
    """Value noise of mean 0 and about unit range: random knots, smoothly joined.

    Args:
      place: the rows.
      stream: another number, another noise.
      cell: pixels between the knots, or (down, across).
    """
    down, across = np.broadcast_to(np.asarray(cell, np.float64), 2)
    v, u = place.y[:, 0] / down, place.x[0] / across
    first = int(np.floor(v.min()))
    count = int(np.floor(v.max())) - first + 2
    width = int(np.floor(u.max())) + 2
    knots = np.stack(
        [
            np.random.default_rng([place.seed, stream, first + row]).uniform(-1, 1, width)
            for row in range(count)
        ]
    ).astype(np.float32)
    column, along = np.floor(u).astype(int), _eased(u - np.floor(u))
    lines = knots[:, column] * (1 - along) + knots[:, column + 1] * along
    row, share = np.floor(v).astype(int) - first, _eased(v - np.floor(v))[:, None]
    return lines[row] * (1 - share) + lines[row + 1] * share


def _eased(t: np.ndarray) -> np.ndarray:
    return (t * t * (3 - 2 * t)).astype(np.float32)


# --- scenes ---------------------------------------------------------------------------------------


def _pose(place: Place, *, degrees: float, shift: float) -> tuple[Plane, Plane, np.ndarray]:
    """Coordinates of what lies on the photograph, from its middle, and the tint of the light."""
    rng = np.random.default_rng([place.seed, 1])
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    y0, x0 = (length / 2 + rng.uniform(-shift, shift) for length in place.size)
    y, x = place.y - np.float32(y0), place.x - np.float32(x0)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    tint = rng.normal(1, 0.01, 3) * rng.normal(1, 0.02)
    return cos * y - sin * x, sin * y + cos * x, tint.astype(np.float32)


def _everywhere(place: Place) -> Plane:
    return np.full((place.y.size, place.x.size), 1e6, np.float32)


def draw_weave(place: Place) -> Picture:
    """A plain weave of dark warp and light weft, 18 pixels from yarn to yarn."""
    v, u, tint = _pose(place, degrees=1.5, shift=9.0)
    v = v / 18 + 0.25 * _smooth(place, 2, 400.0)
    u = u / 18 + 0.25 * _smooth(place, 3, 400.0)
    row, column = np.floor(v), np.floor(u)
    warp = (row + column) % 2 < 1
    across = np.where(warp, u - column, v - row) - 0.5
    along = np.where(warp, v - row, u - column) - 0.5
    light = (1 - 2.2 * across**2) * (1 - 1.1 * along**2)
    light *= 1 + 0.05 * _smooth(place, 4, 5.0) + 0.04 * _smooth(place, 5, 900.0)
    colours = np.where(warp[..., None], (0.34, 0.44, 0.60), (0.72, 0.70, 0.64))
    return colours.astype(np.float32) * tint * light[..., None]


def draw_cast(place: Place) -> Picture:
    """A cast and blasted surface: grain of all sizes, no two places alike."""
    _, _, tint = _pose(place, degrees=0.0, shift=0.0)
    octaves = ((2, 3.0, 0.05), (3, 7.0, 0.06), (4, 16.0, 0.04), (5, 60.0, 0.03), (6, 900.0, 0.05))
    light = np.full((place.y.size, place.x.size), 0.55, np.float32)
    for stream, cell, height in octaves:
        light += np.float32(height) * _smooth(place, stream, cell)
    return np.array((0.95, 0.97, 1.0), np.float32) * tint * light[..., None]


def _plate_depth(v: Plane, u: Plane, size: tuple[int, int]) -> Plane:
    """How many pixels a point lies inside the surface of the plate, between its holes."""
    height, width = size
    unit = min(size)
    depth = np.minimum(0.42 * height - np.abs(v), 0.42 * width - np.abs(u))
    depth = np.minimum(depth, np.hypot(v, u) - 0.14 * unit)
    for down in (-0.3, 0.3):
        for across in (-0.32, -0.16, 0.16, 0.32):
            hole = np.hypot(v - down * height, u - across * width) - 0.035 * unit
            depth = np.minimum(depth, hole)
    return depth


def draw_plate(place: Place) -> Picture:
    """A brushed steel plate with a bore and eight holes, on a dark mat."""
    v, u, tint = _pose(place, degrees=0.4, shift=8.0)
    cover = np.clip(_plate_depth(v, u, place.size) / 3 + 0.5, 0, 1)
    brush = 0.05 * _smooth(place, 2, (2.5, 90.0)) + 0.03 * _smooth(place, 3, (6.0, 400.0))
    bevel = np.exp(-((_plate_depth(v, u, place.size) / 6 - 1) ** 2))
    light = 0.62 + brush + 0.18 * bevel + 0.04 * u / place.size[1]
    mat = 0.14 + 0.03 * _smooth(place, 4, 4.0)
    value = mat + cover * (light - mat)
    return np.array((0.95, 0.97, 1.0), np.float32) * tint * value[..., None]


def _on_plate(place: Place) -> Plane:
    v, u, _ = _pose(place, degrees=0.4, shift=8.0)
    return _plate_depth(v, u, place.size)


SCENES: Mapping[str, Scene] = {
    "weave": Scene(draw_weave, _everywhere),
    "cast": Scene(draw_cast, _everywhere),
    "plate": Scene(draw_plate, _on_plate),
}
"""weave and cast are textures that lie anyhow; plate is an object that lies nearly aligned."""


# --- defects --------------------------------------------------------------------------------------


def _around(spot: Spot, start: int, stop: int, width: int) -> tuple[slice, slice] | None:
    """The part of some rows that a defect can touch; None where it touches none."""
    reach = spot.side / 2 + 2
    top, bottom = max(int(spot.y - reach), start), min(int(spot.y + reach) + 2, stop)
    left, right = max(int(spot.x - reach), 0), min(int(spot.x + reach) + 2, width)
    if top >= bottom:
        return None
    return slice(top - start, bottom - start), slice(left, right)


def _mark(picture: Picture, place: Place, spot: Spot) -> Picture:
    """The pixels around a defect, with it."""
    y, x = place.y - np.float32(spot.y), place.x - np.float32(spot.x)
    if spot.kind == "scratch":
        cos, sin = np.cos(spot.angle), np.sin(spot.angle)
        half = max(1.0, spot.side / 12)
        along = np.maximum(np.abs(cos * x + sin * y) - (spot.side / 2 - half), 0)
        distance = np.hypot(along, cos * y - sin * x) - half
    else:
        distance = np.hypot(y, x) - spot.side / 2
    alpha = np.clip(0.5 - distance, 0, 1)[..., None].astype(np.float32) * np.float32(spot.strength)
    return picture + alpha * (np.array(spot.colour, np.float32) - picture)
