"""Defects drawn on training images, within the training step.

Each image takes a kind of defect by its own key, and parts from
some good images that are kept for it, not from its neighbours in the batch: so what is drawn on an
image depends neither on the batch nor on how many devices share it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxad.data.batch import Batch
from jaxad.data.defects.draw import Drawn, draw_defect
from jaxad.data.defects.foreground import find_foregrounds, otsu_threshold
from jaxad.models.base import Variables, to_unit_float
from jaxad.ops.alignment import difference

DONORS = 32
"""Good images from which parts are taken."""

FAINTEST = 8 / 255
"""Least difference from the background that counts as the object."""

Donors = dict[str, Array]
"""``images (m, h, w, c)`` uint8, ``foregrounds (m, h, w)``, ``threshold`` of the object."""


def blank(shape: tuple[int, int, int]) -> Donors:
    """Donors of the right shapes."""
    return {
        "images": jnp.zeros((DONORS, *shape), jnp.uint8),
        "foregrounds": jnp.ones((DONORS, *shape[:2]), bool),
        "threshold": jnp.float32(-1.0),
    }


def keep_donors(batches: Iterable[Batch]) -> Donors:
    """Draws the donors from good images, and looks for the object in them.

    Where there is none on a plain background (textures, boards), everything is foreground.

    Args:
      batches: of good images; iterated once.
    """
    rng = np.random.default_rng(0)
    kept: list[np.ndarray] = []
    seen = 0
    for batch in batches:
        for image in np.asarray(batch.image)[np.asarray(batch.valid)]:
            # Reservoir sampling, as for the basis of feature_fit.
            if len(kept) < DONORS:
                kept.append(image.copy())
            elif (place := int(rng.integers(seen + 1))) < DONORS:
                kept[place] = image.copy()
            seen += 1
    images = np.stack(kept)
    if images.dtype != np.uint8:  # brought to another pose or light
        images = np.rint(images * 255).astype(np.uint8)
    foregrounds = find_foregrounds(images)
    threshold = -1.0
    if not foregrounds.all():
        apart = np.asarray(difference(to_unit_float(images)))
        threshold = max(FAINTEST, float(np.median([otsu_threshold(one) for one in apart])))
    rows = np.arange(DONORS) % len(images)
    return {
        "images": jnp.asarray(images[rows]),
        "foregrounds": jnp.asarray(foregrounds[rows]),
        "threshold": jnp.float32(threshold),
    }


def draw_on(
    donors: Variables,
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    kinds: Sequence[str],
    good: float,
) -> tuple[Float[Array, "b h w c"], Bool[Array, "b h w"]]:
    """Images with a defect each, but for some that stay good, and the masks.

    Args:
      donors: as :func:`keep_donors` gives them.
      images: good, in [0, 1].
      keys: of the images.
      kinds: of defects, all equally likely.
      good: share of images that stay good.
    """
    foregrounds = difference(images) > donors["threshold"]
    draw = [functools.partial(draw_defect, kind=kind) for kind in kinds]

    def one(of_image: tuple[Array, Array, Array]) -> Drawn:
        key, image, foreground = of_image
        of_kind, of_donor, of_good, of_defect = jax.random.split(key, 4)
        row = jax.random.randint(of_donor, (), 0, DONORS)
        # An image in which nothing is found is drawn on anywhere.
        foreground = foreground | ~jnp.any(foreground)
        drawn = jax.lax.switch(
            jax.random.randint(of_kind, (), 0, len(draw)),
            draw,
            of_defect,
            image,
            to_unit_float(donors["images"][row]),
            foreground,
            donors["foregrounds"][row],
        )
        stays = jax.random.bernoulli(of_good, good)
        return Drawn(jnp.where(stays, image, drawn.image), drawn.mask & ~stays)

    # One after the other: side by side every image would pay for every kind.
    drawn = jax.lax.map(one, (keys, images, foregrounds))
    return drawn.image, drawn.mask
