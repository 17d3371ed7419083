"""Drawing defects on good images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt8

from jaxad.data.defects.contents import Place, random_pixel
from jaxad.data.defects.kinds import KINDS
from jaxad.data.defects.ranges import DEFAULT, Ranges, draw_from
from jaxad.ops.blur import gaussian_blur

_ATTEMPTS = 6


class Drawn(NamedTuple):
    """An image with a defect.

    Attributes:
      image: in [0, 1].
      mask: where the defect is seen; empty if none was after several attempts.
    """

    image: Float[Array, "h w c"]
    mask: Bool[Array, "h w"]


def draw_defect(
    key: Key[Array, ""],
    image: Float[Array, "h w c"],
    other: Float[Array, "h w c"],
    foreground: Bool[Array, "h w"],
    other_foreground: Bool[Array, "h w"],
    *,
    kind: str,
    ranges: Ranges = DEFAULT,
) -> Drawn:
    """Draws one defect of a kind on one image; a pure function, to be compiled and mapped.

    Its middle is a random pixel of the foreground, and nothing beyond the foreground changes. The
    mask holds the pixels of the shape whose change is visible (``ranges``): a patch that shows
    what was there already is no defect. What cannot be seen is drawn again, up to six times.

    Args:
      key: of the defect.
      image: a good image in [0, 1].
      other: another one, from which some kinds take parts; may be the same.
      foreground: where the object is.
      other_foreground: where the object is in ``other``.
      kind: of :data:`~jaxad.data.defects.kinds.KINDS`.
      ranges: of size and strength.

    Raises:
      KeyError: the kind is unknown.
    """
    attempt = functools.partial(
        _attempt, image=image, other=other, foreground=foreground,
        other_foreground=other_foreground, kind=kind, ranges=ranges,
    )  # fmt: skip

    def again(state: tuple[Array, Drawn]) -> Array:
        number, drawn = state
        return (number < _ATTEMPTS) & (jnp.sum(drawn.mask) < ranges.least_area)

    def next_attempt(state: tuple[Array, Drawn]) -> tuple[Array, Drawn]:
        number, _ = state
        return number + 1, attempt(jax.random.fold_in(key, number))

    nothing = Drawn(image, jnp.zeros(image.shape[:2], bool))
    _, drawn = jax.lax.while_loop(again, next_attempt, (jnp.int32(0), nothing))
    seen = jnp.sum(drawn.mask) >= ranges.least_area
    return Drawn(jnp.where(seen, drawn.image, image), drawn.mask & seen)


def _attempt(
    key: Key[Array, ""],
    image: Float[Array, "h w c"],
    other: Float[Array, "h w c"],
    foreground: Bool[Array, "h w"],
    other_foreground: Bool[Array, "h w"],
    kind: str,
    ranges: Ranges,
) -> Drawn:
    chosen = KINDS[kind]
    of_place, of_size, of_shape, of_content = jax.random.split(key, 4)
    side = min(image.shape[:2])
    size = chosen.stretch * side * draw_from(of_size, ranges.size, logarithmic=True)
    centre = random_pixel(of_place, foreground)
    mask = chosen.shape(of_shape, centre, size, image.shape[:2]) * foreground
    origin = (other, other_foreground) if chosen.from_other else (image, foreground)
    content = chosen.content(of_content, Place(image, *origin, mask, centre, size), ranges)
    drawn = jnp.clip(image + mask[..., None] * (content - image), 0.0, 1.0)
    change = gaussian_blur(jnp.max(jnp.abs(drawn - image), axis=-1), sigma=1.5)
    return Drawn(drawn, (mask > 0.1) & (change >= ranges.visible))


@functools.lru_cache(maxsize=64)
def _compiled(kind: str, ranges: Ranges):
    return jax.jit(jax.vmap(functools.partial(draw_defect, kind=kind, ranges=ranges)))


def draw_defects(
    images: UInt8[np.ndarray, "n h w c"],
    foregrounds: Bool[np.ndarray, "n h w"],
    kinds: Sequence[str],
    *,
    seed: int = 0,
    ranges: Ranges = DEFAULT,
) -> tuple[UInt8[np.ndarray, "n h w c"], Bool[np.ndarray, "n h w"]]:
    """Draws one defect on each image.

    Args:
      images: good ones.
      foregrounds: where the object is in each, see
        :func:`~jaxad.data.defects.foreground.find_foregrounds`.
      kinds: of each image's defect.
      seed: of all defects; each depends on it and on the image's row alone, but for parts taken
        from other images.
      ranges: of size and strength.

    Returns:
      Images with defects, and the masks; an empty mask where no attempt could be seen.

    Raises:
      ValueError: as many kinds as images are needed, of known names.
    """
    if len(kinds) != len(images) or not set(kinds) <= set(KINDS):
        raise ValueError(f"One kind an image is needed, of {', '.join(KINDS)}.")
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(
        np.arange(len(images))
    )
    # Parts come from the next image; the same one where there is only one.
    others = np.roll(np.arange(len(images)), -1)
    drawn, masks = np.empty_like(images), np.empty_like(foregrounds)
    for kind in dict.fromkeys(kinds):
        rows = np.flatnonzero(np.asarray(kinds) == kind)
        unit = [np.float32(images[at]) / 255 for at in (rows, others[rows])]
        result = _compiled(kind, ranges)(
            keys[rows], *unit, foregrounds[rows], foregrounds[others[rows]]
        )
        drawn[rows] = np.rint(np.asarray(result.image) * 255).astype(np.uint8)
        masks[rows] = np.asarray(result.mask)
    return drawn, masks
