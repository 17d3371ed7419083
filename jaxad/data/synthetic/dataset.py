"""The embedded data set: generated objects and textures with exactly known defects.

It is there so that everything can be tried, tested and shown without a download. A defect is
drawn twice, once without it and once with it, everything else (pose, light, grain, noise) being
the same; its mask is the pixels that differ visibly. Good pictures vary in pose, light, colour
and noise, and textures are nowhere aligned with one another.
"""

from __future__ import annotations

import json
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jaxad.data.synthetic import drawing, objects, textures
from jaxad.data.synthetic.category import Category
from jaxad.run import schema
from jaxad.run.environment import cache_folder
from jaxad.run.errors import UserError, did_you_mean
from jaxad.run.files import writing

CATEGORIES: Mapping[str, Category] = {
    "flange": objects.FLANGE,
    "board": objects.BOARD,
    "gear": objects.GEAR,
    "fabric": textures.FABRIC,
    "metal": textures.METAL,
    "wood": textures.WOOD,
    "leather": textures.LEATHER,
}
"""flange and board lie aligned, gear at any angle; the others are textures."""

DEFAULT_CATEGORY = "flange"
VISIBLE = 10
"""Gray levels (of 255, in any channel) by which a pixel of a mask differs at least."""

# Part of folder names: to be raised whenever the pictures change.
_VERSION = 1
_MARKER = "synthetic.json"
# Numbers of images that names of folders do not tell.
_USUAL = {"train": 100, "test_good": 25, "test_per_defect": 6}
_SMALLEST_SHARE = 6e-4
_TRIES = 50


def render(
    category: str, *, seed: int, kind: str = "good", image_size: tuple[int, int] = (128, 128)
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Draws one picture.

    Args:
      category: one of :data:`CATEGORIES`.
      seed: same seed, same picture.
      kind: ``"good"`` or a kind of defect of the category.
      image_size: ``(h, w)`` in pixels.

    Returns:
      ``(image, mask)``; the mask is empty for a good picture and never for a defect.

    Raises:
      UserError: the category or kind is unknown.
    """
    scene = _category(category)
    if kind != "good" and kind not in scene.kinds:
        raise UserError(f"{category} has no defect {kind!r}{did_you_mean(kind, scene.kinds)}")
    words = [seed % 2**64, zlib.crc32(f"{category}/{kind}".encode())]
    rng = np.random.default_rng(np.random.SeedSequence(words))
    for _ in range(_TRIES):
        parameters = scene.sample(rng)
        clean, area = scene.draw(parameters, image_size)
        if kind in scene.shape_defects:
            picture, _ = scene.draw(scene.shape_defects[kind](parameters, rng), image_size)
        elif kind in scene.surface_defects:
            picture = scene.surface_defects[kind](clean, area, rng)
        else:
            picture = clean
        lit = _camera(image_size, rng)
        change = np.abs(lit(picture) - lit(clean)).max(axis=-1) * 255
        mask = change >= VISIBLE
        if kind == "good" or mask.mean() >= _SMALLEST_SHARE:
            noise = rng.normal(0, 0.012, picture.shape)
            return np.rint(np.clip(lit(picture) + noise, 0, 1) * 255).astype(np.uint8), mask
    raise RuntimeError(f"no visible {kind} on {category} in {_TRIES} tries")


def ensure_dataset(
    cache_root: str | os.PathLike | None = None,
    *,
    category: str = DEFAULT_CATEGORY,
    seed: int = 0,
    image_size: tuple[int, int] = (128, 128),
    train: int = 100,
    test_good: int = 25,
    test_per_defect: int = 6,
) -> pathlib.Path:
    """Writes a generated data set once, in the MVTec layout, as PNG.

    It lies in a folder named by its arguments, and appears at once when it is complete.

    Args:
      cache_root: where such folders lie; None stands for ``synthetic`` in the user's
        cache folder.
      category: one of :data:`CATEGORIES`; ``""`` is the default category.
      seed: of all pictures.
      image_size: ``(h, w)`` in pixels.
      train: number of good training images.
      test_good: number of good test images.
      test_per_defect: number of test images of every kind of defect.

    Returns:
      The root, which holds this category only: ``read_table(root)``.

    Raises:
      UserError: the category is unknown, the folder holds something else, or cannot be written.
    """
    category = category or DEFAULT_CATEGORY
    kinds = _category(category).kinds
    base = pathlib.Path(cache_root) if cache_root is not None else cache_folder() / "synthetic"
    counts = {"train": train, "test_good": test_good, "test_per_defect": test_per_defect}
    parts = ["synthetic", category, f"v{_VERSION}", f"seed{seed}", "x".join(map(str, image_size))]
    parts += [f"{name}{n}" for name, n in sorted(counts.items()) if n != _USUAL[name]]
    root = base / "-".join(parts)
    plan = [("train", "good", train), ("test", "good", test_good)]
    plan += [("test", kind, test_per_defect) for kind in kinds]
    made_of = {"version": _VERSION, "category": category, "seed": seed,
               "image_size": list(image_size), **counts}  # fmt: skip
    folder = root / category
    if folder.exists():
        _check_same(folder, made_of)
        return root
    try:
        with writing(folder, what=f"generated images in {folder}") as partial:
            _write_pictures(partial, category, plan, seed, image_size)
            (partial / _MARKER).write_text(json.dumps(made_of, indent=1) + "\n")
    except UserError:
        if not folder.exists():
            raise
        _check_same(folder, made_of)  # another process was faster
    return root


def _category(name: str) -> Category:
    if name not in CATEGORIES:
        raise UserError(f"no generated category {name!r}{did_you_mean(name, CATEGORIES)}")
    return CATEGORIES[name]


def _check_same(folder: pathlib.Path, made_of: dict) -> None:
    try:
        found = schema.parse((folder / _MARKER).read_text())
    except (OSError, ValueError):
        found = None
    if found != made_of:
        raise UserError(
            f"{folder} exists and does not hold the generated images that were asked for; "
            "remove it or choose another folder"
        )


def _write_pictures(
    folder: pathlib.Path,
    category: str,
    plan: list[tuple[str, str, int]],
    seed: int,
    image_size: tuple[int, int],
) -> None:
    for split, kind, count in plan:
        # Training and test pictures have seeds of their own, whatever their numbers are.
        first = zlib.crc32(f"{seed}/{split}".encode()) << 32
        for i in range(count):
            image, mask = render(category, seed=first + i, kind=kind, image_size=image_size)
            _save(image, folder / split / kind / f"{i:03d}.png")
            if kind != "good":
                _save(mask, folder / "ground_truth" / kind / f"{i:03d}_mask.png")


def _save(array: np.ndarray, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    Image.fromarray(array).save(path)


def _camera(
    size: tuple[int, int], rng: np.random.Generator
) -> Callable[[drawing.Picture], drawing.Picture]:
    """Exposure, colour balance and uneven light, the same for both pictures of a pair."""
    g = drawing.grid(size)
    exposure = rng.normal(1, 0.03)
    balance = rng.normal(1, 0.01, 3)
    slope = rng.normal(0, 0.03, 2)
    light = exposure * (1.02 + slope[0] * g.x + slope[1] * g.y - 0.05 * (g.x**2 + g.y**2))
    return lambda picture: np.clip(drawing.shade(picture, light) * balance, 0, 1)
